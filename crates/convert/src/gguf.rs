//! GGUF, the file format of ggml: a header of keys and values, the places of tensors, and their bytes in ggml's types.
//!
//! Sources: ggml's `docs/gguf.md` for the container, `ggml-common.h` for the blocks. The names of tensors are the checkpoint's
//! own, as stable-diffusion.cpp and ComfyUI-GGUF write them; ComfyUI-GGUF also keeps the shapes of tensors that it reshaped to rows of
//! 256, under `comfy.gguf.orig_shape.NAME`.

mod types;

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use facestudio::error::{Error, Result};
use facestudio::weights::Blocks;
use types::Type;

/// What a file begins with.
const MAGIC: &[u8; 4] = b"GGUF";
/// Versions whose lengths have 64 bits; the first one's had 32.
const VERSIONS: [u32; 2] = [2, 3];
/// `general.alignment` where it is not said.
const ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor; ggml's own limit is 4.
const MOST_DIMENSIONS: u32 = 8;
/// Most arrays in arrays that are passed over.
const MOST_DEPTH: u32 = 4;
/// Before the name of a tensor whose shape is not that of its rows.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";
/// ggml's name for the numbers of bytes between tensors.
const ALIGNMENT_KEY: &str = "general.alignment";
/// How many files a model was cut into.
const SPLIT: &str = "split.count";

/// What a file holds and where, without the numbers.
pub struct Gguf {
    tensors: BTreeMap<String, Place>,
    texts: BTreeMap<String, String>,
}

struct Place {
    of: Type,
    /// Row-major, as PyTorch has it.
    shape: Vec<usize>,
    range: Range<u64>,
}

impl Gguf {
    /// Whether a file may be one by its first bytes.
    pub fn begins(start: &[u8]) -> bool {
        start.starts_with(MAGIC)
    }

    /// Reads the head of a file of `size` bytes from its beginning.
    ///
    /// Fails with `gguf` on a file that is cut off, contradicts itself, or is of another version, and with `dtype` for a
    /// tensor in a type that is not read.
    pub fn read(file: &mut dyn Read, size: u64) -> Result<Self> {
        let mut head = Head { file, at: 0, size };
        head.read_all()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// A tensor's shape, as PyTorch has it.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|place| place.shape.clone())
    }

    /// What the header says in words under a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// A tensor as f32; `part` gives the bytes of a range of the file.
    pub fn decode(&self, name: &str, part: impl FnOnce(Range<u64>) -> Result<Vec<u8>>) -> Result<Vec<f32>> {
        let place = self.place(name)?;
        Ok(place.of.decode(&part(place.range.clone())?))
    }

    /// A tensor's blocks, where ours hold the same numbers: those of `Q8_0` and `Q4_0`, of whole rows.
    ///
    /// `None` where a row of the weight is no whole number of blocks, as in some convolutions; where an 8-bit block holds −128, which
    /// ours leave out and ggml's own quantiser does not write; and where a scale is no number, so that reading says it.
    pub fn blocks(
        &self,
        name: &str,
        part: impl FnOnce(Range<u64>) -> Result<Vec<u8>>,
    ) -> Result<Option<Blocks>> {
        let place = self.place(name)?;
        let row: usize = place.shape.iter().skip(1).product();
        if place.shape.len() < 2 || row == 0 || !row.is_multiple_of(place.of.block()) {
            return Ok(None);
        }
        place
            .of
            .is_ours()
            .then(|| Ok(place.of.blocks(&part(place.range.clone())?)))
            .transpose()
            .map(Option::flatten)
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| damaged(format!("it has no tensor '{name}'")))
    }
}

/// A file that is read from its beginning.
struct Head<'a> {
    file: &'a mut dyn Read,
    at: u64,
    size: u64,
}

/// A value in the header, as far as anything of it is needed.
enum Value {
    Text(String),
    Number(u64),
    /// Of whole numbers, at most as many as a tensor may have dimensions.
    Sides(Vec<i64>),
    Other,
}

impl Head<'_> {
    fn read_all(&mut self) -> Result<Gguf> {
        if self.bytes::<4>()? != *MAGIC {
            return Err(damaged("it does not begin with GGUF"));
        }
        let version = self.u32()?;
        if !VERSIONS.contains(&version) {
            let swapped = VERSIONS.contains(&version.swap_bytes());
            let what = if swapped { "big-endian".to_owned() } else { format!("of version {version}") };
            return Err(damaged(format!("it is {what}, and only version 2 and 3, little-endian, are read")));
        }
        let (tensors, values) = (self.u64()?, self.u64()?);
        let (mut texts, mut sides, mut alignment) = (BTreeMap::new(), BTreeMap::new(), ALIGNMENT);
        for _ in 0..values {
            let key = self.text()?;
            let kind = self.u32()?;
            match self.value(kind, 0).map_err(|e| e.context(&key))? {
                Value::Number(number) if key == ALIGNMENT_KEY => alignment = number,
                Value::Number(number) if key == SPLIT && number > 1 => {
                    return Err(Error::weights(
                        "gguf",
                        format!("it is one of the {number} files that a model was cut into"),
                        "join them with gguf-split --merge, of llama.cpp",
                    ));
                }
                Value::Text(text) => drop(texts.insert(key, text)),
                Value::Sides(list) => {
                    if let Some(name) = key.strip_prefix(ORIGINAL_SHAPE) {
                        sides.insert(name.to_owned(), list);
                    }
                }
                Value::Number(_) | Value::Other => {}
            }
        }
        if !alignment.is_power_of_two() {
            return Err(damaged(format!("its alignment is {alignment}")));
        }
        let mut found = Vec::new();
        for _ in 0..tensors {
            found.push(self.tensor()?);
        }
        let data =
            self.at.checked_next_multiple_of(alignment).filter(|data| found.is_empty() || *data <= self.size);
        let data = data.ok_or_else(|| damaged("it ends before its tensors"))?;
        let mut places = BTreeMap::new();
        for Described { name, shape, of, offset } in found {
            let place = self.place(&name, shape, of, data.checked_add(offset), sides.get(&name))?;
            if places.insert(name.clone(), place).is_some() {
                return Err(damaged(format!("tensor '{name}' is given twice")));
            }
        }
        Ok(Gguf { tensors: places, texts })
    }

    /// Where a tensor lies that is said to begin at `start`, and the shape that it had before it was reshaped to rows.
    fn place(
        &self,
        name: &str,
        shape: Vec<usize>,
        of: Type,
        start: Option<u64>,
        original: Option<&Vec<i64>>,
    ) -> Result<Place> {
        let count = |shape: &[usize]| shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        let row = shape.last().copied().unwrap_or(1);
        let whole = count(&shape).filter(|_| row.is_multiple_of(of.block()));
        let bytes = whole.and_then(|whole| ((whole / of.block()) as u64).checked_mul(of.bytes() as u64));
        let bytes = bytes.ok_or_else(|| {
            damaged(format!("tensor '{name}' of shape {shape:?} is no whole number of blocks"))
        })?;
        let end = start
            .and_then(|start| Some(start..start.checked_add(bytes)?))
            .filter(|range| range.end <= self.size);
        let range = end.ok_or_else(|| damaged(format!("tensor '{name}' lies beyond its end")))?;
        let Some(original) = original else { return Ok(Place { of, shape, range }) };
        let sides: Option<Vec<usize>> = original.iter().map(|side| usize::try_from(*side).ok()).collect();
        match sides.filter(|sides| count(sides) == count(&shape)) {
            Some(shape) => Ok(Place { of, shape, range }),
            None => Err(damaged(format!("tensor '{name}' of shape {shape:?} cannot have been {original:?}"))),
        }
    }

    fn tensor(&mut self) -> Result<Described> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(damaged(format!("tensor '{name}' has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let side = self.u64()?;
            let side = usize::try_from(side)
                .map_err(|_| damaged(format!("tensor '{name}' has a side of {side}")))?;
            shape.push(side);
        }
        // ggml counts from the dimension whose numbers lie side by side.
        shape.reverse();
        let of = Type::of(self.u32()?, &name)?;
        Ok(Described { name, shape, of, offset: self.u64()? })
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value> {
        Ok(match kind {
            0 | 1 | 7 => Value::Number(self.bytes::<1>()?[0].into()),
            2 | 3 => Value::Number(u16::from_le_bytes(self.bytes()?).into()),
            4 | 5 => Value::Number(self.u32()?.into()),
            10 | 11 => Value::Number(self.u64()?),
            6 => {
                self.bytes::<4>()?;
                Value::Other
            }
            12 => {
                self.bytes::<8>()?;
                Value::Other
            }
            8 => Value::Text(self.text()?),
            9 if depth < MOST_DEPTH => self.array(depth)?,
            _ => return Err(damaged(format!("it has a value of type {kind}"))),
        })
    }

    fn array(&mut self, depth: u32) -> Result<Value> {
        let (kind, length) = (self.u32()?, self.u64()?);
        let small = length <= u64::from(MOST_DIMENSIONS);
        let mut sides = Vec::new();
        for _ in 0..length {
            let number = match self.value(kind, depth + 1)? {
                // As 32 bits with a sign, which is what shapes are written as.
                Value::Number(number) if small && kind == 5 => Some(i64::from(number as u32 as i32)),
                Value::Number(number) if small && matches!(kind, 4 | 10 | 11) => i64::try_from(number).ok(),
                _ => None,
            };
            sides.extend(number);
        }
        Ok(if small && sides.len() as u64 == length { Value::Sides(sides) } else { Value::Other })
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        if length > self.size - self.at {
            return Err(damaged(format!("it has a text of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| damaged("it has a name or a value that is no text"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let end = self.at.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        self.at = end.ok_or_else(|| damaged("it ends in its header"))?;
        self.file.read_exact(bytes).map_err(|e| Error::io("the checkpoint", &e))
    }
}

/// A tensor as the header has it.
struct Described {
    name: String,
    shape: Vec<usize>,
    of: Type,
    /// From where the tensors begin.
    offset: u64,
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::weights("gguf", format!("not a GGUF file that can be read: {reason}"), "fetch the file again")
}

#[cfg(test)]
mod tests;
