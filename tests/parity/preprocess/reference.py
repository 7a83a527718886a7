"""Makes the fixtures beside this file: transformers' CLIP preprocessing of pictures of several shapes.

    python tests/parity/preprocess/reference.py

Needs torch, transformers and Pillow. Made with transformers 5.23.0 and Pillow 13.0.0.
"""

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
# Shrunk, enlarged, wide, tall; both sides odd in one.
for index, (width, height) in enumerate([(61, 47), (15, 18), (90, 40), (32, 75)]):
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (5 + c) + y / (7 - c) + c) for c in range(3)]
    pixels = np.stack(waves, -1) + random.normal(0, 15, (height, width, 3))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    out = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"]
    io[f"picture_{index}"] = torch.from_numpy(pixels)
    io[f"pixel_values_{index}"] = torch.from_numpy(np.ascontiguousarray(out, dtype=np.float32))
save_file(io, HERE / "io.safetensors")
