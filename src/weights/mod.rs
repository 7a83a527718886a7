//! Tensors by name: where they come from, and how they get into a module. Knows no architecture.

mod component;
mod decode;
mod files;
mod manifest;
mod module;
mod names;
mod paths;
mod quantize;
mod safetensors;
mod shards;
mod stream;
mod tensors;

pub use component::Component;
pub use files::{Files, Folder, MemoryFiles, NewFolder, Overlay, write_file, write_folder};
#[cfg(target_arch = "wasm32")]
pub(crate) use files::{file_missing, files_in, folders_in};
pub use manifest::{ComponentEntry, FileEntry, Manifest, ModelCard, Sha256Stream, sha256};
#[cfg(feature = "train")]
pub(crate) use module::is_named;
pub use module::{apply, collect};
#[cfg(feature = "convert")]
pub(crate) use names::{WEIGHT_ENDINGS, WeightName, missing_piece, preferred};
pub(crate) use paths::without_mark;
pub use paths::{MAX_TEXT, check_output, check_output_folder, open_file, read_file, read_text};
pub use quantize::{Quantization, encode};

pub use crate::kernels::Blocks;
#[cfg(feature = "convert")]
pub(crate) use decode::decode;
pub use safetensors::{SafetensorsFile, SafetensorsHeader};
pub use shards::{MAX_SHARD, write_shards};
pub use stream::{Views, write_tensors};
pub use tensors::{TensorSource, Tensors};
