"""Makes the fixtures of tests/parity/pixart.rs with diffusers' PixArtTransformer2DModel: one folder per case, holding config.json,
the weights (random, rounded to f16 to keep the files small) and io.safetensors (inputs and outputs, f32).

    pip install torch diffusers transformers safetensors && python tests/parity/pixart/reference.py
"""

from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)


@torch.no_grad()
def save(case, seed, sizes, tokens, **config):
    torch.manual_seed(seed)
    model = PixArtTransformer2DModel(attention_head_dim=8, num_attention_heads=2, num_layers=2, norm_num_groups=1, **config).eval()
    for parameter in model.parameters():
        # Moved from the start of a training, so that every part is felt.
        parameter.copy_((parameter + 0.1 * torch.randn_like(parameter)).half().float())
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    model.save_config(folder)
    save_file({name: value.half() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    channels = config.get("caption_channels") or config["cross_attention_dim"]
    io = {"timestep": torch.tensor([801.0, 37.5]), "condition": torch.randn(2, tokens, channels)}
    for height, width in sizes:
        name = f"{height}x{width}"
        io[f"sample.{name}"] = torch.randn(2, config["in_channels"], height, width)
        io[f"output.{name}"] = model(io[f"sample.{name}"], io["condition"], io["timestep"], added_cond_kwargs={}).sample
    save_file({name: value.contiguous() for name, value in io.items()}, folder / "io.safetensors")


# As `mini` has it, at its own size, larger, and of unequal sides.
save("mini", 0, [(4, 4), (6, 8)], tokens=3, in_channels=5, out_channels=5, sample_size=4, patch_size=1, caption_channels=12,
     cross_attention_dim=16, use_additional_conditions=False)
# As PixArt has it: patches, positions scaled, tokens of another width; and without biases.
save("patches", 1, [(8, 8), (12, 4)], tokens=7, in_channels=4, out_channels=None, sample_size=8, patch_size=2, cross_attention_dim=12,
     interpolation_scale=2, attention_bias=False, norm_eps=1e-4)
