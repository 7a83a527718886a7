//! Tensors by name: where they come from, and how they get into a module. Knows no architecture.

mod files;
mod manifest;
mod module;
mod quantize;
mod safetensors;
mod shards;
mod tensors;

pub use files::{Component, Files, Folder, MemoryFiles, NewFolder, write_file, write_folder};
pub use manifest::{ComponentEntry, FileEntry, Manifest, ModelCard, sha256};
#[cfg(feature = "train")]
pub(crate) use module::is_named;
pub use module::{apply, collect};
pub use quantize::{Quantization, encode};
pub use safetensors::SafetensorsFile;
pub use shards::{MAX_SHARD, encode_shards};
pub use tensors::{TensorSource, Tensors};
