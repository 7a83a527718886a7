"""Makes the fixtures in `transformers5`: what transformers 5 and torch.save write, and what it makes of an input.

    python tests/parity/convert/transformers5.py

Needs torch and transformers. Made with torch 2.11.0 and transformers 5.24.0.

`text` is a `CLIPTextModel` of random weights as `save_pretrained` writes it: the names of its tensors have no `text_model.`.
Its heads have 64 channels, its activation is quick_gelu and its end of text the highest token, so that its tensors tell its
config. `marks.pt` holds the two tensors without numbers by which trainers say what a model predicts.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).parent / "transformers5"
torch.manual_seed(0)
torch.set_num_threads(1)
config = CLIPTextConfig(
    vocab_size=60,
    hidden_size=64,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=1,
    max_position_embeddings=16,
    bos_token_id=58,
    eos_token_id=59,
)
model = CLIPTextModel(config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.normal_(1 if parameter.dim() == 1 else 0, 0.2)
    model.half().float()
model.half().save_pretrained(HERE / "text")
ids = torch.tensor([[58, 7, 31, 2, 59, 59], [58, 44, 3, 59, 59, 59]])
with torch.no_grad():
    out = model.float()(input_ids=ids)
save_file(
    {"input_ids": ids.float(), "last_hidden_state": out.last_hidden_state, "pooled": out.pooler_output},
    HERE / "text" / "io.safetensors",
)
torch.save({"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, HERE / "marks.pt")
