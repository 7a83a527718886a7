"""Makes the fixtures beside this file: picture files as other programs write them, and their pixels as Pillow reads them.

    python tests/parity/codec/reference.py

Needs torch, safetensors, Pillow and libjpeg-turbo's cjpeg. Made with Pillow 13.0.0 and libjpeg-turbo 2.1.5.
"""

import io
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
WIDTH, HEIGHT = 47, 29

y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
waves = [128 + 100 * np.sin(x / 7) * np.cos(y / 9), 128 + 100 * np.cos((x + y) / 12), 2 * x + 5 * y]
noise = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH, 3))
picture = Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))

SCANS = {
    "each": "0;\n1;\n2;\n",
    "chroma_first": "1;\n2;\n0;\n",
    "pair_last": "0;\n1 2;\n",
    "pair_first": "2;\n0 1;\n",
    "progressive_each": "1: 0-0, 0, 1;\n2: 0-0, 0, 1;\n0: 0-0, 0, 1;\n1: 0-0, 1, 0;\n2: 0-0, 1, 0;\n0: 0-0, 1, 0;\n"
    "1: 1-63, 0, 0;\n2: 1-63, 0, 0;\n0: 1-5, 0, 2;\n0: 6-63, 0, 2;\n0: 1-63, 2, 1;\n0: 1-63, 1, 0;\n",
}


def cjpeg(*options, scans=None):
    with tempfile.TemporaryDirectory() as folder:
        script, source = Path(folder, "scans"), Path(folder, "picture.ppm")
        picture.save(source)
        if scans:
            script.write_text(SCANS[scans])
            options += ("-scans", script)
        return subprocess.run(["cjpeg", "-quality", "85", *options, source], check=True, capture_output=True).stdout


def pillow(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def edited(jpeg, before, after):
    assert jpeg.count(before) == 1, (before, jpeg.count(before))
    return jpeg.replace(before, after)


files = {}
for sampling in ["1x1", "2x1", "1x2", "2x2", "4x1", "4x2", "1x4", "3x1", "1x1,2x2,2x2", "2x2,2x1,2x1"]:
    name = sampling.replace(",", "_")
    files[f"jpeg.{name}.one_scan"] = cjpeg("-sample", sampling)
    files[f"jpeg.{name}.each"] = cjpeg("-sample", sampling, scans="each")
for sampling in ["2x2", "2x1", "1x2"]:
    for scans in list(SCANS)[1:]:
        files[f"jpeg.{sampling}.{scans}"] = cjpeg("-sample", sampling, scans=scans)
    files[f"jpeg.{sampling}.restarts"] = cjpeg("-sample", sampling, "-restart", "3B")
    files[f"jpeg.{sampling}.each_restarts"] = cjpeg("-sample", sampling, "-restart", "3B", scans="each")
    files[f"jpeg.{sampling}.progressive"] = cjpeg("-sample", sampling, "-progressive", "-restart", "1")
files["jpeg.gray"] = cjpeg("-grayscale")
files["jpeg.gray_2x2"] = cjpeg("-grayscale", "-sample", "2x2", "-restart", "3B")
files["jpeg.rgb"] = rgb = cjpeg("-rgb")
# Photoshop's: components 1, 2 and 3, and Adobe's segment says that they are red, green and blue.
named = edited(rgb, b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0")
files["jpeg.rgb_by_adobe"] = edited(named, b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0")
files["jpeg.cmyk"] = cmyk = pillow(picture.convert("CMYK"), "JPEG", quality=85)
at = cmyk.index(b"Adobe") + 11
files["jpeg.ycck"] = cmyk[:at] + b"\2" + cmyk[at + 1 :]
whole = cjpeg("-sample", "2x2")
files["jpeg.no_end_but_a_trailer"] = whole[:-2] + b"\0\0trailer" + bytes(500)
files["jpeg.no_end_but_markers"] = whole[:-2] + b"\0\0\xff\xc0\xff\xd8\xff\xe1\xff\xff SEFT"
files["jpeg.no_end"] = whole[:-2]
# A frame of Motion JPEG: without the tables that all of them use.
start, end = whole.index(b"\xff\xc4"), whole.index(b"\xff\xda")
files["jpeg.no_tables"] = whole[:start] + whole[end:]

for name, image, options in [
    ("rgb", picture, {}),
    ("gray", picture.convert("L"), {}),
    ("two_colours", picture.convert("1"), {}),
    ("sixteen_colours", picture.quantize(16), {"bits": 4}),
    ("palette", picture.quantize(200), {}),
    ("profile", picture, {"icc_profile": bytes(3000)}),
]:
    files[f"png.{name}"] = pillow(image, "PNG", **options)
files["gif.one"] = pillow(picture, "GIF")
files["gif.interlaced"] = pillow(picture, "GIF", interlace=1)
files["gif.two"] = pillow(picture, "GIF", save_all=True, append_images=[picture.rotate(180)])
for name, image in [("rgb", picture), ("gray", picture.convert("L")), ("palette", picture.quantize(16))]:
    files[f"bmp.{name}"] = pillow(image, "BMP")
files["webp.lossless"] = pillow(picture, "WEBP", lossless=True)
files["webp.lossy"] = pillow(picture, "WEBP", quality=80)
files["webp.two"] = pillow(picture, "WEBP", quality=80, save_all=True, append_images=[picture.rotate(180)])

tensors = {}
for name, file in files.items():
    # libjpeg looks for an end marker, and so finds what follows.
    source = whole if name.startswith("jpeg.no_end") else file
    pixels = np.array(Image.open(io.BytesIO(source)).convert("RGB"))
    assert pixels.shape == (HEIGHT, WIDTH, 3), name
    tensors[f"{name}.file"] = torch.from_numpy(np.frombuffer(file, np.uint8).copy())
    tensors[f"{name}.pixels"] = torch.from_numpy(pixels)
save_file(tensors, HERE / "io.safetensors")
