//! Pictures to latents and back.
mod dc;
pub use dc::{AutoencoderDc, AutoencoderDcConfig, PerLevel};
