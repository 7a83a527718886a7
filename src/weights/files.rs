//! Model folders in the diffusers/transformers layout, on disk or in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::tensors::{SafetensorsFile, TensorSource};
use crate::error::{Error, Result};

/// Files by path relative to a root, with `/` between parts.
pub trait Files {
    /// Reads one file whole.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
    /// Names of the files directly in a folder (`""` for the root), sorted.
    fn list(&self, folder: &str) -> Result<Vec<String>>;
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.0.join(path);
        std::fs::read(&path).map_err(|e| Error::io(path.display(), &e))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.0.join(folder);
        let entries = std::fs::read_dir(&path).map_err(|e| Error::io(path.display(), &e))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(path.display(), &e))?;
            if entry.path().is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Files in memory: what the browser has fetched.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(pub BTreeMap<String, Vec<u8>>);

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| {
            Error::weights(
                "file-missing",
                format!("{path} is missing from the model"),
                "fetch the model again",
            )
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let prefix =
            if folder.is_empty() { String::new() } else { format!("{}/", folder.trim_end_matches('/')) };
        let names =
            self.0.keys().filter_map(|path| path.strip_prefix(&prefix)).filter(|rest| !rest.contains('/'));
        Ok(names.map(str::to_owned).collect())
    }
}

/// One network of a model: its folder with `config.json` and safetensors.
pub struct Component<'a> {
    files: &'a dyn Files,
    folder: String,
}

impl<'a> Component<'a> {
    /// The component in `folder` of `files`; `""` where `files` is the component's own folder.
    pub fn new(files: &'a dyn Files, folder: &str) -> Self {
        Self { files, folder: folder.to_owned() }
    }

    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }

    /// Whether the component's folder has a file of that name.
    pub fn contains(&self, name: &str) -> Result<bool> {
        Ok(self.files.list(&self.folder)?.iter().any(|file| file == name))
    }

    /// Reads a file of the component's folder.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.files.read(&self.path(name))
    }

    /// Parses `config.json` (or another JSON file of the folder).
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.read(name)?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::weights(
                "config",
                format!("{}: {e}", self.path(name)),
                "use the config of a supported model",
            )
        })
    }

    /// Opens the folder's weights: every `.safetensors` file in it (one, or the shards of an index).
    pub fn tensors(&self) -> Result<Box<dyn TensorSource>> {
        let names: Vec<String> = self
            .files
            .list(&self.folder)?
            .into_iter()
            .filter(|name| name.ends_with(".safetensors"))
            .collect();
        if names.is_empty() {
            return Err(Error::weights(
                "weights-missing",
                format!(
                    "no .safetensors file in {}",
                    if self.folder.is_empty() { "the folder" } else { &self.folder }
                ),
                "convert the checkpoint with `facestudio convert`, or point to the folder that holds it",
            ));
        }
        let mut shards = Vec::with_capacity(names.len());
        for name in names {
            let path = self.path(&name);
            shards.push(SafetensorsFile::new(self.files.read(&path)?).map_err(|e| e.context(&path))?);
        }
        Ok(Box::new(Shards(shards)))
    }
}

struct Shards(Vec<SafetensorsFile>);

impl TensorSource for Shards {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().flat_map(TensorSource::names).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.iter().find_map(|shard| shard.shape(name))
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let shard = self.0.iter().find(|shard| shard.shape(name).is_some());
        shard.unwrap_or(&self.0[0]).read(name)
    }
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}
