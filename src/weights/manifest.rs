//! `manifest.json`: what a model folder holds, byte by byte, and where it comes from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::component::Component;
use super::files::Files;
use super::paths::without_mark;
use crate::error::{Error, Result};
use crate::kernels::LARGE;

/// Most bytes of a manifest.
const MAX_BYTES: u64 = 64 << 20;
/// The only format so far.
const FORMAT: u32 = 1;

/// A model folder's contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's format.
    pub format: u32,
    /// The model's name, for people.
    pub name: String,
    /// `mini`, `sd15` and so on, for people: architectures are read from the configs alone.
    pub family: String,
    /// The model's version; part of a cache key.
    pub version: String,
    /// SPDX expression of the weights' licence.
    pub license: String,
    /// Files directly in the model folder, besides the manifest and its readme.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// Components by folder name.
    pub components: BTreeMap<String, ComponentEntry>,
    /// How the weights were made: data, commands, seeds, times.
    #[serde(default)]
    pub provenance: serde_json::Map<String, serde_json::Value>,
}

/// One component of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentEntry {
    /// Its files, in the order to fetch them.
    pub files: Vec<FileEntry>,
    /// How most of its weights are stored (`f32`, `f16`, `q8`, `q4`); `none` without weights.
    pub dtype: String,
    /// Numbers in its weights; 0 where an older manifest does not say.
    #[serde(default)]
    pub parameters: u64,
    /// Numbers in its largest tensor, which a device must take in one piece.
    #[serde(default)]
    pub largest_tensor: u64,
    /// Numbers in the weights of layers so large that the CPU keeps them in 8-bit blocks where they are stored in blocks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub large_parameters: u64,
    /// Its licence, where it is not the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// One file of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the model folder, with `/` between parts.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// What a [`Manifest`] says about a model besides its files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCard {
    /// The model's name.
    pub name: String,
    /// Its family.
    pub family: String,
    /// Its version.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// How the weights were made.
    pub provenance: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// The manifest's name in a model folder.
    pub const NAME: &str = "manifest.json";

    /// Reads and checks `manifest.json`; the files that it lists are checked by [`verify`](Self::verify).
    pub fn read(files: &dyn Files) -> Result<Self> {
        let size = files.size(Self::NAME)?;
        if size > MAX_BYTES {
            return Err(invalid(format!("it has {size} bytes")));
        }
        Self::parse(&files.read(Self::NAME)?)
    }

    /// Parses a manifest. Fails on another format, and on paths that leave the model folder or come twice.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self =
            serde_json::from_slice(without_mark(bytes)).map_err(|e| invalid(e.to_string()))?;
        if manifest.format != FORMAT {
            return Err(Error::weights(
                "manifest-format",
                format!("{} has format {}; this version reads {FORMAT}", Self::NAME, manifest.format),
                "update facestudio",
            ));
        }
        let mut seen = BTreeSet::new();
        for file in manifest.files() {
            if !is_inside(&file.path) {
                return Err(invalid(format!("'{}' is not a path inside the model", file.path)));
            }
            if !seen.insert(&file.path) {
                return Err(invalid(format!("'{}' is listed twice", file.path)));
            }
            if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            {
                return Err(invalid(format!("'{}' has no valid sha256", file.path)));
            }
        }
        Ok(manifest)
    }

    /// Lists what is in a model folder: every file directly in it and in its component folders, except
    /// the manifest, readmes and hidden files.
    pub fn build(files: &dyn Files, card: ModelCard) -> Result<Self> {
        let entries = |folder: &str| -> Result<Vec<FileEntry>> {
            let names = files.list(folder)?;
            let wanted = names.iter().filter(|name| is_model_file(name));
            wanted
                .map(|name| {
                    let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                    let bytes = files.read(&path)?;
                    Ok(FileEntry { path, bytes: bytes.len() as u64, sha256: sha256(&bytes) })
                })
                .collect()
        };
        let mut components = BTreeMap::new();
        for folder in files.folders("")?.into_iter().filter(|name| !name.starts_with('.')) {
            let entry = ComponentEntry { files: entries(&folder)?, ..weights_of(files, &folder)? };
            if !entry.files.is_empty() {
                components.insert(folder, entry);
            }
        }
        let ModelCard { name, family, version, license, provenance } = card;
        Ok(Self {
            format: FORMAT,
            name,
            family,
            version,
            license,
            files: entries("")?,
            components,
            provenance,
        })
    }

    /// Every listed file, components in order of name.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().chain(self.components.values().flat_map(|component| &component.files))
    }

    /// Size of all files together.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    /// Checks every listed file; fails on the first that is missing or differs, and names it.
    pub fn verify(&self, files: &dyn Files) -> Result<()> {
        self.files().try_for_each(|file| file.verify(&files.read(&file.path)?))
    }

    /// As indented JSON.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::internal("manifest-encode", format!("{}: {e}", Self::NAME)))?;
        json.push(b'\n');
        Ok(json)
    }
}

fn invalid(reason: String) -> Error {
    Error::weights(
        "manifest",
        format!("{}: {reason}", Manifest::NAME),
        "fetch the model again, or write the manifest anew with `facestudio quantize`",
    )
}

impl FileEntry {
    /// Checks a file's size, then its hash.
    pub fn verify(&self, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let sha256 = (size == self.bytes).then(|| sha256(bytes));
        self.verify_digest(size, sha256.as_deref())
    }

    /// As [`verify`](Self::verify), of what was counted and hashed elsewhere; the size alone where there is no hash.
    pub(super) fn verify_digest(&self, size: u64, sha256: Option<&str>) -> Result<()> {
        let difference = if size != self.bytes {
            format!("it has {size} bytes, the manifest says {}", self.bytes)
        } else if sha256.is_some_and(|sha256| sha256 != self.sha256) {
            "its sha256 differs from the manifest's".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::weights(
            "file-corrupt",
            format!("{} is damaged: {difference}", self.path),
            "fetch the file again; if it was changed on purpose, delete manifest.json to use the folder as it is",
        ))
    }
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of what arrives in pieces.
#[derive(Debug, Clone, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Lower-case hexadecimal digest of everything so far.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Whether a path stays inside the folder that it is relative to.
pub fn is_inside(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains(['\\', ':', '\0'])
}

/// Whether a file of that name is part of a model: neither its manifest nor hidden nor for people alone.
pub(crate) fn is_model_file(name: &str) -> bool {
    name != Manifest::NAME && !name.starts_with('.') && !name.to_lowercase().ends_with(".md")
}

/// The stored type that holds most of a component's numbers, and how many numbers each tensor has.
fn weights_of(files: &dyn Files, folder: &str) -> Result<ComponentEntry> {
    let mut by_dtype = BTreeMap::<String, u64>::new();
    let mut entry = ComponentEntry {
        files: Vec::new(),
        dtype: "none".to_owned(),
        parameters: 0,
        largest_tensor: 0,
        large_parameters: 0,
        license: None,
    };
    if files.list(folder)?.iter().any(|name| name.ends_with(".safetensors")) {
        for header in Component::new(files, folder).headers()? {
            for name in header.names() {
                let count = header.shape(&name).unwrap_or_default().iter().product::<usize>() as u64;
                *by_dtype.entry(header.dtype(&name).unwrap_or_default()).or_default() += count;
                entry.parameters += count;
                entry.largest_tensor = entry.largest_tensor.max(count);
                // Tables are no layers.
                let of_layer = name.ends_with(".weight") && !name.ends_with("embedding.weight");
                if of_layer && count >= LARGE as u64 {
                    entry.large_parameters += count;
                }
            }
        }
    }
    if let Some((dtype, _)) = by_dtype.into_iter().max_by_key(|(_, count)| *count) {
        entry.dtype = dtype;
    }
    Ok(entry)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryFiles, Quantization, Tensors, encode};
    use super::*;

    fn model() -> MemoryFiles {
        let tensors = Tensors(
            [
                ("w".to_owned(), (vec![64, 64], vec![0.25; 4096])),
                ("bias".to_owned(), (vec![8], vec![0.5; 8])),
            ]
            .into(),
        );
        let weights = encode(&tensors, Quantization::Q8, &BTreeMap::new()).unwrap();
        let file = |path: &str, bytes: &[u8]| (path.to_owned(), bytes.to_vec());
        MemoryFiles(
            [
                file("model_index.json", b"{}"),
                file("README.md", b"read me"),
                file("scheduler/scheduler_config.json", b"{}"),
                file("unet/config.json", b"{}"),
                file("unet/model.safetensors", &weights),
            ]
            .into(),
        )
    }

    fn card() -> ModelCard {
        ModelCard { name: "test".into(), license: "MIT".into(), ..ModelCard::default() }
    }

    #[test]
    fn a_built_manifest_lists_the_model_and_verifies() {
        let files = model();
        let manifest = Manifest::build(&files, card()).unwrap();
        let paths: Vec<&str> = manifest.files().map(|f| f.path.as_str()).collect();
        let expected = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/model.safetensors",
        ];
        assert_eq!(paths, expected);
        let unet = &manifest.components["unet"];
        assert_eq!((unet.dtype.as_str(), unet.parameters, unet.largest_tensor), ("q8", 4096 + 8, 4096));
        assert_eq!(manifest.components["scheduler"].dtype, "none");
        let large = |name: &str, rows: usize| {
            let tensors = Tensors([(name.to_owned(), (vec![rows, 1024], vec![0.5; rows * 1024]))].into());
            let weights = encode(&tensors, Quantization::Q8, &BTreeMap::new()).unwrap();
            let files = MemoryFiles([("unet/model.safetensors".to_owned(), weights)].into());
            Manifest::build(&files, card()).unwrap().components["unet"].large_parameters
        };
        let counts = [("ff.weight", 1024), ("ff.weight", 1023), ("token_embedding.weight", 1024)];
        assert_eq!(counts.map(|(name, rows)| large(name, rows)), [1 << 20, 0, 0]);
        manifest.verify(&files).unwrap();
        assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let bytes: Vec<u8> = (0..200u8).collect();
        for cut in [0, 1, 63, 64, 65, 200] {
            let mut stream = Sha256Stream::default();
            stream.update(&bytes[..cut]);
            stream.update(&bytes[cut..]);
            assert_eq!(stream.finish(), sha256(&bytes), "cut at {cut}");
        }
        // FIPS 180-4's own example.
        assert!(sha256(b"abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }

    #[test]
    fn every_flipped_byte_and_missing_file_is_named() {
        let files = model();
        let manifest = Manifest::build(&files, card()).unwrap();
        for path in manifest.files().map(|f| f.path.clone()) {
            let mut flipped = files.clone();
            *flipped.0.get_mut(&path).unwrap().last_mut().unwrap() ^= 1;
            let mut longer = files.clone();
            longer.0.get_mut(&path).unwrap().push(0);
            for files in [flipped, longer] {
                let error = manifest.verify(&files).unwrap_err();
                assert_eq!(error.code, "file-corrupt");
                assert!(error.message.contains(&path), "{error}");
            }
            let mut gone = files.clone();
            gone.0.remove(&path);
            let error = manifest.verify(&gone).unwrap_err();
            assert_eq!(error.code, "file-missing");
            assert!(error.message.contains(&path));
        }
    }

    #[test]
    fn a_manifest_that_leaves_its_folder_or_lies_is_refused() {
        let good = String::from_utf8(Manifest::build(&model(), card()).unwrap().to_json().unwrap()).unwrap();
        let code = |from: &str, to: &str| {
            assert!(good.contains(from));
            Manifest::parse(good.replace(from, to).as_bytes()).unwrap_err().code
        };
        for path in ["../secret", "/etc/passwd", "unet/../../x", "a\\\\b", "C:x", "", "unet//x"] {
            assert_eq!(code("unet/config.json", path), "manifest", "{path}");
        }
        assert_eq!(code("unet/config.json", "model_index.json"), "manifest");
        assert_eq!(code("\"sha256\": \"", "\"sha256\": \"z"), "manifest");
        assert_eq!(code("\"bytes\": ", "\"bytes\": -"), "manifest");
        assert_eq!(code("\"format\": 1", "\"format\": 2"), "manifest-format");
        assert_eq!(code("{", "["), "manifest");
    }
}
