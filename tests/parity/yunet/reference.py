"""Makes the fixtures beside this file: YuNet with random weights, and its output decoded.

    python tests/parity/yunet/reference.py

Needs torch, numpy and onnx. Made with torch 2.11.0 and onnx 1.23.2. `libfacedetection.train` is a fork of mmdetection and no
package, so its network is written out here after its description (Wu et al. 2023, *YuNet: A Tiny Millisecond-level Face
Detector*), with the names of its checkpoints. Decoding is that of OpenCV's `FaceDetectorYN`, in numpy.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
STRIDES = [8, 16, 32]


class Unit(nn.Module):
    def __init__(self, before, after, activated=True):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, groups=after)
        self.bn = nn.BatchNorm2d(after) if activated else None

    def forward(self, x):
        x = self.conv2(self.conv1(x))
        return x if self.bn is None else F.relu(self.bn(x))


class Stem(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, stride=2, padding=1)
        self.conv2 = Unit(*channels)
        self.bn1 = nn.BatchNorm2d(channels[0])

    def forward(self, x):
        return self.conv2(F.relu(self.bn1(self.conv1(x))))


class Stage(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv1 = Unit(before, before)
        self.conv2 = Unit(before, after)

    def forward(self, x):
        return self.conv2(self.conv1(x))


class Backbone(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.model0 = Stem(channels[:2])
        for i in range(1, 6):
            setattr(self, f"model{i}", Stage(channels[i], channels[i + 1]))

    def forward(self, x):
        features = []
        for i in range(6):
            x = getattr(self, f"model{i}")(x)
            if i >= 3:
                features.append(x)
            if i in (0, 2, 3, 4):
                x = F.max_pool2d(x, 2)
        return features


class Neck(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.lateral_convs = nn.ModuleList(Unit(width, width) for _ in STRIDES)

    def forward(self, features):
        out = [None] * 3
        for i in (2, 1, 0):
            x = features[i]
            if i < 2:
                x = x + F.interpolate(out[i + 1], scale_factor=2.0, mode="nearest")
            out[i] = self.lateral_convs[i](x)
        return out


class Head(nn.Module):
    def __init__(self, width, shared):
        super().__init__()
        if shared:
            self.multi_level_share_convs = nn.ModuleList(
                nn.Sequential(*[Unit(width, width) for _ in range(shared)]) for _ in STRIDES
            )
        self.shared = shared
        for name, outputs in dict(cls=1, bbox=4, obj=1, kps=10).items():
            units = nn.ModuleList(Unit(width, outputs, False) for _ in STRIDES)
            setattr(self, f"multi_level_{name}", units)

    def forward(self, features):
        if self.shared:
            features = [convs(x) for convs, x in zip(self.multi_level_share_convs, features)]
        rows = lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])
        parts = {}
        for name in ("cls", "obj", "bbox", "kps"):
            units = getattr(self, f"multi_level_{name}")
            parts[name] = [rows(unit(x)) for unit, x in zip(units, features)]
        return parts


class YuNet(nn.Module):
    def __init__(self, channels, shared_convs):
        super().__init__()
        self.backbone = Backbone(channels)
        self.neck = Neck(channels[-1])
        self.bbox_head = Head(channels[-1], shared_convs)

    def forward(self, x):
        """The twelve outputs of the published files: scores after the sigmoid, boxes and landmarks as they are."""
        parts = self.bbox_head(self.neck(self.backbone(x)))
        scores = [x.sigmoid() for name in ("cls", "obj") for x in parts[name]]
        return scores + parts["bbox"] + parts["kps"]


OUTPUTS = [f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps") for stride in STRIDES]


def folded(model):
    """The weights as they are exported: each normalisation in the convolution before it."""
    weights = {n: v.clone() for n, v in model.state_dict().items() if ".bn" not in n}
    for name, module in model.named_modules():
        norms = {"conv1": getattr(module, "bn1", None), "conv2": getattr(module, "bn", None)}
        for conv, norm in norms.items():
            if norm is None:
                continue
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            at = f"{name}.{conv}"
            weights[f"{at}.bias"] = (weights[f"{at}.bias"] - norm.running_mean) * scale + norm.bias
            weights[f"{at}.weight"] = weights[f"{at}.weight"] * scale[:, None, None, None]
    return {n: v.detach().contiguous() for n, v in weights.items()}


def decoded(outputs, height, width, min_score, max_overlap):
    """Rows of left, top, right, bottom, ten landmarks and the score, surest first."""
    rows = []
    for stride in STRIDES:
        cls, obj, bbox, kps = (outputs[f"{n}_{stride}"][0].numpy() for n in ("cls", "obj", "bbox", "kps"))
        columns = width // stride
        for i in range(len(cls)):
            score = np.sqrt(np.clip(cls[i, 0], 0, 1) * np.clip(obj[i, 0], 0, 1))
            if score < min_score:
                continue
            corner = np.array([i % columns, i // columns], np.float32)
            centre = (corner + bbox[i, :2]) * stride
            size = np.exp(bbox[i, 2:]) * stride
            points = (kps[i].reshape(5, 2) + corner) * stride
            rows.append(np.concatenate([centre - size / 2, centre + size / 2, points.ravel(), [score]]))
    rows.sort(key=lambda row: -row[-1])
    kept = []
    for row in rows:
        def overlap(other):
            width = min(row[2], other[2]) - max(row[0], other[0])
            height = min(row[3], other[3]) - max(row[1], other[1])
            both = max(width, 0) * max(height, 0)
            area = lambda r: (r[2] - r[0]) * (r[3] - r[1])
            return both / (area(row) + area(other) - both)

        if all(overlap(other) <= max_overlap for other in kept):
            kept.append(row)
    return torch.tensor(np.array(kept, np.float32))


torch.manual_seed(0)
torch.set_num_threads(1)

for case, config in {
    # As `yunet_s`, the published file, and as `yunet_n`.
    "plain": dict(channels=[4, 6, 8, 10, 12, 12, 12], shared_convs=0),
    "shared": dict(channels=[6, 4, 10, 8, 10, 10, 10], shared_convs=1),
}.items():
    model = YuNet(**config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Uneven, so that leaving one out or mixing two up shows.
            nn.init.normal_(module.weight, 1.5, 0.3)
            nn.init.normal_(module.bias, 0.2, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.3, 1.0)
    # The stem's bytes brought to the size of what follows.
    model.backbone.model0.bn1.running_var.mul_(100.0**2)
    height, width = 64, 96
    pixels = torch.randint(0, 256, (1, 3, height, width)).float()
    with torch.no_grad():
        outputs = dict(zip(OUTPUTS, model(pixels)))
        # Spread out, so that some cells are faces and others are not.
        for name in ("cls", "obj", "bbox", "kps"):
            for level, stride in enumerate(STRIDES):
                unit = getattr(model.bbox_head, f"multi_level_{name}")[level]
                values = outputs[f"{name}_{stride}"]
                values = values.logit() if name in ("cls", "obj") else values
                gain = {"cls": 1.5, "obj": 1.5, "bbox": 0.6, "kps": 0.6}[name] / values.std(dim=1).mean()
                unit.conv2.weight.mul_(gain)
                unit.conv2.bias.copy_((unit.conv2.bias - values.mean(dim=1)[0]) * gain)
        outputs = dict(zip(OUTPUTS, model(pixels)))
        faces = decoded(outputs, height, width, min_score=0.6, max_overlap=0.3)
    print(case, len(faces), "faces;", {name: round(float(v.std()), 3) for name, v in outputs.items()})
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "yunet", **config}, indent=2) + "\n")
    save_file(folded(model), folder / "model.safetensors")
    io = {"pixel_values": pixels, "faces": faces, **outputs}
    save_file({n: v.contiguous() for n, v in io.items()}, folder / "io.safetensors")
    # As `tools/yunet2onnx.py` exports it: normalisations are folded into the convolutions before them.
    torch.onnx.export(
        model, pixels, folder / "exported.onnx", opset_version=11, dynamo=False,
        input_names=["input"], output_names=OUTPUTS,
    )
