//! Storing tensors in fewer bits: f16, and 8 or 4 bits in blocks of 32.
//!
//! The 8-bit scheme (`q8_block32`) is symmetric: a tensor `[out, ..]` is cut, row by row of its flattened trailing
//! dimensions, into blocks of 32 (a row's last block may be shorter); a block is 32 integers in −127..=127 and one scale,
//! `value = integer · scale`. In a file the integers are tensor `name` (I8, of the original shape) and the scales
//! tensor `name.scale` (F16 or F32, `[out, blocks]`). Small and one-dimensional tensors are kept in 16 bits.
//!
//! The 4-bit scheme (`q4_block32`) has the same blocks and scales; `value = (integer − 8) · scale` with an integer in
//! 0..=15, and a scale of either sign. Tensor `name` (U8, `[out, 16 · blocks]`) holds two integers a byte, the first one low;
//! a row's last block is filled up with 8. The original shapes are the metadata's `q4_shapes`. A tensor that would be
//! off by more than a tenth of its norm is stored in 8 bits, and so are a network's smallest tensors (see `shards`).

use std::collections::BTreeMap;

use ::safetensors::Dtype;
use half::f16;
use serde::{Deserialize, Serialize};

use super::tensors::{Tensors, check_finite};
use crate::error::{Error, Result};
use crate::kernels::{BLOCK, Blocks};

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
    /// 4-bit integers in blocks of 32 with a scale each; sensitive tensors as [`Q8`](Self::Q8).
    Q4,
}

impl Quantization {
    /// The name in manifests: `f32`, `f16`, `q8` or `q4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

/// Tensors with fewer elements are not worth a scale per block.
const SMALLEST: usize = 1024;
/// The largest integer; −128 is left out to keep the scheme symmetric.
const MOST: f32 = 127.0;

/// The middle one of 16 integers: it stands for 0.
const MIDDLE: f32 = 8.0;
/// Bytes of a block of 4-bit integers.
const PACKED: usize = BLOCK / 2;
/// Norm of the error, relative to the tensor's, above which 4 bits are too few. Normally distributed weights err by 0.08.
const SENSITIVE: f64 = 0.1;
/// What the largest value of a block may be in steps, to start the search for its scale from: all of −8..=7 is used in
/// the middle of the range; outside it the largest value is cut or the steps are spent on nothing.
const STARTS: [f32; 5] = [-6.5, -7.0, -7.5, -8.0, -8.5];

/// The key under which a file's metadata names the scheme.
pub(super) const METADATA_KEY: &str = "quantization";
/// The name of the 8-bit scheme.
pub(super) const Q8_SCHEME: &str = "q8_block32";
/// The name of the 4-bit scheme.
pub(super) const Q4_SCHEME: &str = "q4_block32";
/// The key under which the metadata holds the shapes of 4-bit tensors, as JSON.
pub(super) const Q4_SHAPES: &str = "q4_shapes";

pub(super) fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}

/// `[out, blocks]` for a tensor of this shape.
pub(super) fn scale_shape(shape: &[usize]) -> Vec<usize> {
    let (rows, columns) = rows(shape);
    vec![rows, columns.div_ceil(BLOCK)]
}

/// `[out, bytes]` of a tensor of this shape in 4 bits.
pub(super) fn packed_shape(shape: &[usize]) -> Vec<usize> {
    let (rows, columns) = rows(shape);
    vec![rows, columns.div_ceil(BLOCK).saturating_mul(PACKED)]
}

/// The integers of a tensor of this shape from its bytes of 4-bit pairs, around 0.
pub(super) fn unpack(bytes: &[u8], shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = rows(shape);
    let mut out = Vec::with_capacity(rows * columns);
    for row in bytes.chunks_exact(columns.div_ceil(BLOCK).max(1) * PACKED) {
        let integers = row.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        out.extend(integers.take(columns).map(|integer| f32::from(integer) - MIDDLE));
    }
    out
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
    check_finite(name, values)?;
    if quantization == Quantization::F16 || shape.len() < 2 || values.len() < SMALLEST {
        return Ok(vec![float(name, shape, values, fits_f16(values))]);
    }
    if quantization == Quantization::Q4
        && let Some(stored) = store_q4(name, shape, values)
    {
        return Ok(stored);
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

/// The stored form of a tensor that lies in blocks already, with the same numbers; `None` where the scheme has other blocks.
///
/// Blocks of 4 bits fit into those of 8.
pub(super) fn store_blocks(
    name: &str,
    shape: &[usize],
    blocks: &Blocks,
    quantization: Quantization,
) -> Option<Vec<Stored>> {
    let bytes = match (blocks.bits, quantization) {
        (8, Quantization::Q8) | (4, Quantization::Q4) => blocks.integers.clone(),
        (4, Quantization::Q8) => unpack(&blocks.integers, shape).iter().map(|q| *q as i8 as u8).collect(),
        _ => return None,
    };
    let (dtype, stored_shape) = match quantization {
        Quantization::Q4 => (Dtype::U8, packed_shape(shape)),
        _ => (Dtype::I8, shape.to_vec()),
    };
    let of_shape = |shape: &[usize]| shape.iter().product::<usize>();
    let fit = [of_shape(&stored_shape), of_shape(&scale_shape(shape))] == [bytes.len(), blocks.scales.len()];
    let half = blocks.scales.iter().all(|scale| f16::from_f32(*scale).to_f32() == *scale);
    (fit && shape.len() > 1).then(|| {
        vec![
            Stored { name: name.to_owned(), dtype, shape: stored_shape, bytes },
            float(&scale_name(name), &scale_shape(shape), &blocks.scales, half),
        ]
    })
}

/// A tensor in 4 bits; `None` if it is too sensitive for them.
fn store_q4(name: &str, shape: &[usize], values: &[f32]) -> Option<Vec<Stored>> {
    let (_, columns) = rows(shape);
    let mut scales = Vec::with_capacity(values.len() / BLOCK + 1);
    let mut bytes = Vec::with_capacity(values.len() / 2 + PACKED);
    let half_scales = fits_f16(&[largest(values) / -STARTS[0]]);
    let (mut error, mut norm) = (0.0, 0.0);
    for block in values.chunks(columns).flat_map(|row| row.chunks(BLOCK)) {
        let scale = best_scale(block, half_scales);
        let mut integers = [MIDDLE as u8; BLOCK];
        for (integer, value) in integers.iter_mut().zip(block) {
            *integer = (steps(*value, scale) + MIDDLE) as u8;
        }
        error += squared_error(block, scale);
        norm += block.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        bytes.extend(integers.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
        scales.push(scale);
    }
    (error.sqrt() <= SENSITIVE * norm.sqrt()).then(|| {
        vec![
            Stored { name: name.to_owned(), dtype: Dtype::U8, shape: packed_shape(shape), bytes },
            float(&scale_name(name), &scale_shape(shape), &scales, half_scales),
        ]
    })
}

/// A value in whole steps of its block's scale, −8 to 7.
fn steps(value: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { (value / scale).round_ties_even().clamp(-MIDDLE, MIDDLE - 1.0) }
}

fn squared_error(block: &[f32], scale: f32) -> f64 {
    block.iter().map(|v| f64::from(v - steps(*v, scale) * scale).powi(2)).sum()
}

/// The scale with the least squared error among those that the search meets: from each start the integers are chosen, and for
/// these integers the best scale, `Σ v·i / Σ i²`.
fn best_scale(block: &[f32], half: bool) -> f32 {
    let stored = |scale: f32| if half { f16::from_f32(scale).to_f32() } else { scale };
    let most = block.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default();
    let mut best = (f64::INFINITY, 0.0);
    for start in STARTS {
        let mut scale = stored(most / start);
        for _ in 0..2 {
            let error = squared_error(block, scale);
            if error < best.0 {
                best = (error, scale);
            }
            let integers = || block.iter().map(|v| (f64::from(*v), f64::from(steps(*v, scale))));
            let squares: f64 = integers().map(|(_, i)| i * i).sum();
            if squares == 0.0 {
                break;
            }
            scale = stored((integers().map(|(v, i)| v * i).sum::<f64>() / squares) as f32);
        }
    }
    best.1
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
    encode_each(tensors, Kept::new(), |_| quantization, metadata)
}

/// Tensors that [`store_blocks`] has made ready, by name, with the shapes of their numbers.
pub(super) type Kept = BTreeMap<String, (Vec<usize>, Vec<Stored>)>;

/// [`encode`] with a choice for each tensor by its name, of those that are ready as well.
pub(super) fn encode_each(
    tensors: &Tensors,
    kept: Kept,
    quantization: impl Fn(&str) -> Quantization,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut stored = Vec::new();
    let mut shapes = BTreeMap::new();
    for (name, (shape, parts)) in kept {
        if parts.iter().any(|part| part.dtype == Dtype::U8) {
            shapes.insert(name, shape);
        }
        stored.extend(parts);
    }
    for (name, (shape, values)) in &tensors.0 {
        if shape.iter().product::<usize>() != values.len() {
            let message = format!("tensor '{name}' has {} values for shape {shape:?}", values.len());
            return Err(Error::internal("safetensors-encode", message));
        }
        let parts = store(name, shape, values, quantization(name))?;
        if parts.iter().any(|part| part.dtype == Dtype::U8) {
            shapes.insert(name.clone(), shape.clone());
        }
        stored.extend(parts);
    }
    let mut metadata = metadata.clone();
    metadata.remove(METADATA_KEY);
    metadata.remove(Q4_SHAPES);
    if !shapes.is_empty() {
        let json = serde_json::to_string(&shapes)
            .map_err(|e| Error::internal("safetensors-encode", format!("shapes: {e}")))?;
        metadata.insert(METADATA_KEY.to_owned(), Q4_SCHEME.to_owned());
        metadata.insert(Q4_SHAPES.to_owned(), json);
    } else if stored.iter().any(|s| s.dtype == Dtype::I8) {
        metadata.insert(METADATA_KEY.to_owned(), Q8_SCHEME.to_owned());
    }
    write(stored, metadata)
}

/// Lays a file out by hand, since the `safetensors` crate writes metadata in a random order: wide types first, so that
/// every tensor is aligned, then by name.
fn write(mut stored: Vec<Stored>, metadata: BTreeMap<String, String>) -> Result<Vec<u8>> {
    stored.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    let entries = stored.iter().map(|s| (s.name.as_str(), s.dtype, s.shape.as_slice(), s.bytes.len()));
    let mut out = header(entries, metadata)?;
    out.reserve_exact(stored.iter().map(|tensor| tensor.bytes.len()).sum());
    for tensor in stored {
        out.extend(tensor.bytes);
    }
    Ok(out)
}

/// What stands before the tensors of a file: of each its name, type, shape and bytes, in the order in which they follow.
pub(super) fn header<'a>(
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], usize)>,
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut offset = 0;
    for (name, dtype, shape, bytes) in tensors {
        let end = offset + bytes;
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]});
        if header.insert(name.to_owned(), entry).is_some() {
            return Err(Error::weights(
                "tensor-name",
                format!("two tensors would be stored as '{name}'"),
                "rename one of them",
            ));
        }
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)
        .map_err(|e| Error::internal("safetensors-encode", format!("header: {e}")))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
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
    fn q4_finds_a_scale_at_least_as_good_as_the_plain_one() {
        for (seed, shape) in [vec![32, 32], vec![40, 33], vec![9, 16, 3, 3], vec![257, 5], vec![1, 77, 24]]
            .into_iter()
            .enumerate()
        {
            for magnitude in [1.0, 1e-9, 1e9] {
                let all: Vec<f32> = values(shape.iter().product(), seed as u64, 1.0);
                // One magnitude, so that no tensor is too sensitive.
                let all =
                    all.iter().map(|v| (v.signum() * v.abs().powf(0.3)) * magnitude).collect::<Vec<_>>();
                let tensors = one("w", &shape, all.clone());
                let (file, again) = round_trip(&tensors, Quantization::Q4);
                assert_eq!(file.header().dtype("w").unwrap(), "q4", "{shape:?}");
                assert_eq!((file.names(), file.shape("w")), (vec!["w".to_owned()], Some(shape.clone())));
                let (_, columns) = rows(&shape);
                let read = again.0["w"].1.chunks(columns).flat_map(|row| row.chunks(BLOCK));
                for (x, y) in all.chunks(columns).flat_map(|row| row.chunks(BLOCK)).zip(read) {
                    let plain = largest(x) / 7.0;
                    let error = |y: &dyn Fn(f32, usize) -> f32| -> f64 {
                        x.iter().enumerate().map(|(i, x)| f64::from(x - y(*x, i)).powi(2)).sum()
                    };
                    let (ours, plain) = (error(&|_, i| y[i]), error(&|x, _| (x / plain).round() * plain));
                    // f16 scales are off by 2⁻¹¹ of themselves.
                    let rounding = f64::from(largest(x)).powi(2) * 1e-6;
                    assert!(ours <= plain * 1.01 + rounding, "{ours} {plain} in {shape:?}");
                }
            }
        }
    }

    #[test]
    fn tensors_that_four_bits_would_spoil_get_eight() {
        // One value of each block a hundred times the others: in 16 steps of it they all become 0.
        let spiky = |i: usize| if i % 32 == 5 { 10.0 } else { 1.0 + (i % 7) as f32 / 7.0 };
        let mut tensors = one("spiky", &[64, 32], (0..2048).map(spiky).collect());
        tensors
            .0
            .insert("even".into(), (vec![64, 32], values(2048, 3, 1.0).iter().map(|v| v.signum()).collect()));
        tensors.0.insert("zero".into(), (vec![64, 32], vec![0.0; 2048]));
        let (file, again) = round_trip(&tensors, Quantization::Q4);
        let dtypes = ["spiky", "even", "zero"].map(|name| file.header().dtype(name).unwrap());
        assert_eq!(dtypes, ["q8", "q4", "q4"]);
        assert_eq!(again.0["zero"].1, vec![0.0; 2048]);
        let worst = |name: &str| {
            tensors.0[name].1.iter().zip(&again.0[name].1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(worst("spiky") < 0.05 && worst("even") < 1e-3, "{} {}", worst("spiky"), worst("even"));
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
