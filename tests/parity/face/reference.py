"""Makes the fixtures beside this file: InsightFace's improved ResNet with random weights.

    python tests/parity/face/reference.py

Needs torch and onnx. Made with torch 2.11.0 and onnx 1.23.2. The network is in iresnet.py.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from iresnet import ImprovedResNet

HERE = Path(__file__).parent


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
