"""GGUF files as stable-diffusion.cpp and ComfyUI-GGUF lay them out, and what the package `gguf` reads of them (see ../gguf.rs).

    pip install torch==2.11.0 gguf==0.19.0 safetensors
    python tests/parity/gguf/reference.py

`types.gguf` has a tensor of each type, `types.safetensors` what `gguf.quants.dequantize` makes of it. The package quantises all but the
large blocks (`Q4_K` and so on), whose bytes are random here, with scales that are numbers.

`sd1.gguf` is `../convert/sd1.ckpt` with its names, as `sd-cli -M convert` writes it; `sd2.gguf` is `../convert/sd2.safetensors` with those
names that `--convert-name` gives it (`src/name_conversion.cpp`: the text encoder's are transformers', queries, keys and values in one). Both in
F16, as the checkpoints are. `comfy.gguf` is the UNet of the former as ComfyUI-GGUF's `tools/convert.py` lays it out, in Q8_0: tensors
that fill rows of 256 are reshaped to them. `comfy.safetensors` has what its quantised tensors hold.
"""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
CONVERT = HERE.parent / "convert"
UNET = "model.diffusion_model."
random = np.random.default_rng(0)


def write(name, tensors, arch=None, fields=()):
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", arch or "")
    if arch is None:
        # stable-diffusion.cpp says nothing.
        writer.kv_data[0].clear()
    for key, value in fields:
        writer.add_array(key, value)
    for key, (data, of) in tensors.items():
        writer.add_tensor(key, data, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def numbers(data, of):
    return torch.from_numpy(np.ascontiguousarray(gguf.quants.dequantize(data, of), dtype=np.float32))


# ---- types ------------------------------------------------------------------------------------------------------------
tensors, expected = {}, {}
for of in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1):
    values = (random.standard_normal((6, 256)) * 10.0 ** random.integers(-4, 2, (6, 1))).astype(np.float32)
    # Blocks of nothing, and of one number.
    values[0, :32], values[1, 32:64] = 0, 0.25
    tensors[of.name] = (gguf.quants.quantize(values, of), of)
for of in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
    _, size = gguf.GGML_QUANT_SIZES[of]
    data = random.integers(0, 256, (6, size), dtype=np.uint8)
    scales = (random.standard_normal((6, 2)) * 0.02).astype(np.float16).view(np.uint8)
    if of == Type.Q6_K:
        data[:, -2:] = scales[:, :2]
    else:
        data[:, :4] = scales
    tensors[of.name] = (data, of)
for name, (data, of) in tensors.items():
    expected[name] = numbers(data, of)
write("types", tensors)
save_file(expected, HERE / "types.safetensors")

# ---- stable-diffusion.cpp -----------------------------------------------------------------------------------------------
def halves(state):
    return {k: (v.numpy(), Type.F16) for k, v in state.items() if v.dtype == torch.float16}


sd1 = torch.load(CONVERT / "sd1.ckpt", weights_only=True)
sd1 = sd1.get("state_dict", sd1)
write("sd1", halves(sd1))

TEXT = "cond_stage_model.model."
OPEN_CLIP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "text_projection": "text_projection",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
BLOCK = {"attn.in_proj_": "self_attn.in_proj.", "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
         "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}


def converted(name):
    if not name.startswith(TEXT):
        return name
    inner = name.removeprefix(TEXT)
    if inner.startswith("transformer.resblocks."):
        inner = inner.replace("transformer.resblocks", "encoder.layers")
        for old, new in BLOCK.items():
            inner = inner.replace(old, new)
    else:
        inner = OPEN_CLIP.get(inner)
    return inner and f"cond_stage_model.transformer.text_model.{inner}"


sd2 = load_file(CONVERT / "sd2.safetensors")
write("sd2", {name: tensor for k, tensor in halves(sd2).items() if (name := converted(k))})

# ---- ComfyUI-GGUF -------------------------------------------------------------------------------------------------------
tensors, fields, expected = {}, [], {}
for key, value in sd1.items():
    if not key.startswith(UNET) or value.dtype != torch.float16:
        continue
    key, data = key.removeprefix(UNET), value.float().numpy()
    if data.ndim > 1 and data.size >= 512 and data.size % 256 == 0 and data.shape[-1] % 256 != 0:
        fields.append((f"comfy.gguf.orig_shape.{key}", tuple(int(side) for side in data.shape)))
        data = gguf.quants.quantize(data.reshape(-1, 256), Type.Q8_0)
        tensors[key] = (data, Type.Q8_0)
        expected[key] = numbers(data, Type.Q8_0).reshape(value.shape)
    else:
        tensors[key] = (value.numpy(), Type.F16)
write("comfy", tensors, "sd1", fields)
save_file(expected, HERE / "comfy.safetensors")
