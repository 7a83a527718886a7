"""Every network at the size people use it, with random weights, one forward each against PyTorch; and CLIP's tokenizer with its
real vocabulary on a few thousand lines (`make parity-full`).

    python tests/parity/full.py [--program target/release/facestudio] [NETWORK...]

Needs `pip install torch diffusers transformers timm open_clip_torch`, 12 GB of memory and 8 GB of disk. Networks are made one after
the other in a temporary folder and read there by `facestudio component`. Weights are PyTorch's own initialisation, which keeps
activations in range; biases and norms are moved off their start, so that leaving one out shows.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

HERE = Path(__file__).parent
# Of the largest value of the reference. Two ways to sum some thousand products in f32, through 12 to 100 layers, were measured to
# differ by 3e-7 to 1e-5; a wrong epsilon or activation shows at 1e-3 and above.
TOLERANCE = 1e-4
PROGRAM = "target/release/facestudio"


def perturbed(model):
    """Biases off 0, norms off 1, running statistics off their start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() <= 1:
                parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn_like(buffer)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model.eval()


def write(folder, config, model):
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: v.contiguous() for n, v in model.state_dict().items() if "num_batches" not in n}, folder / "model.safetensors")


def saved(folder, model):
    """In the library's own layout, sharded where it shards."""
    model.save_pretrained(folder)


def unet(folder):
    """Stable Diffusion 1.5's UNet: diffusers' defaults but for the width of the text."""
    from diffusers import UNet2DConditionModel

    model = perturbed(UNet2DConditionModel(sample_size=64, cross_attention_dim=768))
    saved(folder, model)
    inputs = {
        "sample": torch.randn(1, 4, 64, 64),
        "timestep": torch.tensor([601.0]),
        "encoder_hidden_states": torch.randn(1, 77, 768),
    }
    return "unet", inputs, lambda: {"sample": model(**inputs).sample}


def vae_model(folder):
    from diffusers import AutoencoderKL

    model = perturbed(
        AutoencoderKL(
            sample_size=512,
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
    )
    saved(folder, model)
    return model


def vae_decode(folder):
    """Stable Diffusion's decoder, to 256×256 pixels."""
    model = vae_model(folder)
    inputs = {"latents": torch.randn(1, 4, 32, 32)}
    return "vae-decode", inputs, lambda: {"sample": model.decode(inputs["latents"]).sample}


def vae_encode(folder):
    """Its encoder, from 256×256 pixels."""
    model = vae_model(folder)
    inputs = {"sample": torch.rand(1, 3, 256, 256) * 2 - 1}
    return "vae-encode", inputs, lambda: {"mean": model.encode(inputs["sample"]).latent_dist.mean}


def clip_l_text(folder):
    """The text tower of CLIP ViT-L/14, as Stable Diffusion 1 has it."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768, eos_token_id=2
    )
    model = perturbed(CLIPTextModel(config))
    saved(folder, model)
    ids = torch.randint(0, 49_400, (2, 77))
    ids[:, 0], ids[:, 50:] = 49_406, 49_407
    return "text-encoder", {"input_ids": ids}, lambda: {"last_hidden_state": model(input_ids=ids).last_hidden_state}


def vit(folder, **sizes):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = perturbed(CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes)))
    saved(folder, model)
    pixels = torch.randn(1, 3, 224, 224)
    return "vision-encoder", {"pixel_values": pixels}, lambda: {"image_embeds": model(pixel_values=pixels).image_embeds}


def clip_l_vision(folder):
    """ViT-L/14."""
    return vit(
        folder, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14, projection_dim=768
    )


def clip_b_vision(folder):
    """ViT-B/32."""
    return vit(folder, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32)


def rn101(folder):
    """CLIP's RN101."""
    from open_clip.modified_resnet import ModifiedResNet

    sizes = dict(layers=[3, 4, 23, 3], heads=32, image_size=224, width=64)
    model = ModifiedResNet(output_dim=512, **sizes)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # starts at 0, which would hide the block
            torch.nn.init.constant_(parameter, 0.3)
    perturbed(model)
    write(folder, {"model_type": "clip_resnet", "embed_dim": 512, **sizes}, model)
    pixels = torch.randn(1, 3, 224, 224)
    return "vision-encoder", {"pixel_values": pixels}, lambda: {"image_embeds": model(pixels)}


def ir_resnet_100(folder):
    """InsightFace's IR-ResNet-100."""
    from face.iresnet import ImprovedResNet

    sizes = dict(layers=[3, 13, 30, 3], channels=[64, 64, 128, 256, 512], embedding_size=512, image_size=112)
    model = ImprovedResNet(**sizes)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # 49 blocks add up
            torch.nn.init.constant_(parameter, 0.3)
    perturbed(model)
    write(folder, {"model_type": "ir_resnet", **sizes}, model)
    pixels = torch.rand(1, 3, 112, 112) * 2 - 1
    return "face-encoder", {"pixel_values": pixels}, lambda: {"embedding": model(pixels)}


def detr(folder):
    """facebook/detr-resnet-50-panoptic, on a photo of 640×480 as it is resized."""
    from transformers import DetrConfig, DetrForSegmentation

    labels = {i: "person" if i == 1 else f"label {i}" for i in range(250)}
    model = DetrForSegmentation(DetrConfig(id2label=labels, use_pretrained_backbone=False))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):  # as they are made, every query says the same
            torch.nn.init.xavier_uniform_(module.weight)
    perturbed(model)
    raw = folder.parent / "raw"
    saved(raw, model)
    command = [PROGRAM, "convert", "--segmenter", raw, "--dtype", "f32", "--out", folder.parent / "converted"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder.parent / "converted" / "segmenter").rename(folder)
    pixels = torch.randn(1, 3, 800, 1066)

    def forward():
        output = model(pixels)
        return {"logits": output.logits[0], "pred_masks": output.pred_masks[0]}

    return "segmenter", {"pixel_values": pixels}, forward


def prior(folder):
    """Karlo's prior (kakaobrain/karlo-v1-alpha, prior/config.json): diffusers' defaults."""
    from diffusers import PriorTransformer

    model = perturbed(PriorTransformer())
    saved(folder, model)
    width = model.config.embedding_dim
    inputs = {
        "hidden_states": torch.randn(1, width),
        "timestep": torch.tensor([601]),
        "proj_embedding": torch.randn(1, width),
        "encoder_hidden_states": torch.randn(1, model.config.num_embeddings, width),
        "attention_mask": torch.arange(model.config.num_embeddings).lt(20)[None],
    }
    return "prior", inputs, lambda: {"predicted_image_embedding": model(**inputs).predicted_image_embedding}


def flux2(folder):
    """A slice of FLUX.2 klein 4B's transformer at its full width: one double-stream block, two single-stream ones."""
    from diffusers import Flux2Transformer2DModel

    sizes = dict(num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False)
    model = perturbed(Flux2Transformer2DModel(num_layers=1, num_single_layers=2, **sizes))
    saved(folder, model)
    (height, width), text = (32, 32), 512
    numbers = torch.arange
    inputs = {
        "hidden_states": torch.randn(1, height * width, 128),
        "encoder_hidden_states": torch.randn(1, text, 7680),
        "image_ids": torch.cartesian_prod(numbers(1), numbers(height), numbers(width), numbers(1)).float(),
        "text_ids": torch.cartesian_prod(numbers(1), numbers(1), numbers(1), numbers(text)).float(),
    }
    theirs = {"image_ids": "img_ids", "text_ids": "txt_ids"}
    renamed = {theirs.get(name, name): value for name, value in inputs.items()}
    timestep = torch.tensor([731.0])
    return (
        "transformer",
        inputs | {"timestep": timestep},
        lambda: {"sample": model(timestep=timestep / 1000, return_dict=False, **renamed)[0]},
    )


def flux2_decode(folder):
    """FLUX.2's autoencoder."""
    from diffusers import AutoencoderKLFlux2

    model = perturbed(AutoencoderKLFlux2())
    saved(folder, model)
    inputs = {"latents": torch.randn(1, 32, 32, 32)}
    return "vae-decode", inputs, lambda: {"sample": model.decode(inputs["latents"]).sample}


def qwen3(folder):
    """A slice of Qwen3-4B at its full width: three layers, a small vocabulary."""
    from transformers import Qwen3Config, Qwen3Model

    sizes = dict(hidden_size=2560, intermediate_size=9728, num_attention_heads=32, num_key_value_heads=8, vocab_size=1000)
    rope = {"rope_theta": 1000000.0, "rope_type": "default"}
    model = perturbed(Qwen3Model(Qwen3Config(num_hidden_layers=3, rope_parameters=rope, **sizes)))
    saved(folder, model)
    ids, real, layers = torch.randint(0, 1000, (1, 512)), 100, [1, 2]
    mask = torch.arange(512).lt(real)[None].long()

    def forward():
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return {"states": torch.cat([states[layer] for layer in layers], 2)}

    inputs = {"input_ids": ids.float(), "real": torch.tensor([float(real)]), "layers": torch.tensor(layers).float()}
    return "qwen3", inputs, forward


NETWORKS = {f.__name__.replace("_", "-"): f for f in (
    unet, vae_decode, vae_encode, clip_l_text, clip_l_vision, clip_b_vision, rn101, ir_resnet_100, detr, prior, flux2,
    flux2_decode, qwen3
)}


@torch.no_grad()
def compare(name):
    """Prints one line; returns whether every output is within the tolerance."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "model").mkdir()
        kind, inputs, forward = NETWORKS[name](folder / "model")
        forward()  # warms up
        start = time.perf_counter()
        expected = forward()
        theirs = time.perf_counter() - start
        del forward
        save_file({n: v.contiguous() for n, v in inputs.items()}, folder / "inputs.safetensors")
        command = [PROGRAM, "component", kind, "--model", folder / "model", "--inputs", folder / "inputs.safetensors"]
        command += ["--output", folder / "outputs.safetensors", "--repeat", "1"]
        timing = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        outputs = load_file(folder / "outputs.safetensors")
        size = sum(file.stat().st_size for file in (folder / "model").iterdir()) / 1e6
    right = True
    for output, reference in expected.items():
        reference = reference.reshape(outputs[output].shape)
        off = (outputs[output] - reference).abs().max() / reference.abs().max()
        cosine = torch.nn.functional.cosine_similarity(outputs[output].flatten(), reference.flatten(), 0)
        right &= bool(off <= TOLERANCE)
        print(
            f"{name:15} {size:7.0f} MB  {output:26} error {off:.1e} of the largest value ({reference.abs().max():.2f}), "
            f"1 - cosine {1 - cosine.double():.1e}, PyTorch {theirs:.2f} s, ours {timing['milliseconds'][0] / 1e3:.2f} s",
            flush=True,
        )
    return right


def lines():
    """A few thousand lines of text as people write it, and as they do not."""
    draw = random.Random(0)
    words = (
        "a photo of woman man portrait painting in the style oil watercolour smiling wearing glasses hat beach at sunset "
        "café naïve Ångström déjà-vu coöperate GRÖSSE straße İstanbul Σίσυφος Привет мир женщина портрет 東京の女性 写真 "
        "漢字 한국어 사진 हिन्दी صورة امرأة שלום ภาพถ่าย tiếng Việt don't we'll I'm they've it's rock'n'roll 8k 1080p 35mm 3.14 ½ "
        "¥ € £ … — “quoted” (((masterpiece))) [x:y:0.5] <lora:a:1> &amp; &lt;b&gt; http://example.org/a_b?c=d#e user@example.org "
        "👩‍👩‍👧 👍🏽 🇨🇭 ❤️ 😀 🧑🏿‍🚀 🏳️‍🌈 ﬁ ﬀ Å ﷺ 𝔣𝔯𝔞𝔨𝔱𝔲𝔯 e\u0301\u0302 \u200b \u00a0 \u3000 \ufeff \u00ad \t"
    ).split(" ")
    yield from ["", " ", "\n", "\t \t", "a", "." * 300, "x" * 3000, "東" * 500, "😀" * 200, "a photo " * 500]
    for _ in range(2500):
        text = [draw.choice(words) for _ in range(draw.randint(1, 25))]
        yield draw.choice([" ", "  ", ", ", "", "\n"]).join(text)
    # Any code points at all that were characters when the reference's tables of combining marks were made (tokenizers 0.23 puts
    # marks of Unicode 14 in another order; ours has the present one).
    for _ in range(1500):
        points = [chr(draw.choice([draw.randrange(0x20, 0x3000), draw.randrange(0x20, 0x20000)])) for _ in range(draw.randint(1, 40))]
        yield "".join(c for c in points if unicodedata.ucd_3_2_0.category(c) not in ("Cs", "Cn"))


def tokenizer(cargo):
    """CLIP's own vocabulary in transformers' tokenizer, against ours in the test of the small one."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(list(lines())))
        subprocess.run([sys.executable, HERE / "tokenizer" / "reference.py", folder, texts], check=True)
        command = [cargo, "test", "--test", "parity", "--", "--nocapture", "tokenizer::clips_own_special_tokens"]
        environment = os.environ | {"FACESTUDIO_TOKENIZER_CASES": folder}
        return subprocess.run(command, env=environment).returncode == 0


def main():
    names = [*NETWORKS, "tokenizer"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=PROGRAM)
    parser.add_argument("--cargo", default="cargo")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(names))
    arguments = parser.parse_args()
    globals()["PROGRAM"] = arguments.program
    unknown = set(arguments.networks) - set(names)
    if unknown:
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    wrong = []
    for name in arguments.networks or names:
        right = tokenizer(arguments.cargo) if name == "tokenizer" else compare(name)
        if not right:
            wrong.append(name)
    if wrong:
        sys.exit(f"not PyTorch's: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
