//! The model's files where the worker keeps them, read piece by piece while the model loads.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;

use js_sys::{Function, Uint8Array};
use wasm_bindgen::prelude::*;

use facestudio::error::{Error, Result};
use facestudio::internal::{file_missing, files_in, folders_in};
use facestudio::weights::{Files, Manifest, Sha256Stream};

/// Bytes that cross from JavaScript at a time: what both sides hold besides the file that is being read.
const PIECE: u64 = 4 << 20;

/// Files outside wasm's memory.
pub struct StoredFiles {
    sizes: BTreeMap<String, u64>,
    /// `(path, start, end) => Uint8Array`; returns at once.
    read: Function,
    /// What the manifest says that files hash to, once it was asked: JavaScript holds all of them against it.
    hashes: OnceCell<BTreeMap<String, String>>,
}

impl StoredFiles {
    /// The files of `paths`, with their sizes in bytes.
    pub fn new(paths: Vec<String>, sizes: Vec<f64>, read: Function) -> Self {
        let sizes = paths.into_iter().zip(sizes.into_iter().map(|size| size as u64)).collect();
        Self { sizes, read, hashes: OnceCell::new() }
    }
}

impl Files for StoredFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_range(path, 0..self.size(path)?)
    }

    fn size(&self, path: &str) -> Result<u64> {
        self.sizes.get(path).copied().ok_or_else(|| file_missing(path))
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let unreadable = |reason: String| {
            Error::weights(
                "file-unreadable",
                format!("{path} cannot be read from the browser's storage: {reason}"),
                "open the model again: what is missing is fetched",
            )
        };
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let mut start = range.start;
        for chunk in bytes.chunks_mut(PIECE as usize) {
            let end = start + chunk.len() as u64;
            let piece = self
                .read
                .call3(&JsValue::NULL, &path.into(), &(start as f64).into(), &(end as f64).into())
                .map_err(|thrown| unreadable(format!("{thrown:?}")))?
                .dyn_into::<Uint8Array>()
                .map_err(|_| unreadable("no bytes".to_owned()))?;
            if piece.length() as usize != chunk.len() {
                return Err(unreadable(format!("it ends after {} bytes", start + u64::from(piece.length()))));
            }
            piece.copy_to(chunk);
            start = end;
        }
        Ok(bytes)
    }

    fn sha256(&self, path: &str) -> Result<Option<String>> {
        if self.hashes.get().is_none() {
            let manifest = Manifest::read(self)?;
            let listed = manifest.files().map(|file| (file.path.clone(), file.sha256.clone()));
            // It was empty.
            let _ = self.hashes.set(listed.collect());
        }
        Ok(self.hashes.get().and_then(|hashes| hashes.get(path)).cloned())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(files_in(self.sizes.keys(), folder))
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        Ok(folders_in(self.sizes.keys(), folder))
    }
}

/// SHA-256 of a file that arrives in pieces; WebCrypto's wants it whole.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(Sha256Stream);

#[wasm_bindgen]
impl Sha256 {
    /// Of nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Lower-case hexadecimal digest of everything so far.
    pub fn finish(self) -> String {
        self.0.finish()
    }
}
