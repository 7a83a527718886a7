#!/usr/bin/env bash
# Feeds damaged and hostile files to every parser that reads a stranger's bytes, from the test fixtures on.
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]     SECONDS for each target (600), TARGETs by default all
#
# Needs a nightly Rust and cargo-fuzz (`cargo install cargo-fuzz`). What is found lies in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(cargo +nightly fuzz list))

corpus=fuzz/corpus
for target in "${targets[@]}"; do mkdir -p "$corpus/$target"; done
seed() { # target, files
  local target=$1
  shift
  [ ! -d "$corpus/$target" ] || for file in "$@"; do cp "$file" "$corpus/$target/${file//\//-}"; done
}
seed safetensors tests/parity/yunet/plain/model.safetensors tests/parity/sampling/io.safetensors \
  models/mini/prior/*.safetensors
seed manifest models/mini/manifest.json
seed config models/mini/scheduler/scheduler_config.json
seed onnx tests/parity/yunet/*/exported.onnx
seed gguf tests/parity/gguf/*.gguf
seed image docs/*.jpg docs/*.png
seed layouts fuzz/seeds/*
pickle=$(mktemp)
trap 'rm -f "$pickle"' EXIT
unzip -p tests/parity/convert/iresnet.pt '*/data.pkl' >"$pickle"
seed pickle "$pickle"
if [ -d "$corpus/checkpoint" ]; then # the first byte says which suffix the file has
  for of in 0:convert/iresnet.pt 2:yunet/plain/exported.onnx 3:yunet/plain/model.safetensors; do
    { printf "\\x0${of%%:*}"; cat "tests/parity/${of#*:}"; } >"$corpus/checkpoint/${of%%:*}"
  done
fi
if [ -d "$corpus/tokenizer" ]; then
  { cat models/mini/tokenizer/vocab.json; printf '\0'; cat models/mini/tokenizer/merges.txt; printf '\0a photo of a woman'; } \
    >"$corpus/tokenizer/mini"
fi

for target in "${targets[@]}"; do
  echo "== $target"
  cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=3072 -timeout=20 -print_final_stats=1
done
