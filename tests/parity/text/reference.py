"""Makes the fixtures beside this file: CLIP text encoders of transformers with random weights.

    python tests/parity/text/reference.py

Needs torch and transformers. Made with torch 2.11.0 and transformers 5.23.0.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = Path(__file__).parent
SIZES = dict(
    vocab_size=60,
    hidden_size=32,
    intermediate_size=48,
    projection_dim=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=12,
)


def perturb(model):
    """Moves biases off 0 and norms off 1, so that leaving one out shows, and sharpens the attention."""
    for name, parameter in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter.data *= 4
        if name.endswith("bias") or "norm" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)


def save(case, model, prefix, input_ids):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    config = model.config.to_dict()
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    weights = {prefix + name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    input_ids = torch.tensor(input_ids)
    with torch.no_grad():
        out = model(input_ids=input_ids)
    io = {"input_ids": input_ids, "last_hidden_state": out.last_hidden_state}
    if hasattr(out, "text_embeds"):
        io["text_embeds"] = out.text_embeds
    else:
        io["pooled"] = out.pooler_output
    save_file({name: value.contiguous() for name, value in io.items()}, folder / "io.safetensors")


torch.manual_seed(0)
torch.set_num_threads(1)

# As in Stable Diffusion 1: the config's eos_token_id is 2, and the highest id ends the text; the tokenizer pads
# with that id too. The third row is not padded at all, the fourth ends with one end token and pads with 0.
model = CLIPTextModel(CLIPTextConfig(**SIZES, hidden_act="quick_gelu", eos_token_id=2)).eval()
perturb(model)
# Published checkpoints hold the class's weights under `text_model.`; transformers 5 leaves that out.
save("legacy_eos", model, "text_model.", [
    [58, 5, 9, 59, 59, 59, 59, 59, 59, 59, 59, 59],
    [58, 59, 59, 59, 59, 59, 59, 59, 59, 59, 59, 59],
    [58, 4, 8, 15, 16, 23, 42, 2, 31, 7, 57, 59],
    [58, 2, 2, 30, 59, 0, 0, 0, 0, 0, 0, 0],
])

# An end token that is not the highest id, fewer tokens than there are positions, and a projection.
config = CLIPTextConfig(**SIZES, hidden_act="gelu", eos_token_id=40, layer_norm_eps=1e-3)
model = CLIPTextModelWithProjection(config).eval()
perturb(model)
save("projection", model, "", [
    [50, 58, 9, 40, 40, 40, 40, 40, 40],
    [50, 2, 59, 3, 55, 40, 0, 0, 0],
    [50, 40, 1, 1, 1, 1, 1, 1, 1],
])
