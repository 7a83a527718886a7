//! ggml's types of tensors, and their numbers.

use half::{bf16, f16};

use facestudio::error::{Error, Result};
use facestudio::weights::Blocks;

/// Numbers of a small block.
const BLOCK: usize = 32;
/// Numbers of a large block, whose scales are integers themselves.
const LARGE: usize = 256;
/// Bytes of the six-bit scales and offsets of a large block's eight parts.
const SCALES: usize = 12;

/// ggml's types that are not read, by their numbers.
const OTHERS: [(u32, &str); 25] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// A type of tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Type {
    /// By ggml's number. Fails with `dtype`, naming the tensor, for one that is not read.
    pub fn of(number: u32, name: &str) -> Result<Self> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => {
                let other = OTHERS.iter().find(|(other, _)| *other == number);
                let other = other.map_or_else(|| format!("number {number}"), |(_, name)| (*name).to_owned());
                return Err(Error::weights(
                    "dtype",
                    format!("tensor '{name}' is of ggml's type {other}, which is not supported"),
                    "use the file in Q8_0, Q6_K, Q5_K, Q4_K, Q5_1, Q5_0, Q4_1, Q4_0, F16, BF16 or F32",
                ));
            }
        })
    }

    /// Numbers in a block.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => LARGE,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + BLOCK / 2,
            Self::Q4_1 => 4 + BLOCK / 2,
            Self::Q5_0 => 2 + BLOCK / 8 + BLOCK / 2,
            Self::Q5_1 => 4 + BLOCK / 8 + BLOCK / 2,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4K => 4 + SCALES + LARGE / 2,
            Self::Q5K => 4 + SCALES + LARGE / 8 + LARGE / 2,
            Self::Q6K => LARGE / 2 + LARGE / 4 + LARGE / 16 + 2,
        }
    }

    /// Whether our blocks hold the same numbers.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Q4_0 | Self::Q8_0)
    }

    /// The numbers of whole blocks.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let mut out = Vec::with_capacity(bytes.len() / self.bytes() * self.block());
        for block in bytes.chunks_exact(self.bytes()) {
            match self {
                Self::F32 => out.extend(block.first_chunk().map(|b| f32::from_le_bytes(*b))),
                Self::F16 => out.push(half(block)),
                Self::Bf16 => out.extend(block.first_chunk().map(|b| bf16::from_le_bytes(*b).to_f32())),
                Self::Q8_0 => {
                    let d = half(block);
                    out.extend(block[2..].iter().map(|q| f32::from(*q as i8) * d));
                }
                Self::Q4_0 => {
                    let d = half(block);
                    out.extend(nibbles(&block[2..]).map(|q| (f32::from(q) - 8.0) * d));
                }
                Self::Q4_1 => {
                    let (d, least) = (half(block), half(&block[2..]));
                    out.extend(nibbles(&block[4..]).map(|q| d * f32::from(q) + least));
                }
                Self::Q5_0 => {
                    let d = half(block);
                    out.extend(fives(&block[2..]).map(|q| (f32::from(q) - 16.0) * d));
                }
                Self::Q5_1 => {
                    let (d, least) = (half(block), half(&block[2..]));
                    out.extend(fives(&block[4..]).map(|q| d * f32::from(q) + least));
                }
                Self::Q4K | Self::Q5K => self.large(block, &mut out),
                Self::Q6K => sixes(block, &mut out),
            }
        }
        out
    }

    /// A block of eight parts of 32, each with a scale and an offset of six bits: `d · scale · q − dmin · offset`.
    fn large(self, block: &[u8], out: &mut Vec<f32>) {
        let (d, dmin) = (half(block), half(&block[2..]));
        let (scales, rest) = block[4..].split_at(SCALES);
        let (fifth, low) = rest.split_at(if self == Self::Q5K { LARGE / 8 } else { 0 });
        for part in 0..8 {
            let (scale, offset) = scale_and_offset(scales, part);
            let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
            // Two parts share 32 bytes: the lower four bits are the first one's.
            let pairs = &low[part / 2 * BLOCK..][..BLOCK];
            out.extend(pairs.iter().enumerate().map(|(i, pair)| {
                let low = if part % 2 == 0 { pair & 15 } else { pair >> 4 };
                let high = fifth.get(i).map_or(0, |bits| (bits >> part & 1) << 4);
                scale * f32::from(low | high) - offset
            }));
        }
    }

    /// The same numbers in our blocks; `None` where they cannot be.
    pub fn blocks(self, bytes: &[u8]) -> Option<Blocks> {
        let (mut integers, mut scales) = (Vec::new(), Vec::new());
        for block in bytes.chunks_exact(self.bytes()) {
            scales.push(half(block));
            match self {
                Self::Q8_0 => integers.extend_from_slice(&block[2..]),
                // ggml pairs a number with the one half a block on; ours with its neighbour.
                Self::Q4_0 => {
                    let all: Vec<u8> = nibbles(&block[2..]).collect();
                    integers.extend(all.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
                }
                _ => return None,
            }
        }
        let least = self == Self::Q8_0 && integers.contains(&(i8::MIN as u8));
        let finite = scales.iter().all(|scale| scale.is_finite());
        (finite && !least).then(|| Blocks { bits: if self == Self::Q8_0 { 8 } else { 4 }, integers, scales })
    }
}

fn half(bytes: &[u8]) -> f32 {
    bytes.first_chunk().map_or(0.0, |b| f16::from_le_bytes(*b).to_f32())
}

/// The lower four bits of all bytes, then the upper ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|pair| pair & 15).chain(bytes.iter().map(|pair| pair >> 4))
}

/// The fifth bits of a block, one a number, and then its [`nibbles`].
fn fives(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let (high, low) = bytes.split_at(BLOCK / 8);
    nibbles(low).enumerate().map(|(i, low)| low | (high[i / 8] >> (i % 8) & 1) << 4)
}

/// Six bits each: those of the first four parts lie in a byte's lower six, with two bits of a later part's above them, whose other
/// four lie in the last four bytes.
fn scale_and_offset(scales: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        (scales[part] & 63, scales[part + 4] & 63)
    } else {
        let low = scales[part + 4];
        (low & 15 | scales[part - 4] >> 6 << 4, low >> 4 | scales[part] >> 6 << 4)
    }
}

/// A block of sixteen parts of 16, each with a scale of eight bits: `d · scale · (q − 32)`. Each half of it has 64 bytes of lower
/// four bits and 32 of upper two, for four runs of 32 numbers.
fn sixes(block: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(LARGE / 2);
    let (high, rest) = rest.split_at(LARGE / 4);
    let (scales, d) = rest.split_at(LARGE / 16);
    let d = half(d);
    for i in 0..LARGE {
        let (of_half, run, at) = (i / 128, i / 32 % 4, i % 32);
        let pair = low[of_half * 64 + run % 2 * 32 + at];
        let low = if run < 2 { pair & 15 } else { pair >> 4 };
        let high = high[of_half * 32 + at] >> (2 * run) & 3;
        let scale = d * f32::from(scales[i / 16] as i8);
        out.push(scale * (f32::from(low | high << 4) - 32.0));
    }
}
