"""Makes the fixtures of "a single file of FLUX.2" in tests/parity/klein_convert.rs: flux2.safetensors, a tiny transformer in its
publisher's names, and flux2.json, what diffusers' converter makes of it (shape and SHA-256 of every tensor).

    pip install torch diffusers safetensors && python tests/parity/convert/flux2.py
"""

import hashlib
import json
from pathlib import Path

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file

HERE = Path(__file__).parent
CONFIG = dict(
    in_channels=8,
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=8,
    num_attention_heads=2,
    joint_attention_dim=12,
    timestep_guidance_channels=16,
    axes_dims_rope=(2, 2, 2, 2),
    guidance_embeds=False,
)
WIDTH, INNER = 16, 48
torch.manual_seed(0)


def shapes():
    yield "img_in.weight", (WIDTH, 8)
    yield "txt_in.weight", (WIDTH, 12)
    yield "time_in.in_layer.weight", (WIDTH, 16)
    yield "time_in.out_layer.weight", (WIDTH, WIDTH)
    for stream in ("img", "txt"):
        yield f"double_stream_modulation_{stream}.lin.weight", (6 * WIDTH, WIDTH)
    yield "single_stream_modulation.lin.weight", (3 * WIDTH, WIDTH)
    for i in range(2):
        for stream in ("img", "txt"):
            block = f"double_blocks.{i}.{stream}"
            yield f"{block}_attn.qkv.weight", (3 * WIDTH, WIDTH)
            yield f"{block}_attn.norm.query_norm.scale", (8,)
            yield f"{block}_attn.norm.key_norm.scale", (8,)
            yield f"{block}_attn.proj.weight", (WIDTH, WIDTH)
            yield f"{block}_mlp.0.weight", (2 * INNER, WIDTH)
            yield f"{block}_mlp.2.weight", (WIDTH, INNER)
    for i in range(2):
        yield f"single_blocks.{i}.linear1.weight", (3 * WIDTH + 2 * INNER, WIDTH)
        yield f"single_blocks.{i}.linear2.weight", (WIDTH, WIDTH + INNER)
        yield f"single_blocks.{i}.norm.query_norm.scale", (8,)
        yield f"single_blocks.{i}.norm.key_norm.scale", (8,)
    yield "final_layer.adaLN_modulation.1.weight", (2 * WIDTH, WIDTH)
    yield "final_layer.linear.weight", (8, WIDTH)


def described(tensor):
    values = tensor.float().contiguous().numpy()
    return [list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]


weights = {name: torch.randn(shape).bfloat16() for name, shape in shapes()}
save_file(weights, HERE / "flux2.safetensors")
converted = convert_flux2_transformer_checkpoint_to_diffusers(dict(weights))
# Nothing is missing, and nothing is left.
Flux2Transformer2DModel(**CONFIG).load_state_dict(converted)
expected = {name: described(tensor) for name, tensor in sorted(converted.items())}
(HERE / "flux2.json").write_text(json.dumps(expected, indent=1) + "\n")
for name in ("flux2.safetensors", "flux2.json"):
    (HERE / name).chmod(0o644)
print(len(expected))
