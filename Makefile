# The whole project in a few words; see CONTRIBUTING.md. Every target works on a fresh clone.

PORT ?= 8080

.PHONY: help setup pkg demo test fmt lint test-native test-web test-gpu parity-full bench

help:
	@echo "make demo    build what the page needs on this machine, and serve it on http://127.0.0.1:$(PORT)"
	@echo "make test    what CI checks, make test-gpu aside"
	@echo "make test-gpu   the kernels for WebGPU on this machine's Vulkan, Metal or DX12 (CUBECL_WGPU_DEFAULT_DEVICE=Cpu: Mesa's software driver)"
	@echo "make setup   the tool chain: wasm target, wasm-bindgen, npm packages"
	@echo "make pkg     the browser package in pkg/: both modules of the engine, as small as they get, and types"
	@echo "make lint    formatting, clippy, eslint, types"
	@echo "make fmt     format the code"
	@echo "make parity-full   every network at full size against PyTorch (12 GB of memory; see tests/parity/full.py)"
	@echo "make bench   ours against PyTorch and onnxruntime-web (see benches/bench.mjs)"

setup:
	scripts/setup.sh

pkg: setup
	scripts/build-pkg.sh

demo: setup
	scripts/build-pkg.sh demo
	@echo "demo: compiling the server (a minute of processor time the first time)"
	cargo run --package facestudio-serve -- --port $(PORT)

fmt: setup
	cargo fmt
	npx prettier --write --log-level warn .

lint: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	scripts/cargo-wasm.sh clippy -- -D warnings
	npx prettier --check --log-level warn .
	npx eslint .
	npx tsc --project web

test-native:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	if command -v cargo-nextest >/dev/null; then cargo nextest run --no-fail-fast; else cargo test --lib --bins --tests; fi
	cargo test --doc

test-web: pkg
	scripts/cargo-wasm.sh clippy -- -D warnings
	npx prettier --check --log-level warn .
	npx eslint .
	npx tsc --project web
	cargo build --bin facestudio --example tiny-model
	[ -d tests/bundlers/node_modules ] || npm ci --prefix tests/bundlers --no-audit --no-fund
	BUNDLERS=required node --test --test-timeout=1800000 tests/browser/*.test.mjs

# Dependencies unoptimised: they compile in half the time, and the tests are the device's work.
test-gpu:
	CARGO_TARGET_DIR=target-gpu cargo test --package facestudio --lib --test precision --no-default-features --features gpu,cpu \
	  --config 'profile.dev.package."*".opt-level=0' -- kernels:: weights::module half_precision

# Needs Python with what tests/parity/full.py names (PYTHON=...).
parity-full:
	cargo build --release --bin facestudio
	$(or $(PYTHON),python3) tests/parity/full.py

# Needs Python with what benches/reference.py names (PYTHON=...); RUNS, THREADS, BACKENDS and NETWORKS as in benches/bench.mjs.
bench: setup
	cargo build --release --bin facestudio
	scripts/cargo-wasm.sh build --features bench
	scripts/wasm-bindgen.sh --target web --out-name facestudio --out-dir target/bench-pkg/wasm \
	  target-wasm/wasm32-unknown-unknown/release/facestudio_wasm.wasm
	scripts/cargo-wasm.sh threads build --features bench
	scripts/wasm-bindgen.sh --target web --out-name facestudio --out-dir target/bench-pkg/wasm-threads \
	  target-wasm-threads/wasm32-unknown-unknown/release/facestudio_wasm.wasm
	cd benches && npm ci --no-audit --no-fund
	node benches/bench.mjs

test: test-native test-web
