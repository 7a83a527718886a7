"""Makes the fixtures of tests/parity/ip_adapter.rs and of the denoising loop with diffusers: random adapters in the
published key layouts, read by diffusers' own loader.

    pip install torch diffusers transformers peft accelerate safetensors && python tests/parity/ip_adapter/reference.py

One folder for each projection (config.json, model.safetensors with `image_proj.*`, io.safetensors), `face_id.bin` as
torch.save writes FaceID with its LoRA, and `sd/`: a model folder with UNet, scheduler and two adapters, and
`NAME.safetensors` with the inputs and the latents of every step of `StableDiffusionPipeline`. Weights are rounded to f16
to keep the files small. Made with torch 2.11.0 and diffusers 0.42.1.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete as euler_ancestral
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).parent
torch.manual_seed(0)
torch.set_num_threads(1)
STEPS = 25


def weights(shapes):
    """Random, norms near 1, everything else of the usual deviation."""
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape)
        if len(shape) == 1:
            value = 0.2 * value + (1.0 if name.endswith("weight") else 0.0)
        else:
            value = value * shape[-1] ** -0.5
        state[name] = value.half().float()
    return state


def linear(name, rows, columns, bias=True):
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def perceiver(prefix, p):
    inner = 64 * p["heads"]
    shapes = linear(f"{prefix}proj_in", p["width"], p["hidden_size"])
    shapes |= linear(f"{prefix}proj_out", p["cross_attention_dim"], p["width"])
    shapes |= norm(f"{prefix}norm_out", p["cross_attention_dim"])
    for i in range(p["depth"]):
        layer = f"{prefix}layers.{i}"
        shapes |= norm(f"{layer}.0.norm1", p["width"]) | norm(f"{layer}.0.norm2", p["width"])
        shapes |= linear(f"{layer}.0.to_q", inner, p["width"], False)
        shapes |= linear(f"{layer}.0.to_kv", 2 * inner, p["width"], False)
        shapes |= linear(f"{layer}.0.to_out", p["width"], inner, False)
        shapes |= norm(f"{layer}.1.0", p["width"])
        shapes |= linear(f"{layer}.1.1", p["feed_forward_size"], p["width"], False)
        shapes |= linear(f"{layer}.1.3", p["width"], p["feed_forward_size"], False)
    return shapes


def projection(config):
    """`image_proj` in the layout of tencent-ailab/IP-Adapter."""
    kind, dim = config["projection"], config["cross_attention_dim"]
    if kind == "image":
        shapes = linear("proj", config["num_tokens"] * dim, config["image_embed_dim"]) | norm("norm", dim)
    elif kind == "plus":
        shapes = {"latents": (1, config["num_tokens"], config["width"])} | perceiver("", config)
    elif kind == "full_face":
        shapes = linear("proj.0", config["hidden_size"], config["hidden_size"])
        shapes |= linear("proj.2", dim, config["hidden_size"]) | norm("proj.3", dim)
    else:
        inner = config["intermediate_size"]
        shapes = linear("proj.0", inner, config["id_embed_dim"])
        shapes |= linear("proj.2", config["num_tokens"] * dim, inner) | norm("norm", dim)
        if kind == "face_id_plus":
            shapes |= perceiver("perceiver_resampler.", config)
    return weights(shapes)


PERCEIVER = dict(hidden_size=10, width=16, depth=4, heads=2, feed_forward_size=64, cross_attention_dim=12)
# The loader of FaceID-Plus takes the widths of states and queries for the same where it counts: `embed_dims` is the
# queries' width, and tokens are as wide.
FACE = dict(PERCEIVER, width=12, feed_forward_size=48)
CONFIGS = {
    "image": dict(projection="image", image_embed_dim=9, num_tokens=4, cross_attention_dim=12),
    "plus": dict(projection="plus", num_tokens=6, **PERCEIVER),
    "full_face": dict(projection="full_face", hidden_size=10, cross_attention_dim=12),
    "face_id": dict(projection="face_id", id_embed_dim=8, intermediate_size=16, num_tokens=4, cross_attention_dim=12),
    "face_id_plus": dict(
        projection="face_id_plus", id_embed_dim=8, intermediate_size=16, num_tokens=4, shortcut=False, **FACE
    ),
    "face_id_plus_v2": dict(
        projection="face_id_plus", id_embed_dim=8, intermediate_size=16, num_tokens=4, shortcut=True,
        shortcut_scale=0.7, **FACE
    ),
}
UNET = dict(
    sample_size=8,
    block_out_channels=(8, 16),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=12,
    norm_num_groups=4,
)


def unet():
    model = UNet2DConditionModel(**UNET).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            elif "to_q" in name or "to_k" in name:
                parameter *= 3
            parameter.copy_(parameter.half().float())
    return model


def write(folder, config, state):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_file({k: v.half().contiguous() for k, v in state.items()}, folder / "model.safetensors")


def flat(adapter):
    return {f"{part}.{name}": value for part, state in adapter.items() for name, value in state.items()}


def adapter(model, config):
    """A whole adapter: its projection, and keys and values for every cross-attention of `model`."""
    layers, channels = {}, dict(model.named_modules())
    for i, name in enumerate(model.attn_processors):
        if "attn2" in name:
            rows = channels[name.removesuffix(".processor")].to_k.weight.shape[0]
            for part in ("to_k_ip", "to_v_ip"):
                layers[f"{i}.{part}.weight"] = (rows, config["cross_attention_dim"])
    return {"image_proj": projection(config), "ip_adapter": weights(layers)}


@torch.no_grad()
def projections():
    model = unet()
    for name, config in CONFIGS.items():
        state = projection(config)
        reader = model._convert_ip_adapter_image_proj_to_diffusers(state, low_cpu_mem_usage=False).eval()
        io = {}
        if config["projection"] == "image":
            io["image_embeds"] = torch.randn(3, config["image_embed_dim"])
            io["tokens"] = reader(io["image_embeds"])
        elif config["projection"] in ("plus", "full_face"):
            io["hidden_states"] = torch.randn(3, 7, config["hidden_size"])
            io["tokens"] = reader(io["hidden_states"])
        else:
            io["id_embeds"] = torch.nn.functional.normalize(torch.randn(3, config["id_embed_dim"]))
            if config["projection"] == "face_id_plus":
                io["hidden_states"] = torch.randn(3, 7, config["hidden_size"])
                reader.clip_embeds = io["hidden_states"][:, None]
                reader.shortcut = config["shortcut"]
                reader.shortcut_scale = config.get("shortcut_scale", 1.0)
            io["tokens"] = reader(io["id_embeds"])
        write(HERE / name, {"role": "identity", **config}, flat({"image_proj": state}))
        save_file({k: v.contiguous() for k, v in io.items()}, HERE / name / "io.safetensors")


def masks(height, width):
    """Two people who overlap, one with a soft edge; somewhere there is nobody."""
    both = torch.zeros(2, height, width)
    both[0, height // 8 :, : width // 2] = 1
    both[1, height // 4 :, width // 2 - 3 : -2] = 1
    both[1, height // 4 :, -2] = 0.4
    return both


def faces(count, config):
    return torch.randn(1, count, 7, config["hidden_size"])


class Run:
    """A pipeline whose noise is given, and what it was given."""

    def __init__(self, adapters, scales, kind=StableDiffusionPipeline):
        self.unet = unet()
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=40, hidden_size=12, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2
            )
        )
        vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
        self.scheduler = EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
        )
        self.pipe = kind(
            vae=vae, text_encoder=text, tokenizer=None, unet=self.unet, scheduler=self.scheduler, safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.adapters = adapters(self.unet)
        self.plain = {k: v.clone() for k, v in self.unet.state_dict().items()}
        if self.adapters:
            # A list of adapters is named by file; given as they are, each goes through the same two loaders.
            self.unet._load_ip_adapter_weights(self.adapters, low_cpu_mem_usage=False)
            self.pipe.set_ip_adapter_scale(scales)

    @torch.no_grad()
    def __call__(self, name, embeds, height, width, masks=None, guidance_scale=4.0, init=None, strength=None, mask=None):
        steps = STEPS if strength is None else min(int(STEPS * strength), STEPS)
        given = {
            "latents": torch.randn(1, 4, height, width),
            "noise": torch.randn(steps, 1, 4, height, width),
            "encoder_hidden_states": torch.randn(1, 77, 12),
        }
        queue = list(given["noise"])
        euler_ancestral.randn_tensor = lambda *_, **__: queue.pop(0)
        options = {}
        if guidance_scale > 1:
            given["negative_encoder_hidden_states"] = torch.randn(1, 77, 12)
            options["negative_prompt_embeds"] = given["negative_encoder_hidden_states"]
        pairs = []
        for i, (key, positive, negative) in enumerate(embeds):
            given[f"{key}.{i}"] = positive[0]
            given[f"negative_{key}.{i}"] = negative[0]
            pairs.append(torch.cat([negative, positive]) if guidance_scale > 1 else positive)
        if pairs:
            options["ip_adapter_image_embeds"] = pairs
        if masks is not None:
            options["cross_attention_kwargs"] = {"ip_adapter_masks": [m if m is None else m[None] for m in masks]}
            given |= {f"ip_mask.{i}": mask for i, mask in enumerate(masks) if mask is not None}
        seen = []
        if init is None:
            options |= {"latents": given["latents"], "height": height, "width": width}
        else:
            given["init_latents"] = init
            # What `prepare_latents` would encode is given as latents already: as many channels as the UNet takes.
            module = sys.modules[type(self.pipe).__module__]
            module.randn_tensor = lambda *_, **__: given["latents"]
            options |= {"image": init, "strength": strength}
        if mask is not None:
            given["mask"] = mask
            options |= {"mask_image": mask, "masked_image_latents": init, "height": height, "width": width}

        def keep(pipe, i, t, now):
            seen.append(now["latents"].clone())
            return now

        # The pipelines ask for sizes in pixels, eight (here: one) for each latent.
        self.pipe.vae_scale_factor = 1
        out = self.pipe(
            prompt_embeds=given["encoder_hidden_states"], num_inference_steps=STEPS, guidance_scale=guidance_scale,
            output_type="latent", callback_on_step_end=keep, **options,
        ).images
        assert len(seen) == steps and torch.equal(seen[-1], out), (len(seen), steps)
        folder = HERE / "sd"
        io = given | {"steps": torch.stack(seen)}
        save_file({k: v.contiguous() for k, v in io.items()}, folder / f"{name}.safetensors")
        return self


def save_model(run, configs):
    folder = HERE / "sd"
    shutil.rmtree(folder, ignore_errors=True)
    config = {k: v for k, v in run.unet.config.items() if k not in ("_use_default_values", "encoder_hid_dim_type")}
    write(folder / "unet", config, run.plain)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(run.scheduler.to_json_string())
    for i, (state, config) in enumerate(zip(run.adapters, configs)):
        write(folder / ("ip_adapter" if i == 0 else f"ip_adapter_{i + 1}"), config, flat(state))


projections()
plus, image = CONFIGS["plus"], CONFIGS["image"]
both = Run(lambda unet: [adapter(unet, plus), adapter(unet, image)], [0.8, {"up": {"block_0": [0.0, 0.6]}}])
save_model(both, [
    {"role": "identity", "scale": 0.8, **plus},
    {"role": "style", "scale": 1.0, "block_scales": {"up_blocks.0": [0.0, 0.6]}, **image},
])
style = torch.randn(1, 1, image["image_embed_dim"])
# What an encoder says to nothing is the same for both.
people = ("hidden_states", faces(2, plus), faces(2, plus)[:, :1].repeat(1, 2, 1, 1))
both(
    "two", [people, ("image_embeds", style, torch.zeros_like(style))], 8, 16, masks=[masks(64, 128), None],
)
one = ("hidden_states", faces(1, plus), faces(1, plus))
both("unguided", [one, ("image_embeds", style, torch.zeros_like(style))], 8, 8, guidance_scale=1.0)


@torch.no_grad()
def one_step():
    """The UNet alone, with one scale for each adapter, on a batch of two."""
    given = {
        "sample": torch.randn(2, 4, 8, 16),
        "timestep": torch.tensor([700.0, 31.0]),
        "encoder_hidden_states": torch.randn(2, 77, 12),
    }
    embeds = [torch.cat(people[1:]), torch.randn(2, 1, image["image_embed_dim"])]
    for i, tokens in enumerate(both.unet.encoder_hid_proj(embeds)):
        given[f"ip_tokens.{i}"] = tokens
    given["ip_mask.0"] = masks(64, 128)
    both.pipe.set_ip_adapter_scale([0.8, 0.5])
    output = both.unet(
        *list(given.values())[:3], added_cond_kwargs={"image_embeds": embeds},
        cross_attention_kwargs={"ip_adapter_masks": [given["ip_mask.0"][None], None]},
    ).sample
    save_file({k: v.contiguous() for k, v in (given | {"output": output}).items()}, HERE / "sd/unet_step.safetensors")


one_step()

# The same UNet with the second adapter alone, from noise and from a picture.
alone = Run(lambda unet: unet.load_state_dict(both.plain) and [both.adapters[1]], 0.7)
embeds = [("image_embeds", style, torch.zeros_like(style))]
alone("one", embeds, 8, 8)
changed = Run(lambda unet: unet.load_state_dict(both.plain) and [both.adapters[1]], 0.7, StableDiffusionImg2ImgPipeline)
changed("from_picture", embeds, 8, 8, init=torch.randn(1, 4, 8, 8), strength=0.6)

# FaceID with its LoRA, as it is published: one dictionary of two, saved by PyTorch.


def with_lora(model, config, rank=2):
    state, layers = adapter(model, config), dict(model.named_modules())
    shapes = {}
    for i, name in enumerate(model.attn_processors):
        attention = layers[name.removesuffix(".processor")]
        for part, linear in [("q", attention.to_q), ("k", attention.to_k), ("v", attention.to_v), ("out", attention.to_out[0])]:
            shapes[f"{i}.to_{part}_lora.down.weight"] = (rank, linear.in_features)
            shapes[f"{i}.to_{part}_lora.up.weight"] = (linear.out_features, rank)
    state["ip_adapter"] |= weights(shapes)
    return state


FACE_ID = CONFIGS["face_id"]
face = Run(lambda unet: unet.load_state_dict(both.plain) and [], None)
state = with_lora(face.unet, FACE_ID)
torch.save(state, HERE / "face_id.bin")
face.pipe.load_ip_adapter(state, subfolder=None, weight_name=None, image_encoder_folder=None, low_cpu_mem_usage=False)
face.pipe.set_ip_adapter_scale(0.9)
identity = torch.nn.functional.normalize(torch.randn(1, 1, FACE_ID["id_embed_dim"]), dim=-1)
face("face_id", [("id_embeds", identity, torch.zeros_like(identity))], 8, 8)

# Inpainting with a UNet of four channels: latents outside the mask are put back after every step.
inpaint = Run(lambda unet: unet.load_state_dict(both.plain) and [both.adapters[1]], 0.7, StableDiffusionInpaintPipeline)
mask = torch.zeros(1, 1, 8, 8)
mask[..., 2:6, 1:5] = 1
inpaint("inpaint", embeds, 8, 8, init=torch.randn(1, 4, 8, 8), strength=1.0, mask=mask)
