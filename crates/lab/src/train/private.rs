//! What is kept of people's photographs is for their owner alone: the pictures themselves, latents that decode to them, and
//! embeddings that tell one face from others.

use std::fs::File;
use std::path::Path;

use facestudio::error::{Error, Result};

/// Makes a folder that only its owner may look into (0700), or shuts one that is there.
pub fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| Error::io(path.display(), &e))?;
    // Another's folder cannot be shut; what is written there is, by itself.
    let _ = File::open(path).and_then(|folder| allow(&folder, 0o700));
    Ok(())
}

/// Lets nobody but its owner read or write a file (0600).
pub fn file(file: &File) -> std::io::Result<()> {
    allow(file, 0o600)
}

#[cfg(unix)]
fn allow(file: &File, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// Elsewhere the folder's own rules hold.
#[cfg(not(unix))]
fn allow(_: &File, _: u32) -> std::io::Result<()> {
    Ok(())
}

/// The nine bits of a file's or folder's mode.
#[cfg(all(test, unix))]
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
