"""Makes the fixtures of crates/cli/tests/prompt.rs with diffusers: whole pictures' latents from a prompt and a negative prompt, through
tokenizer, text encoder, a UNet with one adapter, and the samplers of ordinary, LCM and Turbo models.

    pip install torch diffusers transformers accelerate safetensors && python tests/parity/prompt/reference.py

`model/` is the model folder, `NAME.safetensors` the latents, noise and embeddings that were given and the latents of every
step, `NAME.json` the scheduler's config and the arguments. Weights are rounded to f16. Made with torch 2.11.0, diffusers
0.42.1 and transformers 5.23.0.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    schedulers,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
MODEL = HERE / "model"
CONTEXT, WIDTH, IMAGE = 16, 12, 9
PROMPT, NEGATIVE = "A portrait of an old man, oil painting!", "blurry   hat"
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
torch.manual_seed(0)
torch.set_num_threads(1)


@torch.no_grad()
def perturbed(model):
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter += 0.1 * torch.randn_like(parameter)
        elif any(part in name for part in ("to_q", "to_k", "q_proj", "k_proj")):
            parameter *= 3
        parameter.copy_(parameter.half().float())
    return model.eval()


def write(name, config, state):
    folder = MODEL / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_file({k: v.half().contiguous() for k, v in state.items()}, folder / "model.safetensors")


shutil.rmtree(MODEL, ignore_errors=True)
plain = HERE.parent / "tokenizer/plain"
(MODEL / "tokenizer").mkdir(parents=True)
for name in ("vocab.json", "merges.txt"):
    shutil.copy(plain / name, MODEL / "tokenizer" / name)
vocabulary = json.loads((plain / "vocab.json").read_text())
lines = (plain / "merges.txt").read_text().splitlines()
merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)

text = perturbed(CLIPTextModel(CLIPTextConfig(
    vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=CONTEXT, hidden_act="quick_gelu", eos_token_id=vocabulary["<|endoftext|>"],
)))
unet = perturbed(UNet2DConditionModel(
    sample_size=8, block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2, layers_per_block=1, attention_head_dim=2, cross_attention_dim=WIDTH,
    norm_num_groups=4,
))
config = {k: v for k, v in unet.config.items() if k not in ("_use_default_values", "encoder_hid_dim_type")}
write("unet", config, unet.state_dict())
named = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in text.state_dict().items()}
write("text_encoder", text.config.to_dict() | {"architectures": ["CLIPTextModel"]}, named)


def random(*shape):
    return (torch.randn(shape) * shape[-1] ** -0.5).half().float()


projection = {
    "proj.weight": random(4 * WIDTH, IMAGE), "proj.bias": random(4 * WIDTH),
    "norm.weight": 1 + random(WIDTH), "norm.bias": random(WIDTH),
}
layers, modules = {}, dict(unet.named_modules())
for i, name in enumerate(unet.attn_processors):
    if "attn2" in name:
        rows = modules[name.removesuffix(".processor")].to_k.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            layers[f"{i}.{part}.weight"] = random(rows, WIDTH)
projection = {k: v.half().float() for k, v in projection.items()}
adapter = {"image_proj": projection, "ip_adapter": layers}
write(
    "ip_adapter",
    {"role": "style", "scale": 0.7, "projection": "image", "image_embed_dim": IMAGE, "num_tokens": 4,
     "cross_attention_dim": WIDTH},
    {f"{part}.{name}": value for part, state in adapter.items() for name, value in state.items()},
)

pipe = StableDiffusionPipeline(
    vae=AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4), text_encoder=text,
    tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None,
    requires_safety_checker=False,
)
pipe.set_progress_bar_config(disable=True)
# The pipeline asks for sizes in pixels, eight (here: one) for each latent.
pipe.vae_scale_factor = 1
unet._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
pipe.set_ip_adapter_scale(0.7)


@torch.no_grad()
def run(name, scheduler, steps, guidance_scale):
    pipe.scheduler = scheduler
    given = {
        "latents": torch.randn(1, 4, 8, 8),
        "noise": torch.randn(steps, 1, 4, 8, 8),
        "image_embeds.0": torch.randn(1, IMAGE),
    }
    queue = list(given["noise"])
    for module in ("euler_ancestral_discrete", "lcm"):
        getattr(schedulers, f"scheduling_{module}").randn_tensor = lambda *_, **__: queue.pop(0)
    embeds = given["image_embeds.0"][None]
    if guidance_scale > 1:
        embeds = torch.cat([torch.zeros_like(embeds), embeds])
    seen = []

    def keep(pipe, i, t, now):
        seen.append(now["latents"].clone())
        return now

    out = pipe(
        prompt=PROMPT, negative_prompt=NEGATIVE, latents=given["latents"], height=8, width=8,
        num_inference_steps=steps, guidance_scale=guidance_scale, ip_adapter_image_embeds=[embeds],
        output_type="latent", callback_on_step_end=keep,
    ).images
    assert len(seen) == steps and torch.equal(seen[-1], out) and torch.isfinite(out).all()
    io = given | {"steps": torch.stack(seen)}
    save_file({k: v.contiguous() for k, v in io.items()}, HERE / f"{name}.safetensors")
    config = {k: v for k, v in scheduler.config.items() if k != "_use_default_values"}
    config["_class_name"] = type(scheduler).__name__
    case = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": steps, "guidance_scale": guidance_scale}
    (HERE / f"{name}.json").write_text(json.dumps(case | {"scheduler": config}, indent=1, sort_keys=True) + "\n")


run("euler_ancestral", EulerAncestralDiscreteScheduler(**LATENT, timestep_spacing="leading", steps_offset=1), 6, 4.0)
run("lcm", LCMScheduler(**LATENT), 4, 1.0)
# As published with SD-Turbo, and as Hyper-SD's LoRAs are used.
run("turbo", EulerDiscreteScheduler(**LATENT, timestep_spacing="trailing", steps_offset=1), 1, 1.0)
hyper = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
run("hyper", DDIMScheduler(**LATENT, **hyper), 4, 1.0)
