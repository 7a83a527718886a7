//! Storing tensors in fewer bits: f16, and 8 bits in blocks of 32.
//!
//! The 8-bit scheme (`q8_block32`) is symmetric: a tensor `[out, ..]` is cut, row by row of its flattened trailing
//! dimensions, into blocks of 32 (a row's last block may be shorter); a block is 32 integers in −127..=127 and one scale,
//! `value = integer · scale`. In a file the integers are tensor `name` (I8, of the original shape) and the scales
//! tensor `name.scale` (F16 or F32, `[out, blocks]`). Small and one-dimensional tensors are kept in 16 bits.

use std::collections::BTreeMap;

use ::safetensors::Dtype;
use half::f16;
use serde::{Deserialize, Serialize};

use super::tensors::Tensors;
use crate::error::{Error, Result};

/// How tensors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// 32-bit floats, exact.
    #[default]
    #[serde(rename = "f32")]
    None,
    /// 16-bit floats; tensors beyond their range stay 32-bit.
    F16,
    /// 8-bit integers in blocks of 32 with a scale each.
    Q8,
}

impl Quantization {
    /// The name in manifests: `f32`, `f16` or `q8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }
}

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Tensors with fewer elements are not worth a scale per block.
const SMALLEST: usize = 1024;
/// The largest integer; −128 is left out to keep the scheme symmetric.
const MOST: f32 = 127.0;

/// The key under which a file's metadata names the scheme.
pub(super) const METADATA_KEY: &str = "quantization";
/// The name of the 8-bit scheme.
pub(super) const Q8_SCHEME: &str = "q8_block32";

pub(super) fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}

/// `[out, blocks]` for a tensor of this shape.
pub(super) fn scale_shape(shape: &[usize]) -> Vec<usize> {
    let (rows, columns) = rows(shape);
    vec![rows, columns.div_ceil(BLOCK)]
}

/// `(out, rest)`: the first dimension, and the product of the others.
fn rows(shape: &[usize]) -> (usize, usize) {
    // A file may claim any size for the other dimensions of an empty tensor.
    shape.split_first().map_or((1, 1), |(out, rest)| (*out, rest.iter().fold(1, |n, d| n.saturating_mul(*d))))
}

/// Scales integers back, in place.
pub(super) fn dequantize(mut values: Vec<f32>, shape: &[usize], scales: &[f32]) -> Vec<f32> {
    let (_, columns) = rows(shape);
    if columns > 0 {
        let blocks = values.chunks_mut(columns).flat_map(|row| row.chunks_mut(BLOCK));
        for (block, scale) in blocks.zip(scales) {
            block.iter_mut().for_each(|v| *v *= scale);
        }
    }
    values
}

/// A tensor as it is stored.
pub(super) struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// The stored form of one tensor: itself, and its scales if it was quantised.
pub(super) fn store(
    name: &str,
    shape: &[usize],
    values: &[f32],
    quantization: Quantization,
) -> Result<Vec<Stored>> {
    if quantization == Quantization::None {
        return Ok(vec![float(name, shape, values, false)]);
    }
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(Error::weights(
            "not-finite",
            format!("tensor '{name}' holds {} at position {at}", values[at]),
            "the checkpoint is damaged or its training diverged: use another",
        ));
    }
    if quantization == Quantization::F16 || shape.len() < 2 || values.len() < SMALLEST {
        return Ok(vec![float(name, shape, values, fits_f16(values))]);
    }
    let (_, columns) = rows(shape);
    let blocks = || values.chunks(columns).flat_map(|row| row.chunks(BLOCK));
    let exact: Vec<f32> = blocks().map(|block| largest(block) / MOST).collect();
    let half_scales = fits_f16(&exact);
    let scales: Vec<f32> = exact.iter().map(|s| if half_scales { f16_above(*s) } else { *s }).collect();
    let mut bytes = Vec::with_capacity(values.len());
    for (block, scale) in blocks().zip(&scales) {
        let reciprocal = if *scale > 0.0 { 1.0 / f64::from(*scale) } else { 0.0 };
        bytes.extend(block.iter().map(|v| {
            let integer = (f64::from(*v) * reciprocal).round_ties_even();
            (integer as f32).clamp(-MOST, MOST) as i8 as u8
        }));
    }
    Ok(vec![
        Stored { name: name.to_owned(), dtype: Dtype::I8, shape: shape.to_vec(), bytes },
        float(&scale_name(name), &scale_shape(shape), &scales, half_scales),
    ])
}

fn float(name: &str, shape: &[usize], values: &[f32], half: bool) -> Stored {
    let (dtype, bytes) = if half {
        (Dtype::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect())
    } else {
        (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    Stored { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

/// Whether the largest magnitude lies in f16's normal range, where its relative precision is 2⁻¹¹.
fn fits_f16(values: &[f32]) -> bool {
    let most = largest(values);
    most == 0.0 || (f16::MIN_POSITIVE.to_f32()..=f16::MAX.to_f32()).contains(&most)
}

/// The nearest f16 that is not smaller, so that no value of its block is beyond 127 scales.
fn f16_above(value: f32) -> f32 {
    let nearest = f16::from_f32(value);
    if nearest.to_f32() >= value {
        return nearest.to_f32();
    }
    let above = f16::from_bits(nearest.to_bits() + 1).to_f32();
    if above.is_finite() { above } else { nearest.to_f32() }
}

/// Encodes tensors as a safetensors file. Equal tensors give equal bytes.
///
/// Fails if a tensor that is to be quantised holds an infinity or a NaN, or if its scales would take another
/// tensor's name.
pub fn encode(
    tensors: &Tensors,
    quantization: Quantization,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut stored = Vec::new();
    for (name, (shape, values)) in &tensors.0 {
        if shape.iter().product::<usize>() != values.len() {
            let message = format!("tensor '{name}' has {} values for shape {shape:?}", values.len());
            return Err(Error::internal("safetensors-encode", message));
        }
        stored.extend(store(name, shape, values, quantization)?);
    }
    let mut metadata = metadata.clone();
    metadata.remove(METADATA_KEY);
    if stored.iter().any(|s| s.dtype == Dtype::I8) {
        metadata.insert(METADATA_KEY.to_owned(), Q8_SCHEME.to_owned());
    }
    write(stored, metadata)
}

/// Lays a file out by hand, since the `safetensors` crate writes metadata in a random order: wide types first, so that
/// every tensor is aligned, then by name.
fn write(mut stored: Vec<Stored>, metadata: BTreeMap<String, String>) -> Result<Vec<u8>> {
    stored.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut offset = 0;
    for tensor in &stored {
        let end = offset + tensor.bytes.len();
        let entry = serde_json::json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end],
        });
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(Error::weights(
                "tensor-name",
                format!("two tensors would be stored as '{}'", tensor.name),
                "rename one of them",
            ));
        }
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)
        .map_err(|e| Error::internal("safetensors-encode", format!("header: {e}")))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = Vec::with_capacity(8 + header.len() + offset);
    out.extend((header.len() as u64).to_le_bytes());
    out.extend(header);
    for tensor in stored {
        out.extend(tensor.bytes);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::{SafetensorsFile, TensorSource};
    use super::*;

    /// Deterministic values of very different magnitudes.
    fn values(count: usize, seed: u64, magnitude: f32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|i| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let unit = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                unit * magnitude * 10f32.powi((i / 50) as i32 % 4 - 2)
            })
            .collect()
    }

    fn one(name: &str, shape: &[usize], values: Vec<f32>) -> Tensors {
        Tensors([(name.to_owned(), (shape.to_vec(), values))].into())
    }

    fn round_trip(tensors: &Tensors, quantization: Quantization) -> (SafetensorsFile, Tensors) {
        let bytes = encode(tensors, quantization, &BTreeMap::new()).unwrap();
        let again = SafetensorsFile::new(bytes.clone()).unwrap().into_tensors().unwrap();
        (SafetensorsFile::new(bytes).unwrap(), again)
    }

    #[test]
    fn f32_is_exact() {
        let mut tensors = one("a.weight", &[30, 7], values(210, 1, 3.0));
        tensors.0.insert("scalar".into(), (vec![], vec![f32::MIN_POSITIVE]));
        tensors.0.insert("empty".into(), (vec![0, 4], vec![]));
        let (file, again) = round_trip(&tensors, Quantization::None);
        assert_eq!(again, tensors);
        assert_eq!(file.header().dtype("a.weight").unwrap(), "f32");
    }

    #[test]
    fn f16_keeps_eleven_bits_and_leaves_large_tensors_alone() {
        let tensors = one("a", &[1500], values(1500, 2, 1.0));
        let (file, again) = round_trip(&tensors, Quantization::F16);
        assert_eq!(file.header().dtype("a").unwrap(), "f16");
        for (x, y) in tensors.0["a"].1.iter().zip(&again.0["a"].1) {
            assert!((x - y).abs() <= x.abs() * 2f32.powi(-11) + 2f32.powi(-25), "{x} became {y}");
        }
        let large = one("a", &[3], vec![1.0, 70_000.0, -3.0]);
        assert_eq!(round_trip(&large, Quantization::F16).1, large);
    }

    #[test]
    fn q8_errs_by_at_most_half_a_step_of_each_block() {
        // The last rows end in short blocks; the magnitudes cover f16 scales, f32 scales and their border.
        for (seed, (shape, magnitude)) in [
            (vec![32, 32], 1.0),
            (vec![40, 33], 1e-3),
            (vec![9, 16, 3, 3], 20.0),
            (vec![257, 5], 1.0),
            (vec![1, 77, 24], 0.02),
            (vec![64, 64], 1e-9),
            (vec![64, 64], 1e9),
        ]
        .into_iter()
        .enumerate()
        {
            let count = shape.iter().product();
            let tensors = one("w", &shape, values(count, seed as u64, magnitude));
            let (file, again) = round_trip(&tensors, Quantization::Q8);
            assert_eq!(
                (file.names(), file.header().dtype("w").unwrap()),
                (vec!["w".to_owned()], "q8".to_owned())
            );
            let (_, columns) = rows(&shape);
            let all = &tensors.0["w"].1;
            // Scales in f16 are rounded up: by 2⁻¹⁰ of themselves at most, or by 2⁻²⁴ where f16 is subnormal.
            let half_scales = fits_f16(&[largest(all) / MOST]);
            let (relative, absolute) =
                if half_scales { (2f32.powi(-10), 2f32.powi(-24)) } else { (0.0, 0.0) };
            let original = all.chunks(columns).flat_map(|row| row.chunks(BLOCK));
            let read = again.0["w"].1.chunks(columns).flat_map(|row| row.chunks(BLOCK));
            for (x, y) in original.zip(read) {
                let step = largest(x) / MOST;
                let bound = 0.5 * (step * (1.0 + relative)).max(step + absolute) * (1.0 + 1e-5);
                for (x, y) in x.iter().zip(y) {
                    assert!((x - y).abs() <= bound, "{x} became {y} in {shape:?}: bound {bound}");
                }
            }
        }
    }

    #[test]
    fn q8_is_a_fixed_point_of_itself() {
        let tensors = one("w", &[40, 40], values(1600, 9, 1.0));
        let (_, once) = round_trip(&tensors, Quantization::Q8);
        let (_, twice) = round_trip(&once, Quantization::Q8);
        let worst = once.0["w"].1.iter().zip(&twice.0["w"].1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= largest(&once.0["w"].1) * 2f32.powi(-9), "{worst}");
    }

    #[test]
    fn zeros_extremes_and_signs_survive_q8() {
        let mut v = vec![0.0; 2048];
        v[100] = 12.7;
        v[101] = -12.7;
        let tensors = one("w", &[64, 32], v);
        let again = &round_trip(&tensors, Quantization::Q8).1.0["w"].1;
        assert!((again[100] - 12.7).abs() < 0.01 && again[101] == -again[100]);
        assert!(again.iter().enumerate().all(|(i, v)| matches!(i, 100 | 101) || *v == 0.0));
    }

    #[test]
    fn small_and_one_dimensional_tensors_stay_floats() {
        for shape in [vec![4096], vec![31, 33]] {
            let tensors = one("w", &shape, vec![0.5; shape.iter().product()]);
            let (file, again) = round_trip(&tensors, Quantization::Q8);
            assert_eq!(file.header().dtype("w").unwrap(), "f16");
            assert_eq!(again, tensors);
            assert!(file.header().metadata().is_empty());
        }
    }

    #[test]
    fn equal_tensors_give_equal_aligned_bytes() {
        let mut tensors = one("b", &[40, 40], values(1600, 1, 1.0));
        tensors.0.insert("a".into(), (vec![3], vec![1.0, 2.0, 3.0]));
        tensors.0.insert("c".into(), (vec![1], vec![1e9]));
        let metadata: BTreeMap<String, String> =
            (0..20).map(|i| (format!("key{i}"), format!("value{i}"))).collect();
        let first = encode(&tensors, Quantization::Q8, &metadata).unwrap();
        for _ in 0..4 {
            assert_eq!(encode(&tensors.clone(), Quantization::Q8, &metadata).unwrap(), first);
        }
        let parsed = ::safetensors::SafeTensors::deserialize(&first).unwrap();
        for (name, view) in parsed.iter() {
            let offset = view.data().as_ptr() as usize - first.as_ptr() as usize;
            assert_eq!(offset % (view.dtype().bitsize() / 8), 0, "{name}");
        }
        let file = SafetensorsFile::new(first).unwrap();
        assert_eq!(file.header().metadata()["key7"], "value7");
        assert_eq!(file.header().metadata()[METADATA_KEY], Q8_SCHEME);
    }

    #[test]
    fn what_cannot_be_quantised_is_named() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut v = vec![0.5; 2048];
            v[7] = bad;
            let error = encode(&one("w", &[64, 32], v), Quantization::Q8, &BTreeMap::new()).unwrap_err();
            assert_eq!(error.code, "not-finite");
            assert!(error.message.contains("'w'") && error.message.contains('7'));
        }
        let mut clash = one("w", &[64, 32], vec![0.5; 2048]);
        clash.0.insert("w.scale".into(), (vec![1], vec![1.0]));
        assert_eq!(encode(&clash, Quantization::Q8, &BTreeMap::new()).unwrap_err().code, "tensor-name");
    }
}
