//! Tensors by name: where they come from, and how they get into a module. Knows no architecture.

mod files;
mod module;
mod tensors;

pub use files::{Component, Files, Folder, MemoryFiles};
pub use module::{apply, collect};
pub use tensors::{SafetensorsFile, TensorSource, Tensors, encode_safetensors};
