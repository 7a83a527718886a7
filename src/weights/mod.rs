//! Tensors by name: where they come from, and how they get into a module. Knows no architecture.

mod component;
mod decode;
mod files;
mod folder;
mod manifest;
mod module;
mod names;
mod paths;
mod quantize;
mod safetensors;
mod shards;
mod stream;
mod tensors;
mod writing;

pub use component::Component;
pub use files::{Files, MemoryFiles, Overlay};
#[cfg(target_arch = "wasm32")]
pub(crate) use files::{file_missing, files_in, folders_in};
#[cfg(feature = "train")]
pub(crate) use folder::EXPORT;
#[cfg(feature = "convert")]
pub(crate) use folder::check_listed;
pub use folder::{CheckedFolder, Folder, sha256_file};
#[cfg(feature = "train")]
pub(crate) use manifest::is_inside;
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
#[cfg(feature = "train")]
pub(crate) use stream::tensors_into;
pub use stream::{Views, write_tensors};
#[cfg(feature = "train")]
pub(crate) use tensors::check_finite;
pub use tensors::{TensorSource, Tensors};
#[cfg(feature = "train")]
pub(crate) use writing::sync_folder;
pub use writing::{NewFolder, abandon, write_file, write_file_by, write_folder, write_folder_until, writing};
