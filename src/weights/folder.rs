//! Folders on disk, and models there, whose files are what their manifest says, where they have one.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read, Result as IoResult, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use super::files::{Files, file_missing};
use super::manifest::{FileEntry, Manifest, Sha256Stream, is_model_file};
use super::names::WeightName;
use super::paths::without_mark;
use crate::error::{Error, Result};

/// The folder in a model folder that holds new files on their way to their places. While it is there, some are new and some old.
pub const EXPORT: &str = ".export";

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// A folder on disk, as it lies there. A model is opened as a [`CheckedFolder`].
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

/// A model folder on disk, or a component's.
///
/// Where it has a `manifest.json`, or is a component of a model that has one, each file is held against it when it is first
/// read: its size and its SHA-256. Files that differ, are missing or are not listed are refused. A folder without a manifest is
/// taken as it is: that is how an edited model is opened on purpose.
#[derive(Debug, Clone)]
pub struct CheckedFolder {
    folder: Folder,
    checks: Arc<Checks>,
}

#[derive(Debug, Default)]
struct Checks {
    /// What the manifest lists, by path in this folder; `None` without a manifest.
    listed: OnceLock<Result<Option<BTreeMap<String, FileEntry>>>>,
    /// Files that are what the manifest says, as they were then.
    sound: Mutex<BTreeMap<String, Stamp>>,
}

/// What changes when a file is written to.
type Stamp = (u64, Option<SystemTime>);

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.len(), metadata.modified().ok())
}

impl Folder {
    fn open(&self, path: &str) -> IoResult<(File, Metadata)> {
        let path = self.0.join(path);
        // Looked at before it is opened: a pipe would wait for its writer.
        let metadata = fs::metadata(&path)?;
        if !metadata.is_file() {
            return Err(std::io::Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        Ok((File::open(&path)?, metadata))
    }

    fn read_whole(&self, path: &str) -> IoResult<(Metadata, Vec<u8>)> {
        let (mut file, metadata) = self.open(path)?;
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.read_to_end(&mut bytes)?;
        Ok((metadata, bytes))
    }

    fn entries(&self, folder: &str, wanted: fn(&Path) -> bool) -> Result<Vec<String>> {
        let path = self.0.join(folder);
        let entries = fs::read_dir(&path).map_err(|e| Error::io(path.display(), &e))?;
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

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let (_, bytes) = self.read_whole(path).map_err(|e| Error::io(self.0.join(path).display(), &e))?;
        Ok(bytes)
    }

    fn size(&self, path: &str) -> Result<u64> {
        let path = self.0.join(path);
        let metadata = fs::metadata(&path).map_err(|e| Error::io(path.display(), &e))?;
        Ok(metadata.len())
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let read = || {
            let (mut file, _) = self.open(path)?;
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e| Error::io(self.0.join(path).display(), &e))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.entries(folder, Path::is_file)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.entries(folder, Path::is_dir)
    }

    fn checked(&self) -> Option<CheckedFolder> {
        Some(CheckedFolder::new(&self.0))
    }
}

impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl CheckedFolder {
    /// The folder at `path`. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { folder: Folder(path.into()), checks: Arc::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder.0
    }

    /// Fails with `export-unfinished` where a training was interrupted while it put its networks into the folder.
    pub fn check_exported(&self) -> Result<()> {
        check_exported(self.path())
    }

    /// Fails with `link-outside` where a file is not inside the folder: links to what lies there are followed, others would
    /// carry a stranger's files into what is made of the folder.
    pub fn check_inside(&self, path: &str) -> Result<()> {
        let real = |path: &Path| fs::canonicalize(path).map_err(|e| Error::io(path.display(), &e));
        if real(&self.path().join(path))?.starts_with(real(self.path())?) {
            return Ok(());
        }
        Err(Error::weights(
            "link-outside",
            format!("{} is a link out of the folder", self.path().join(path).display()),
            "put the file itself in the link's place, if it belongs to the model",
        ))
    }

    /// What the manifest lists of this folder; `None` where there is none.
    fn listed(&self) -> Result<Option<&BTreeMap<String, FileEntry>>> {
        let listed = self.checks.listed.get_or_init(|| listed(self.path()));
        listed.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// What the manifest says of a file; `None` without a manifest. Fails with `file-unlisted` where it lists no such file.
    fn entry(&self, path: &str) -> Result<Option<&FileEntry>> {
        let Some(listed) = self.listed()? else { return Ok(None) };
        let name = path.rsplit('/').next().unwrap_or(path);
        match listed.get(path) {
            None if is_model_file(name) => Err(Error::weights(
                "file-unlisted",
                format!("{} is not in the model's {}", self.path().join(path).display(), Manifest::NAME),
                "remove the file; or, if the folder was changed on purpose, delete manifest.json to use it as it is",
            )),
            entry => Ok(entry),
        }
    }

    /// A file that cannot be read.
    fn failed(&self, path: &str, entry: Option<&FileEntry>, e: &std::io::Error) -> Error {
        match entry {
            Some(entry) if e.kind() == ErrorKind::NotFound => file_missing(&entry.path),
            _ => Error::io(self.path().join(path).display(), e),
        }
    }

    fn is_sound(&self, path: &str, metadata: &Metadata) -> bool {
        let sound = self.checks.sound.lock().unwrap_or_else(PoisonError::into_inner);
        sound.get(path) == Some(&stamp(metadata))
    }

    fn set_sound(&self, path: &str, metadata: &Metadata) {
        let mut sound = self.checks.sound.lock().unwrap_or_else(PoisonError::into_inner);
        sound.insert(path.to_owned(), stamp(metadata));
    }

    /// Holds a listed file against the manifest, a piece in memory at a time.
    fn verify(&self, path: &str, entry: &FileEntry) -> Result<()> {
        let read = || {
            let (file, metadata) = self.folder.open(path)?;
            let known = metadata.len() != entry.bytes || self.is_sound(path, &metadata);
            let sha256 = if known { None } else { Some(hash(file)?) };
            Ok((metadata, sha256))
        };
        let (metadata, sha256) = read().map_err(|e| self.failed(path, Some(entry), &e))?;
        entry.verify_digest(metadata.len(), sha256.as_deref())?;
        self.set_sound(path, &metadata);
        Ok(())
    }

    /// Holds a file against the manifest before a part of it is read; a network's shards together, on all processors: they are
    /// opened one after the other.
    fn verify_set(&self, path: &str) -> Result<()> {
        let Some(entry) = self.entry(path)? else { return Ok(()) };
        let name = path.rsplit('/').next().unwrap_or(path);
        let folder = &path[..path.len() - name.len()];
        let pieces = WeightName::parse(name).map(|name| name.pieces()).unwrap_or_default();
        let siblings: Vec<String> = pieces.into_iter().map(|piece| format!("{folder}{piece}")).collect();
        let listed = self.listed()?;
        let others: Vec<(&String, &FileEntry)> = siblings
            .iter()
            .filter(|sibling| *sibling != path)
            .filter_map(|sibling| Some((sibling, listed?.get(sibling)?)))
            .collect();
        let next = AtomicUsize::new(0);
        let workers = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let work = || {
            while let Some((sibling, entry)) = others.get(next.fetch_add(1, Ordering::Relaxed)) {
                // What is wrong with it is told when it is opened itself.
                let _ = self.verify(sibling, entry);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..workers.min(others.len()) {
                scope.spawn(work);
            }
            self.verify(path, entry)
        })
    }

    /// Fails with `file-missing` where the manifest lists a file whose part directly in `folder`, as `part` cuts it out of what
    /// follows the folder, is not among `names`.
    fn complete(&self, folder: &str, names: &[String], part: fn(&str) -> Option<&str>) -> Result<()> {
        let folder = folder.trim_end_matches('/');
        for (path, entry) in self.listed()?.into_iter().flatten() {
            let rest = if folder.is_empty() {
                Some(path.as_str())
            } else {
                path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'))
            };
            let missing = |name: &str| names.binary_search_by(|other| other.as_str().cmp(name)).is_err();
            if rest.and_then(part).is_some_and(missing) {
                return Err(file_missing(&entry.path));
            }
        }
        Ok(())
    }
}

impl Files for CheckedFolder {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let entry = self.entry(path)?;
        let (metadata, bytes) = self.folder.read_whole(path).map_err(|e| self.failed(path, entry, &e))?;
        if let Some(entry) = entry
            && !(self.is_sound(path, &metadata) && bytes.len() as u64 == entry.bytes)
        {
            entry.verify(&bytes)?;
            self.set_sound(path, &metadata);
        }
        Ok(bytes)
    }

    fn size(&self, path: &str) -> Result<u64> {
        let entry = self.listed()?.and_then(|listed| listed.get(path));
        let metadata = fs::metadata(self.path().join(path)).map_err(|e| self.failed(path, entry, &e))?;
        if let Some(entry) = entry {
            entry.verify_digest(metadata.len(), None)?;
        }
        Ok(metadata.len())
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        self.verify_set(path)?;
        self.folder.read_range(path, range)
    }

    fn sha256(&self, path: &str) -> Result<Option<String>> {
        match self.listed()? {
            Some(listed) => Ok(listed.get(path).map(|entry| entry.sha256.clone())),
            None => self.folder.sha256(path),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let names = self.folder.list(folder)?;
        self.complete(folder, &names, |rest| (!rest.contains('/')).then_some(rest))?;
        Ok(names)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let names = self.folder.folders(folder)?;
        self.complete(folder, &names, |rest| rest.split_once('/').map(|(first, _)| first))?;
        Ok(names)
    }
}

/// Lower-case hexadecimal SHA-256 of a file, a piece in memory at a time.
pub fn sha256_file(path: &Path) -> Result<String> {
    File::open(path).and_then(hash).map_err(|e| Error::io(path.display(), &e))
}

fn hash(mut file: File) -> IoResult<String> {
    let (mut hash, mut piece) = (Sha256Stream::default(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finish()),
            count => hash.update(&piece[..count]),
        }
    }
}

/// Holds a file that is opened elsewhere against the manifest of its folder, or of the model that its folder is a component of.
/// Files that no manifest lists are left to whoever opens them. Of a folder, only whether all that is listed is there.
///
/// Fails with `file-corrupt` or `file-missing`.
pub fn check_listed(path: &Path) -> Result<()> {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    // A checkpoint may lie anywhere, and other programs have files of that name.
    if folder.map(manifest).transpose()?.flatten().is_some_and(|json| !is_ours(&json)) {
        return Ok(());
    }
    if path.is_dir() {
        return CheckedFolder::new(path).list("").map(|_| ());
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let folder = CheckedFolder::new(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    match folder.listed()?.and_then(|listed| listed.get(name)) {
        Some(entry) => folder.verify(name, entry),
        None => Ok(()),
    }
}

/// What the manifest in `folder`, or else in the folder around it, lists of `folder`.
fn listed(folder: &Path) -> Result<Option<BTreeMap<String, FileEntry>>> {
    if let Some(json) = manifest(folder)? {
        let manifest = Manifest::parse(&json)?;
        return Ok(Some(manifest.files().map(|file| (file.path.clone(), file.clone())).collect()));
    }
    // Canonical, so that `.` has a name and a folder around it.
    let Ok(real) = fs::canonicalize(folder) else { return Ok(None) };
    let (Some(around), Some(name)) = (real.parent(), real.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    let Some(json) = manifest(around)? else { return Ok(None) };
    if !is_ours(&json) {
        return Ok(None);
    }
    let manifest = Manifest::parse(&json).map_err(|e| e.context(around.display()))?;
    if !manifest.components.contains_key(name) {
        return Ok(None);
    }
    let start = format!("{name}/");
    let of_component = manifest.files().filter_map(|file| Some((file.path.strip_prefix(&start)?, file)));
    Ok(Some(of_component.map(|(path, file)| (path.to_owned(), file.clone())).collect()))
}

/// Whether a `manifest.json` is a model's: other programs have files of that name.
fn is_ours(json: &[u8]) -> bool {
    let json: Option<serde_json::Value> = serde_json::from_slice(without_mark(json)).ok();
    json.is_some_and(|json| json["components"].is_object() && json["format"].is_number())
}

fn check_exported(folder: &Path) -> Result<()> {
    if !folder.join(EXPORT).exists() {
        return Ok(());
    }
    Err(Error::weights(
        "export-unfinished",
        format!("{} holds new networks beside old ones: a training was interrupted", folder.display()),
        "run the same `facestudio train` with --resume: it puts the new ones in their places",
    ))
}

/// The bytes of a folder's manifest, if it has one. Fails with `export-unfinished` where new files are on their way into it.
fn manifest(folder: &Path) -> Result<Option<Vec<u8>>> {
    check_exported(folder)?;
    let path = folder.join(Manifest::NAME);
    match fs::read(&path) {
        Ok(json) => Ok(Some(json)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io(path.display(), &e)),
    }
}
