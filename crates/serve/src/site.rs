//! The folders that are served, and which file of them a request means.

use std::path::{Path, PathBuf};

use super::error::{Error, cannot_serve, io};

/// What is served.
pub struct Site {
    root: PathBuf,
    /// Absent until a model is there.
    models: Option<PathBuf>,
}

/// A file that may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedFile {
    pub path: PathBuf,
    /// Of a model, and so a stranger's: data, never part of the page.
    pub model: bool,
}

impl Site {
    pub fn new(root: &Path, models: &Path) -> Result<Self, Error> {
        if !root.join("index.html").is_file() {
            return Err(cannot_serve(
                "page-missing",
                format!("{} holds no index.html", root.display()),
                "build the browser package with `make pkg`, or name its folder with --root",
            ));
        }
        let root = root.canonicalize().map_err(|e| io(root.display(), e))?;
        Ok(Self { root, models: models.canonicalize().ok() })
    }

    /// The file behind a request's path; `None` where there is none that may be seen.
    pub fn file(&self, path: &str) -> Option<ServedFile> {
        let path = percent_decode(path)?;
        let (base, rest, model) = match path.strip_prefix("/models/") {
            Some(rest) => (self.models.as_deref()?, rest, true),
            None => (self.root.as_path(), path.strip_prefix('/')?, false),
        };
        // A folder of the page shows its own page; one of a model shows nothing.
        let rest = if !model && (rest.is_empty() || rest.ends_with('/')) {
            format!("{rest}index.html")
        } else {
            rest.to_owned()
        };
        // Hidden files, drive letters and Windows' own separators are refused along with the way up.
        let plain =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '\0']);
        if !rest.split('/').all(plain) {
            return None;
        }
        // Links are followed before the comparison, so that none of them leads out.
        let path = base.join(rest).canonicalize().ok()?;
        if !path.starts_with(base) || !path.is_file() {
            return None;
        }
        // Models that lie in the page's folder are theirs by any other way too: a link, or another case where that is the same.
        let within = self.models.as_ref().filter(|models| models.starts_with(&self.root));
        let model = model || within.is_some_and(|models| path.starts_with(models));
        Some(ServedFile { path, model })
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
