"""Updates that are no plain LoRA, and what LyCORIS', peft's and diffusers' own arithmetic makes of them (see ../lora_kinds.rs).

    pip install torch==2.12.1 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 lycoris-lora==4.1.3 safetensors
    python tests/parity/lora_kinds/reference.py

The base is the UNet and the text encoder of `../prompt/model`, as in `../lora`. Of each case there is `NAME.safetensors`, or a folder of
peft's, as input, and in `NAME.out.safetensors` every weight that the reference changed.
"""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from lycoris.functional import general, locon, loha, lokr
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
MODEL = HERE.parent / "prompt/model"
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
CONV, SHORTCUT = "down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut"
NORM = "down_blocks.0.resnets.0.norm1"
SCALE = 0.6
torch.manual_seed(0)
torch.set_num_threads(1)
assert importlib.util.find_spec("lycoris")


def unet():
    model = UNet2DConditionModel.from_config(json.loads((MODEL / "unet/config.json").read_text()))
    model.load_state_dict({k: v.float() for k, v in load_file(MODEL / "unet/model.safetensors").items()})
    return model.eval()


BASE = {k: v.detach().clone() for k, v in unet().state_dict().items()}
TEXT = {k: v.float() for k, v in load_file(MODEL / "text_encoder/model.safetensors").items()}
Q_PROJ = "text_model.encoder.layers.0.self_attn.q_proj"


def noise(*shape):
    """As a file holds it: in f16."""
    return (torch.randn(*shape) * 0.3).half()


def out(name, tensors):
    assert tensors
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, HERE / f"{name}.out.safetensors")


def changed(state):
    of = {k.replace(".base_layer.", "."): v for k, v in state.items() if not any(x in k for x in (".lora_", ".hada_", ".lokr_"))}
    return {f"unet.{k}": v for k, v in of.items() if not torch.equal(v, BASE[k])}


class Case:
    """A file in kohya's and LyCORIS' names, and the weights with it."""

    def __init__(self, name, prefix="lora_unet_"):
        self.name, self.prefix, self.file, self.merged = name, prefix, {}, {}

    def base(self, module):
        return TEXT[f"{module}.weight"] if module == Q_PROJ else BASE[f"{module}.weight"]

    def add(self, module, tensors, delta, alpha=None, dora=None, scale=SCALE):
        text = module == Q_PROJ
        key = ("lora_te_" if text else self.prefix) + module.replace(".", "_")
        self.file |= {f"{key}.{k}": v for k, v in tensors.items()}
        if alpha is not None:
            self.file[f"{key}.alpha"] = torch.tensor(float(alpha))
        weight = self.base(module)
        delta = delta.float().reshape(weight.shape)
        if dora is None:
            merged = general.add_scaled(weight, delta, scale)
        else:
            self.file[f"{key}.dora_scale"] = dora
            merged = general.weight_decompose(weight + delta, dora.float(), scale, wd_on_out=dora.shape[0] == weight.shape[0])
        self.merged[f"{'text_encoder' if text else 'unet'}.{module}.weight"] = merged

    def save(self):
        save_file({k: v.contiguous() for k, v in self.file.items()}, HERE / f"{self.name}.safetensors")
        out(self.name, self.merged)


def floats(*tensors):
    return [None if t is None else t.float() for t in tensors]


for old in HERE.iterdir():
    if old.is_dir():
        shutil.rmtree(old)
    elif old.suffix != ".py":
        old.unlink()

# ---- LoHa ---------------------------------------------------------------------------------------------------------------
case = Case("loha")


def hada(module, rank, alpha, tucker=False, dora=None):
    o, i, *k = case.base(module).shape
    if tucker:
        names = ["hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2"]
        values = [noise(rank, i), noise(rank, o), noise(rank, i), noise(rank, o), noise(rank, rank, *k), noise(rank, rank, *k)]
    else:
        names = ["hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a"]
        flat = i * (k[0] * k[1] if k else 1)
        values = [noise(rank, flat), noise(o, rank), noise(rank, flat), noise(o, rank)]
    weights = floats(*values, *([] if tucker else [None, None]))
    delta = loha.diff_weight(*weights, gamma=torch.tensor(alpha / rank))
    case.add(module, dict(zip(names, values)), delta, alpha, dora)


hada(f"{BLOCK}.attn1.to_q", 3, 2)
hada(CONV, 2, 4)
hada("down_blocks.0.downsamplers.0.conv", 2, 1, tucker=True)
hada(Q_PROJ, 2, 2)
case.save()

# ---- LoKr ---------------------------------------------------------------------------------------------------------------
case = Case("lokr", "lycoris_")


def kron(module, a, b, rank, alpha, first=False, second=True, tucker=False):
    o, i, *k = case.base(module).shape
    assert o % a == 0 and i % b == 0
    c, d = o // a, i // b
    w1 = w1a = w1b = w2 = w2a = w2b = t2 = None
    if first:
        w1a, w1b = noise(a, rank), noise(rank, b)
    else:
        w1 = noise(a, b)
    if not second:
        w2 = noise(c, d, *k)
    elif tucker:
        t2, w2a, w2b = noise(rank, rank, *k), noise(rank, c), noise(rank, d)
    else:
        w2a, w2b = noise(c, rank), noise(rank, d, *k)
    parts = dict(lokr_w1=w1, lokr_w1_a=w1a, lokr_w1_b=w1b, lokr_w2=w2, lokr_w2_a=w2a, lokr_w2_b=w2b, lokr_t2=t2)
    factor = alpha / rank if first or second else 1
    delta = lokr.kron_weight(*floats(w1, w1a, w1b, w2, w2a, w2b, t2), scale=factor)
    case.add(module, {k: v for k, v in parts.items() if v is not None}, delta, alpha)


kron(f"{BLOCK}.attn1.to_q", 2, 4, 2, 3)
kron(f"{BLOCK}.attn2.to_q", 4, 2, 2, 1, first=True)
kron(f"{BLOCK}.attn1.to_v", 2, 2, 2, 7, second=False)
kron(CONV, 2, 2, 2, 4)
kron("down_blocks.0.downsamplers.0.conv", 2, 2, 2, 1, tucker=True)
kron("mid_block.resnets.1.conv2", 2, 2, 2, 5, first=True, second=False)
case.save()

# ---- LoCon with a core, differences, norms --------------------------------------------------------------------------------
case = Case("differences")
o, i, *k = BASE[f"{CONV}.weight"].shape
down, up, mid = noise(3, i, 1, 1), noise(o, 3, 1, 1), noise(3, 3, *k)
delta = locon.diff_weight(*floats(down, up, mid), gamma=2 / 3)
case.add(CONV, {"lora_down.weight": down, "lora_up.weight": up, "lora_mid.weight": mid}, delta, 2)
whole = noise(*BASE[f"{SHORTCUT}.weight"].shape)
case.add(SHORTCUT, {"diff": whole}, whole)


def bias(module, key):
    difference = noise(*BASE[f"{module}.bias"].shape)
    case.file[f"lora_unet_{module.replace('.', '_')}.{key}"] = difference
    case.merged[f"unet.{module}.bias"] = general.add_scaled(BASE[f"{module}.bias"], difference.float(), SCALE)


bias(SHORTCUT, "diff_b")
bias("conv_out", "diff_b")
norm = noise(*BASE[f"{NORM}.weight"].shape)
case.add(NORM, {"w_norm": norm}, norm)
bias(NORM, "b_norm")
case.save()

# ---- DoRA in LyCORIS' names -----------------------------------------------------------------------------------------------
case = Case("dora")


def norms(module, of_columns=False):
    weight = case.base(module)
    axis = 1 if of_columns else 0
    of = weight.transpose(0, axis).reshape(weight.shape[axis], -1).norm(dim=1)
    shape = [1] * weight.dim()
    shape[axis] = -1
    return (of.reshape(shape) * (1 + 0.3 * torch.rand(of.shape).reshape(shape))).float()


for module, columns in ((f"{BLOCK}.attn1.to_q", False), (CONV, False), (f"{BLOCK}.attn2.to_k", True), (SHORTCUT, True), (Q_PROJ, False)):
    o, i, *k = case.base(module).shape
    down, up = noise(2, i, *k), noise(o, 2, *([1] * len(k)))
    delta = locon.diff_weight(*floats(down, up, None), gamma=3 / 2)
    case.add(module, {"lora_down.weight": down, "lora_up.weight": up}, delta, 3, norms(module, columns))
hada("down_blocks.0.downsamplers.0.conv", 2, 1, dora=norms("down_blocks.0.downsamplers.0.conv"))
case.save()

# ---- peft's folders ---------------------------------------------------------------------------------------------------------


def folder(name, config):
    model = get_peft_model(unet(), config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "magnitude" in parameter_name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            elif any(part in parameter_name for part in (".lora_", ".hada_", ".lokr_")):
                parameter.copy_((torch.randn_like(parameter) * 0.3).half().float())
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink(missing_ok=True)
    out(name, changed(PeftModel.from_pretrained(unet(), HERE / name).merge_and_unload().state_dict()))


TARGETS = [f"{BLOCK}.attn1.to_q", CONV]
folder("peft_loha", LoHaConfig(r=2, alpha=3, target_modules=TARGETS, alpha_pattern={"conv1": 1}))
folder("peft_loha_core", LoHaConfig(r=2, alpha=4, target_modules=TARGETS, use_effective_conv2d=True))
folder("peft_lokr", LoKrConfig(r=2, alpha=3, target_modules=TARGETS))
folder("peft_lokr_core", LoKrConfig(r=1, alpha=2, target_modules=TARGETS, use_effective_conv2d=True, decompose_both=True))
folder("peft_dora", LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=[*TARGETS, "conv_shortcut"]))

# ---- DoRA as diffusers saves it, a part of it taken ---------------------------------------------------------------------------
model = unet()
config = LoraConfig(r=2, lora_alpha=4, use_dora=True, target_modules=[f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_out.0"])
model.add_adapter(config)
with torch.no_grad():
    for parameter_name, parameter in model.named_parameters():
        if "magnitude" in parameter_name:
            parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
        elif ".lora_" in parameter_name:
            parameter.copy_((torch.randn_like(parameter) * 0.3).half().float())
said = {k: list(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
with tempfile.TemporaryDirectory() as saved:
    StableDiffusionPipeline.save_lora_weights(
        saved, unet_lora_layers=get_peft_model_state_dict(model), unet_lora_adapter_metadata=said
    )
    shutil.copy(Path(saved) / "pytorch_lora_weights.safetensors", HERE / "diffusers_dora.safetensors")
pipe = StableDiffusionPipeline(
    vae=None, text_encoder=None, tokenizer=None, unet=unet(), scheduler=DDIMScheduler(), safety_checker=None,
    feature_extractor=None, requires_safety_checker=False,
)
pipe.load_lora_weights(HERE / "diffusers_dora.safetensors")
pipe.fuse_lora(lora_scale=SCALE)
out("diffusers_dora", changed(pipe.unet.state_dict()))
