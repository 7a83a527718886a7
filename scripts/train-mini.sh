#!/usr/bin/env bash
# Trains every network of the mini model, stores it in 8 bits and measures it (RUNS/report/index.html): one command a stage,
# in order.
#
#   scripts/train-mini.sh [RUNS]     checkpoints, curves and sheets go to RUNS (default runs/); run again to go on
#
# FACESTUDIO is the program (default: the release build), BACKEND is cpu, torch or torch-cuda. The autoencoder and the denoiser are trained
# for so many steps (about a day of two cores); MINUTES scales the other stages (1 is about five hours), PICTURES is how many portraits
# they see, CLIP and the prior twice as many.
set -euo pipefail

# Tensors are of a few sizes, made and freed at every step: glibc should keep their memory, not give it back each time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

runs=${1:-runs}
program=${FACESTUDIO:-target/release/facestudio}
backend=${BACKEND:-cpu}
scale=${MINUTES:-1}
pictures=${PICTURES:-12000}
model=$runs/mini

minutes() { awk "BEGIN { print $1 * $scale }"; }

stage() { # name, minutes, extra flags
  local name=$1 time=$2
  shift 2
  "$program" train "$name" --out "$model" --runs "$runs" --backend "$backend" \
    --minutes "$(minutes "$time")" --resume "$@"
}

# The autoencoder, to the step: 16×16 positions of 32 numbers, then one level more, 8×8 of 64.
"$program" train vae --out "$runs/shallow" --runs "$runs" --backend "$backend" --steps 2600 --batch 16 --pictures 8000 --resume
"$program" train vae --base "$runs/shallow" --deepen 64 --out "$model" --runs "$runs" --backend "$backend" --steps 1600 --batch 16 \
  --lr 3e-4 --pictures 8000 --resume
stage clip 110 --pictures "$((2 * pictures))"
stage face 20
stage face 10 --preset mini-eval
stage detector 12
stage prior 53 --pictures "$((2 * pictures))"
# The denoiser, to the step.
"$program" train diffusion --out "$model" --runs "$runs" --backend "$backend" --steps 60000 --batch 32 --lr 1.2e-3 --pictures 16000 \
  --drop-style 0.25 --drop-identity 0.2 --resume
stage vae 45 --base "$model" --decoder-only --lr 3e-4 --batch 8 --pictures "$pictures"
# The old model goes once the new one is whole.
shipped=$runs/shipped
rm -rf "$shipped"
"$program" quantize --model "$model" --out "$shipped" --dtype q8 --name mini --family mini --model-version 9 \
  --license "MIT OR Apache-2.0" --people drawn
find models/mini -mindepth 1 ! -name README.md -delete
cp -r "$shipped"/. models/mini
"$program" eval --model models/mini --encoder "$runs/face-eval/eval_face_encoder" --against "$model" --out "$runs/report"
