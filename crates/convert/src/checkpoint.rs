//! A stranger's checkpoint as named tensors: safetensors, PyTorch's, ggml's and ONNX files, alone or in pieces with an index, read
//! tensor by tensor from the disk.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::folder::weight_files;
use super::gguf::Gguf;
use super::onnx::Graph;
use super::pickle::{self, View};
use super::scaled::{self, Scaled};
use facestudio::error::{Error, Result};
use facestudio::internal::{check_listed, decode};
use facestudio::weights::{Blocks, SafetensorsHeader, TensorSource, open_file};

/// Longest pickle that is read; those of large checkpoints have a few megabytes.
const MOST_PICKLE: u64 = 64 << 20;
/// What PyTorch puts around a module, and before all of its tensors' names: `DataParallel` and its kin, `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Tensors of one or several files.
pub struct Checkpoint(Vec<Piece>);

struct Piece {
    path: PathBuf,
    /// What comes before its tensors' own names.
    prefix: &'static str,
    /// What the file has before all of its tensors' names, and nobody asks for.
    wrapper: String,
    file: RefCell<File>,
    content: Content,
}

enum Content {
    Safetensors(SafetensorsHeader, Scaled),
    Gguf(Gguf),
    Torch {
        views: BTreeMap<String, View>,
        /// Where each storage's bytes lie in the file.
        storages: BTreeMap<String, Range<u64>>,
    },
    Onnx(Graph),
}

impl Checkpoint {
    /// Opens a file, whose content tells what it is, or the weights of a folder in diffusers' or transformers' layout: one
    /// file, or pieces.
    pub fn open(path: &Path) -> Result<Self> {
        check_listed(path)?;
        let files = if path.is_dir() { weight_files(path)? } else { vec![path.to_owned()] };
        Self::of(files.into_iter().map(|file| Piece::open(file, "")).collect::<Result<_>>()?)
    }

    /// Opens several files of a folder as one, the tensors of each after a prefix of its own; `None` unless all are there,
    /// as safetensors or as PyTorch's files. `parts` are the files' names without their ending, and the prefixes.
    pub fn open_parts(folder: &Path, parts: &[(&str, &'static str)]) -> Result<Option<Self>> {
        let file = |stem: &str| {
            let files =
                ["safetensors", "pth", "pt", "bin"].map(|ending| folder.join(format!("{stem}.{ending}")));
            files.into_iter().find(|file| file.is_file())
        };
        let files: Option<Vec<_>> = parts.iter().map(|(stem, prefix)| Some((file(stem)?, *prefix))).collect();
        let open = |files: Vec<(PathBuf, &'static str)>| {
            Self::of(
                files.into_iter().map(|(file, prefix)| Piece::open(file, prefix)).collect::<Result<_>>()?,
            )
        };
        files.map(open).transpose()
    }

    /// Whether it was opened by [`open_parts`](Self::open_parts).
    pub fn is_of_parts(&self) -> bool {
        self.0.iter().any(|piece| !piece.prefix.is_empty())
    }

    fn of(pieces: Vec<Piece>) -> Result<Self> {
        let mut names = BTreeSet::new();
        for piece in &pieces {
            if let Some(twice) = piece.names().into_iter().find(|name| !names.insert(name.clone())) {
                return Err(Error::weights(
                    "tensor-duplicate",
                    format!("{}: tensor '{twice}' is also in another file", piece.path.display()),
                    "keep one set of weights",
                ));
            }
        }
        Ok(Self(pieces))
    }

    /// What kind of file it is, for people: `safetensors`, `pytorch`, `gguf` or `onnx`.
    pub fn format(&self) -> &'static str {
        self.0.first().map_or("safetensors", |piece| match &piece.content {
            Content::Safetensors(..) => "safetensors",
            Content::Torch { .. } => "pytorch",
            Content::Gguf(_) => "gguf",
            Content::Onnx(_) => "onnx",
        })
    }

    /// The operators of an ONNX file; `None` for files of tensors alone.
    pub fn graph(&self) -> Option<&Graph> {
        self.0.iter().find_map(|piece| match &piece.content {
            Content::Onnx(graph) => Some(graph),
            _ => None,
        })
    }

    /// The header of a single safetensors file.
    pub fn header(&self) -> Option<&SafetensorsHeader> {
        match &*self.0 {
            [Piece { content: Content::Safetensors(header, _), .. }] => Some(header),
            _ => None,
        }
    }

    /// What the header of a safetensors or GGUF file says under a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|piece| match &piece.content {
            Content::Safetensors(header, _) => header.metadata().get(key).map(String::as_str),
            Content::Gguf(gguf) => gguf.metadata(key),
            _ => None,
        })
    }

    fn piece(&self, name: &str) -> Option<&Piece> {
        self.0.iter().find(|piece| piece.shape(name).is_some())
    }
}

impl TensorSource for Checkpoint {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().flat_map(Piece::names).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.piece(name)?.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let piece = self.piece(name).ok_or_else(|| {
            Error::weights(
                "tensor-missing",
                format!("tensor '{name}' is missing"),
                "check that the file belongs here",
            )
        })?;
        piece.read(name).map_err(|e| e.context(piece.path.display()))
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let blocks = |piece: &Piece| piece.blocks(name).map_err(|e| e.context(piece.path.display()));
        self.piece(name).map_or(Ok(None), blocks)
    }
}

impl Piece {
    fn open(path: PathBuf, prefix: &'static str) -> Result<Self> {
        let open = || -> Result<(File, Content)> {
            check_listed(&path)?;
            let failed = |e: &std::io::Error| Error::io(path.display(), e);
            let mut file = open_file(&path)?;
            let size = file.metadata().map_err(|e| failed(&e))?.len();
            let mut start = Vec::new();
            file.by_ref().take(16).read_to_end(&mut start).map_err(|e| failed(&e))?;
            let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
            let safetensors = |file: &mut File| -> Result<Content> {
                let header = SafetensorsHeader::read(size, |range| part(file, range))?;
                let scaled = Scaled::of(&header)?;
                Ok(Content::Safetensors(header, scaled))
            };
            let content = if SafetensorsHeader::begins(&start, size) {
                safetensors(&mut file)?
            } else if Gguf::begins(&start) {
                file.rewind().map_err(|e| failed(&e))?;
                Content::Gguf(Gguf::read(&mut BufReader::new(&mut file), size)?)
            } else if named || Graph::begins(&start) {
                // Its lengths lie between the tensors: it is read once whole, then tensor by tensor.
                Content::Onnx(Graph::read(&part(&mut file, 0..size)?)?)
            } else if start.starts_with(b"PK\x03\x04") {
                torch(&mut file, size)?
            } else {
                refuse_others(&start)?;
                safetensors(&mut file)?
            };
            Ok((file, content))
        };
        let (file, content) = open().map_err(|e| e.context(path.display()))?;
        let mut piece = Self { path, prefix: "", wrapper: String::new(), file: file.into(), content };
        // The operators of an ONNX file ask for its tensors by their whole names.
        if !matches!(piece.content, Content::Onnx(_)) {
            while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| piece.all_begin_with(wrapper)) {
                piece.wrapper.push_str(wrapper);
            }
        }
        Ok(Self { prefix, ..piece })
    }

    fn all_begin_with(&self, wrapper: &str) -> bool {
        let names = self.names();
        !names.is_empty() && names.iter().all(|name| name.starts_with(wrapper))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.content {
            Content::Safetensors(header, scaled) => {
                header.names().into_iter().filter(|name| !scaled.hides(name)).collect()
            }
            Content::Gguf(gguf) => gguf.names(),
            Content::Torch { views, .. } => views.keys().cloned().collect(),
            Content::Onnx(graph) => graph.initializers.keys().cloned().collect(),
        };
        names.iter_mut().for_each(|name| name.replace_range(..self.wrapper.len(), self.prefix));
        names
    }

    /// A tensor's name in the file.
    fn own_name(&self, name: &str) -> Option<String> {
        Some(format!("{}{}", self.wrapper, name.strip_prefix(self.prefix)?))
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let name = &self.own_name(name)?;
        match &self.content {
            Content::Safetensors(_, scaled) if scaled.hides(name) => None,
            Content::Safetensors(header, _) => header.shape(name),
            Content::Gguf(gguf) => gguf.shape(name),
            Content::Torch { views, .. } => views.get(name).map(|view| view.shape.clone()),
            Content::Onnx(graph) => graph.initializers.get(name).map(|tensor| tensor.shape.clone()),
        }
    }

    /// A tensor that there is.
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let name = &self.own_name(name).unwrap_or_else(|| name.to_owned());
        let mut file = self.file.borrow_mut();
        match &self.content {
            Content::Safetensors(header, scaled) => {
                let mut read = |range: Range<u64>| part(&mut file, range).map(Cow::Owned);
                let Some(scale) = scaled.scale_of(name) else { return header.decode(name, read) };
                let (mut values, scales) =
                    (header.decode_unscaled(name, &mut read)?, header.decode(scale, read)?);
                let shape = |name: &str| header.shape(name).unwrap_or_default();
                scaled::multiply(scale, &shape(name), &mut values, &shape(scale), &scales);
                Ok(values)
            }
            Content::Gguf(gguf) => gguf.decode(name, |range| part(&mut file, range)),
            Content::Torch { views, storages } => {
                let view = &views[name];
                let storage = storages.get(&view.storage).ok_or_else(|| damaged(name, "has no storage"))?;
                read_view(name, view, storage, |range| part(&mut file, range))
            }
            Content::Onnx(graph) => graph.initializers[name].read(name, |range| part(&mut file, range)),
        }
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let (Content::Gguf(gguf), Some(name)) = (&self.content, self.own_name(name)) else { return Ok(None) };
        gguf.blocks(&name, |range| part(&mut self.file.borrow_mut(), range))
    }
}

/// Fails where the first bytes are of a format that is known, and not read.
fn refuse_others(start: &[u8]) -> Result<()> {
    const OTHERS: [(&[u8], &str, &str); 4] = [
        (b"\x89HDF", "an HDF5 file of Keras", "use the model as safetensors, or PyTorch's file"),
        (b"version https://", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
        (b"<!DOCTYPE", "a web page", "fetch the file itself: its link says 'download' or 'resolve'"),
        (b"<!doctype", "a web page", "fetch the file itself: its link says 'download' or 'resolve'"),
    ];
    // A pickle's protocol stands second.
    if let [0x80, 2..=5, ..] = start {
        return Err(Error::weights(
            "pickle",
            "a file of PyTorch before version 1.6, or of another program: one long pickle",
            "load it in PyTorch and save it again, or convert it to safetensors",
        ));
    }
    match OTHERS.iter().find(|(begin, ..)| start.starts_with(begin)) {
        None => Ok(()),
        Some((_, what, remedy)) => {
            Err(Error::weights("checkpoint-layout", format!("not a checkpoint but {what}"), *remedy))
        }
    }
}

fn part(file: &mut File, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.seek(SeekFrom::Start(range.start))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| Error::io("the checkpoint", &e))?;
    Ok(bytes)
}

/// Reads the directory and the pickle of a `torch.save` archive: `NAME/data.pkl` and the storages `NAME/data/KEY`, all
/// uncompressed.
fn torch(file: &mut File, size: u64) -> Result<Content> {
    let invalid = |reason: String| {
        Error::weights(
            "torch-archive",
            format!("not a file of torch.save: {reason}"),
            "fetch the checkpoint again",
        )
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| invalid(e.to_string()))?;
    let mut pickle = None;
    let mut storages = BTreeMap::new();
    for i in 0..archive.len() {
        // Raw: what is compressed, as TorchScript's code, is not looked at.
        let mut entry = archive.by_index_raw(i).map_err(|e| invalid(e.to_string()))?;
        let name = entry.name().split_once('/').map_or("", |(_, rest)| rest).to_owned();
        let key = name.strip_prefix("data/");
        if key.is_none() && !["data.pkl", "byteorder"].contains(&name.as_str()) {
            continue;
        }
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(invalid(format!("{name} is compressed")));
        }
        if let Some(key) = key {
            let start = entry.data_start();
            let end = start.checked_add(entry.size()).filter(|end| *end <= size);
            let end = end.ok_or_else(|| invalid(format!("{name} lies beyond its end")))?;
            storages.insert(key.to_owned(), start..end);
            continue;
        }
        if entry.size() > MOST_PICKLE {
            return Err(invalid(format!("{name} has {} bytes", entry.size())));
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(MOST_PICKLE).read_to_end(&mut bytes).map_err(|e| invalid(e.to_string()))?;
        match name.as_str() {
            "byteorder" if bytes == b"big" => {
                return Err(invalid("its numbers are big-endian".to_owned()));
            }
            "byteorder" => {}
            _ => pickle = Some(bytes),
        }
    }
    let pickle = pickle.ok_or_else(|| invalid("it has no data.pkl".to_owned()))?;
    Ok(Content::Torch { views: pickle::tensors(&pickle)?, storages })
}

fn damaged(name: &str, reason: &str) -> Error {
    Error::weights("torch-archive", format!("tensor '{name}' {reason}"), "fetch the checkpoint again")
}

/// Reads a view of a storage as a row-major tensor.
fn read_view(
    name: &str,
    view: &View,
    storage: &Range<u64>,
    part: impl FnOnce(Range<u64>) -> Result<Vec<u8>>,
) -> Result<Vec<f32>> {
    let count = view.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
    let count = count.ok_or_else(|| damaged(name, "has impossible sides"))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    // The last element's place; every other lies between it and the first.
    let last = view
        .shape
        .iter()
        .zip(&view.stride)
        .try_fold(0usize, |last, (side, stride)| last.checked_add((side - 1).checked_mul(*stride)?));
    let bytes = view.element.bitsize() / 8;
    let span = last.and_then(|last| {
        let start = view.offset.checked_mul(bytes)? as u64;
        let end = view.offset.checked_add(last)?.checked_add(1)?.checked_mul(bytes)? as u64;
        (end <= storage.end - storage.start).then_some((last, storage.start + start..storage.start + end))
    });
    let (last, range) = span.ok_or_else(|| damaged(name, "lies outside its storage"))?;
    // Strides of 0 repeat elements; no weight does.
    if count > last + 1 {
        return Err(damaged(name, "repeats its elements"));
    }
    let values = decode(name, view.element, &part(range)?)?;
    if count == last + 1 && is_row_major(view) {
        return Ok(values);
    }
    let mut out = Vec::with_capacity(count);
    let mut place = vec![0; view.shape.len()];
    for _ in 0..count {
        out.push(values[place.iter().zip(&view.stride).map(|(i, stride)| i * stride).sum::<usize>()]);
        for axis in (0..place.len()).rev() {
            place[axis] += 1;
            if place[axis] < view.shape[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    Ok(out)
}

fn is_row_major(view: &View) -> bool {
    let mut expected = 1;
    view.shape.iter().zip(&view.stride).rev().all(|(side, stride)| {
        let fits = *side == 1 || *stride == expected;
        expected *= side;
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: usize, shape: &[usize], stride: &[usize]) -> View {
        View {
            storage: "0".to_owned(),
            element: ::safetensors::Dtype::U8,
            offset,
            shape: shape.to_vec(),
            stride: stride.to_vec(),
        }
    }

    fn read(view: &View) -> Result<Vec<f32>> {
        let storage: Vec<u8> = (0..12).collect();
        read_view("t", view, &(100..112), |range| {
            Ok(storage[(range.start - 100) as usize..(range.end - 100) as usize].to_vec())
        })
    }

    #[test]
    fn views_are_read_row_by_row_whatever_their_strides() {
        assert_eq!(read(&view(2, &[2, 3], &[3, 1])).unwrap(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(read(&view(0, &[3, 2], &[1, 3])).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(read(&view(1, &[2, 2], &[6, 2])).unwrap(), [1.0, 3.0, 7.0, 9.0]);
        assert_eq!(read(&view(11, &[], &[])).unwrap(), [11.0]);
        assert!(read(&view(0, &[0, 5], &[5, 1])).unwrap().is_empty());
    }

    #[test]
    fn views_that_lie_outside_their_storage_or_repeat_it_are_refused() {
        for bad in [
            view(0, &[13], &[1]),
            view(12, &[1], &[1]),
            view(usize::MAX, &[1], &[1]),
            view(0, &[2, usize::MAX], &[1, 1]),
            view(0, &[2, 2], &[usize::MAX, 1]),
            view(0, &[1000, 1000], &[0, 0]),
        ] {
            assert_eq!(read(&bad).unwrap_err().code, "torch-archive", "{bad:?}");
        }
    }
}
