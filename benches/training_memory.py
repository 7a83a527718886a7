"""Memory and time that `facestudio train diffusion --base` takes on Stable Diffusion 1.5's shape at reduced widths, with and
without `--gradient-checkpointing`, and what follows for its own width of 320.

    python benches/training_memory.py [--program target/release/facestudio] [--side 64] [--widths 32 64] [--backend torch]

Needs `pip install torch diffusers`, and for `--backend torch` a program with that feature. Peaks are the process' resident
memory (`ru_maxrss`) of some steps with a batch of one, after a run that has rendered and encoded the pictures; seconds of a step
are the processors' for more steps beyond one, so that they say little of the machine's other work. Of each parameter there
are seven numbers of 4 bytes: the weight and its gradient on the device, and in the optimiser the weight, its gradient, both
moments of AdamW and the average. What is left of a peak is what the step keeps for the gradients; two widths give the line by
which it grows (attention's scores do not grow: Stable Diffusion 1.5 has 8 heads at any width).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MINI = HERE.parent / "models" / "mini"
WIDTHS = (1, 2, 4, 4)
# See above.
NUMBERS = 7
# That are timed.
STEPS = 4


def base(folder, width, side):
    """A model folder: the UNet and the autoencoder of Stable Diffusion 1.5, narrower; mini's encoders."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    channels = tuple(width * factor for factor in WIDTHS)
    unet = UNet2DConditionModel(sample_size=side, block_out_channels=channels, cross_attention_dim=768)
    unet.save_pretrained(folder / "unet")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    AutoencoderKL(block_out_channels=(32,) * 4, **blocks).save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    schedule |= {"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "epsilon"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    for encoder in ("vision_encoder", "vision_encoder_2", "vision_encoder_3", "face_encoder", "text_encoder", "tokenizer"):
        shutil.copytree(MINI / encoder, folder / encoder)
    return sum(p.numel() for p in unet.parameters())


def peak(arguments, folder, more, steps):
    """Peak resident bytes, and processors' seconds, of a short run from the base; a child of its own, since `ru_maxrss` is the
    largest of all children."""
    out, runs = folder / "out", folder / "runs"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(runs / "diffusion-base", ignore_errors=True)
    shutil.copytree(folder / "model", out)
    command = [arguments.program, "train", "diffusion", "--out", out, "--base", folder / "model", "--runs", runs]
    command += ["--backend", arguments.backend, "--pictures", "2", "--steps", str(steps), "--batch", "1", *more]
    child = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode; "
    child += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    child += "print(used.ru_maxrss, used.ru_utime + used.ru_stime); sys.exit(code)"
    run = subprocess.run([sys.executable, "-c", child, *command], stdout=subprocess.PIPE, text=True, check=True)
    kibibytes, seconds = run.stdout.split()
    return int(kibibytes) * 1024, float(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/facestudio")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--side", type=int, default=64, help="of the latents; 64 is 512 pixels")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64])
    arguments = parser.parse_args()
    kept = {}
    for width in arguments.widths:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            parameters = base(folder / "model", width, arguments.side)
            peak(arguments, folder, [], steps=1)
            for name, more in {"plain": [], "checkpointed": ["--gradient-checkpointing"]}.items():
                _, one = peak(arguments, folder, more, steps=1)
                bytes, seconds = peak(arguments, folder, more, steps=1 + STEPS)
                kept.setdefault(name, []).append((width, bytes - parameters * NUMBERS * 4))
                print(
                    f"width {width:4}  {parameters / 1e6:6.1f} M parameters  {name:12}  peak {bytes / 2**30:5.2f} GiB, "
                    f"without parameters and optimiser {kept[name][-1][1] / 2**30:5.2f}; {(seconds - one) / STEPS:.1f} processor seconds a step",
                    flush=True,
                )
    for name, points in kept.items():
        (w0, k0), (w1, k1) = points[0], points[-1]
        if w0 != w1:
            of_320 = k0 + (k1 - k0) / (w1 - w0) * (320 - w0)
            print(f"width  320  {name:12}  without parameters and optimiser {of_320 / 2**30:5.2f} GiB by the line")


if __name__ == "__main__":
    main()
