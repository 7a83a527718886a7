//! A model folder's components by name, and whether they fit each other.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::request::ModelId;
use crate::weights::{Component, Files, Manifest, is_model_file, sha256};

/// A model folder and the components that it has.
pub(super) struct ModelFolder<'a> {
    files: &'a dyn Files,
    folders: Vec<String>,
    /// Components that were loaded through it.
    loaded: RefCell<BTreeSet<String>>,
}

impl<'a> ModelFolder<'a> {
    pub(super) fn new(files: &'a dyn Files) -> Result<Self> {
        Ok(Self { files, folders: files.folders("")?, loaded: RefCell::default() })
    }

    /// All of the model's files.
    pub(super) fn files(&self) -> &'a dyn Files {
        self.files
    }

    pub(super) fn has(&self, folder: &str) -> bool {
        self.folders.iter().any(|name| name == folder)
    }

    /// Components that were loaded through it.
    pub(super) fn loaded(&self) -> BTreeSet<String> {
        self.loaded.borrow().clone()
    }

    /// Bytes of the files of those components.
    pub(super) fn loaded_size(&self) -> Result<u64> {
        let mut size = 0;
        for folder in self.loaded.borrow().iter() {
            for file in self.files.list(folder)? {
                size += self.files.size(&format!("{folder}/{file}"))?;
            }
        }
        Ok(size)
    }

    /// The configs of those components, one after the other.
    pub(super) fn loaded_configs(&self) -> Result<Vec<u8>> {
        let mut configs = Vec::new();
        for folder in self.loaded.borrow().iter() {
            let component = Component::new(self.files, folder);
            if component.contains("config.json")? {
                configs.extend(component.read("config.json")?);
            }
        }
        Ok(configs)
    }

    /// What `load` makes of a component; fails with `component-missing` where the model has no such folder, and names
    /// the component in any error.
    pub(super) fn load<T>(&self, folder: &str, load: impl FnOnce(&Component) -> Result<T>) -> Result<T> {
        self.take(folder, |component| load(&component))
    }

    /// [`load`](Self::load) of a large network: its weights may be held as they are stored.
    pub(super) fn load_compact<T>(
        &self,
        folder: &str,
        load: impl FnOnce(&Component) -> Result<T>,
    ) -> Result<T> {
        self.take(folder, |component| load(&component.compact()))
    }

    fn take<T>(&self, folder: &str, load: impl FnOnce(Component) -> Result<T>) -> Result<T> {
        if !self.has(folder) {
            return Err(missing(folder));
        }
        self.loaded.borrow_mut().insert(folder.to_owned());
        load(Component::new(self.files, folder)).map_err(|e| e.context(folder))
    }
}

/// Which model these components make.
pub(super) fn model_id(files: &dyn Files, folders: &BTreeSet<String>) -> Result<ModelId> {
    let mut list = String::new();
    for folder in folders {
        for file in files.list(folder)?.iter().filter(|file| is_model_file(file)) {
            let path = format!("{folder}/{file}");
            if let Some(sha256) = files.sha256(&path)? {
                list += &format!("{sha256}  {path}\n");
            }
        }
    }
    let described = files.list("")?.iter().any(|name| name == Manifest::NAME);
    let manifest = described.then(|| Manifest::read(files)).transpose()?;
    let (name, version) = manifest.map(|manifest| (manifest.name, manifest.version)).unzip();
    Ok(ModelId { name, version, sha256: sha256(list.as_bytes()) })
}

/// The model lacks a folder.
pub(super) fn missing(folder: &str) -> Error {
    Error::weights(
        "component-missing",
        format!("the model has no component '{folder}'"),
        "point to a whole model folder, or train or convert the missing component",
    )
}

/// Fails with `model-mismatch` unless two components agree on a width.
pub(super) fn check_width(first: &str, first_width: usize, second: &str, second_width: usize) -> Result<()> {
    if first_width == second_width {
        return Ok(());
    }
    Err(Error::weights(
        "model-mismatch",
        format!("components do not fit: {first} {first_width} wide, {second} {second_width}"),
        "use components that were trained together",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_both_components() {
        let error = check_width("the prior", 96, "the vision encoders together", 80).unwrap_err();
        assert_eq!(error.code, "model-mismatch");
        assert!(error.message.contains("prior 96") && error.message.contains("together 80"), "{error}");
    }
}
