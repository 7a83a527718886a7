"""Makes the fixtures beside this file: CLIP vision encoders with random weights.

    python tests/parity/vision/reference.py

Needs torch, transformers and open_clip_torch. Made with torch 2.11.0, transformers 5.23.0 and open_clip 3.3.0.
"""

import json
from pathlib import Path

import torch
from open_clip.modified_resnet import ModifiedResNet
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

HERE = Path(__file__).parent
VIT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=20,
    patch_size=6,
)


def perturb(model):
    """Moves biases off 0 and norms and their statistics off their start, so that leaving one out shows, and sharpens
    the attention."""
    for name, parameter in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter.data *= 4
        if name.endswith("bias") or "norm" in name or ".bn" in name or name.startswith("bn"):
            parameter.data += 0.2 * torch.randn_like(parameter)
        if name.endswith("downsample.1.weight"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.2 * torch.randn_like(buffer))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))


def save(case, config, model, io):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    weights = {n: v.contiguous() for n, v in model.state_dict().items() if "num_batches" not in n}
    save_file(weights, folder / "model.safetensors")
    save_file({name: value.contiguous() for name, value in io.items()}, folder / "io.safetensors")


torch.manual_seed(0)
torch.set_num_threads(1)

# Patches that leave a margin: 20 = 3 · 6 + 2.
model = CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT, projection_dim=24)).eval()
perturb(model)
pixels = torch.randn(3, 3, 20, 20)
with torch.no_grad():
    out = model(pixel_values=pixels, output_hidden_states=True)
config = model.config.to_dict()
config["architectures"] = [type(model).__name__]
save("vit", config, model, {
    "pixel_values": pixels,
    "image_embeds": out.image_embeds,
    "last_hidden_state": out.last_hidden_state,
    "penultimate_hidden_state": out.hidden_states[-2],
})
preprocessor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.26, 0.27], "size": {"shortest_edge": 20}}
(HERE / "vit" / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")

# A whole CLIP, whose config nests both halves and whose own projection_dim wins.
config = CLIPConfig(
    text_config=dict(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=6,
        eos_token_id=39,
    ),
    vision_config=dict(VIT, hidden_act="gelu"),
    projection_dim=16,
)
model = CLIPModel(config).eval()
perturb(model)
pixels = torch.randn(2, 3, 20, 20)
input_ids = torch.tensor([[38, 5, 39, 39, 39, 39], [38, 4, 3, 2, 1, 39]])
with torch.no_grad():
    image = model.get_image_features(pixel_values=pixels)
    text = model.get_text_features(input_ids=input_ids)
nested = config.to_dict()
nested["architectures"] = ["CLIPModel"]
save("clip", nested, model, {
    "pixel_values": pixels,
    "image_embeds": image.pooler_output,
    "input_ids": input_ids,
    "text_embeds": text.pooler_output,
})

# RN101's layout at a sixteenth of its width. open_clip starts every block's last norm at weight 0, which would
# hide the block; `perturb` moves it.
sizes = dict(layers=[2, 1, 3, 1], heads=4, image_size=64, width=4)
model = ModifiedResNet(output_dim=24, **sizes).eval()
perturb(model)
pixels = torch.randn(2, 3, 64, 64)
with torch.no_grad():
    embeds = model(pixels)
config = {"model_type": "clip_resnet", "embed_dim": 24, **sizes}
save("resnet", config, model, {"pixel_values": pixels, "image_embeds": embeds})
