"""Checkpoints as other programs write them, and what diffusers makes of them (see ../convert.rs).

    pip install torch==2.11.0 diffusers transformers safetensors
    python reference.py

`sd1.ckpt` is a Stable Diffusion 1 in the layout of the original latent-diffusion code, tiny and random: its key names are
those of `ldm/modules/diffusionmodules/openaimodel.py` and `model.py`, walked through below. `sd1.json` holds the name, the shape
and the SHA-256 (of the f32 values) of every tensor that diffusers' own converters make of it.

`sd2.safetensors` and `sd2.json` are the same of a Stable Diffusion 2, `cond_stage_model` in open_clip's layout.

`clip.pt` is a CLIP in OpenAI's layout, a TorchScript archive as theirs are; `clip.safetensors` an input and the outputs of that architecture (`clip/model.py`:
pre-norm blocks around torch's MultiheadAttention, quick_gelu, pooled at the class token and at the largest text token).

`iresnet.pt` has the names of InsightFace's `arcface_torch`, as a model trained on several GPUs saves them.
"""

import hashlib
import json
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
torch.manual_seed(0)

CHANNELS, LAYERS, CONTEXT, TEXT = [8, 16], 1, 12, 16
state = {}


def put(name, *shape):
    state[name] = (torch.randn(*shape) * 0.2).half()


def layer(name, *shape, bias=True):
    put(f"{name}.weight", *shape)
    if bias:
        put(f"{name}.bias", shape[0])


def norm(name, channels):
    layer(name, channels)


# ---- openaimodel.py: UNetModel --------------------------------------------------------------------------------------
U = "model.diffusion_model."
TIME = CHANNELS[0] * 4


def resblock(name, channels_in, channels_out):
    norm(f"{name}.in_layers.0", channels_in)
    layer(f"{name}.in_layers.2", channels_out, channels_in, 3, 3)
    layer(f"{name}.emb_layers.1", channels_out, TIME)
    norm(f"{name}.out_layers.0", channels_out)
    layer(f"{name}.out_layers.3", channels_out, channels_out, 3, 3)
    if channels_in != channels_out:
        layer(f"{name}.skip_connection", channels_out, channels_in, 1, 1)


def transformer(name, channels):
    norm(f"{name}.norm", channels)
    layer(f"{name}.proj_in", channels, channels, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", channels), ("attn2", CONTEXT)):
        layer(f"{block}.{attention}.to_q", channels, channels, bias=False)
        layer(f"{block}.{attention}.to_k", channels, context, bias=False)
        layer(f"{block}.{attention}.to_v", channels, context, bias=False)
        layer(f"{block}.{attention}.to_out.0", channels, channels)
    layer(f"{block}.ff.net.0.proj", channels * 8, channels)
    layer(f"{block}.ff.net.2", channels, channels * 4)
    for i in (1, 2, 3):
        norm(f"{block}.norm{i}", channels)
    layer(f"{name}.proj_out", channels, channels, 1, 1)


layer(f"{U}time_embed.0", TIME, CHANNELS[0])
layer(f"{U}time_embed.2", TIME, TIME)
layer(f"{U}input_blocks.0.0", CHANNELS[0], 4, 3, 3)
skips, channels, block = [CHANNELS[0]], CHANNELS[0], 1
for level, width in enumerate(CHANNELS):
    for _ in range(LAYERS):
        resblock(f"{U}input_blocks.{block}.0", channels, width)
        channels = width
        # Attention on the first level alone, as in Stable Diffusion on all but the last.
        if level == 0:
            transformer(f"{U}input_blocks.{block}.1", channels)
        skips.append(channels)
        block += 1
    if level < len(CHANNELS) - 1:
        layer(f"{U}input_blocks.{block}.0.op", channels, channels, 3, 3)
        skips.append(channels)
        block += 1
resblock(f"{U}middle_block.0", channels, channels)
transformer(f"{U}middle_block.1", channels)
resblock(f"{U}middle_block.2", channels, channels)
block = 0
for level, width in reversed(list(enumerate(CHANNELS))):
    for i in range(LAYERS + 1):
        resblock(f"{U}output_blocks.{block}.0", channels + skips.pop(), width)
        channels, part = width, 1
        if level == 0:
            transformer(f"{U}output_blocks.{block}.1", channels)
            part = 2
        if level > 0 and i == LAYERS:
            layer(f"{U}output_blocks.{block}.{part}.conv", channels, channels, 3, 3)
        block += 1
norm(f"{U}out.0", channels)
layer(f"{U}out.2", 4, channels, 3, 3)

# ---- model.py: Encoder, Decoder -------------------------------------------------------------------------------------
V = "first_stage_model."


def vae_resnet(name, channels_in, channels_out):
    norm(f"{name}.norm1", channels_in)
    layer(f"{name}.conv1", channels_out, channels_in, 3, 3)
    norm(f"{name}.norm2", channels_out)
    layer(f"{name}.conv2", channels_out, channels_out, 3, 3)
    if channels_in != channels_out:
        layer(f"{name}.nin_shortcut", channels_out, channels_in, 1, 1)


def vae_middle(name, channels):
    vae_resnet(f"{name}.block_1", channels, channels)
    norm(f"{name}.attn_1.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        layer(f"{name}.attn_1.{part}", channels, channels, 1, 1)
    vae_resnet(f"{name}.block_2", channels, channels)


layer(f"{V}encoder.conv_in", CHANNELS[0], 3, 3, 3)
channels = CHANNELS[0]
for level, width in enumerate(CHANNELS):
    for i in range(LAYERS):
        vae_resnet(f"{V}encoder.down.{level}.block.{i}", channels, width)
        channels = width
    if level < len(CHANNELS) - 1:
        layer(f"{V}encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
vae_middle(f"{V}encoder.mid", channels)
norm(f"{V}encoder.norm_out", channels)
layer(f"{V}encoder.conv_out", 8, channels, 3, 3)
layer(f"{V}decoder.conv_in", channels, 4, 3, 3)
vae_middle(f"{V}decoder.mid", channels)
for level, width in reversed(list(enumerate(CHANNELS))):
    for i in range(LAYERS + 1):
        vae_resnet(f"{V}decoder.up.{level}.block.{i}", channels, width)
        channels = width
    if level > 0:
        layer(f"{V}decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
norm(f"{V}decoder.norm_out", channels)
layer(f"{V}decoder.conv_out", 3, channels, 3, 3)
layer(f"{V}quant_conv", 8, 8, 1, 1)
layer(f"{V}post_quant_conv", 4, 4, 1, 1)

# ---- the text encoder: transformers' own names, a prefix more --------------------------------------------------------
T = "cond_stage_model.transformer.text_model."
put(f"{T}embeddings.token_embedding.weight", 50, TEXT)
put(f"{T}embeddings.position_embedding.weight", 16, TEXT)
state[f"{T}embeddings.position_ids"] = torch.arange(16)[None]
for i in range(2):
    block = f"{T}encoder.layers.{i}"
    for part in ("q", "k", "v", "out"):
        layer(f"{block}.self_attn.{part}_proj", TEXT, TEXT)
    norm(f"{block}.layer_norm1", TEXT)
    norm(f"{block}.layer_norm2", TEXT)
    layer(f"{block}.mlp.fc1", TEXT * 2, TEXT)
    layer(f"{block}.mlp.fc2", TEXT, TEXT * 2)
norm(f"{T}final_layer_norm", TEXT)

torch.save({"state_dict": state, "global_step": 7, "callbacks": {"when": torch.device("cpu")}}, HERE / "sd1.ckpt")


def described(tensors):
    def one(tensor):
        values = tensor.float().contiguous().numpy()
        return [list(tensor.shape), hashlib.sha256(values.tobytes()).hexdigest()]

    return {name: one(tensor) for name, tensor in sorted(tensors.items()) if not name.endswith("position_ids")}


unet_config = {"layers_per_block": LAYERS, "class_embed_type": None, "addition_embed_type": None}
vae_config = {"down_block_types": [None] * 2, "up_block_types": [None] * 2}
(HERE / "sd1.json").write_text(
    json.dumps(
        {
            "unet": described(convert_ldm_unet_checkpoint(dict(state), unet_config)),
            "vae": described(convert_ldm_vae_checkpoint(dict(state), vae_config)),
            "text_encoder": described(convert_ldm_clip_checkpoint(dict(state))),
        },
        indent=1,
    )
)


# ---- OpenAI's CLIP ---------------------------------------------------------------------------------------------------
class QuickGelu(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, width * 2))
        self.mlp.add_module("gelu", QuickGelu())
        self.mlp.add_module("c_proj", nn.Linear(width * 2, width))

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, width, patch, size, layers, embed):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.1)
        self.positional_embedding = nn.Parameter(torch.randn((size // patch) ** 2 + 1, width) * 0.1)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.proj = nn.Parameter(torch.randn(width, embed) * 0.1)

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Vision(width=64, patch=8, size=32, layers=2, embed=24)
        self.token_embedding = nn.Embedding(40, 64)
        self.positional_embedding = nn.Parameter(torch.randn(12, 64) * 0.1)
        self.transformer = Transformer(64, 2)
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.randn(64, 24) * 0.1)
        self.logit_scale = nn.Parameter(torch.ones([]))

    def text(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((12, 12), float("-inf")).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(-1)] @ self.text_projection


clip = Clip().eval()
with torch.no_grad():
    for parameter in clip.parameters():
        if parameter.dim() == 1:
            parameter += torch.randn_like(parameter) * 0.1
    clip.half().float()
    pictures, ids = torch.randn(2, 3, 32, 32), torch.randint(1, 38, (2, 12))
    ids[0, 7:], ids[1, 4:] = 39, 39
    save_file(
        {
            "pixel_values": pictures,
            "image_embeds": clip.visual(pictures),
            "input_ids": ids,
            "text_embeds": clip.text(ids),
        },
        HERE / "clip.safetensors",
    )
    # OpenAI's own files are TorchScript archives of the model in half precision.
    class Whole(Clip):
        def forward(self, pictures, ids):
            return self.visual(pictures), self.text(ids)

    whole = Whole().eval()
    whole.load_state_dict(clip.state_dict())
    for name, value in {"input_resolution": 32, "context_length": 12, "vocab_size": 40}.items():
        whole.register_buffer(name, torch.tensor(value))
    for block in whole.transformer.resblocks:
        block.register_buffer("attn_mask", torch.full((12, 12), float("-inf")).triu(1))
    torch.jit.trace(whole, (pictures, ids)).half().save(HERE / "clip.pt")

# ---- InsightFace's iresnet -------------------------------------------------------------------------------------------
face = {}


def batch_norm(name, channels):
    for part in ("weight", "bias", "running_mean", "running_var"):
        face[f"module.{name}.{part}"] = torch.rand(channels)
    face[f"module.{name}.num_batches_tracked"] = torch.tensor(3)


def conv(name, *shape):
    # A transposed view, whose strides are not those of its rows.
    face[f"module.{name}.weight"] = torch.randn(*shape[::-1]).permute(*reversed(range(len(shape))))


conv("conv1", 4, 3, 3, 3)
batch_norm("bn1", 4)
face["module.prelu.weight"] = torch.rand(4)
for stage, (channels_in, channels, blocks) in enumerate([(4, 4, 1), (4, 6, 2), (6, 8, 1), (8, 10, 1)], 1):
    for i in range(blocks):
        name = f"layer{stage}.{i}"
        batch_norm(f"{name}.bn1", channels_in)
        conv(f"{name}.conv1", channels, channels_in, 3, 3)
        batch_norm(f"{name}.bn2", channels)
        face[f"module.{name}.prelu.weight"] = torch.rand(channels)
        conv(f"{name}.conv2", channels, channels, 3, 3)
        batch_norm(f"{name}.bn3", channels)
        if i == 0:
            conv(f"{name}.downsample.0", channels, channels_in, 1, 1)
            batch_norm(f"{name}.downsample.1", channels)
        channels_in = channels
batch_norm("bn2", 10)
conv("fc", 12, 10 * 2 * 2)
face["module.fc.bias"] = torch.rand(12)
batch_norm("features", 12)
torch.save(face, HERE / "iresnet.pt")
(HERE / "iresnet.json").write_text(
    json.dumps(
        described({name[7:]: tensor for name, tensor in face.items() if not name.endswith("tracked")}), indent=1
    )
)

# ---- Stable Diffusion 2 ----------------------------------------------------------------------------------------------
# Its UNet projects linearly around its transformers, and its text encoder is open_clip's, of whose 24 layers 23 are used.
LAYERS_2 = 24
two = {n: t[..., 0, 0] if ".proj_" in n and n.startswith(U) and n.endswith("weight") else t for n, t in state.items()}
two = {name: tensor for name, tensor in two.items() if not name.startswith("cond_stage_model.")}
state = {}
T = "cond_stage_model.model."
put(f"{T}token_embedding.weight", 50, TEXT)
put(f"{T}positional_embedding", 16, TEXT)
put(f"{T}text_projection", TEXT, TEXT)
state[f"{T}logit_scale"] = torch.tensor(4.6).half()
norm(f"{T}ln_final", TEXT)
for i in range(LAYERS_2):
    block = f"{T}transformer.resblocks.{i}"
    put(f"{block}.attn.in_proj_weight", TEXT * 3, TEXT)
    put(f"{block}.attn.in_proj_bias", TEXT * 3)
    layer(f"{block}.attn.out_proj", TEXT, TEXT)
    norm(f"{block}.ln_1", TEXT)
    norm(f"{block}.ln_2", TEXT)
    layer(f"{block}.mlp.c_fc", TEXT * 2, TEXT)
    layer(f"{block}.mlp.c_proj", TEXT, TEXT * 2)
two |= state
save_file({name: tensor.contiguous() for name, tensor in two.items()}, HERE / "sd2.safetensors")
text = convert_open_clip_checkpoint(None, dict(two), T)
(HERE / "sd2.json").write_text(
    json.dumps(
        {
            "unet": described(convert_ldm_unet_checkpoint(dict(two), unet_config)),
            "vae": described(convert_ldm_vae_checkpoint(dict(two), vae_config)),
            "text_encoder": described(text),
        },
        indent=1,
    )
)
