//! Pixels to tensors and back; no weights.

pub mod align;
pub mod codec;
pub mod decoded;
pub mod mask;
pub mod patch;
pub mod preprocess;
pub mod processor;
pub mod reference;
pub mod watermark;
