//! Tensors by name: where they come from, and how they get into a module. Knows no architecture.

mod component;
mod config;
mod decode;
mod files;
mod folder;
mod manifest;
mod module;
mod names;
mod parameters;
mod paths;
mod quantize;
mod safetensors;
mod shards;
mod stream;
mod tensors;
mod writing;

pub use component::Component;
pub(crate) use config::{check_range, config_range};
pub use files::{Files, MemoryFiles, Overlay};
pub use folder::{CheckedFolder, Folder, sha256_file};
pub(crate) use manifest::is_model_file;
pub use manifest::{ComponentEntry, FileEntry, Manifest, ModelCard, People, Sha256Stream, sha256};
pub use module::{apply, collect};
pub(crate) use paths::without_mark;
pub use paths::{MAX_TEXT, open_file, read_file, read_text};
pub use quantize::{Quantization, encode};

pub use crate::kernels::{BLOCK, Blocks};
pub use safetensors::{SafetensorsFile, SafetensorsHeader};
pub use shards::{MAX_SHARD, write_shards};
pub use stream::{Views, write_tensors};
pub use tensors::{TensorSource, Tensors};
pub use writing::{
    NewFolder, abandon, check_output, check_output_folder, write_file, write_file_by, write_folder,
    write_folder_until, writing,
};

pub(crate) mod internal {
    pub use super::decode::decode;
    pub use super::files::{file_missing, files_in, folders_in};
    pub use super::folder::{EXPORT, check_listed};
    pub use super::manifest::is_inside;
    pub use super::names::{WEIGHT_ENDINGS, WeightName, missing_piece, preferred};
    pub use super::parameters::{ParameterMapper, ParameterVisitor, Place, map_parameters, visit_parameters};
    pub use super::paths::without_mark;
    pub use super::stream::tensors_into;
    pub use super::tensors::check_finite;
    pub use super::writing::sync_folder;
}
