//! One network of a model folder in the diffusers/transformers layout: its config and its weights.

use std::cell::RefCell;

use serde::de::DeserializeOwned;

use super::files::Files;
use super::names::{WeightName, missing_piece, preferred};
use super::paths::without_mark;
use super::safetensors::SafetensorsHeader;
use super::tensors::{TensorSource, check_finite, missing};
use crate::error::{Error, Result};
use crate::kernels::Blocks;

/// Most bytes of a component's JSON file.
const MAX_JSON: u64 = 64 << 20;

/// One network of a model: its folder with `config.json` and safetensors.
pub struct Component<'a> {
    files: &'a dyn Files,
    folder: String,
    compact: bool,
}

impl<'a> Component<'a> {
    /// The component in `folder` of `files`; `""` where `files` is the component's own folder.
    pub fn new(files: &'a dyn Files, folder: &str) -> Self {
        Self { files, folder: folder.to_owned(), compact: false }
    }

    /// The same, whose weights may be held as they are stored, in f16 or in blocks, where the device's kernels read them so. Not
    /// for networks with grouped convolutions, which are burn's.
    pub(crate) fn compact(self) -> Self {
        Self { compact: true, ..self }
    }

    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }

    /// The component in `folder` beside this one, where there is one. The second and later ones of a kind (`vision_encoder_2`)
    /// have none beside them: what lies there is the first's.
    pub fn beside(&self, folder: &str) -> Result<Option<Self>> {
        let (parent, own) = self.folder.rsplit_once('/').unwrap_or(("", &self.folder));
        let numbered = own.rsplit_once('_').is_some_and(|(_, number)| number.parse::<usize>().is_ok());
        if own.is_empty() || numbered || !self.files.folders(parent)?.iter().any(|name| name == folder) {
            return Ok(None);
        }
        let path = if parent.is_empty() { folder.to_owned() } else { format!("{parent}/{folder}") };
        Ok(Some(Self::new(self.files, &path)))
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
        let path = self.path(name);
        let invalid = |reason: String| {
            Error::weights("config", format!("{path}: {reason}"), "use the config of a supported model")
        };
        let size = self.files.size(&path)?;
        if size > MAX_JSON {
            return Err(invalid(format!("it has {size} bytes")));
        }
        serde_json::from_slice(without_mark(&self.read(name)?)).map_err(|e| invalid(e.to_string()))
    }

    /// Opens the folder's weights: its `.safetensors` file, or all of its shards. At most one of them is in memory at a
    /// time.
    ///
    /// Of several variants of one file (`model.safetensors` beside `model.fp16.safetensors`) the plain one is taken.
    pub fn tensors(&self) -> Result<Box<dyn TensorSource + 'a>> {
        Ok(Box::new(Shards {
            files: self.files,
            shards: self.shards()?,
            compact: self.compact,
            held: RefCell::default(),
        }))
    }

    /// The headers of the files behind [`tensors`](Self::tensors).
    pub fn headers(&self) -> Result<Vec<SafetensorsHeader>> {
        Ok(self.shards()?.into_iter().map(|shard| shard.header).collect())
    }

    fn shards(&self) -> Result<Vec<Shard>> {
        let listed = self.files.list(&self.folder)?;
        let names = weight_files(&listed);
        let folder = if self.folder.is_empty() { "the folder" } else { &self.folder };
        let Some(first) = names.first() else {
            return Err(Error::weights(
                "weights-missing",
                format!("no .safetensors file in {folder}"),
                "convert the checkpoint with `facestudio convert`, or point to the folder that holds it",
            ));
        };
        if let Some(absent) = missing_piece(&names) {
            return Err(Error::weights(
                "weights-missing",
                format!("{} is there, but {absent} is not", self.path(first.name)),
                "fetch or convert the model again",
            ));
        }
        let mut shards: Vec<Shard> = Vec::with_capacity(names.len());
        for WeightName { name, .. } in names {
            let path = self.path(name);
            let part = |range| self.files.read_range(&path, range);
            let header =
                SafetensorsHeader::read(self.files.size(&path)?, part).map_err(|e| e.context(&path))?;
            if let Some(twice) = header.names().iter().find(|name| shards.iter().any(|shard| shard.has(name)))
            {
                return Err(Error::weights(
                    "tensor-duplicate",
                    format!("{path}: tensor '{twice}' is also in another file of {folder}"),
                    "keep one set of weights in the folder",
                ));
            }
            shards.push(Shard { path, header });
        }
        Ok(shards)
    }
}

/// The `.safetensors` files among `names`, without variants of a file that is there.
fn weight_files(names: &[String]) -> Vec<WeightName<'_>> {
    let files = names.iter().filter_map(|name| WeightName::parse(name));
    let mut files: Vec<_> = files.filter(|file| file.ending == "safetensors" && !file.index).collect();
    files.sort_by_key(|file| file.stem);
    files.chunk_by(|a, b| a.stem == b.stem).flat_map(preferred).collect()
}

struct Shard {
    path: String,
    header: SafetensorsHeader,
}

impl Shard {
    fn has(&self, name: &str) -> bool {
        self.header.shape(name).is_some()
    }
}

/// A network's weights, all finite, or they fail with `not-finite`. The shard that was read last stays in memory until another is asked for: tensors are asked for
/// block by block, and a block's tensors lie side by side.
struct Shards<'a> {
    files: &'a dyn Files,
    shards: Vec<Shard>,
    compact: bool,
    /// Index and bytes.
    held: RefCell<Option<(usize, Vec<u8>)>>,
}

impl TensorSource for Shards<'_> {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.shards.iter().flat_map(|shard| shard.header.names()).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shards.iter().find_map(|shard| shard.header.shape(name))
    }

    fn half(&self, name: &str) -> bool {
        let stored = self.shards.iter().find_map(|shard| shard.header.dtype(name));
        self.compact && stored.is_some_and(|stored| !["f32", "f64"].contains(&stored.as_str()))
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        if !self.half(name) {
            return Ok(None);
        }
        self.in_shard(name, |header, bytes| {
            let blocks = header.blocks_in(name, bytes)?;
            // The integers are finite.
            blocks.iter().try_for_each(|blocks| check_finite(name, &blocks.scales))?;
            Ok(blocks)
        })
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.in_shard(name, |header, bytes| {
            let values = header.decode_in(name, bytes)?;
            check_finite(name, &values)?;
            Ok(values)
        })
    }
}

impl Shards<'_> {
    /// What `read` makes of the shard that holds tensor `name`.
    fn in_shard<T>(
        &self,
        name: &str,
        read: impl FnOnce(&SafetensorsHeader, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let index = self.shards.iter().position(|shard| shard.has(name)).ok_or_else(|| missing(name))?;
        let Shard { path, header } = &self.shards[index];
        let mut held = self.held.borrow_mut();
        if held.as_ref().is_none_or(|(i, _)| *i != index) {
            // Let go of the old one first: never two in memory.
            *held = None;
            *held = Some((index, self.files.read(path)?));
        }
        let bytes = held.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        read(header, bytes).map_err(|e| e.context(path))
    }
}
