#!/usr/bin/env bash
# The paper's ablations on a trained model: guidance tokens, how often style and identity are dropped, and the ensemble of three
# vision encoders against each alone. See docs/ablations.md.
#
#   scripts/ablations.sh MODEL ENCODER [RUNS]
#
# MODEL is a folder in full precision (runs/mini of train-mini.sh), ENCODER the identity encoder that judges. Every variant gets a
# new shared Linear and STEPS (default 1000) steps of the model's own UNet, and is measured by the model's CLIP. What is finished
# is kept. TRIALS (default 24) are the people of the evaluation, SEED (default 0) that of training; FACESTUDIO, BACKEND and PICTURES as
# for train-mini.sh.
set -euo pipefail

export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

model=$1
encoder=$2
runs=${3:-runs}/ablations
program=${FACESTUDIO:-target/release/facestudio}
backend=${BACKEND:-cpu}

. "$(dirname "$0")/copy-model.sh"

# Without its shared Linear, so that each variant begins with one of its own.
base=$runs/base
mkdir -p "$runs"
copy "$model" "$base" guidance

variant() { # name, tokens, style dropped, identity dropped, the vision encoders it has
  local name=$1 tokens=$2 style=$3 identity=$4 kept=$5
  local out=$runs/$name flags=()
  if [ "$kept" = all ]; then
    copy "$base" "$out" unet
  elif [ ! -d "$out" ]; then
    rm -rf "$out.one"
    copy "$base" "$out.one" unet prior vision_encoder vision_encoder_2 vision_encoder_3
    cp -r "$base/$kept" "$out.one/vision_encoder"
    mv "$out.one" "$out"
  fi
  # The prior draws all three encoders' embeddings.
  if [ "$kept" != all ]; then flags=(--images-only); fi
  mkdir -p "$runs/../cache" "$runs/runs-$name"
  ln -sfn "$(cd "$runs/../cache" && pwd)" "$runs/runs-$name/cache"
  "$program" train diffusion --base "$base" --out "$out" --runs "$runs/runs-$name" --backend "$backend" \
    --pictures "$((2 * ${PICTURES:-12000}))" --steps "${STEPS:-1000}" --seed "${SEED:-0}" --resume \
    --n-tokens "$tokens" --drop-style "$style" --drop-identity "$identity"
  "$program" eval --model "$out" --encoder "$encoder" --clip "$base" --out "$runs/report-$name" \
    --experiments table-1,style-swap,styles --trials "${TRIALS:-24}" ${flags[@]+"${flags[@]}"}
}

variant tokens-1 1 0.35 0.2 all
variant tokens-4 4 0.35 0.2 all
variant tokens-16 16 0.35 0.2 all
variant drop-0.64 4 0.64 0.1 all
variant drop-0.1 4 0.1 0.1 all
variant encoder-1 4 0.35 0.2 vision_encoder
variant encoder-2 4 0.35 0.2 vision_encoder_2
variant encoder-3 4 0.35 0.2 vision_encoder_3
