//! Files that people name: what lies at such a place is looked at before it is opened or replaced.

use std::fs::{self, File, FileType};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Most bytes of a text that is read whole: JSON, and lists of jobs or photos.
pub const MAX_TEXT: u64 = 256 << 20;

/// Opens a file. Fails with `not-a-file` on pipes, sockets, devices and folders, which are waited for or have no end, and with
/// `io`.
pub fn open_file(path: &Path) -> Result<File> {
    let failed = |e| Error::io(path.display(), &e);
    // Before it is opened: a pipe is waited for.
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() {
        return Err(not_a_file(path, kind, "name a file; what a program prints can be saved to one"));
    }
    File::open(path).map_err(failed)
}

/// Reads a file of at most `most` bytes. Fails as [`open_file`] does, and with `file-too-large`.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow while it is read.
    let read = open_file(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(path.display(), &e))?;
    if bytes.len() as u64 > most {
        return Err(Error::input(
            "file-too-large",
            format!("{} has more than {} MB", path.display(), most >> 20),
            "check that it is the right file",
        ));
    }
    Ok(bytes)
}

/// Reads a text in UTF-8, with a byte order mark or without. Fails as [`read_file`] does, and with `text-encoding`.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read_file(path, MAX_TEXT)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::input(
            "text-encoding",
            format!("{} is no text in UTF-8", path.display()),
            "save it as UTF-8; PowerShell's `>` writes UTF-16",
        )
    })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

/// JSON without a byte order mark, which editors put before it and parsers do not know.
pub fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json)
}

/// Where a file is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing, or a file, which is replaced.
    File(PathBuf),
    /// A character device, which takes what is written.
    Device,
}

/// What is written to `path` goes where its links lead. Fails with `not-a-file` on folders, pipes, sockets and disks.
pub(super) fn target(path: &Path) -> Result<Target> {
    let failed = |e| Error::io(path.display(), &e);
    let link = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_symlink(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Target::File(path.to_owned())),
        Err(e) => return Err(failed(e)),
    };
    // A link to nothing is an error here: who made it meant something.
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    match kind {
        kind if kind.is_file() && link => Ok(Target::File(fs::canonicalize(path).map_err(failed)?)),
        kind if kind.is_file() => Ok(Target::File(path.to_owned())),
        kind if is_character_device(kind) => Ok(Target::Device),
        kind => Err(not_a_file(path, kind, "name a file")),
    }
}

#[cfg(unix)]
fn is_character_device(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&kind)
}

#[cfg(not(unix))]
fn is_character_device(_: FileType) -> bool {
    false
}

fn not_a_file(path: &Path, kind: FileType, remedy: &str) -> Error {
    let what = if kind.is_dir() { "a folder" } else { "a pipe, socket or device" };
    Error::input("not-a-file", format!("{} is {what}, not a file", path.display()), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        assert_eq!(read_file(&path, 4).unwrap_err().code, "file-too-large");
        assert_eq!(read_file(folder.path(), 4).unwrap_err().code, "not-a-file");
        assert_eq!(read_file(&folder.path().join("b"), 4).unwrap_err().code, "io");
    }

    #[test]
    fn a_text_may_begin_with_a_byte_order_mark_and_is_utf_8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "\u{FEFF}é\u{FEFF}").unwrap();
        assert_eq!(read_text(&path).unwrap(), "é\u{FEFF}");
        fs::write(&path, b"\xFF\xFEa\0").unwrap();
        assert_eq!(read_text(&path).unwrap_err().code, "text-encoding");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_sockets_and_devices_are_told_from_files() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        for path in [at("socket"), at("pipe")] {
            assert_eq!(read_file(&path, 9).unwrap_err().code, "not-a-file");
            assert_eq!(target(&path).unwrap_err().code, "not-a-file");
        }
        for path in ["/dev/zero", "/dev/null"] {
            assert_eq!(read_file(Path::new(path), 9).unwrap_err().code, "not-a-file");
            assert_eq!(target(Path::new(path)).unwrap(), Target::Device);
        }
        // A link is kept, and what it leads to replaced.
        fs::write(at("a"), "").unwrap();
        for (to, link) in [(at("a"), at("to-a")), (at("pipe"), at("to-pipe")), (at("gone"), at("to-nothing"))]
        {
            symlink(to, link).unwrap();
        }
        symlink("/dev/null", at("to-null")).unwrap();
        assert_eq!(target(&at("to-a")).unwrap(), Target::File(at("a").canonicalize().unwrap()));
        assert_eq!(target(&at("to-pipe")).unwrap_err().code, "not-a-file");
        assert_eq!(target(&at("to-nothing")).unwrap_err().code, "io");
        assert_eq!(target(&at("to-null")).unwrap(), Target::Device);
    }
}
