//! Reading safetensors files that may be damaged or hostile.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use ::safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::decode::decode;
use super::quantize;
use super::tensors::{TensorSource, Tensors, missing};
use crate::error::{Error, Result};
use crate::kernels::Blocks;

/// Longest header that is read, as in the format's own implementation.
const MAX_HEADER: u64 = 100_000_000;
/// The header's length comes first, as a little-endian u64.
const LENGTH: u64 = 8;
/// What other programs call the scales beside a quantised weight: bitsandbytes (8 and 4 bits), ComfyUI's scaled FP8, and
/// compressed-tensors.
const OTHER_SCALES: [&str; 6] =
    [".SCB", ".absmax", ".quant_map", ".scale_weight", ".weight_scale", ".weight_scale_inv"];

struct Entry {
    dtype: Dtype,
    /// Of the numbers, also where they are stored in pairs.
    shape: Vec<usize>,
    /// Whether a byte holds two 4-bit integers.
    packed: bool,
    /// Where its bytes lie in the file.
    range: Range<usize>,
}

/// What a safetensors file holds and where, without the numbers; checked whole before anything is read.
///
/// Tensors that this crate has quantised (see [`Quantization`](super::Quantization)) look like any other.
pub struct SafetensorsHeader {
    entries: BTreeMap<String, Entry>,
    /// Block scales by the name of the tensor they belong to.
    scales: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsHeader {
    /// Whether a file of `size` bytes may be one by its first nine or more: its header's length, and the JSON after it. What
    /// other formats begin with would be an impossible length.
    pub fn begins(start: &[u8], size: u64) -> bool {
        let Some((length, rest)) = start.split_first_chunk() else { return false };
        let possible = u64::from_le_bytes(*length) <= MAX_HEADER.min(size.saturating_sub(LENGTH));
        possible && rest.first().is_some_and(|first| *first == b'{' || first.is_ascii_whitespace())
    }

    /// Reads the head of a file of `size` bytes; `part` gives the bytes of a range.
    ///
    /// Fails on a truncated file, a header longer than 100 MB or than the file, a name given twice, overlapping or
    /// out-of-range offsets, shapes that do not fit their bytes, and scales that do not fit the tensor they belong to.
    pub fn read(size: u64, mut part: impl FnMut(Range<u64>) -> Result<Vec<u8>>) -> Result<Self> {
        let no_header = || damaged("it has no header");
        if size < LENGTH {
            return Err(no_header());
        }
        let length = part(0..LENGTH)?.try_into().map_err(|_| no_header())?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > size - LENGTH {
            return Err(damaged(format!("its header claims {length} bytes, the file has {}", size - LENGTH)));
        }
        let data = LENGTH + length;
        let Parsed { tensors, metadata } = serde_json::from_slice(&part(LENGTH..data)?).map_err(damaged)?;
        let mut entries = place(tensors, data, size)?;
        let scales = take_scales(&mut entries, &metadata)?;
        Ok(Self { entries, scales, metadata })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.entries.get(name).map(|e| e.shape.clone())
    }

    /// The header's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// How tensor `name` is stored, for people: `f32`, `f16`, `q8`, `q4` and so on.
    pub fn dtype(&self, name: &str) -> Option<String> {
        let entry = self.entries.get(name)?;
        if self.scales.contains_key(name) {
            return Some(if entry.packed { "q4" } else { "q8" }.to_owned());
        }
        Some(format!("{:?}", entry.dtype).to_lowercase())
    }

    /// Decodes a tensor; `part` gives the bytes of a range of the file.
    ///
    /// Fails with `quantization-scheme` where another program keeps scales of it beside it.
    pub fn decode<'a>(
        &self,
        name: &str,
        part: impl FnMut(Range<u64>) -> Result<Cow<'a, [u8]>>,
    ) -> Result<Vec<f32>> {
        let entry = self.entries.get(name).ok_or_else(|| missing(name))?;
        self.refuse_scaled(name, entry)?;
        self.decode_unscaled(name, part)
    }

    /// As [`decode`](Self::decode), for who knows another program's scales and applies them.
    pub fn decode_unscaled<'a>(
        &self,
        name: &str,
        mut part: impl FnMut(Range<u64>) -> Result<Cow<'a, [u8]>>,
    ) -> Result<Vec<f32>> {
        let entry = self.entries.get(name).ok_or_else(|| missing(name))?;
        let mut bytes = |entry: &Entry| part(entry.range.start as u64..entry.range.end as u64);
        let stored = bytes(entry)?;
        let values = if entry.packed {
            quantize::unpack(&stored, &entry.shape)
        } else {
            decode(name, entry.dtype, &stored)?
        };
        match self.scales.get(name) {
            None => Ok(values),
            Some(scale) => {
                let scales = decode(name, scale.dtype, &bytes(scale)?)?;
                Ok(quantize::dequantize(values, &entry.shape, &scales))
            }
        }
    }

    /// Fails where a tensor's numbers are not its values: another program has quantised it, and keeps what they are to be
    /// multiplied with beside it.
    fn refuse_scaled(&self, name: &str, entry: &Entry) -> Result<()> {
        if self.scales.contains_key(name)
            || !matches!(entry.dtype, Dtype::I8 | Dtype::U8 | Dtype::F8_E4M3 | Dtype::F8_E5M2)
        {
            return Ok(());
        }
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        let mut beside =
            OTHER_SCALES.iter().flat_map(|suffix| [layer, name].map(|name| format!("{name}{suffix}")));
        match beside.find(|scale| self.entries.contains_key(scale)) {
            None => Ok(()),
            Some(scale) => Err(Error::weights(
                "quantization-scheme",
                format!("tensor '{name}' is quantised by another program, with scales in '{scale}'"),
                "use the model as it was before, in f32, f16 or bf16: facestudio quantises it itself",
            )),
        }
    }

    /// The blocks of a tensor that is stored in them, in the file whose bytes are `file`.
    pub(super) fn blocks_in(&self, name: &str, file: &[u8]) -> Result<Option<Blocks>> {
        let (Some(entry), Some(scale)) = (self.entries.get(name), self.scales.get(name)) else {
            return Ok(None);
        };
        let part = |entry: &Entry| {
            let part = file.get(entry.range.clone());
            part.ok_or_else(|| damaged(format!("tensor '{name}' lies beyond its end")))
        };
        let bits = if entry.packed { 4 } else { 8 };
        let scales = decode(name, scale.dtype, part(scale)?)?;
        Ok(Some(Blocks { bits, integers: part(entry)?.to_vec(), scales }))
    }

    /// Decodes a tensor of the file whose bytes are `file`.
    pub(super) fn decode_in(&self, name: &str, file: &[u8]) -> Result<Vec<f32>> {
        self.decode(name, |range| {
            let part = file.get(range.start as usize..range.end as usize);
            part.map(Cow::Borrowed).ok_or_else(|| damaged(format!("tensor '{name}' lies beyond its end")))
        })
    }
}

/// A safetensors file in memory.
pub struct SafetensorsFile {
    header: SafetensorsHeader,
    bytes: Vec<u8>,
}

impl SafetensorsFile {
    /// Takes a file; fails as [`SafetensorsHeader::read`] does.
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        let part = |range: Range<u64>| Ok(bytes[range.start as usize..range.end as usize].to_vec());
        Ok(Self { header: SafetensorsHeader::read(bytes.len() as u64, part)?, bytes })
    }

    /// All tensors as f32.
    pub fn into_tensors(self) -> Result<Tensors> {
        self.read_all()
    }

    /// What it holds.
    pub fn header(&self) -> &SafetensorsHeader {
        &self.header
    }
}

impl TensorSource for SafetensorsFile {
    fn names(&self) -> Vec<String> {
        self.header.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.header.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.header.decode_in(name, &self.bytes)
    }
}

fn damaged(reason: impl fmt::Display) -> Error {
    Error::weights(
        "safetensors",
        format!("not a valid safetensors file: {reason}"),
        "fetch or convert the file again",
    )
}

/// A header as it is written.
#[derive(Default)]
struct Parsed {
    tensors: BTreeMap<String, Described>,
    metadata: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Described {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Relative to the header's end.
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut header = Parsed::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                // Some writers have nothing to say, and say so.
                header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
            } else if header.tensors.insert(name.clone(), map.next_value()?).is_some() {
                return Err(A::Error::custom(format!("tensor '{name}' is given twice")));
            }
        }
        Ok(header)
    }
}

/// Checks that the tensors fill the file from `data` to its end, each with the bytes of its shape, no two alike.
fn place(tensors: BTreeMap<String, Described>, data: u64, size: u64) -> Result<BTreeMap<String, Entry>> {
    let mut in_order: Vec<(String, Described)> = tensors.into_iter().collect();
    in_order.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut entries = BTreeMap::new();
    let mut end = data;
    for (name, Described { dtype, shape, data_offsets: [from, to] }) in in_order {
        let start = end;
        if from != start - data || to < from {
            return Err(damaged(format!("tensor '{name}' overlaps another, or leaves a gap")));
        }
        if to > size - data {
            return Err(damaged(format!("tensor '{name}' lies beyond its end")));
        }
        let bits = shape.iter().try_fold(dtype.bitsize(), |bits, side| bits.checked_mul(*side));
        if bits.is_none_or(|bits| bits % 8 != 0 || (bits / 8) as u64 != to - from) {
            return Err(damaged(format!("tensor '{name}' has other bytes than its shape needs")));
        }
        end = data + to;
        entries.insert(name, Entry { dtype, shape, packed: false, range: start as usize..end as usize });
    }
    if end != size {
        return Err(damaged(format!("{} bytes follow its tensors", size - end)));
    }
    Ok(entries)
}

/// Moves the block scales out of `entries` in a file whose metadata names our scheme.
fn take_scales(
    entries: &mut BTreeMap<String, Entry>,
    metadata: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Entry>> {
    let mut scales = BTreeMap::new();
    let Some(scheme) = metadata.get(quantize::METADATA_KEY) else { return Ok(scales) };
    if scheme == quantize::Q4_SCHEME {
        unfold(entries, metadata)?;
    } else if scheme != quantize::Q8_SCHEME {
        return Err(Error::weights(
            "quantization-scheme",
            format!("the file is quantised as '{scheme}', which this version does not know"),
            "update facestudio, or quantise the original again",
        ));
    }
    let quantised = |entry: &Entry| entry.dtype == Dtype::I8 || entry.packed;
    let names: Vec<String> =
        entries.iter().filter(|(_, entry)| quantised(entry)).map(|(name, _)| name.clone()).collect();
    for name in names {
        let scale = entries.remove(&quantize::scale_name(&name));
        let shape = &entries[&name].shape;
        match scale {
            Some(scale)
                if matches!(scale.dtype, Dtype::F16 | Dtype::F32)
                    && scale.shape == quantize::scale_shape(shape) =>
            {
                scales.insert(name, scale);
            }
            found => {
                let found = found.map_or("none".to_owned(), |s| format!("{:?} {:?}", s.dtype, s.shape));
                return Err(Error::weights(
                    "quantization-scale",
                    format!(
                        "quantised tensor '{name}' of shape {shape:?} needs scales of shape {:?}; found {found}",
                        quantize::scale_shape(shape)
                    ),
                    "fetch or quantise the file again",
                ));
            }
        }
    }
    Ok(scales)
}

/// Gives 4-bit tensors the shapes that the metadata holds; each must need the bytes that are there.
fn unfold(entries: &mut BTreeMap<String, Entry>, metadata: &BTreeMap<String, String>) -> Result<()> {
    let shapes = metadata.get(quantize::Q4_SHAPES).map_or("", String::as_str);
    let shapes: BTreeMap<String, Vec<usize>> =
        serde_json::from_str(shapes).map_err(|e| damaged(format!("{}: {e}", quantize::Q4_SHAPES)))?;
    for (name, shape) in shapes {
        let fits = |entry: &&mut Entry| {
            entry.dtype == Dtype::U8
                && !shape.is_empty()
                && !shape.contains(&0)
                && entry.shape == quantize::packed_shape(&shape)
        };
        let entry = entries.get_mut(&name).filter(fits).ok_or_else(|| {
            damaged(format!("tensor '{name}' has other bytes than 4 bits of shape {shape:?} need"))
        })?;
        entry.shape = shape;
        entry.packed = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and so many bytes of data.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn code(bytes: Vec<u8>) -> &'static str {
        SafetensorsFile::new(bytes).err().expect("must be refused").code
    }

    const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                           "b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}"#;

    #[test]
    fn a_good_file_is_read_and_every_truncation_of_it_refused() {
        let bytes = file(GOOD, 12);
        let good = SafetensorsFile::new(bytes.clone()).unwrap();
        assert_eq!(good.names(), ["a", "b"]);
        assert_eq!(good.shape("b"), Some(vec![]));
        assert_eq!(good.read("a").unwrap(), [0.0, 0.0]);
        for length in 0..bytes.len() {
            assert_eq!(code(bytes[..length].to_vec()), "safetensors", "cut to {length} bytes");
        }
    }

    /// What the format's own library reads: no metadata by that word, white space around the header, tensors without numbers.
    #[test]
    fn a_header_may_say_that_it_says_nothing() {
        let header = r#"  {"__metadata__":null,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"note":1},
                         "none":{"dtype":"F32","shape":[0],"data_offsets":[8,8]},
                         "sides":{"dtype":"F16","shape":[3,0],"data_offsets":[0,0]}}   "#;
        let good = SafetensorsFile::new(file(header, 8)).unwrap();
        assert_eq!(good.names(), ["a", "none", "sides"]);
        assert!(good.header().metadata().is_empty());
        assert_eq!((good.read("none").unwrap(), good.shape("sides")), (vec![], Some(vec![3, 0])));
    }

    #[test]
    fn a_header_of_any_length_begins_a_file() {
        for length in [640u64, 640 + (1 << 16), 896, 0x0403_4b50] {
            let mut start = length.to_le_bytes().to_vec();
            start.push(b'{');
            assert!(SafetensorsHeader::begins(&start, length + 8), "{length}");
            assert!(!SafetensorsHeader::begins(&start, length + 7), "{length}: longer than the file");
        }
        for other in
            [&b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j"[..], b"PK\x03\x04\0\0\x08\x08\0\0", b"\x80\x02", b""]
        {
            assert!(!SafetensorsHeader::begins(other, 1 << 30), "{other:?}");
        }
    }

    #[test]
    fn weights_with_another_programs_scales_are_refused() {
        for (dtype, scale) in [
            ("I8", "l.SCB"),
            ("U8", "l.weight.absmax"),
            ("F8_E4M3", "l.scale_weight"),
            ("F8_E5M2", "l.weight_scale"),
        ] {
            let header = format!(
                r#"{{"l.weight":{{"dtype":"{dtype}","shape":[4],"data_offsets":[0,4]}},
                     "{scale}":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#
            );
            let error = SafetensorsFile::new(file(&header, 8)).unwrap().read("l.weight").unwrap_err();
            assert_eq!(error.code, "quantization-scheme", "{scale}");
            assert!(error.message.contains(scale), "{error}");
        }
    }

    #[test]
    fn bytes_after_the_data_are_refused() {
        assert_eq!(code(file(GOOD, 13)), "safetensors");
    }

    #[test]
    fn a_lying_header_length_is_refused() {
        for length in [u64::MAX, u64::MAX - 7, 1 << 40, MAX_HEADER + 1, 10_000, 0, 1] {
            let mut bytes = file(GOOD, 12);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(code(bytes), "safetensors", "header length {length}");
        }
    }

    #[test]
    fn hostile_headers_are_refused_without_allocating_what_they_claim() {
        let cases = [
            ("not JSON", "{", 0),
            ("not a map", "[]", 0),
            (
                "overlapping",
                r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
                    "b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#,
                12,
            ),
            (
                "a hole",
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                    "b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#,
                12,
            ),
            ("ends before it starts", r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[4,0]}}"#, 4),
            ("huge shape", r#"{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}"#, 4),
            (
                "shape that overflows",
                r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#,
                4,
            ),
            ("negative shape", r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
            ("negative offset", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, 4),
            ("fractional shape", r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, 4),
            ("unknown type", r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4),
            ("shape of other bytes", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            (
                "name given twice",
                r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},
                    "a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#,
                16,
            ),
            (
                "offsets whose sum overflows",
                r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]},
                    "b":{"dtype":"U8","shape":[2305843009213693951],
                         "data_offsets":[2305843009213693951,4611686018427387902]}}"#,
                4,
            ),
        ];
        for (what, header, data) in cases {
            assert_eq!(code(file(header, data)), "safetensors", "{what}");
        }
    }

    #[test]
    fn a_header_that_is_not_utf8_is_refused() {
        let mut bytes = file(GOOD, 12);
        let quote = bytes.iter().position(|b| *b == b'a').unwrap();
        bytes[quote] = 0xff;
        assert_eq!(code(bytes), "safetensors");
    }

    #[test]
    fn missing_or_misshapen_scales_are_refused() {
        let q = r#""__metadata__":{"quantization":"q8_block32"}"#;
        let a = r#""a":{"dtype":"I8","shape":[2,40],"data_offsets":[0,80]}"#;
        assert_eq!(code(file(&format!("{{{q},{a}}}"), 80)), "quantization-scale");
        let s = r#""a.scale":{"dtype":"F32","shape":[2,1],"data_offsets":[80,88]}"#;
        assert_eq!(code(file(&format!("{{{q},{a},{s}}}"), 88)), "quantization-scale");
        let s = r#""a.scale":{"dtype":"F32","shape":[2,2],"data_offsets":[80,96]}"#;
        let good = SafetensorsFile::new(file(&format!("{{{q},{a},{s}}}"), 96)).unwrap();
        assert_eq!((good.names(), good.header().dtype("a")), (vec!["a".to_owned()], Some("q8".to_owned())));
        let a = r#""a":{"dtype":"I8","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}"#;
        assert_eq!(code(file(&format!("{{{q},{a}}}"), 0)), "quantization-scale");
        let other = r#"{"__metadata__":{"quantization":"q2"}}"#;
        assert_eq!(code(file(other, 0)), "quantization-scheme");
    }

    #[test]
    fn four_bit_tensors_that_do_not_fit_their_shapes_are_refused() {
        let with = |shapes: &str, shape: &str, bytes: usize, scales: &str| {
            let end = bytes + 8;
            let header = format!(
                r#"{{"__metadata__":{{"quantization":"q4_block32"{shapes}}},
                     "a":{{"dtype":"U8","shape":{shape},"data_offsets":[0,{bytes}]}},
                     "a.scale":{{"dtype":"F32","shape":{scales},"data_offsets":[{bytes},{end}]}}}}"#
            );
            file(&header, end)
        };
        let shapes = |shape: &str| format!(r#","q4_shapes":"{{\"a\":{shape}}}""#);
        let good = SafetensorsFile::new(with(&shapes("[2,30]"), "[2,16]", 32, "[2,1]")).unwrap();
        assert_eq!((good.shape("a"), good.header().dtype("a")), (Some(vec![2, 30]), Some("q4".to_owned())));
        assert_eq!(good.read("a").unwrap().len(), 60);
        for claimed in [
            "[2,33]",
            "[3,30]",
            "[]",
            "[0]",
            "[2,0]",
            "[-1]",
            "[2,18446744073709551615]",
            "[2,4294967296,4294967296]",
        ] {
            assert_eq!(code(with(&shapes(claimed), "[2,16]", 32, "[2,1]")), "safetensors", "{claimed}");
        }
        for bad in ["", r#","q4_shapes":"[]""#, r#","q4_shapes":"{\"b\":[2,30]}""#] {
            assert_eq!(code(with(bad, "[2,16]", 32, "[2,1]")), "safetensors", "{bad}");
        }
        assert_eq!(code(with(&shapes("[2,30]"), "[2,16]", 32, "[1,2]")), "quantization-scale");
    }

    #[test]
    fn without_our_metadata_a_tensor_named_scale_is_a_tensor() {
        let header = r#"{"a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]},
                         "a.scale":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        assert_eq!(SafetensorsFile::new(file(header, 8)).unwrap().names(), ["a", "a.scale"]);
    }
}
