#!/usr/bin/env bash
# Runs the CPU kernels in Miri, which finds what is undefined: the plain-array width, against plain loops (miri/).
#
# Needs a nightly Rust with Miri (`rustup component add miri rust-src --toolchain nightly`); takes a few seconds.
set -euo pipefail
cd "$(dirname "$0")/../miri"
export CARGO_TARGET_DIR=../target/miri
cargo test # in the processor's own vectors
cargo +nightly miri test
