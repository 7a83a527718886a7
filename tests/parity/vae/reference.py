"""Makes the fixtures of tests/parity/vae.rs with diffusers: one folder per case, holding config.json, the weights
(random, rounded to f16 to keep the files small) and io.safetensors (inputs and outputs, f32).

    pip install torch diffusers safetensors && python tests/parity/vae/reference.py
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)


def build(seed, cls, **config):
    torch.manual_seed(seed)
    model = cls(**config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms start at ones and zeros: move them
                parameter += 0.2 * torch.randn_like(parameter)
            elif "to_q" in name or "to_k" in name:  # else softmax is nearly uniform
                parameter *= 4
            parameter.copy_(parameter.half().float())
        for name, buffer in model.named_buffers():
            if buffer.dim() == 1:  # running statistics
                buffer.copy_((buffer + 0.3 * torch.rand_like(buffer)).half().float())
    return model


@torch.no_grad()
def save(case, model, sizes, mean=None, std=None, rename=()):
    """Moments and pictures, unscaled and normalised, at each (height, width) of the picture."""
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    config = {k: v for k, v in model.config.items() if k != "_use_default_values"}
    config["_class_name"] = type(model).__name__
    if mean is not None:
        config |= {"latents_mean": mean, "latents_std": std}
    scale = config["scaling_factor"] / (torch.tensor(std).view(1, -1, 1, 1) if std else 1)
    shift = torch.tensor(mean).view(1, -1, 1, 1) if mean else config.get("shift_factor") or 0
    tensors = {}
    for height, width in sizes:
        images = torch.rand(2, 3, height, width) * 2 - 1
        encoded = model.encode(images)
        if hasattr(encoded, "latent_dist"):
            latents = encoded.latent_dist.mean
            tensors[f"{height}.logvar"] = encoded.latent_dist.logvar
        else:
            latents = getattr(encoded, "latent", None)
            latents = encoded.latents if latents is None else latents
        noisy = latents + 0.3 * torch.randn_like(latents)
        tensors |= {
            f"{height}.images": images,
            f"{height}.mean": latents,
            f"{height}.normalised": (latents - shift) * scale,
            f"{height}.latents": noisy,
            f"{height}.decoded": model.decode(noisy).sample,
            f"{height}.restored": model.decode(noisy / scale + shift).sample,
        }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items() if "num_batches" not in k}
    for new, old in rename:
        weights = {k.replace(new, old): v for k, v in weights.items()}
    save_file(weights, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "io.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def main():
    # mini's layout: no blocks at the first level, shuffles with shortcuts, channel statistics.
    dc = build(
        0,
        AutoencoderDC,
        latent_channels=4,
        encoder_block_out_channels=(4, 8, 16, 32),
        decoder_block_out_channels=(4, 8, 16, 32),
        encoder_layers_per_block=(0, 1, 2, 1),
        decoder_layers_per_block=(0, 2, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.7,
    )
    save("dc", dc, [(32, 32), (16, 40)], [0.1, -0.2, 0.3, 0.0], [0.5, 1.5, 2.0, 0.8])
    # The rarer config values: strided and interpolated, other norms and activations, no outer shortcuts.
    plain = build(
        1,
        AutoencoderDC,
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 16),
        decoder_block_out_channels=(8, 16, 16),
        encoder_layers_per_block=(1, 1, 2),
        decoder_layers_per_block=(2, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        decoder_norm_types=("batch_norm", "rms_norm", "batch_norm"),
        decoder_act_fns=("relu", "silu", "gelu"),
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        decoder_conv_act_fn="silu",
    )
    save("dc_plain", plain, [(16, 24)])
    # Stable Diffusion's layout.
    kl = dict(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
    )
    save("kl", build(2, AutoencoderKL, layers_per_block=2, **kl), [(32, 32), (16, 40)])
    older = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")]
    bare = build(
        3, AutoencoderKL, use_quant_conv=False, use_post_quant_conv=False, latent_channels=3, shift_factor=0.2, **kl
    )
    save("kl_older", bare, [(24, 16)], rename=older)
    widths = dict(
        encoder_block_out_channels=(8,) * 3,
        decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1, 2, 1),
        num_decoder_blocks=(2, 1, 1),
    )
    tiny = build(4, AutoencoderTiny, scaling_factor=0.9, shift_factor=0.1, **widths)
    save("tiny", tiny, [(16, 16), (8, 24)])
    # Whatever its activation, a block ends with ReLU.
    save("tiny_silu", build(5, AutoencoderTiny, act_fn="silu", **widths), [(16, 16)])


main()
