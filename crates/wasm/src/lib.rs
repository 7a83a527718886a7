//! The browser's door: an [`Engine`] for the worker in `web/engine/worker.js`, and plain JavaScript objects across it.

#![cfg(target_arch = "wasm32")]
#![allow(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

#[cfg(feature = "bench")]
mod bench;
mod convert;
mod engine;
mod failure;
mod files;
mod memory;
mod sample;
#[cfg(feature = "threads")]
mod threads;

#[cfg(feature = "bench")]
pub use bench::Bench;
pub use engine::Engine;
pub use files::Sha256;
pub use memory::failed_allocation;
pub use sample::{draw_face, face_maker, inspect_image, random_face, render_face};
#[cfg(feature = "threads")]
pub use threads::{run_thread, start_threads};

use wasm_bindgen::prelude::*;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs once, when the module is instantiated; not in threads, which join its memory.
#[wasm_bindgen(start)]
pub fn start() {
    // burn registers its operations in constructors, which no one else calls on wasm32-unknown-unknown.
    // SAFETY: the linker defines this symbol, and nothing has run before it.
    unsafe { __wasm_call_ctors() };
    failure::install_panic_hook();
}

/// The crate's version: the worker checks that it is its own.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// What the last panic said: the reason behind a `RuntimeError` that left this module.
#[wasm_bindgen]
pub fn last_panic() -> Option<String> {
    failure::last_panic()
}
