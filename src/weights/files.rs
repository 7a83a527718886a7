//! Where a model folder's files are: in memory here, on disk in `folder`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::folder::CheckedFolder;
use super::manifest::Sha256Stream;
use crate::error::{Error, Result};

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// Files by path relative to a root, with `/` between parts.
pub trait Files {
    /// Reads one file whole.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
    /// A file's size in bytes.
    fn size(&self, path: &str) -> Result<u64>;
    /// Reads a part of a file; fails if the file ends before.
    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>>;
    /// Names of the files directly in a folder (`""` for the root), sorted.
    fn list(&self, folder: &str) -> Result<Vec<String>>;
    /// Names of the folders directly in a folder (`""` for the root), sorted.
    fn folders(&self, folder: &str) -> Result<Vec<String>>;

    /// Lower-case hexadecimal SHA-256 of a file, which is read for it a piece at a time. Where files are held against a manifest it is
    /// what that says; `None` where it lists no such file, which then cannot be read.
    fn sha256(&self, path: &str) -> Result<Option<String>> {
        let (size, mut hash) = (self.size(path)?, Sha256Stream::default());
        for start in (0..size).step_by(PIECE) {
            hash.update(&self.read_range(path, start..size.min(start + PIECE as u64))?);
        }
        Ok(Some(hash.finish()))
    }

    /// The same files, held against their manifest as they are read, where nobody has done so before.
    fn checked(&self) -> Option<CheckedFolder> {
        None
    }
}

/// Files in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(pub BTreeMap<String, Vec<u8>>);

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.bytes(path).map(<[u8]>::to_vec)
    }

    fn size(&self, path: &str) -> Result<u64> {
        self.bytes(path).map(|bytes| bytes.len() as u64)
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let part = self.bytes(path)?.get(range.start as usize..range.end as usize);
        part.map(<[u8]>::to_vec).ok_or_else(|| {
            Error::weights("file-corrupt", format!("{path} ends too early"), "fetch the file again")
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(files_in(self.0.keys(), folder))
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        Ok(folders_in(self.0.keys(), folder))
    }
}

impl MemoryFiles {
    fn bytes(&self, path: &str) -> Result<&[u8]> {
        self.0.get(path).map(Vec::as_slice).ok_or_else(|| file_missing(path))
    }
}

/// Files of which some folders are others': what is in `over` takes the place of whole folders.
pub struct Overlay<'a> {
    /// What lies below.
    pub files: &'a dyn Files,
    /// The folders that are seen instead.
    pub over: &'a MemoryFiles,
}

impl Overlay<'_> {
    fn of(&self, folder: &str) -> &dyn Files {
        let covered = self.over.0.keys().any(|path| folder_of(path) == folder.trim_end_matches('/'));
        if covered { self.over } else { self.files }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Files for Overlay<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.of(folder_of(path)).read(path)
    }

    fn size(&self, path: &str) -> Result<u64> {
        self.of(folder_of(path)).size(path)
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        self.of(folder_of(path)).read_range(path, range)
    }

    fn sha256(&self, path: &str) -> Result<Option<String>> {
        self.of(folder_of(path)).sha256(path)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.of(folder).list(folder)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = self.files.folders(folder)?;
        names.extend(self.over.folders(folder)?);
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// Of sorted paths, the names of the files directly in `folder`.
pub fn files_in<'a>(
    paths: impl Iterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
    folder: &str,
) -> Vec<String> {
    below(paths, folder).filter(|rest| !rest.contains('/')).map(str::to_owned).collect()
}

/// Of sorted paths, the names of the folders directly in `folder`.
pub fn folders_in<'a>(
    paths: impl Iterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
    folder: &str,
) -> Vec<String> {
    let mut names: Vec<String> =
        below(paths, folder).filter_map(|rest| Some(rest.split_once('/')?.0.to_owned())).collect();
    names.dedup();
    names
}

/// Paths below `folder`, relative to it.
fn below<'a>(
    paths: impl Iterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
    folder: &str,
) -> impl Iterator<Item = &'a str> {
    let folder = folder.trim_end_matches('/').to_owned();
    paths.map(AsRef::as_ref).filter_map(move |path: &str| {
        if folder.is_empty() { Some(path) } else { path.strip_prefix(&folder)?.strip_prefix('/') }
    })
}

/// A file that the model should have.
pub fn file_missing(path: &str) -> Error {
    Error::weights("file-missing", format!("{path} is missing from the model"), "fetch the model again")
}
