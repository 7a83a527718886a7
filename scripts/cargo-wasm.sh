#!/usr/bin/env bash
# Runs a cargo command (build, check, clippy) on crates/wasm for the browser, in release mode: with both backends, or after the
# word `threads` with the CPU's and all its processors.
set -euo pipefail
cd "$(dirname "$0")/.."

threads=
if [ "$1" = threads ]; then
  threads=yes
  shift
fi
command=$1
shift

# 128-bit SIMD is in every browser that has WebGPU, and in the others since 2023.
export RUSTFLAGS="-C target-feature=+simd128"
options=(--package facestudio-wasm --lib --release --target wasm32-unknown-unknown --no-default-features)
if [ -z "$threads" ]; then
  export CARGO_TARGET_DIR=target-wasm
  options+=(--features cpu,gpu)
else
  # Threads are instances over one memory, with a stack and thread-local variables of their own, which the linker must name.
  export CARGO_TARGET_DIR=target-wasm-threads
  RUSTFLAGS+=" -C target-feature=+atomics,+bulk-memory"
  for argument in shared-memory import-memory max-memory=4294967296 \
    export=__wasm_init_tls export=__tls_size export=__tls_align export=__tls_base; do
    RUSTFLAGS+=" -C link-arg=--$argument"
  done
  # WebGPU's objects belong to one thread, and burn wants to pass them on.
  options+=(--features threads)
fi

# Most of the module is code that builds GPU kernels, once each: it is compiled for size. What computes on the CPU is not.
options+=(--config 'profile.release.opt-level="s"')
for crate in facestudio facestudio-synth burn-flex gemm gemm-common gemm-f32 gemm-f16 macerator pulp half libm; do
  options+=(--config "profile.release.package.$crate.opt-level=3")
done

# The standard library as it is distributed knows of no threads on wasm, and is built anew for them.
build_std=$threads
library=$(rustc --print sysroot)/lib/rustlib
if [ -n "$threads" ]; then needed=$library/src/rust/library; else needed=$library/wasm32-unknown-unknown/lib; fi
if [ ! -d "$needed" ]; then
  # Debian's rustc builds the standard library from its sources (see setup.sh); the linker is rustup's.
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(echo "$library"/*/bin/rust-lld)
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
  export RUSTC=/usr/bin/rustc
  build_std=yes
  # Clippy comes with rustup's compiler only.
  if [ "$command" = clippy ]; then command=check; set --; fi
fi

if [ -n "$build_std" ]; then
  export RUSTC_BOOTSTRAP=1
  options+=(-Zbuild-std=std,panic_abort)
fi

cargo "$command" "${options[@]}" "$@"
