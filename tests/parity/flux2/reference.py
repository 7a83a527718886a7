"""Makes the fixtures of tests/parity/flux2.rs with diffusers' Flux2Transformer2DModel: one folder per case, holding config.json,
the weights (random, rounded to f16 to keep the files small) and io.safetensors (inputs and outputs, f32).

    pip install torch diffusers transformers safetensors && python tests/parity/flux2/reference.py
"""

import json
from pathlib import Path

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import (
    Flux2KVAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
)
from safetensors.torch import save_file

HERE = Path(__file__).parent
SIZES = dict(in_channels=8, attention_head_dim=16, joint_attention_dim=12, timestep_guidance_channels=16)
torch.set_num_threads(1)


def build(seed, **config):
    torch.manual_seed(seed)
    model = Flux2Transformer2DModel(**SIZES, **config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms start at ones: move them, and sharpen the attention
                parameter.copy_(2 * parameter + 0.3 * torch.randn_like(parameter))
            elif "modulation" in name or "norm_out" in name:
                parameter *= 3
            parameter.copy_(parameter.half().float())
    return model


@torch.no_grad()
def save(case, model, references=(), guidance=None, batch=2):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    height, width, text = 3, 4, 5
    joint = model.config.joint_attention_dim
    channels = model.config.in_channels
    picture = torch.randn(batch, channels, height, width)
    txt_ids = Flux2KleinPipeline._prepare_text_ids(torch.zeros(1, text, 1))
    img_ids = Flux2KleinPipeline._prepare_latent_ids(picture[:1])
    hidden = Flux2KleinPipeline._pack_latents(picture)
    inputs = dict(
        encoder_hidden_states=torch.randn(batch, text, joint),
        timestep=torch.tensor([0.731, 0.25][:batch]),
        guidance=None if guidance is None else torch.tensor(guidance[:batch]),
        txt_ids=txt_ids,
        return_dict=False,
    )
    io = {
        "hidden_states": hidden,
        "encoder_hidden_states": inputs["encoder_hidden_states"],
        "timestep": inputs["timestep"] * 1000,
        "sample": model(hidden_states=hidden, img_ids=img_ids, **inputs)[0],
        "image_ids": img_ids[0].float(),
        "text_ids": txt_ids[0].float(),
    }
    if guidance is not None:
        io["guidance"] = inputs["guidance"]
    if references:
        pictures = [torch.randn(1, channels, *size) for size in references]
        ref_ids = Flux2KleinPipeline._prepare_image_ids(pictures)
        packed = torch.cat([Flux2KleinPipeline._pack_latents(one) for one in pictures], dim=1)
        packed = packed.expand(batch, -1, -1)
        count = packed.shape[1]
        io |= {"references": packed, "reference_ids": ref_ids[0].float()}
        # As Flux2KleinPipeline: behind the picture, in every step.
        seen = model(
            hidden_states=torch.cat([hidden, packed], 1), img_ids=torch.cat([img_ids, ref_ids], 1), **inputs
        )[0]
        io["with_references"] = seen[:, : height * width]
        # As Flux2KleinKVPipeline: before the picture in the first step, from the cache in a second one.
        for block in model.transformer_blocks:
            block.attn.set_processor(Flux2KVAttnProcessor())
        for block in model.single_transformer_blocks:
            block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
        io["first_step"], cache = model(
            hidden_states=torch.cat([packed, hidden], 1),
            img_ids=torch.cat([ref_ids, img_ids], 1),
            kv_cache_mode="extract",
            num_ref_tokens=count,
            **inputs,
        )
        later = {**inputs, "timestep": inputs["timestep"] * 0.6}
        io["later_timestep"] = later["timestep"] * 1000
        io["later_step"] = model(
            hidden_states=hidden * 0.8, img_ids=img_ids, kv_cache=cache, kv_cache_mode="cached", **later
        )[0]
    config = {k: v for k, v in model.config.items() if k != "_use_default_values"}
    config["_class_name"] = type(model).__name__
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    save_file({k: v.float().contiguous() for k, v in io.items()}, folder / "io.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def main():
    # As klein: no guidance embedding.
    klein = build(
        0,
        num_layers=2,
        num_single_layers=3,
        num_attention_heads=2,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    save("klein", klein, references=[(2, 3), (3, 2)])
    # As FLUX.2 dev, and what configs may say otherwise.
    dev = build(
        1,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=3,
        axes_dims_rope=(2, 4, 6, 4),
        guidance_embeds=True,
        out_channels=6,
        mlp_ratio=2.3,
        rope_theta=500,
        eps=1e-3,
    )
    save("dev", dev, guidance=[4.0, 1.5])
    save("one", klein, batch=1)


main()
