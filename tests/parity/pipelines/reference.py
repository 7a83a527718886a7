"""Makes the fixtures of crates/cli/tests/pipelines.rs with diffusers' pipelines of Stable Diffusion: pictures from noise, from a picture
and inside a mask, with every sampler, and with the scheduler configs that those pipelines do not take as they are.

    pip install torch diffusers transformers safetensors && python tests/parity/pipelines/reference.py

The UNet is that of ../ip_adapter/sd. `cases.json` holds of each case the scheduler's file and the arguments, `io.safetensors`
what is given to all and, under a case's name, the latents after its first and its last step. Made with torch 2.11.0 and diffusers 0.42.1.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    schedulers,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).parent
STEPS, SIDES = 5, (8, 8)
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
torch.manual_seed(0)
torch.set_num_threads(1)

folder = HERE.parent / "ip_adapter/sd/unet"
config = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if not k.startswith("_")}
unet = UNet2DConditionModel(**config).eval()
unet.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
text = CLIPTextModel(
    CLIPTextConfig(vocab_size=40, hidden_size=12, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2)
)
vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
given = {
    "latents": torch.randn(1, 4, *SIDES),
    "noise": torch.randn(STEPS, 1, 4, *SIDES),
    "encoder_hidden_states": torch.randn(1, 77, 12),
    "init_latents": torch.randn(1, 4, *SIDES),
    "mask": torch.zeros(1, 1, *SIDES),
}
given["mask"][..., 2:6, 1:5] = 1


def scheduler_of(kind, config):
    """As `from_pretrained` reads the file, and a pipeline of that kind changes it; another class where ours has not got it."""
    own = getattr(diffusers, config["_class_name"]).from_config(config)
    pipe = kind(
        vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=own, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )
    ours = (
        "EulerAncestralDiscrete", "EulerDiscrete", "DDIM", "DPMSolverMultistep", "LCM", "HeunDiscrete", "UniPCMultistep",
        "TCD",
    )
    if config["_class_name"] not in [f"{name}Scheduler" for name in ours]:
        pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    return pipe


@torch.no_grad()
def run(what, config, strength=None, steps=STEPS):
    kind = {
        "text": StableDiffusionPipeline, "image": StableDiffusionImg2ImgPipeline, "inpaint": StableDiffusionInpaintPipeline,
    }[what]
    pipe = scheduler_of(kind, config)
    pipe.set_progress_bar_config(disable=True)
    # The pipelines ask for sizes in pixels, eight (here: one) for each latent.
    pipe.vae_scale_factor = 1
    queue = list(given["noise"])
    for module in ("euler_ancestral_discrete", "lcm", "tcd"):
        getattr(schedulers, f"scheduling_{module}").randn_tensor = lambda *_, **__: queue.pop(0)
    sys.modules[kind.__module__].randn_tensor = lambda *_, **__: given["latents"]
    options = {"latents": given["latents"]} if what == "text" else {"image": given["init_latents"], "strength": strength}
    if isinstance(pipe.scheduler, diffusers.TCDScheduler):
        options["eta"] = 0.3  # the scheduler's own default, which the pipelines overrule with 0
    if what != "image":
        options |= {"height": SIDES[0], "width": SIDES[1]}
    if what == "inpaint":
        options |= {"mask_image": given["mask"], "masked_image_latents": given["init_latents"]}
    seen = []

    def keep(pipe, i, t, now):
        seen.append(now["latents"].clone())
        return now

    pipe(
        prompt_embeds=given["encoder_hidden_states"], num_inference_steps=steps, guidance_scale=1.0, output_type="latent",
        callback_on_step_end=keep, **options,
    )
    assert all(torch.isfinite(latents).all() for latents in seen)
    return torch.stack([seen[0], seen[-1]])


def cases():
    leading = {**LATENT, "timestep_spacing": "leading"}
    # As published with Stable Diffusion 1.5, and as its first releases had it.
    pndm = {"_class_name": "PNDMScheduler", **LATENT, "set_alpha_to_one": False, "skip_prk_steps": True}
    yield "text", pndm | {"steps_offset": 1, "clip_sample": False}, None
    yield "text", pndm, None
    for config in (
        {}, LATENT, leading, LATENT | {"clip_sample": True, "clip_sample_range": 0.5}, LATENT | {"steps_offset": 0},
        LATENT | {"steps_offset": 3, "clip_sample": False}, LATENT | {"timestep_spacing": "trailing", "clip_sample": True},
        LATENT | {"timestep_spacing": "linspace"}, LATENT | {"set_alpha_to_one": False},
    ):
        yield "text", {"_class_name": "DDIMScheduler", **config}, None
    for name in ("EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "LCM"):
        yield "text", {"_class_name": f"{name}Scheduler", **leading}, None
        yield "text", {"_class_name": f"{name}Scheduler", **leading, "steps_offset": 0, "clip_sample": True}, None
    for name in ("DEISMultistep", "DPMSolverSinglestep", "UniPCMultistep", "HeunDiscrete", "KDPM2Discrete", "DDPM"):
        yield "text", {"_class_name": f"{name}Scheduler", **LATENT, "use_karras_sigmas": True}, None
    for name in ("EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "LCM", "DDIM"):
        for what in ("image", "inpaint"):
            for strength in (1.0, 0.99, 0.6):
                # Unlike the others, diffusers' pipeline of inpainting leaves `clip_sample` as it is.
                unclipped = {"clip_sample": False} if (what, name) == ("inpaint", "DDIM") else {}
                yield what, {"_class_name": f"{name}Scheduler", **LATENT, **unclipped}, strength
        yield "image", {"_class_name": f"{name}Scheduler", **leading, "steps_offset": 1}, 1.0
    for name in ("HeunDiscrete", "UniPCMultistep", "TCD"):
        for config in (LATENT, leading, LATENT | {"use_karras_sigmas": True}):
            yield "text", {"_class_name": f"{name}Scheduler", **config}, None
        for what in ("image", "inpaint"):
            for strength in (1.0, 0.6):
                yield what, {"_class_name": f"{name}Scheduler", **LATENT}, strength


def main():
    told, tensors = [], dict(given)
    for i, (what, config, strength) in enumerate(cases()):
        seen = run(what, config, strength)
        tensors[f"{i:02}"] = seen
        told.append({"name": f"{i:02}", "what": what, "steps": STEPS, "strength": strength, "scheduler": config})
    lines = ",\n".join(json.dumps(case) for case in told)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "io.safetensors")
    print(len(told), "cases")


main()
