"""Makes the fixtures of tests/parity/klein.rs with diffusers' pipelines of FLUX.2 klein on tiny random networks: a model folder
(text_encoder, transformer, vae; the tokenizer is tests/parity/qwen2_tokenizer/json), cases.json, and io.safetensors with the
noise and the latents after every step. Pictures are those of `picture`, which the test repeats.

    pip install torch diffusers transformers safetensors pillow && python tests/parity/klein/reference.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from diffusers.pipelines.flux2 import pipeline_flux2_klein_inpaint
from PIL import Image
from safetensors.torch import save_file
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent
LAYERS = (1, 2, 3)
LENGTH = 48
SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True}
torch.set_num_threads(1)


def shaken(model, factor=1.0):
    """Norms off 1, everything rounded to f16."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
            else:
                parameter *= factor
            parameter.copy_(parameter.half().float())
    return model.eval()


def save(model, name):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if hasattr(model.config, "to_dict"):
        config = model.config.to_dict()
    else:
        config = {k: v for k, v in model.config.items() if k != "_use_default_values"}
        config["_class_name"] = type(model).__name__
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    unused = ("num_batches", "lm_head", "layers.3.")
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items() if not any(u in k for u in unused)}
    save_file(weights, folder / "model.safetensors")
    return model


def picture(width, height, number):
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3))
    return Image.fromarray(((x * 7 + y * 13 + c * 29 + number * 50 + x * y // 9) % 256).astype(np.uint8))


def components():
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=2,
    )
    shaken(vae)
    with torch.no_grad():
        vae.bn.running_mean.copy_((0.3 * torch.randn(8)).half().float())
        vae.bn.running_var.copy_((0.2 + torch.rand(8)).half().float())
    tokenizer = Qwen2Tokenizer.from_pretrained(HERE.parent / "qwen2_tokenizer" / "json")
    qwen = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=LENGTH,
        rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"},
        tie_word_embeddings=True,
    )
    transformer = Flux2Transformer2DModel(
        in_channels=8,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return dict(
        vae=save(vae, "vae"),
        text_encoder=save(shaken(Qwen3ForCausalLM(qwen), 6.0), "text_encoder"),
        transformer=save(shaken(transformer, 1.5), "transformer"),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
    )


CASES = [
    dict(name="text", prompt="A smiling man with a red scarf", width=48, height=40, steps=4),
    dict(name="base", prompt="Image 1 is Anna", width=40, height=40, steps=6, guidance=4.0),
    dict(name="one", prompt="A photo of the same person", width=48, height=32, steps=4, references=[[64, 72]]),
    dict(name="two", prompt="they're in Kraków", width=32, height=48, steps=2, references=[[64, 64], [80, 64]]),
    dict(
        name="four",
        prompt="a",
        width=32,
        height=32,
        steps=2,
        guidance=2.5,
        references=[[64, 64], [72, 64], [64, 80], [64, 64]],
    ),
    dict(name="kept", prompt="neon", width=40, height=32, steps=4, references=[[64, 72], [64, 64]], kept=True),
    dict(name="inpaint", prompt="a red scarf", width=64, height=72, steps=5, strength=0.7, mask=3),
    dict(
        name="inpaint_base",
        prompt="a red scarf",
        width=72,
        height=64,
        steps=4,
        strength=1.0,
        mask=5,
        guidance=3.0,
        references=[[64, 80]],
    ),
]


@torch.no_grad()
def main():
    parts = components()
    tensors = {}
    for number, case in enumerate(CASES):
        guidance = case.get("guidance")
        width, height = case["width"], case["height"]
        torch.manual_seed(number)
        noise = torch.randn(1, 8, height // 8, width // 8)
        steps = []

        def after(pipe, i, t, tensors):
            unpacked = Flux2KleinPipeline._unpack_latents_with_ids(tensors["latents"], ids, height // 8, width // 8)
            steps.append(unpacked)
            return tensors

        ids = Flux2KleinPipeline._prepare_latent_ids(noise)
        pictures = [picture(w, h, i) for i, (w, h) in enumerate(case.get("references", []))]
        shared = dict(
            prompt=case["prompt"],
            height=height,
            width=width,
            num_inference_steps=case["steps"],
            max_sequence_length=LENGTH,
            text_encoder_out_layers=LAYERS,
            output_type="latent",
            callback_on_step_end=after,
        )
        scale = {"guidance_scale": guidance or 1.0}
        if "strength" in case:
            pipe = Flux2KleinInpaintPipeline(**parts, is_distilled=guidance is None)
            pipeline_flux2_klein_inpaint.randn_tensor = lambda *_, **__: noise
            mask = np.zeros((height, width), np.uint8)
            mask[:, case["mask"] * 8 :] = 255
            extra = {"image_reference": pictures[0]} if pictures else {}
            pipe(
                image=picture(width, height, 9),
                mask_image=Image.fromarray(mask),
                strength=case["strength"],
                **shared,
                **scale,
                **extra,
            )
        elif case.get("kept"):
            Flux2KleinKVPipeline(**parts)(image=pictures, latents=noise, **shared)
        else:
            pipe = Flux2KleinPipeline(**parts, is_distilled=guidance is None)
            pipe(image=pictures or None, latents=noise, **shared, **scale)
        tensors |= {f"{case['name']}.noise": noise, f"{case['name']}.steps": torch.cat(steps)}
    (HERE / "cases.json").write_text(json.dumps(CASES, indent=1) + "\n")
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **SCHEDULER}
    (HERE / "scheduler").mkdir(exist_ok=True)
    (HERE / "scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "io.safetensors")
    for file in [*HERE.glob("*.*"), *HERE.glob("*/*")]:
        file.chmod(0o644)
    print({k: list(v.shape) for k, v in tensors.items()})


main()
