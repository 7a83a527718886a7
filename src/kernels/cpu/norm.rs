//! Normalisations in one visit of memory, with f32 statistics.

use super::simd::{Map, Simd, Task, Width, each};
use super::{Shared, for_each, written};

/// Sizes of a group normalisation, NCHW.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub channels: usize,
    pub groups: usize,
    pub positions: usize,
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// `x`: `[batch, channels, positions]`, `weight` and `bias`: `[channels]` → the same shape.
pub(super) fn group_norm(x: &[f32], weight: &[f32], bias: &[f32], sizes: Groups) -> Vec<f32> {
    let size = sizes.channels / sizes.groups * sizes.positions;
    let mut out = Vec::with_capacity(x.len());
    let shared = Shared(out.as_mut_ptr());
    for_each(x.len() / size, 8 * size, |i| {
        let channel = i % sizes.groups * (sizes.channels / sizes.groups);
        let x = &x[i * size..(i + 1) * size];
        // SAFETY: `out` is as large as `x`.
        let out = unsafe { shared.get().add(i * size) };
        let group = Group { x, weight: &weight[channel..], bias: &bias[channel..], sizes, out };
        // SAFETY: tasks write different groups of `out`, which is alive, and read slices.
        unsafe { Width::widest().run(&group) };
    });
    // SAFETY: groups cover all of `x`.
    unsafe { written(out, x.len()) }
}

/// One group of one image.
struct Group<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    sizes: Groups,
    out: *mut f32,
}

impl Task for Group<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let Groups { positions, eps, silu, .. } = self.sizes;
        let count = self.x.len() as f32;
        // SAFETY: whole vectors of slices, and this task's part of `out`.
        unsafe {
            let mean = total::<S>(self.x, 0.0, false) / count;
            let variance = total::<S>(self.x, mean, true) / count;
            let scale = 1.0 / (variance + eps).sqrt();
            for (channel, x) in self.x.chunks_exact(positions).enumerate() {
                let weight = self.weight[channel] * scale;
                let shift = self.bias[channel] - mean * weight;
                let out = self.out.add(channel * positions);
                if silu {
                    each::<S>(x, out, &Silu(Scale { weight, shift }));
                } else {
                    each::<S>(x, out, &Scale { weight, shift });
                }
            }
        }
    }
}

/// `x · weight + shift`.
struct Scale {
    weight: f32,
    shift: f32,
}

impl Map for Scale {
    #[inline(always)]
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as the caller's.
        unsafe { S::mul_add(x, S::splat(self.weight), S::splat(self.shift)) }
    }
}

/// SiLU of the inner map.
struct Silu<M>(M);

impl<M: Map> Map for Silu<M> {
    #[inline(always)]
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as the caller's.
        unsafe { S::silu(self.0.map::<S>(x)) }
    }
}

/// `Σ (x − mean)`, or of its squares; in blocks, so that long sums stay exact.
#[inline(always)]
unsafe fn total<S: Simd>(x: &[f32], mean: f32, square: bool) -> f32 {
    let mut total = 0.0;
    for x in x.chunks(4096) {
        let vectors = x.chunks_exact(4 * S::LANES);
        for x in vectors.remainder() {
            let x = x - mean;
            total += if square { x * x } else { x };
        }
        // SAFETY: chunks are four vectors.
        unsafe {
            let mut sums = [S::splat(0.0); 4];
            let mean = S::splat(mean);
            for x in vectors {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = S::sub(S::load(x.as_ptr().add(i * S::LANES)), mean);
                    *sum = if square { S::mul_add(x, x, *sum) } else { S::add(*sum, x) };
                }
            }
            total += S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
        }
    }
    total
}

/// Positions of a task of [`rms_norm`]: their channels stay in the cache between the two visits.
const SPAN: usize = 64;

/// Root-mean-square normalisation over the channels of `x`: `[batch, channels, positions]`; `weight` and `bias`:
/// `[channels]`.
pub(super) fn rms_norm(x: &[f32], weight: &[f32], bias: &[f32], positions: usize, eps: f32) -> Vec<f32> {
    let size = weight.len() * positions;
    let mut out = Vec::with_capacity(x.len());
    let shared = Shared(out.as_mut_ptr());
    let spans = positions.div_ceil(SPAN);
    for_each(x.len() / size * spans, 4 * weight.len() * SPAN, |i| {
        let (image, first) = (i / spans, i % spans * SPAN);
        let start = image * size + first;
        let span = Span {
            x: &x[start..(image + 1) * size],
            weight,
            bias,
            positions,
            count: SPAN.min(positions - first),
            eps,
            // SAFETY: `out` is as large as `x`.
            out: unsafe { shared.get().add(start) },
        };
        // SAFETY: tasks write different positions of `out`, which is alive, and read slices.
        unsafe { Width::widest().run(&span) };
    });
    // SAFETY: spans cover all of `x`.
    unsafe { written(out, x.len()) }
}

/// Some positions of one image, all channels.
struct Span<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    positions: usize,
    count: usize,
    eps: f32,
    out: *mut f32,
}

impl Task for Span<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let mut squares = [0.0_f32; SPAN];
        for channel in 0..self.weight.len() {
            let x = &self.x[channel * self.positions..][..self.count];
            for (square, x) in squares.iter_mut().zip(x) {
                *square += x * x;
            }
        }
        let scales = squares.map(|square| 1.0 / (square / self.weight.len() as f32 + self.eps).sqrt());
        for (channel, (weight, bias)) in self.weight.iter().zip(self.bias).enumerate() {
            let x = &self.x[channel * self.positions..][..self.count];
            for (i, (x, scale)) in x.iter().zip(&scales).enumerate() {
                // SAFETY: this task owns these positions of `out`.
                unsafe { *self.out.add(channel * self.positions + i) = x * scale * weight + bias };
            }
        }
    }
}
