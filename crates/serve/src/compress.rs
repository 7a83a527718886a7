//! The page's own files compressed: in Brotli (RFC 7932) or gzip as they were packed beforehand beside the file, or else in gzip
//! when they are first asked for, and kept.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use tokio::sync::OnceCell;

/// Shorter files gain nothing.
const LEAST: u64 = 1024;
/// Longer ones would wait for the compression.
const MOST: u64 = 64 * 1024 * 1024;

/// Endings of files that are compressed; those of pictures are already.
const ENDINGS: &[&str] =
    &["css", "html", "js", "json", "map", "md", "mjs", "svg", "ts", "txt", "wasm", "webmanifest"];

/// Content codings (RFC 9110, section 8.4.1) that files are packed in beforehand, the better one first, and what such a file ends in.
const PACKED: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// A file as it was packed beforehand.
pub struct Packed {
    pub coding: &'static str,
    pub file: tokio::fs::File,
    pub size: u64,
}

impl Packed {
    /// The best packing of a file that the peer takes; none that is older than the file.
    pub async fn of(path: &Path, metadata: &Metadata, accepted: &str) -> Option<Self> {
        for (coding, ending) in PACKED.into_iter().filter(|(coding, _)| takes(accepted, coding)) {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            let Ok(file) = tokio::fs::File::open(&name).await else { continue };
            let Ok(packed) = file.metadata().await else { continue };
            let fresh =
                packed.modified().ok().zip(metadata.modified().ok()).is_some_and(|(of, than)| of >= than);
            if packed.is_file() && fresh {
                return Some(Self { coding, file, size: packed.len() });
            }
        }
        None
    }
}

/// What was compressed, of each file one version.
#[derive(Default)]
pub struct Compressed(Mutex<HashMap<PathBuf, Version>>);

/// The file under an entity tag.
#[derive(Default)]
struct Version {
    tag: String,
    bytes: Arc<OnceCell<Bytes>>,
}

impl Compressed {
    /// Whether a file of so many bytes is compressed for those who take it.
    pub fn suits(path: &Path, size: u64) -> bool {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        (LEAST..=MOST).contains(&size) && ENDINGS.contains(&ending.as_str())
    }

    /// The file in gzip. Whoever asks meanwhile waits for the same.
    pub async fn gzip(&self, path: &Path, tag: &str) -> io::Result<Bytes> {
        let cell = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let version = kept.entry(path.to_owned()).or_default();
            if version.tag != tag {
                *version = Version { tag: tag.to_owned(), bytes: Arc::default() };
            }
            version.bytes.clone()
        };
        let path = path.to_owned();
        let made = cell.get_or_try_init(async || {
            tokio::task::spawn_blocking(move || {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&std::fs::read(path)?)?;
                Ok(Bytes::from(encoder.finish()?))
            })
            .await
            .map_err(io::Error::other)?
        });
        made.await.cloned()
    }
}

/// Whether an `Accept-Encoding` header takes a coding.
pub fn takes(accepted: &str, wanted: &str) -> bool {
    let mut any = false;
    for listed in accepted.split(',') {
        let mut parts = listed.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let taken = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
        if coding.eq_ignore_ascii_case(wanted) {
            return taken;
        }
        any |= coding == "*" && taken;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for accepted in ["gzip", "deflate, GZIP;q=0.5, br", "*", "br;q=1.0, *;q=0.1", "gzip;q=1, *;q=0"] {
            assert!(takes(accepted, "gzip"), "{accepted}");
        }
        for accepted in ["", "identity", "br", "gzip;q=0", "*, gzip;q=0.0", "*;q=0", "gzip;q=x", "xgzip"] {
            assert!(!takes(accepted, "gzip"), "{accepted}");
        }
        assert!(takes("gzip, deflate, br", "br") && !takes("gzip, br;q=0", "br"));
    }

    #[test]
    fn what_shrinks_is_compressed() {
        assert!(
            Compressed::suits(Path::new("a.wasm"), 5_000_000) && Compressed::suits(Path::new("A.JS"), 1024)
        );
        for (path, size) in [("a.png", 5000), ("a.js", 100), ("a", 5000), ("a.wasm", 1 << 40)] {
            assert!(!Compressed::suits(Path::new(path), size), "{path}");
        }
    }
}
