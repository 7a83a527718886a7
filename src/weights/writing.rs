//! Files and folders that appear whole or not at all, on the disk as well, and what is removed where that fails.
//!
//! What is being written lies under a hidden name beside its place, locked by its writer. An error removes it, and so does
//! [`abandon`] where the program is asked to end. A program that is killed leaves it: the next one that writes there sees that
//! nobody holds the lock, and removes it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::folder::Folder;
use super::paths::{Target, target};
use crate::error::{Error, Result};

/// What this process is writing at the moment.
static PARTIALS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Held for reading while something is written or renamed, for writing by who ends the program.
static WRITING: RwLock<()> = RwLock::new(());
/// Folders in which what earlier processes left was looked for.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Between a hidden file's own name and its numbers.
const PARTIAL: &str = ".partial-";
/// Says in a hidden folder whether somebody is at it.
const LOCK: &str = ".lock";

fn partials() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PARTIALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while something is written or moved that is not to be left half done by [`abandon`]. Not to be asked for twice.
pub fn writing() -> RwLockReadGuard<'static, ()> {
    WRITING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what this process has not written to its end, for a program that ends now: as long as the answer is held, nothing
/// is written or renamed. Waits for the file that is being written.
pub fn abandon() -> RwLockWriteGuard<'static, ()> {
    let held = WRITING.write().unwrap_or_else(PoisonError::into_inner);
    partials().iter().for_each(|path| remove(path));
    held
}

/// Removes a hidden file or folder. It may be gone, or never have been there.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// A hidden file or folder; removed when it is dropped before it got its name.
struct Partial {
    path: PathBuf,
    /// Held as long as it is written.
    _lock: Option<File>,
}

impl Partial {
    /// Another hidden name beside `path` for each call in each process.
    fn beside(path: &Path) -> Result<Self> {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let name = path.file_name().ok_or_else(|| {
            Error::input(
                "output-name",
                format!("'{}' does not name a file or folder", path.display()),
                "name one",
            )
        })?;
        let (name, call) = (name.to_string_lossy(), CALLS.fetch_add(1, Ordering::Relaxed));
        let path = path.with_file_name(format!(".{name}{PARTIAL}{}-{call}", std::process::id()));
        partials().insert(path.clone());
        Ok(Self { path, _lock: None })
    }

    fn create_file(&mut self) -> IoResult<File> {
        let file = File::create_new(&self.path)?;
        let lock = file.try_clone()?;
        // Where a file system knows no locks, what a killed program left stays.
        if lock.try_lock().is_ok() {
            self._lock = Some(lock);
        }
        Ok(file)
    }

    fn create_folder(&mut self) -> IoResult<()> {
        fs::create_dir_all(parent(&self.path))?;
        fs::create_dir(&self.path)?;
        let lock = File::create_new(self.path.join(LOCK))?;
        if lock.try_lock().is_ok() {
            self._lock = Some(lock);
        }
        Ok(())
    }

    /// Gives it its name, for good.
    fn rename(&mut self, to: &Path) -> IoResult<()> {
        // Windows renames no folder in which a file is open.
        if cfg!(windows) {
            self._lock = None;
        }
        fs::rename(&self.path, to)?;
        partials().remove(&self.path);
        sync_folder(parent(to))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if partials().remove(&self.path) {
            remove(&self.path);
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has a folder's names on the disk. Where a system cannot do that for folders, there is nothing more to be done.
pub fn sync_folder(folder: &Path) -> IoResult<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(e) if !matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Err(e),
        _ => Ok(()),
    }
}

/// Removes what killed programs left in a folder: hidden files and folders of ours that nobody holds.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let ours = || partials().iter().any(|partial| partial.file_name() == Some(&name));
        if is_partial(&name.to_string_lossy()) && !ours() && is_left(&path) {
            remove(&path);
        }
    }
}

/// [`sweep`] where this process has not yet: a folder may hold many pictures.
fn sweep_once(folder: &Path) {
    if SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        sweep(folder);
    }
}

/// `.NAME.partial-PROCESS-CALL`.
fn is_partial(name: &str) -> bool {
    let numbers = name.strip_prefix('.').and_then(|name| name.rsplit_once(PARTIAL)).map(|(_, rest)| rest);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.and_then(|numbers| numbers.split_once('-')).is_some_and(|(a, b)| number(a) && number(b))
}

/// Whether nobody is at a hidden file or folder any more.
fn is_left(path: &Path) -> bool {
    let lock = if path.is_dir() { path.join(LOCK) } else { path.to_owned() };
    match File::open(lock) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        Err(e) => e.kind() == ErrorKind::NotFound,
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
pub fn write_file_by(path: &Path, fill: impl FnOnce(&mut dyn Write) -> IoResult<()>) -> Result<()> {
    let path = match target(path)? {
        Target::Device => {
            let write = || fill(&mut File::options().write(true).open(path)?);
            return write().map_err(|e| Error::io(path.display(), &e));
        }
        Target::File(path) => path,
    };
    let path = path.as_path();
    let folder = parent(path);
    sweep_once(folder);
    let _writing = writing();
    let mut partial = Partial::beside(path)?;
    let write = || {
        let mut file = partial.create_file()?;
        fill(&mut file)?;
        // Renamed before its bytes are on the disk, it could survive a power cut empty.
        file.sync_all()?;
        partial.rename(path)
    };
    write().map_err(|e| Error::io(path.display(), &e))
}

/// Fails where a file cannot be written: its folder is missing or read-only, or something else lies there.
///
/// For before the work, with `output-name`, `not-a-file` or `io`.
pub fn check_output(path: &Path) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::input(
            "output-name",
            format!("'{}' does not name a file or folder", path.display()),
            "name one",
        ));
    }
    match target(path)? {
        Target::Device => Ok(()),
        Target::File(path) => check_writable(parent(&path)),
    }
}

/// As [`check_output`], of a folder that is made where it is missing, with those above it.
pub fn check_output_folder(path: &Path) -> Result<()> {
    let mut place = path;
    while let Err(e) = fs::metadata(place) {
        if e.kind() != ErrorKind::NotFound {
            return Err(Error::io(place.display(), &e));
        }
        place = parent(place);
    }
    check_writable(place)
}

fn check_writable(folder: &Path) -> Result<()> {
    sweep_once(folder);
    let _writing = writing();
    // Whether a folder takes files depends on more than its permissions. A new file, which is gone at once.
    let Err(error) = Partial::beside(&folder.join("facestudio"))?.create_file() else { return Ok(()) };
    let remedy = match error.kind() {
        ErrorKind::NotFound => "make this folder first, or write to another",
        _ => "write to another folder",
    };
    Err(Error { remedy: remedy.to_owned(), ..Error::io(folder.display(), &error) })
}

/// A folder that is being written; see [`write_folder`].
pub struct NewFolder<'a> {
    path: PathBuf,
    stop: &'a AtomicBool,
}

impl NewFolder<'_> {
    /// Writes one file at a relative path with `/` between parts, making its folders. Fails with `cancelled` once the writer
    /// is to stop.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.write_by(path, |file| file.write_all(bytes))
    }

    /// As [`write`](Self::write), of what `fill` writes.
    pub fn write_by(&self, path: &str, fill: impl FnOnce(&mut dyn Write) -> IoResult<()>) -> Result<()> {
        self.go_on()?;
        let _writing = writing();
        let path = self.path.join(path);
        let write = || {
            fs::create_dir_all(parent(&path))?;
            let mut file = File::create(&path)?;
            fill(&mut file)?;
            file.sync_all()
        };
        write().map_err(|e| Error::io(path.display(), &e))
    }

    /// Fails with `cancelled` once the writer is to stop.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// What has been written so far.
    pub fn files(&self) -> Folder {
        Folder(self.path.clone())
    }
}

/// Writes a folder whole or not at all: `fill` writes into a temporary sibling that is renamed at the end.
///
/// Fails if `path` exists and is not an empty folder.
pub fn write_folder(path: &Path, fill: impl FnOnce(&NewFolder) -> Result<()>) -> Result<()> {
    write_folder_until(path, &AtomicBool::new(false), fill)
}

/// As [`write_folder`]; where `stop` is raised before the end, nothing stays, and it fails with `cancelled`.
pub fn write_folder_until(
    path: &Path,
    stop: &AtomicBool,
    fill: impl FnOnce(&NewFolder) -> Result<()>,
) -> Result<()> {
    let vacant = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == ErrorKind::NotFound,
    };
    if !vacant {
        return Err(Error::input(
            "output-exists",
            format!("{} exists already", path.display()),
            "choose another folder, or remove this one",
        ));
    }
    sweep(parent(path));
    let mut partial = Partial::beside(path)?;
    {
        let _writing = writing();
        partial.create_folder().map_err(|e| Error::io(partial.path.display(), &e))?;
    }
    let new = NewFolder { path: partial.path.clone(), stop };
    fill(&new)?;
    new.go_on()?;
    let _writing = writing();
    let mut finish = || {
        sync_folders(&partial.path)?;
        // An empty folder in the way is replaced; where there is none, removing it fails and does not matter.
        let _ = fs::remove_dir(path);
        partial.rename(path)?;
        fs::remove_file(path.join(LOCK))
    };
    finish().map_err(|e| Error::io(path.display(), &e))
}

/// Has the names in a folder and in those below it on the disk.
fn sync_folders(folder: &Path) -> IoResult<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let fill = |new: &NewFolder| new.write("a/b", b"1").and_then(|()| new.write("c", b"2"));
        write_folder(&out, fill).unwrap();
        assert_eq!(
            (names(folder.path()), names(&out)),
            (vec!["out".to_owned()], vec!["a".into(), "c".into()])
        );
        assert_eq!(write_folder(&out, fill).unwrap_err().code, "output-exists");

        let other = folder.path().join("other");
        let failed = write_folder(&other, |new| {
            new.write("a", b"1")?;
            Err(Error::internal("bug", ""))
        });
        assert_eq!((failed.unwrap_err().code, names(folder.path())), ("bug", vec!["out".to_owned()]));
    }

    #[test]
    fn who_is_to_stop_writes_nothing_more_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        for after in [0, 1, 2] {
            let stop = AtomicBool::new(false);
            let stopped = write_folder_until(&out, &stop, |new| {
                for i in 0..2 {
                    stop.fetch_or(i == after, Ordering::Relaxed);
                    new.write(&format!("{i}"), b"1")?;
                }
                // After the last file it is not too late.
                stop.store(true, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!(stopped.unwrap_err().code, "cancelled", "{after}");
            assert!(names(folder.path()).is_empty());
        }
    }

    #[test]
    fn what_killed_programs_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for left in [".out.partial-1-0/unet", ".gone.partial-2-3"] {
            fs::create_dir_all(at(left)).unwrap();
            fs::write(at(left).join("x"), "1").unwrap();
        }
        fs::write(at(".a.png.partial-7-1"), "1").unwrap();
        // Of somebody who is at it, and of people.
        fs::write(at(".b.png.partial-7-2"), "1").unwrap();
        let busy = File::open(at(".b.png.partial-7-2")).unwrap();
        busy.try_lock().unwrap();
        fs::create_dir(at(".c.partial-7-2")).unwrap();
        fs::write(at(".c.partial-7-2").join(LOCK), "").unwrap();
        let at_it = File::open(at(".c.partial-7-2").join(LOCK)).unwrap();
        at_it.try_lock().unwrap();
        for theirs in [".partial-notes", ".x.partial-1", "y.partial-1-2", ".z.partial-1-b"] {
            fs::write(at(theirs), "1").unwrap();
        }
        let all = names(folder.path());
        write_folder(&at("out"), |new| new.write("c", b"2")).unwrap();
        let left: Vec<_> = names(folder.path()).into_iter().filter(|name| name != "out").collect();
        let gone: Vec<_> = all.into_iter().filter(|name| !left.contains(name)).collect();
        assert_eq!(gone, [".a.png.partial-7-1", ".gone.partial-2-3", ".out.partial-1-0"]);
        assert_eq!(left.len(), 6);
        // A folder is looked through once by who writes files.
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(".a.png.partial-7-1"), "1").unwrap();
        write_file(&other.path().join("b.png"), b"1").unwrap();
        assert_eq!(names(other.path()), ["b.png"]);
    }

    #[test]
    fn a_file_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let failed = write_file_by(&path, |file| {
            file.write_all(b"half")?;
            Err(std::io::Error::other("full"))
        });
        assert_eq!(failed.unwrap_err().code, "io");
        assert!(names(folder.path()).is_empty());
        write_file(&path, b"whole").unwrap();
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_missing_folder_is_told_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        check_output(&at("a.png")).unwrap();
        fs::write(at("a.png"), "").unwrap();
        check_output(&at("a.png")).unwrap();
        let error = check_output(&at("missing/a.png")).unwrap_err();
        assert!(error.code == "io" && error.remedy.contains("make this folder"), "{error}");
        assert_eq!(check_output(&at("a.png/b.png")).unwrap_err().code, "io");
        assert_eq!(check_output(folder.path()).unwrap_err().code, "not-a-file");
        assert_eq!(check_output(&at("..")).unwrap_err().code, "output-name");
        check_output_folder(&at("x/y/z")).unwrap();
        assert_eq!(check_output_folder(&at("a.png/z")).unwrap_err().code, "io");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn looking_whether_a_file_can_be_written_touches_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let hidden = folder.path().join(format!(".facestudio.partial-{}", std::process::id()));
        fs::write(&hidden, "kept").unwrap();
        check_output(&folder.path().join("a.png")).unwrap();
        check_output_folder(folder.path()).unwrap();
        assert_eq!(fs::read(&hidden).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
