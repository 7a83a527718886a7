"""Makes the fixtures beside this file: transformers' CLIP preprocessing of pictures of several shapes, by several
preprocessor_config.json.

    python tests/parity/preprocess/reference.py

Needs torch, transformers and Pillow. Made with transformers 5.24.0 and Pillow 13.0.0.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil
from transformers.image_utils import PILImageResampling

HERE = Path(__file__).parent
SIZE = 24

processor = CLIPImageProcessorPil(
    size={"shortest_edge": SIZE},
    crop_size={"height": SIZE, "width": SIZE},
    resample=PILImageResampling.BICUBIC,
)
random = np.random.default_rng(0)
io = {}
pictures = []
# Shrunk, enlarged, wide, tall; both sides odd in one.
for index, (width, height) in enumerate([(61, 47), (15, 18), (90, 40), (32, 75)]):
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (5 + c) + y / (7 - c) + c) for c in range(3)]
    pixels = np.stack(waves, -1) + random.normal(0, 15, (height, width, 3))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    out = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"]
    pictures.append(pixels)
    io[f"picture_{index}"] = torch.from_numpy(pixels)
    io[f"pixel_values_{index}"] = torch.from_numpy(np.ascontiguousarray(out, dtype=np.float32))

# Configs as they lie beside encoders; transformers' own sizes are 224, so that each names its own.
crop = {"crop_size": SIZE}
configs = {
    "mean_and_deviation": crop | {"size": SIZE, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.26, 0.27]},
    "larger": crop | {"size": {"shortest_edge": 31}},
    "square": {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False},
    "square_and_crop": crop | {"size": {"height": 27, "width": 34}},
    "bilinear": crop | {"size": SIZE, "resample": 2},
    "lanczos": crop | {"size": SIZE, "resample": 1},
    "bytes": crop | {"size": SIZE, "do_rescale": False, "image_mean": [120, 110, 100], "image_std": [70, 60, 50]},
    "factor": crop | {"size": SIZE, "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    "as_they_are": crop | {"size": SIZE, "do_normalize": False},
}
for name, config in configs.items():
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(config))
        processor = CLIPImageProcessorPil.from_pretrained(folder)
    for index in (0, 1):
        out = processor(Image.fromarray(pictures[index]), return_tensors="np")["pixel_values"]
        assert out.shape == (1, 3, SIZE, SIZE), (name, out.shape)
        io[f"{name}_{index}"] = torch.from_numpy(np.ascontiguousarray(out, dtype=np.float32))
save_file(io, HERE / "io.safetensors")
(HERE / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")
