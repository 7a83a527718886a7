#!/usr/bin/env bash
# Runs a cargo command (build, check, clippy) for the browser: the library with both backends, in release mode.
set -euo pipefail
cd "$(dirname "$0")/.."

command=$1
shift

export CARGO_TARGET_DIR=target-wasm
# 128-bit SIMD is in every browser that has WebGPU, and in the others since 2023.
export RUSTFLAGS="-C target-feature=+simd128"
options=(--lib --release --target wasm32-unknown-unknown --no-default-features --features cpu,gpu)

# Most of the module is code that builds GPU kernels, once each: it is compiled for size. What computes on the CPU is not.
options+=(--config 'profile.release.opt-level="s"')
for crate in facestudio burn-flex gemm gemm-common gemm-f32 gemm-f16 macerator pulp half libm; do
  options+=(--config "profile.release.package.$crate.opt-level=3")
done

sysroot=$(rustc --print sysroot)
if [ ! -d "$sysroot/lib/rustlib/wasm32-unknown-unknown/lib" ]; then
  # Debian's rustc builds the standard library from its sources (see setup.sh); the linker is rustup's.
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(echo "$sysroot"/lib/rustlib/*/bin/rust-lld)
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
  options+=(-Zbuild-std=std,panic_abort)
  # Clippy comes with rustup's compiler only.
  if [ "$command" = clippy ]; then command=check; set --; fi
fi

cargo "$command" "${options[@]}" "$@"
