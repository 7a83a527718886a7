//! Where a model folder's files are: on disk or in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::paths::{Target, target};
use crate::error::{Error, Result};

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
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.0.join(path);
        std::fs::read(&path).map_err(|e| Error::io(path.display(), &e))
    }

    fn size(&self, path: &str) -> Result<u64> {
        let path = self.0.join(path);
        let metadata = std::fs::metadata(&path).map_err(|e| Error::io(path.display(), &e))?;
        Ok(metadata.len())
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let path = self.0.join(path);
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e| Error::io(path.display(), &e))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.entries(folder, Path::is_file)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.entries(folder, Path::is_dir)
    }
}

impl Folder {
    fn entries(&self, folder: &str, wanted: fn(&Path) -> bool) -> Result<Vec<String>> {
        let path = self.0.join(folder);
        let entries = std::fs::read_dir(&path).map_err(|e| Error::io(path.display(), &e))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(path.display(), &e))?;
            if wanted(&entry.path()) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
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
pub(crate) fn files_in<'a>(paths: impl Iterator<Item = &'a String>, folder: &str) -> Vec<String> {
    below(paths, folder).filter(|rest| !rest.contains('/')).map(str::to_owned).collect()
}

/// Of sorted paths, the names of the folders directly in `folder`.
pub(crate) fn folders_in<'a>(paths: impl Iterator<Item = &'a String>, folder: &str) -> Vec<String> {
    let mut names: Vec<String> =
        below(paths, folder).filter_map(|rest| Some(rest.split_once('/')?.0.to_owned())).collect();
    names.dedup();
    names
}

/// Paths below `folder`, relative to it.
fn below<'a>(paths: impl Iterator<Item = &'a String>, folder: &str) -> impl Iterator<Item = &'a str> {
    let folder = folder.trim_end_matches('/').to_owned();
    paths.filter_map(move |path| {
        if folder.is_empty() { Some(path.as_str()) } else { path.strip_prefix(&folder)?.strip_prefix('/') }
    })
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

/// Writes a file whole or not at all: into a temporary sibling that is renamed at the end, where the path's links lead. What
/// goes to a character device is written to it.
///
/// Fails with `not-a-file` where a folder, a pipe, a socket or a disk is in the place.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file_by(path, |file| file.write_all(bytes))
}

/// As [`write_file`], of what `fill` writes.
pub(super) fn write_file_by(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let path = match target(path)? {
        Target::Device => {
            let write = || fill(&mut File::options().write(true).open(path)?);
            return write().map_err(|e| Error::io(path.display(), &e));
        }
        Target::File(path) => path,
    };
    let path = path.as_path();
    let partial = partial_sibling(path)?;
    let write = || {
        let mut file = File::create_new(&partial)?;
        fill(&mut file)?;
        // Renamed before its bytes are on the disk, it could survive a power cut empty.
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|e| {
        // The first error is the one to tell; the partial file may not even exist.
        let _ = std::fs::remove_file(&partial);
        Error::io(path.display(), &e)
    })
}

/// A file that the model should have.
pub(crate) fn file_missing(path: &str) -> Error {
    Error::weights("file-missing", format!("{path} is missing from the model"), "fetch the model again")
}

/// A folder that is being written; see [`write_folder`].
pub struct NewFolder(PathBuf);

impl NewFolder {
    /// Writes one file at a relative path with `/` between parts, making its folders.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(path);
        let parent = path.parent().unwrap_or(&self.0);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, bytes))
            .map_err(|e| Error::io(path.display(), &e))
    }

    /// What has been written so far.
    pub fn files(&self) -> Folder {
        Folder(self.0.clone())
    }
}

/// Writes a folder whole or not at all: `fill` writes into a temporary sibling that is renamed at the end.
///
/// Fails if `path` exists and is not an empty folder.
pub fn write_folder(path: &Path, fill: impl FnOnce(&NewFolder) -> Result<()>) -> Result<()> {
    let vacant = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    };
    if !vacant {
        return Err(Error::input(
            "output-exists",
            format!("{} exists already", path.display()),
            "choose another folder, or remove this one",
        ));
    }
    let partial = partial_sibling(path)?;
    std::fs::create_dir_all(&partial).map_err(|e| Error::io(partial.display(), &e))?;
    let filled = fill(&NewFolder(partial.clone())).and_then(|()| {
        // An empty folder in the way is replaced; where there is none, removing it fails and does not matter.
        let _ = std::fs::remove_dir(path);
        std::fs::rename(&partial, path).map_err(|e| Error::io(path.display(), &e))
    });
    if filled.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    filled
}

/// A hidden name beside `path`, another one for each call in each process.
fn partial_sibling(path: &Path) -> Result<PathBuf> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let name = path.file_name().ok_or_else(|| {
        Error::input(
            "output-name",
            format!("'{}' does not name a file or folder", path.display()),
            "name one",
        )
    })?;
    let (name, call) = (name.to_string_lossy(), CALLS.fetch_add(1, Ordering::Relaxed));
    Ok(path.with_file_name(format!(".{name}.partial-{}-{call}", std::process::id())))
}
