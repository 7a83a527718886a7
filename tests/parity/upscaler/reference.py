"""Makes the fixtures of tests/parity/upscaler.rs: Real-ESRGAN's networks, defined here anew in PyTorch after the definitions that are
published with the weights (`realesrgan/archs/srvgg_arch.py` and `basicsr/archs/rrdbnet_arch.py`), small and with random weights. Of each
case a .pth as BasicSR's trainers write it, and io.safetensors with pictures in [0, 1] and what the network makes of them.

    pip install torch safetensors && python tests/parity/upscaler/reference.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
torch.set_num_threads(1)


class Compact(nn.Module):
    def __init__(self, features, convolutions, factor):
        super().__init__()
        layers = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers.append(nn.Conv2d(features, 3 * factor * factor, 3, padding=1))
        self.body = nn.ModuleList(layers)
        self.factor = factor

    def forward(self, x):
        out = x
        for layer in self.body:
            out = layer(out)
        return F.pixel_shuffle(out, self.factor) + F.interpolate(x, scale_factor=self.factor, mode="nearest")


class Dense(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for i in range(1, 6):
            made = features if i == 5 else growth
            self.add_module(f"conv{i}", nn.Conv2d(features + (i - 1) * growth, made, 3, padding=1))

    def forward(self, x):
        seen = [x]
        for i in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{i}")(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(features, growth) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class Blocks(nn.Module):
    def __init__(self, factor, features, blocks, growth):
        super().__init__()
        self.factor = factor
        self.conv_first = nn.Conv2d(12 if factor == 2 else 3, features, 3, padding=1)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        for name in ["conv_body", "conv_up1", "conv_up2", "conv_hr"]:
            self.add_module(name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x):
        features = self.conv_first(F.pixel_unshuffle(x, 2) if self.factor == 2 else x)
        features = features + self.conv_body(self.body(features))
        for conv in [self.conv_up1, self.conv_up2]:
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2))


@torch.no_grad()
def save(case, network, key):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:  # slopes all alike, and biases near zero, would hide a mistake
            parameter += 0.2 * torch.randn_like(parameter)
        else:
            parameter *= 2
    torch.save({key: network.state_dict()}, folder / "network.pth")
    images = torch.rand(2, 3, 10, 14)
    save_file({"images": images, "larger": network(images)}, folder / "io.safetensors")


torch.manual_seed(0)
save("compact_x4", Compact(8, 3, 4), "params")
save("compact_x2", Compact(6, 2, 2), "params")
save("blocks_x4", Blocks(4, 8, 2, 4), "params_ema")
save("blocks_x2", Blocks(2, 6, 1, 4), "params_ema")
