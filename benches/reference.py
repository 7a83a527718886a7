"""The networks that `make bench` times: random weights in our layout, ONNX graphs, inputs, outputs, and PyTorch's times.

    python benches/reference.py export FOLDER             # writes FOLDER/<name>/…
    python benches/reference.py time FOLDER NAME RUNS     # prints {"threads": …, "milliseconds": [...]}

Needs `pip install torch diffusers transformers onnx onnxscript safetensors`. Each <name>/ holds `config.json` and
`diffusion_pytorch_model.safetensors` (or `model.safetensors`) for ours, `model.onnx` for onnxruntime, `inputs` and `outputs`
(safetensors), and `bench.json`: the kind of network for `facestudio component`, its inputs' names in the graph and
the name of its output.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

warnings.filterwarnings("ignore", category=FutureWarning)
if "THREADS" in os.environ:
    torch.set_num_threads(int(os.environ["THREADS"]))

MODELS = Path(__file__).parent.parent / "models"


class Unet(torch.nn.Module):
    kind, inputs, output = "unet", ["sample", "timestep", "encoder_hidden_states"], "sample"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.model(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class VaeDecode(torch.nn.Module):
    kind, inputs, output = "vae-decode", ["latents"], "sample"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latents):
        return self.model.decode(latents, return_dict=False)[0]


class VisionEncoder(torch.nn.Module):
    kind, inputs, output = "vision-encoder", ["pixel_values"], "image_embeds"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values).image_embeds


def mini(cls, component):
    return cls.from_config(json.loads((MODELS / "mini" / component / "config.json").read_text()))


def unet_inputs(model, side, tokens):
    # Both halves of classifier-free guidance.
    return [
        torch.randn(2, model.config.in_channels, side, side),
        torch.tensor([500.0, 500.0]),
        torch.randn(2, tokens, model.config.cross_attention_dim),
    ]


def mini_unet():
    model = mini(UNet2DConditionModel, "unet")
    tokens = json.loads((MODELS / "mini/guidance/config.json").read_text())["n_tokens"]
    return Unet(model), unet_inputs(model, model.config.sample_size, tokens)


def sd15_unet():
    """Stable Diffusion 1.5's UNet, a fifth as wide, for 256×256 pixels."""
    model = UNet2DConditionModel(
        sample_size=32, block_out_channels=(64, 128, 256, 256), attention_head_dim=8, cross_attention_dim=768
    )
    return Unet(model), unet_inputs(model, 32, 77)


def mini_vae_decode():
    model = mini(AutoencoderDC, "vae")
    return VaeDecode(model), [torch.randn(1, model.config.latent_channels, 16, 16)]


def sd15_vae_decode():
    """Stable Diffusion 1.5's decoder at a quarter of its width, for 128×128 pixels."""
    channels = (32, 64, 128, 128)
    model = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    return VaeDecode(model), [torch.randn(1, 4, 16, 16)]


def clip_vit():
    """CLIP ViT-B/32 at half its width."""
    config = CLIPVisionConfig(
        hidden_size=384, intermediate_size=1536, num_attention_heads=6, num_hidden_layers=12, projection_dim=512, patch_size=32
    )
    return VisionEncoder(CLIPVisionModelWithProjection(config)), [torch.randn(1, 3, 224, 224)]


NETWORKS = {f.__name__.replace("_", "-"): f for f in (mini_unet, sd15_unet, mini_vae_decode, sd15_vae_decode, clip_vit)}


def build(name):
    torch.manual_seed(1)
    network, inputs = NETWORKS[name]()
    return network.eval(), inputs


@torch.no_grad()
def export(folder):
    for name in NETWORKS:
        network, inputs = build(name)
        to = folder / name
        network.model.save_pretrained(to, safe_serialization=True)
        names = type(network).inputs
        # Not *.safetensors: those in the folder are its weights.
        save_file(dict(zip(names, inputs)), to / "inputs")
        save_file({network.output: network(*inputs).contiguous()}, to / "outputs")
        torch.onnx.export(
            network, tuple(inputs), to / "model.onnx", input_names=names, output_names=["output"],
            dynamo=True, external_data=False, verbose=False,
        )
        about = {
            "kind": network.kind,
            "inputs": {name: list(value.shape) for name, value in zip(names, inputs)},
            "output": network.output,
            "parameters": sum(p.numel() for p in network.parameters()),
        }
        (to / "bench.json").write_text(json.dumps(about, indent=1) + "\n")
        print(name, f"{about['parameters'] / 1e6:.1f} M parameters", flush=True)


@torch.no_grad()
def measure(folder, name, runs):
    network, inputs = build(name)
    expected = load_file(folder / name / "outputs")[network.output]
    for _ in range(3):
        output = network(*inputs)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        network(*inputs)
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"threads": torch.get_num_threads(), "version": torch.__version__, "milliseconds": times}))


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:]
    if command == "export":
        export(Path(folder))
    else:
        measure(Path(folder), rest[0], int(rest[1]))
