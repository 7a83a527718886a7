"""Makes the fixture of tests/parity/train.rs with PyTorch: two AdamW steps of the network in ../unet/sd1.

    pip install torch diffusers safetensors && python tests/parity/train/reference.py
"""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
UNET = HERE.parent / "unet" / "sd1"
# One of each kind of parameter, from the first layer to the last.
NAMES = [
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    "down_blocks.0.resnets.0.norm1.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight",
    "up_blocks.1.resnets.0.time_emb_proj.weight",
    "up_blocks.3.attentions.1.transformer_blocks.0.norm2.bias",
    "conv_out.bias",
]

torch.set_num_threads(1)
torch.manual_seed(7)
model = UNet2DConditionModel.from_config(json.loads((UNET / "config.json").read_text()))
model.load_state_dict({k: v.float() for k, v in load_file(UNET / "model.safetensors").items()})
parameters = dict(model.named_parameters())

io = {
    "sample": torch.randn(2, 2, model.config.in_channels, 8, 8),
    "noise": torch.randn(2, 2, model.config.out_channels, 8, 8),
    "timestep": torch.tensor([[981.0, 20.0], [400.0, 5.0]]),
    "condition": torch.randn(2, 2, 4, model.config.cross_attention_dim),
}
matrices = [p for p in parameters.values() if p.dim() > 1]
vectors = [p for p in parameters.values() if p.dim() == 1]
groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-8)

losses, norms = [], []
for step in range(2):
    noise_pred = model(io["sample"][step], io["timestep"][step], io["condition"][step]).sample
    loss = (noise_pred - io["noise"][step]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    if step == 0:
        io |= {f"gradient.{name}": parameters[name].grad.clone() for name in NAMES}
    losses.append(loss.detach())
    norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0))
    optimizer.step()
io["losses"], io["norms"] = torch.stack(losses), torch.stack(norms)
io |= {f"weight.{name}": parameters[name].detach() for name in NAMES}
save_file({k: v.contiguous() for k, v in io.items()}, HERE / "io.safetensors")
print(losses, norms)
