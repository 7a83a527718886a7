"""Makes the fixtures beside this file: InsightFace's improved ResNet with random weights.

    python tests/parity/face/reference.py

Needs torch and onnx. Made with torch 2.11.0 and onnx 1.23.2. InsightFace publishes `iresnet` as a file in a training recipe and not as a
package, so its network is written out here after the description in ArcFace (Deng et al. 2019, section 3.2) with
the names of its checkpoints.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.prelu = nn.PReLU(after)
        self.conv2 = nn.Conv2d(after, after, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride != 1 or before != after:
            shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(after))

    def forward(self, x):
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))


class ImprovedResNet(nn.Module):
    def __init__(self, layers, channels, embedding_size, image_size):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.prelu = nn.PReLU(channels[0])
        side = image_size
        for i, (count, before, after) in enumerate(zip(layers, channels, channels[1:]), 1):
            rest = [Block(after, after, 1) for _ in range(count - 1)]
            setattr(self, f"layer{i}", nn.Sequential(Block(before, after, 2), *rest))
            side = (side + 1) // 2
        self.bn2 = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1] * side * side, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def perturb(model):
    """Gives every norm and slope a value of its own, so that leaving one out or mixing two up shows."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.2, 0.6)


torch.manual_seed(0)
torch.set_num_threads(1)

for case, config in {
    # A width that changes at each stage; 36 → 18 → 9 → 5 → 3 rounds up twice.
    "odd": dict(layers=[2, 1, 3, 1], channels=[6, 8, 10, 12, 14], embedding_size=16, image_size=36),
    # As in InsightFace, the stem is as wide as the first stage.
    "even": dict(layers=[1, 2, 1, 2], channels=[8, 8, 12, 16, 20], embedding_size=24, image_size=32),
}.items():
    model = ImprovedResNet(**config).eval()
    perturb(model)
    pixels = torch.rand(3, 3, config["image_size"], config["image_size"]) * 2 - 1
    with torch.no_grad():
        embedding = model(pixels)
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "ir_resnet", **config}, indent=2) + "\n")
    weights = {n: v.contiguous() for n, v in model.state_dict().items() if "num_batches" not in n}
    save_file(weights, folder / "model.safetensors")
    save_file({"pixel_values": pixels, "embedding": embedding}, folder / "io.safetensors")
    if case == "even":
        # As InsightFace exports its recognition models (arcface_torch, torch2onnx.py): normalisations are folded into the
        # convolutions before them.
        torch.onnx.export(model, pixels[:1], folder / "exported.onnx", opset_version=11, dynamo=False)
