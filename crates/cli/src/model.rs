//! The model that a command draws with: a folder, or the one that the program carries.

use std::ops::Range;
use std::path::PathBuf;

use facestudio::internal::{file_missing, files_in, folders_in};
use facestudio::weights::{CheckedFolder, Files};
use facestudio::{Error, Result};

use crate::hub::{self, Hub};
use crate::place::check_model;

/// Where the model is.
#[derive(clap::Args)]
pub struct Model {
    /// Model folder, or hf:OWNER/NAME[@REVISION]: one that is published on Hugging Face's hub, which is fetched into the cache that
    /// Hugging Face's own programs use. Without it mini, which the program carries.
    #[arg(long)]
    model: Option<PathBuf>,
}

impl Model {
    /// Its files. Fails where the folder cannot be read, or fetched.
    pub fn files(&self) -> Result<Box<dyn Files>> {
        Ok(match &self.model {
            None => Box::new(Carried),
            Some(folder) => {
                let folder = match folder.to_string_lossy().strip_prefix("hf:") {
                    Some(address) => {
                        let (repository, revision) = hub::parse(address)?;
                        Hub::from_env()?.model(repository, revision)?
                    }
                    None => folder.clone(),
                };
                check_model(&folder)?;
                Box::new(CheckedFolder::new(folder))
            }
        })
    }
}

/// The files of `models/mini` as they were when the program was built.
struct Carried;

/// By their paths, sorted.
const MINI: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/mini.rs"));

impl Carried {
    fn bytes(path: &str) -> Result<&'static [u8]> {
        let place = MINI.binary_search_by_key(&path, |(path, _)| path).map_err(|_| file_missing(path))?;
        Ok(MINI[place].1)
    }
}

impl Files for Carried {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        Self::bytes(path).map(<[u8]>::to_vec)
    }

    fn size(&self, path: &str) -> Result<u64> {
        Self::bytes(path).map(|bytes| bytes.len() as u64)
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let part = Self::bytes(path)?.get(range.start as usize..range.end as usize);
        part.map(<[u8]>::to_vec).ok_or_else(|| {
            Error::weights("file-corrupt", format!("{path} ends too early"), "install the program again")
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(files_in(MINI.iter().map(|(path, _)| *path), folder))
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        Ok(folders_in(MINI.iter().map(|(path, _)| *path), folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_carries_mini_as_it_lies_in_the_repository() {
        let folder =
            CheckedFolder::new(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini"));
        assert!(MINI.is_sorted_by_key(|(path, _)| *path));
        let folders = folder.folders("").unwrap();
        assert_eq!(Carried.folders("").unwrap(), folders);
        for name in &folders {
            let files = folder.list(name).unwrap();
            assert_eq!(Carried.list(name).unwrap(), files);
            for file in files.iter().map(|file| format!("{name}/{file}")) {
                let bytes = folder.read(&file).unwrap();
                assert_eq!(Carried.size(&file).unwrap(), bytes.len() as u64);
                assert!(Carried.read_range(&file, 0..bytes.len() as u64).unwrap() == bytes, "{file}");
            }
        }
        assert_eq!(Carried.read("vae").unwrap_err().code, "file-missing");
        assert_eq!(Carried.read_range("manifest.json", 0..1 << 40).unwrap_err().code, "file-corrupt");
    }
}
