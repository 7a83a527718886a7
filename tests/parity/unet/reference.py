"""Makes the fixtures of tests/parity/unet.rs with diffusers: one folder per case, holding config.json, the weights
(random, rounded to f16 to keep the files small) and io.safetensors (inputs and outputs, f32).

    pip install torch diffusers safetensors && python tests/parity/unet/reference.py
"""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)


def build(seed, **config):
    torch.manual_seed(seed)
    model = UNet2DConditionModel(**config).eval()
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.dim() == 1:  # norms start at ones and zeros: move them
                parameter += 0.2 * torch.randn_like(parameter)
            elif "to_q" in name or "to_k" in name:  # else softmax is nearly uniform
                parameter *= 4
            parameter.copy_(parameter.half().float())
    return model


def save(case, model, **tensors):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    config = {k: v for k, v in model.config.items() if k != "_use_default_values"}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "io.safetensors")


@torch.no_grad()
def plain(case, model, height, width, tokens, labels=None):
    """Inputs and outputs for each number of tokens; labels is the width of class labels, where the model takes any."""
    sample = torch.randn(2, model.config.in_channels, height, width)
    timestep = torch.tensor([981.0, 20.5])
    tensors = {"sample": sample, "timestep": timestep}
    if labels:
        tensors["class_labels"] = torch.randn(2, labels)
    for n in tokens:
        condition = torch.randn(2, n, model.config.cross_attention_dim)
        tensors[f"condition.{n}"] = condition
        tensors[f"output.{n}"] = model(sample, timestep, condition, tensors.get("class_labels")).sample
    save(case, model, **tensors)


def area(masks, height, width):
    """Averages [identities, h, w] over exact cells of a height x width grid."""

    def overlaps(source, target):
        edges = torch.arange(target + 1, dtype=torch.float64) * source / target
        pixels = torch.arange(source, dtype=torch.float64)
        overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
        return overlap.clamp(min=0) * target / source

    rows, columns = overlaps(masks.shape[1], height), overlaps(masks.shape[2], width)
    return torch.einsum("yh,ihw,xw->iyx", rows, masks.double(), columns).float()


class Blend:
    """sum_i w_i Attention(Q, K_i, V_i); the context holds the identities' tokens one after another."""

    def __init__(self, maps):
        self.maps = maps  # positions -> [identities, positions]

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        def heads(x):
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        weights = self.maps[hidden_states.shape[1]]
        query, out = heads(attn.to_q(hidden_states)), 0
        for weight, tokens in zip(weights, encoder_hidden_states.chunk(len(weights), dim=1)):
            key, value = heads(attn.to_k(tokens)), heads(attn.to_v(tokens))
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            out = out + (scores.softmax(-1) @ value).transpose(1, 2).flatten(2) * weight[:, None]
        return attn.to_out[0](out)


@torch.no_grad()
def regions(case, model, height, width, tokens):
    sample = torch.randn(2, model.config.in_channels, height, width)
    timestep = torch.tensor([500.0, 3.0])
    identities = torch.randn(3, 2, tokens, model.config.cross_attention_dim)
    # Two overlapping people, soft at an edge, on a grid that no level divides; identity 2 has no mask of its own
    # but takes the background.
    masks = torch.zeros(3, 12, 20)
    masks[0, 2:10, 1:9] = 1
    masks[1, 4:12, 7:16] = 1
    masks[1, 4:12, 16] = 0.5
    weights = masks / masks.sum(0).clamp(min=1)
    weights[2] += 1 - weights.sum(0)
    sizes = [(height, width), ((height + 1) // 2, (width + 1) // 2)]
    blend = Blend({h * w: area(weights, h, w).flatten(1) for h, w in sizes})
    processors = {k: blend if "attn2" in k else p for k, p in model.attn_processors.items()}
    model.set_attn_processor(processors)
    context = identities.transpose(0, 1).flatten(1, 2)
    output = model(sample, timestep, context).sample
    save(case, model, sample=sample, timestep=timestep, identities=identities, masks=masks, output=output)


down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"

plain(
    "sd1",  # Stable Diffusion 1.x: four levels, one number of heads, 1x1 convolutions as projections
    build(
        1,
        block_out_channels=(8, 8, 16, 16),
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
    ),
    16,
    16,
    [4],
)
plain(
    "sd2",  # Stable Diffusion 2.x: heads per level, linear projections, f32 attention
    build(
        2,
        in_channels=5,
        out_channels=3,
        block_out_channels=(8, 16, 24),
        down_block_types=(down, down, "DownBlock2D"),
        up_block_types=("UpBlock2D", up, up),
        layers_per_block=(1, 2, 1),
        transformer_layers_per_block=(1, 2, 1),
        attention_head_dim=(1, 2, 3),
        use_linear_projection=True,
        upcast_attention=True,
        cross_attention_dim=10,
        norm_num_groups=8,
    ),
    8,
    12,
    [4, 77],
)
uneven = dict(
    block_out_channels=(6, 12),
    down_block_types=(down, down),
    up_block_types=(up, up),
    layers_per_block=1,
    attention_head_dim=3,
    cross_attention_dim=7,
    norm_num_groups=3,
)
plain(
    "uneven",  # odd latents, one layer, no transformer in the middle, the rarer numbers
    build(
        3,
        mid_block_type="UNetMidBlock2D",
        flip_sin_to_cos=False,
        freq_shift=1,
        center_input_sample=True,
        time_embedding_dim=20,
        norm_eps=1e-4,
        conv_in_kernel=5,
        **uneven,
    ),
    9,
    14,
    [1, 4],
)
plain(
    "labels",  # an embedding of the whole picture beside the timestep
    build(5, class_embed_type="simple_projection", projection_class_embeddings_input_dim=11, **uneven),
    6,
    6,
    [4],
    labels=11,
)
regions("regions", build(4, **uneven), 9, 14, 4)
