"""LoRA files as trainers write them, and what diffusers' `fuse_lora` and peft's merge make of them (see ../lora.rs).

    pip install torch==2.11.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 safetensors
    python tests/parity/lora/reference.py

The base is the UNet and the text encoder of `../prompt/model`. Of each case there is `NAME.safetensors`, or a folder of peft's, as
input, and in `NAME.out.safetensors` every weight that the reference changed, as f32. The cases `styles.*` hold the same numbers
under other names and share `styles.out.safetensors`: where diffusers reads a style itself, the script checks that it gives that.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).parent
MODEL = HERE.parent / "prompt/model"
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
UP = "up_blocks.1.attentions.1.transformer_blocks.0"
torch.manual_seed(0)
torch.set_num_threads(1)


def ours(name):
    """transformers 5 has no model in the model; the project's folders do."""
    return f"text_model.{name.removeprefix('text_model.')}"


def unet():
    model = UNet2DConditionModel.from_config(json.loads((MODEL / "unet/config.json").read_text()))
    model.load_state_dict({k: v.float() for k, v in load_file(MODEL / "unet/model.safetensors").items()})
    return model.eval()


def text():
    model = CLIPTextModel(CLIPTextConfig.from_pretrained(MODEL / "text_encoder")).eval()
    state = {k: v.float() for k, v in load_file(MODEL / "text_encoder/model.safetensors").items()}
    flat = not any(name.startswith("text_model.") for name in model.state_dict())
    model.load_state_dict({k.removeprefix("text_model.") if flat else k: v for k, v in state.items()}, strict=False)
    return model


def pipeline():
    return StableDiffusionPipeline(
        vae=None, text_encoder=text(), tokenizer=None, unet=unet(), scheduler=DDIMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )


BASE = {"unet": unet().state_dict(), "text_encoder": text().state_dict()}


def changed(network, state):
    """What the reference changed, by the project's names."""
    of = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    assert of.keys() == BASE[network].keys()
    name = ours if network == "text_encoder" else str
    return {
        f"{network}.{name(k)}": v.contiguous() for k, v in of.items() if not torch.equal(v, BASE[network][k])
    }


def fused(source, scale=1.0, **options):
    pipe = pipeline()
    pipe.load_lora_weights(source, **options)
    pipe.fuse_lora(lora_scale=scale)
    return changed("unet", pipe.unet.state_dict()) | changed("text_encoder", pipe.text_encoder.state_dict())


def trained(model, **config):
    """An adapter with random weights, rounded to f16, as far as it has been trained."""
    config = LoraConfig(**config)
    model.add_adapter(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_((torch.randn_like(parameter) * 0.3).half().float())
    return config, get_peft_model_state_dict(model)


def metadata(config):
    """As `_collate_lora_metadata` of diffusers' scripts."""
    return {k: list(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}


def halves(tensors):
    return {k: v.half().contiguous() for k, v in tensors.items()}


def out(name, tensors):
    assert tensors
    save_file(tensors, HERE / f"{name}.out.safetensors")


def same(a, b):
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def saved_by_script(name, unet_config=None, text_config=None, scale=1.0):
    """The way of `train_dreambooth_lora.py` and `train_text_to_image_lora.py`."""
    layers = {}
    if unet_config:
        config, state = trained(unet(), **unet_config)
        # Of a file that begins with peft's names diffusers passes over its own (`to_q.lora.down`): there are either.
        if all(".to_" in name for name in state):
            state = convert_state_dict_to_diffusers(state)
        layers |= {"unet_lora_layers": state, "unet_lora_adapter_metadata": metadata(config)}
    if text_config:
        config, state = trained(text(), **text_config)
        state = {ours(k): v for k, v in state.items()}
        layers |= {
            "text_encoder_lora_layers": convert_state_dict_to_diffusers(state),
            "text_encoder_lora_adapter_metadata": metadata(config),
        }
    with tempfile.TemporaryDirectory() as folder:
        StableDiffusionPipeline.save_lora_weights(folder, **layers)
        shutil.copy(Path(folder) / "pytorch_lora_weights.safetensors", HERE / f"{name}.safetensors")
    out(name, fused(HERE / f"{name}.safetensors", scale))


for old in HERE.iterdir():
    if old.is_dir():
        shutil.rmtree(old)
    elif old.suffix != ".py":
        old.unlink()

# ---- strength in the header -----------------------------------------------------------------------------------------
CLIP = ["q_proj", "out_proj", "fc1"]
saved_by_script(
    "script", dict(r=4, lora_alpha=16, target_modules=["attn1.to_q", f"{BLOCK}.attn2.to_out.0"]),
    dict(r=2, lora_alpha=1, target_modules=["0.self_attn.q_proj", "1.self_attn.out_proj", "1.mlp.fc1"]), scale=0.7,
)
saved_by_script("rslora", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=[f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn1.to_out.0"]))
saved_by_script(
    "patterns",
    dict(
        r=4, lora_alpha=2, target_modules=[f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k", f"{UP}.attn1.to_q", "conv_out"],
        rank_pattern={f"^{UP}.attn1.to_q": 2, "conv_out": 3}, alpha_pattern={r"down_.*\.attn[12]\.to_(q|k)": 12, "to_q": 5},
    ),
    dict(r=2, lora_alpha=3, target_modules=CLIP, rank_pattern={"1.mlp.fc1": 4}, alpha_pattern={"out_proj": 8}),
)
# No strength is said: every update counts in full, whatever its rank.
saved_by_script("ranks", dict(r=2, target_modules=[f"{BLOCK}.attn1.to_q", "conv_out"], rank_pattern={"conv_out": 3}))
save_file(load_file(HERE / "ranks.safetensors"), HERE / "ranks.safetensors")
out("ranks", fused(HERE / "ranks.safetensors"))
saved_by_script("bias", dict(r=2, lora_alpha=4, lora_bias=True, target_modules=[f"{BLOCK}.attn1.to_out.0", "conv_out"]))

# ---- peft's own folders ----------------------------------------------------------------------------------------------
for name, make, options in [
    ("peft_unet", unet, dict(r=4, lora_alpha=10, use_rslora=True, target_modules=["conv_shortcut", f"{BLOCK}.attn1.to_v"], rank_pattern={"conv_shortcut": 2})),
    ("peft_text", text, dict(r=2, lora_alpha=6, target_modules=["v_proj", "fc2"], alpha_pattern={r"layers\.1\.mlp\.fc2": 1})),
]:
    model = get_peft_model(make(), LoraConfig(**options))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if ".lora_" in parameter_name:
                parameter.copy_((torch.randn_like(parameter) * 0.3).half().float())
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink(missing_ok=True)
    merged = PeftModel.from_pretrained(make(), HERE / name).merge_and_unload()
    out(name, changed("unet" if make is unet else "text_encoder", merged.state_dict()))

# ---- the same numbers in every style -----------------------------------------------------------------------------------
UNET_MODULES = [
    f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_out.0", f"{BLOCK}.ff.net.0.proj", "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.time_emb_proj", "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv_shortcut", "mid_block.attentions.0.proj_out", "mid_block.resnets.1.conv2",
    f"{UP}.attn2.to_v", "up_blocks.0.upsamplers.0.conv", "conv_in", "conv_out", "time_embedding.linear_1",
]
TEXT_MODULES = [
    *(f"encoder.layers.0.self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "encoder.layers.1.mlp.fc1",
]
# What the original code calls them (`openaimodel.py`).
ORIGINAL = dict(zip(UNET_MODULES, [
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q", "input_blocks.1.1.transformer_blocks.0.attn2.to_out.0",
    "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj", "input_blocks.1.1.proj_in", "input_blocks.1.0.in_layers.2",
    "input_blocks.1.0.emb_layers.1", "input_blocks.2.0.op", "input_blocks.3.0.skip_connection", "middle_block.1.proj_out",
    "middle_block.2.out_layers.3", "output_blocks.3.1.transformer_blocks.0.attn2.to_v", "output_blocks.1.2.conv",
    "input_blocks.0.0", "out.2", "time_embed.0",
]))
RANK, ALPHA = 2, 4.0
_, of_unet = trained(unet(), r=RANK, lora_alpha=ALPHA, target_modules=UNET_MODULES)
_, of_text = trained(text(), r=RANK, lora_alpha=ALPHA, target_modules=TEXT_MODULES)
of_text = {k.removeprefix("text_model."): v for k, v in of_text.items()}


def style(unet_name, text_name, down="lora_A", up="lora_B", alpha=True, sort=None):
    """The update under other names; its strength by tensors, or multiplied into `up`."""
    tensors = {}
    for state, rename in ((of_unet, unet_name), (of_text, text_name)):
        for key in state if rename else ():
            module, half = key.removesuffix(".weight").rsplit(".", 1)
            name, value = rename(module), state[key]
            if half == "lora_B" and not alpha:
                value = value * (ALPHA / RANK)
            join = (down if half == "lora_A" else up) if isinstance(down, str) else (down if half == "lora_A" else up)(module)
            tensors[f"{name}{join}.weight"] = value
            if alpha:
                tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    return halves(tensors)


def kohya(prefix):
    return lambda module: prefix + module.replace(".", "_")


def write(name, tensors, header=None, expected=None, **options):
    save_file(tensors, HERE / f"styles.{name}.safetensors", metadata={"format": "pt"} | (header or {}))
    if expected:
        same(fused(HERE / f"styles.{name}.safetensors", **options), expected)


text_kohya = kohya("lora_te_text_model_")
base = style(kohya("lora_unet_"), text_kohya, ".lora_down", ".lora_up")
write("kohya", base)
EXPECTED = fused(HERE / "styles.kohya.safetensors")
out("styles", EXPECTED)
UNET_ALONE = {k: v for k, v in EXPECTED.items() if k.startswith("unet.")}
TEXT_ALONE = {k: v for k, v in EXPECTED.items() if k.startswith("text_encoder.")}

header = {"ss_network_alpha": str(ALPHA), "ss_network_dim": str(RANK), "ss_network_module": "networks.lora"}
write("kohya_peft", style(kohya("lora_unet_"), kohya("lora_te1_text_model_"), ".lora_A", ".lora_B"), header)
original = style(lambda module: kohya("lora_unet_")(ORIGINAL[module]), text_kohya, ".lora_down", ".lora_up")
write("original", original, expected=EXPECTED, unet_config=unet().config)
write("comfy", style(lambda module: f"diffusion_model.{ORIGINAL[module]}", None, ".lora_A", ".lora_B"))
write("diffusers", style(lambda m: f"unet.{m}", lambda m: f"text_encoder.text_model.{m}", ".lora_A", ".lora_B", alpha=False), expected=EXPECTED)
mixed = style(lambda m: f"unet.{m}", None, ".lora.down", ".lora.up", alpha=False)
mixed |= style(None, lambda m: f"text_encoder.text_model.{m}", ".lora_linear_layer.down", ".lora_linear_layer.up", alpha=False)
write("linear_layer", mixed, expected=EXPECTED)
write("flat_text", style(None, lambda m: f"text_encoder.{m}", ".lora_A", ".lora_B", alpha=False), expected=TEXT_ALONE)
OLD = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def processors(module):
    head, _, last = module.rpartition(".")
    if last in OLD:
        return f"{head}.{OLD[last]}"
    return module.removesuffix(".0").replace(".to_", ".processor.to_") if ".to_" in module else module


def halves_of(half):
    return lambda module: f"_lora.{half}" if ".to_" in module or module.rsplit(".", 1)[-1] in OLD else (
        f".lora_linear_layer.{half}" if ".mlp." in module else f".lora.{half}"
    )


old = style(
    lambda m: f"unet.{processors(m)}", lambda m: f"text_encoder.text_model.{processors(m)}", halves_of("down"), halves_of("up"), alpha=False
)
write("processors", old, expected=EXPECTED)
bare = style(processors, None, halves_of("down"), halves_of("up"), alpha=False)
write("bare_processors", bare)
alone = unet()
alone.load_lora_adapter(HERE / "styles.bare_processors.safetensors", prefix=None)
alone.fuse_lora()
same(changed("unet", alone.state_dict()), UNET_ALONE)
write("bare", style(lambda m: m, lambda m: f"text_model.{m}", ".lora_A.default", ".lora_B.default", alpha=False))
write("peft", style(lambda m: f"base_model.model.{m}", lambda m: f"base_model.model.text_model.{m}", ".lora_A", ".lora_B", alpha=False))
