//! FaceStudio (arXiv 2312.02663): identity-preserving image generation, natively and in the browser.
//!
//! ```text
//! face photos ─ image::align ─ encoders::face ──────────────┐ id_embeds (β)
//! style image ─ image::preprocess ─ encoders::vision ×3 ─┐  │
//!                                       image_embeds      ├──┴─ guidance::fusion ─ α ─ Condition
//! prompt ─ encoders::text ─ guidance::prior ─────────────┘                              │
//!                                                                                        ▼
//! seed ─ sampling::noise ─ latents ─ ⟲ sampling::step(unet(latents, t, Condition)) ─ vae::decode ─ picture
//! ```

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod error;

pub mod attention;
pub mod condition;
mod kernels;
pub mod nn;
pub mod request;
pub mod weights;

pub mod image;

pub mod encoders;
pub mod guidance;
pub mod pixart;
pub mod sampling;
pub mod transformer;
pub mod unet;
pub mod upscaler;
pub mod vae;

pub mod pipeline;

/// What the workspace's other crates need beyond the interface; nobody else may rely on it.
#[doc(hidden)]
pub mod internal {
    #[cfg(all(feature = "gpu", feature = "cpu", target_family = "wasm"))]
    pub use crate::kernels::prove;
    #[cfg(all(feature = "gpu", target_family = "wasm"))]
    pub use crate::kernels::{
        Tiles, leave_out, measure_rate, measure_tiles, set_rate, set_tiles, tiles, time_kernel,
    };
    pub use crate::nn::internal::*;
    pub use crate::pipeline::internal::*;
    pub use crate::sampling::internal::*;
    pub use crate::weights::internal::*;
}

pub use error::{Error, Notice, Result};
