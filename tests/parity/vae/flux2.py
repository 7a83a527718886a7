"""Makes tests/parity/vae/kl_flux2 with diffusers: config.json, the weights (random, rounded to f16 to keep the file small) and
io.safetensors (inputs and outputs, f32). Latents are put into patches and normalised by Flux2KleinPipeline's own functions.

    pip install torch diffusers transformers safetensors && python tests/parity/vae/flux2.py
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "kl_flux2"
torch.set_num_threads(1)


def build():
    torch.manual_seed(6)
    model = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        decoder_block_out_channels=(8, 12, 16),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=4,
        batch_norm_eps=0.05,
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms start at ones and zeros: move them
                parameter += 0.2 * torch.randn_like(parameter)
            elif "to_q" in name or "to_k" in name:  # else softmax is nearly uniform
                parameter *= 4
            parameter.copy_(parameter.half().float())
        model.bn.running_mean.copy_(torch.randn(12).half().float())
        model.bn.running_var.copy_((0.1 + torch.rand(12)).half().float())
    return model


@torch.no_grad()
def main():
    FOLDER.mkdir(exist_ok=True)
    model = build()
    pipe = Flux2KleinPipeline(scheduler=None, vae=model, text_encoder=None, tokenizer=None, transformer=None)
    mean = model.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(model.bn.running_var.view(1, -1, 1, 1) + model.config.batch_norm_eps)
    tensors = {}
    for height, width in [(32, 32), (16, 40)]:
        images = torch.rand(2, 3, height, width) * 2 - 1
        moments = model.encode(images).latent_dist
        normalised = pipe._encode_vae_image(images, None)
        noisy = normalised + 0.3 * torch.randn_like(normalised)
        unscaled = pipe._unpatchify_latents(noisy * std + mean)
        tensors |= {
            f"{height}.images": images,
            f"{height}.mean": moments.mean,
            f"{height}.logvar": moments.logvar,
            f"{height}.normalised": normalised,
            f"{height}.latents": noisy,
            f"{height}.unscaled": unscaled,
            f"{height}.decoded": model.decode(unscaled).sample,
        }
    config = {k: v for k, v in model.config.items() if k != "_use_default_values"}
    config["_class_name"] = type(model).__name__
    (FOLDER / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items() if "num_batches" not in k}
    save_file(weights, FOLDER / "model.safetensors")
    save_file({k: v.contiguous() for k, v in tensors.items()}, FOLDER / "io.safetensors")
    for file in FOLDER.iterdir():
        file.chmod(0o644)


main()
