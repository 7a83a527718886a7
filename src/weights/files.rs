//! Model folders in the diffusers/transformers layout, on disk or in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::DeserializeOwned;

use super::safetensors::SafetensorsFile;
use super::shards;
use super::tensors::{TensorSource, missing};
use crate::error::{Error, Result};

/// Files by path relative to a root, with `/` between parts.
pub trait Files {
    /// Reads one file whole.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
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
        Ok(self.below(folder).filter(|rest| !rest.contains('/')).map(str::to_owned).collect())
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            self.below(folder).filter_map(|rest| Some(rest.split_once('/')?.0.to_owned())).collect();
        names.dedup();
        Ok(names)
    }
}

impl MemoryFiles {
    /// Paths below `folder`, relative to it, sorted.
    fn below(&self, folder: &str) -> impl Iterator<Item = &str> {
        let folder = folder.trim_end_matches('/').to_owned();
        self.0.keys().filter_map(move |path| {
            if folder.is_empty() {
                Some(path.as_str())
            } else {
                path.strip_prefix(&folder)?.strip_prefix('/')
            }
        })
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

    /// Opens the folder's weights: its `.safetensors` file, or all of its shards.
    ///
    /// Of several variants of one file (`model.safetensors` beside `model.fp16.safetensors`) the plain one is taken.
    pub fn tensors(&self) -> Result<Box<dyn TensorSource>> {
        Ok(Box::new(Shards(self.shards()?)))
    }

    /// The files behind [`tensors`](Self::tensors), one by one.
    pub fn shards(&self) -> Result<Vec<SafetensorsFile>> {
        let names = weight_files(self.files.list(&self.folder)?);
        let folder = if self.folder.is_empty() { "the folder" } else { &self.folder };
        if names.is_empty() {
            return Err(Error::weights(
                "weights-missing",
                format!("no .safetensors file in {folder}"),
                "convert the checkpoint with `facestudio convert`, or point to the folder that holds it",
            ));
        }
        for name in &names {
            if let Some(absent) = shards::siblings(name).into_iter().find(|sibling| !names.contains(sibling))
            {
                return Err(Error::weights(
                    "weights-missing",
                    format!("{} is there, but {absent} is not", self.path(name)),
                    "fetch or convert the model again",
                ));
            }
        }
        let mut shards = Vec::with_capacity(names.len());
        for name in names {
            let path = self.path(&name);
            let shard = SafetensorsFile::new(self.files.read(&path)?).map_err(|e| e.context(&path))?;
            if let Some(twice) = shard.names().iter().find(|name| has(&shards, name)) {
                return Err(Error::weights(
                    "tensor-duplicate",
                    format!("{path}: tensor '{twice}' is also in another file of {folder}"),
                    "keep one set of weights in the folder",
                ));
            }
            shards.push(shard);
        }
        Ok(shards)
    }
}

fn has(shards: &[SafetensorsFile], name: &str) -> bool {
    shards.iter().any(|shard| shard.shape(name).is_some())
}

/// The `.safetensors` files among `names`, without variants `stem.variant.safetensors` of a file that is there.
fn weight_files(names: Vec<String>) -> Vec<String> {
    let stems: Vec<String> =
        names.iter().filter_map(|name| name.strip_suffix(".safetensors")).map(str::to_owned).collect();
    let variant =
        |stem: &String| stem.rsplit_once('.').is_some_and(|(base, _)| stems.iter().any(|s| s == base));
    stems.iter().filter(|stem| !variant(stem)).map(|stem| format!("{stem}.safetensors")).collect()
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
        shard.ok_or_else(|| missing(name))?.read(name)
    }
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

/// Writes a file whole or not at all: into a temporary sibling that is renamed at the end.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;

    let partial = partial_sibling(path)?;
    let write = || {
        let mut file = std::fs::File::create_new(&partial)?;
        file.write_all(bytes)?;
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
