#!/usr/bin/env bash
# wasm-bindgen's program: the one that setup.sh installed, or the one on the path.
root=$(cd "$(dirname "$0")/.." && pwd)
PATH="$root/target-tools/bin:$PATH" exec wasm-bindgen "$@"
