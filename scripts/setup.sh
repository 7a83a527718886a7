#!/usr/bin/env bash
# Gets what a build needs beside Rust itself: the wasm target, wasm-bindgen's program and the npm packages.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "setup: Rust is missing; see https://rustup.rs" >&2; exit 1; }
command -v npm >/dev/null || { echo "setup: Node.js 20 or later is missing; see https://nodejs.org" >&2; exit 1; }

# The wasm target, and the standard library's sources for the module with threads. Where rustup cannot get them, Debian's
# rustc-web builds the standard library from its own.
library=$(rustc --print sysroot)/lib/rustlib
if { [ ! -d "$library/wasm32-unknown-unknown/lib" ] && ! rustup target add wasm32-unknown-unknown; } ||
  { [ ! -d "$library/src/rust/library" ] && ! rustup component add rust-src; }; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y rustc-web rust-web-src
  elif ! dpkg -s rustc-web rust-web-src >/dev/null 2>&1; then
    echo "setup: no standard library for wasm32-unknown-unknown" >&2
    echo "  help: run 'rustup target add wasm32-unknown-unknown' and 'rustup component add rust-src', or on Debian" \
      "'apt-get install rustc-web rust-web-src'" >&2
    exit 1
  fi
fi

# The converter is a program of WASI. Without its standard library the package is made without it, and says so.
if [ ! -d "$library/wasm32-wasip1/lib" ] && ! rustup target add wasm32-wasip1; then
  echo "setup: no standard library for wasm32-wasip1: the package will not make models itself" >&2
fi

# wasm-bindgen's program must be of the very version of the crate.
version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p;}' Cargo.lock)
if ! scripts/wasm-bindgen.sh --version 2>/dev/null | grep -qF " $version"; then
  echo "setup: compiling wasm-bindgen's program (some three minutes of processor time)"
  # It runs for seconds, so it is hardly optimised; what it would fetch browsers' drivers with is left out.
  cargo install wasm-bindgen-cli --version "$version" --root target-tools --no-default-features \
    --config profile.release.opt-level=1
fi

if [ ! -d node_modules ] || [ package-lock.json -nt node_modules ]; then
  npm ci --no-audit --no-fund
  touch node_modules
fi
