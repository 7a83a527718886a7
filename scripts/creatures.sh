#!/usr/bin/env bash
# Does the method know identities that are not human? Trains a detector, two identity encoders and the UNet of a trained model on
# rendered animals, and measures the model before and after. See docs/eval.md.
#
#   scripts/creatures.sh MODEL [RUNS]
#
# MODEL is a folder in full precision (runs/mini of train-mini.sh). MINUTES scales every stage (1 is about fifty minutes in all),
# TRIALS (default 24) are the animals of the evaluation; FACESTUDIO, BACKEND and PICTURES as for train-mini.sh.
set -euo pipefail

export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

model=$1
runs=${2:-runs}/creatures
program=${FACESTUDIO:-target/release/facestudio}
backend=${BACKEND:-cpu}
scale=${MINUTES:-1}
pictures=${PICTURES:-12000}
out=$runs/model

. "$(dirname "$0")/copy-model.sh"

# Its own networks for faces, and a shared Linear that knows them.
mkdir -p "$runs"
copy "$model" "$out" unet guidance face_encoder detector
copy "$model" "$runs/base" guidance

stage() { # name, minutes, extra flags
  local name=$1 minutes=$2
  shift 2
  "$program" train "$name" --out "$out" --runs "$runs" --backend "$backend" --creatures \
    --minutes "$(awk "BEGIN { print $minutes * $scale }")" --resume "$@"
}

stage detector 6
stage face 8
stage face 6 --preset mini-eval
stage diffusion 25 --base "$runs/base" --pictures "$pictures" --drop-style 0.35 \
  --drop-identity 0.2 --n-tokens 4

for which in before after; do
  if [ "$which" = before ]; then measured=$model; else measured=$out; fi
  "$program" eval --model "$measured" --encoder "$runs/face-eval-creatures/eval_face_encoder" --experiments creatures --images-only \
    --trials "${TRIALS:-24}" --out "$runs/report-$which"
done
