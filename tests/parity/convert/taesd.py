"""Makes the fixture in `taesd`: a TAESD with random weights as its own repository holds it, two `Sequential`s in two files.

    python tests/parity/convert/taesd.py

Needs torch and safetensors. Made with torch 2.11.0. The architecture is that of `taesd.py` in madebyollin/taesd, narrower.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent / "taesd"
WIDTH, LATENTS = 8, 4


def conv(before, after, **options):
    return nn.Conv2d(before, after, 3, padding=1, **options)


class Bounded(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH)
        )

    def forward(self, x):
        return torch.relu(self.conv(x) + x)


def blocks(count):
    return [Block() for _ in range(count)]


def down():
    return [conv(WIDTH, WIDTH, stride=2, bias=False), *blocks(3)]


def up(count):
    return [nn.Upsample(scale_factor=2), conv(WIDTH, WIDTH, bias=False), *blocks(count)]


torch.manual_seed(0)
torch.set_num_threads(1)
encoder = nn.Sequential(conv(3, WIDTH), *blocks(1), *down(), *down(), *down(), conv(WIDTH, LATENTS))
decoder = nn.Sequential(
    Bounded(), conv(LATENTS, WIDTH), nn.ReLU(), *blocks(3), *up(3), *up(3), *up(1), conv(WIDTH, 3)
)
HERE.mkdir(exist_ok=True)
torch.save(encoder.state_dict(), HERE / "taesd_encoder.pth")
save_file(decoder.state_dict(), HERE / "taesd_decoder.safetensors")
# Pictures in [-1, 1], as the rest of a Stable Diffusion has them; TAESD's own are in [0, 1].
images, latents = torch.rand(1, 3, 16, 24) * 2 - 1, torch.randn(1, LATENTS, 2, 3)
with torch.no_grad():
    encoded, decoded = encoder(images / 2 + 0.5), decoder(latents) * 2 - 1
save_file({"images": images, "encoded": encoded, "latents": latents, "decoded": decoded}, HERE / "io.safetensors")
