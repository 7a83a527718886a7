//! Pixels to tensors and back; no weights.

pub mod align;
pub mod preprocess;
