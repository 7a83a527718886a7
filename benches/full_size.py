"""A model of full size with random weights, of the Arc2Face family: Stable Diffusion 1.5's UNet and autoencoder, CLIP-L's text
encoder, IR-ResNet-100; tokenizer and detector are mini's. What `benches/loading.mjs` measures with it is memory and time.

    python benches/full_size.py DIR [models/mini]
    facestudio quantize --model DIR --out MODELS/full --dtype q8 --name full --family sd15 --model-version 1 --license MIT

Needs `pip install torch diffusers transformers`, 8 GB of memory and 3 GB of disk.
"""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "parity"))

import torch  # noqa: E402

import full  # noqa: E402


def main():
    out = Path(sys.argv[1])
    mini = Path(sys.argv[2] if len(sys.argv) > 2 else "models/mini")
    torch.manual_seed(0)
    full.saved = lambda folder, model: model.half().save_pretrained(folder, max_shard_size="60MB")
    for folder, network in {
        "unet": full.unet,
        "vae": full.vae_model,
        "text_encoder": full.clip_l_text,
        "face_encoder": full.ir_resnet_100,
    }.items():
        (out / folder).mkdir(parents=True)
        network(out / folder)
        print(folder, flush=True)
    for folder in ["tokenizer", "detector"]:
        shutil.copytree(mini / folder, out / folder)
    (out / "arc2face").mkdir()
    # A word of mini's vocabulary takes the place of Arc2Face's "id".
    (out / "arc2face" / "config.json").write_text(json.dumps({"prompt": "photo of a man", "id_token": "man"}))
    (out / "scheduler").mkdir()
    (out / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(
            {
                "_class_name": "PNDMScheduler",
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "num_train_timesteps": 1000,
                "skip_prk_steps": True,
                "steps_offset": 1,
            }
        )
    )


if __name__ == "__main__":
    with torch.no_grad():
        main()
