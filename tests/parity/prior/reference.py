"""Makes the fixtures beside this file: diffusers' `PriorTransformer` with random weights.

    python tests/parity/prior/reference.py

Needs torch and diffusers. Made with torch 2.11.0 and diffusers 0.42.1.
"""

import json
from pathlib import Path

import torch
from diffusers import PriorTransformer
from safetensors.torch import save_file

HERE = Path(__file__).parent
SIZES = dict(num_attention_heads=4, attention_head_dim=6, num_layers=2, embedding_dim=20)


def perturb(model):
    """Moves biases and learned tokens off 0 and norms off 1, so that leaving one out shows, and sharpens the
    attention."""
    for name, parameter in model.named_parameters():
        if "to_q.weight" in name or "to_k.weight" in name:
            parameter.data *= 4
        if name.endswith("bias") or "norm" in name or name.endswith("_embedding") or name.startswith("clip_"):
            parameter.data += 0.3 * torch.randn_like(parameter)


def make(case, text=True, mask=None, **config):
    model = PriorTransformer(**SIZES, **config).eval()
    perturb(model)
    batch = 2
    io = {
        "hidden_states": torch.randn(batch, 20),
        "timestep": torch.tensor([3, 817]),
        "proj_embedding": torch.randn(batch, config.get("embedding_proj_dim", 20)),
    }
    if text:
        io["encoder_hidden_states"] = torch.randn(batch, config["num_embeddings"], 20)
    if mask is not None:
        io["attention_mask"] = torch.tensor(mask, dtype=torch.bool)
    with torch.no_grad():
        predicted = model(**io).predicted_image_embedding.reshape(batch, -1)
        processed = model.post_process_latents(predicted)
    io["predicted_image_embedding"] = predicted
    io["post_processed"] = processed
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(model.config), indent=2, sort_keys=True) + "\n")
    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, folder / "model.safetensors")
    save_file({n: v.contiguous() for n, v in io.items()}, folder / "io.safetensors")


torch.manual_seed(0)
torch.set_num_threads(1)

# The layout of Karlo's and Kandinsky's priors; one text is padded, one is full.
make("karlo", num_embeddings=5, mask=[[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
# Every optional part, and no mask: attention is then not causal.
make(
    "parts",
    num_embeddings=3,
    time_embed_act_fn="gelu",
    norm_in_type="layer",
    embedding_proj_norm_type="layer",
    time_embed_dim=14,
    embedding_proj_dim=9,
    clip_embed_dim=20,
)
# No text and no token of the prediction's own.
make(
    "bare",
    text=False,
    num_embeddings=1,
    additional_embeddings=2,
    encoder_hid_proj_type=None,
    added_emb_type=None,
)
