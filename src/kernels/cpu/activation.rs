//! Element-wise activations.

use super::simd::{Map, Simd, Task, Width, each};
use super::{Shared, for_each, written};

/// Floats of a task.
const CHUNK: usize = 8192;

/// `map(x)`, element by element.
pub(super) fn elementwise(x: &[f32], map: &impl Map) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    let shared = Shared(out.as_mut_ptr());
    for_each(x.len().div_ceil(CHUNK), 16 * CHUNK, |i| {
        let range = i * CHUNK..((i + 1) * CHUNK).min(x.len());
        // SAFETY: `out` is as large as `x`.
        let chunk = Chunk { map, out: unsafe { shared.get().add(range.start) }, x: &x[range] };
        // SAFETY: tasks write different parts of `out`, which is alive, and read slices.
        unsafe { Width::widest().run(&chunk) };
    });
    // SAFETY: chunks cover all of `x`.
    unsafe { written(out, x.len()) }
}

struct Chunk<'a, M> {
    map: &'a M,
    x: &'a [f32],
    out: *mut f32,
}

impl<M: Map> Task for Chunk<'_, M> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        // SAFETY: as the caller's.
        unsafe { each::<S>(self.x, self.out, self.map) };
    }
}

/// `x · σ(x)`.
pub(super) struct Silu;
/// `x · Φ(x)`.
pub(super) struct Gelu;
/// `x · σ(1.702 x)`.
pub(super) struct QuickGelu;
/// `max(x, 0)`.
pub(super) struct Relu;

impl Map for Silu {
    #[inline(always)]
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as the caller's.
        unsafe { S::silu(x) }
    }
}

impl Map for Gelu {
    #[inline(always)]
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as the caller's.
        unsafe { S::gelu(x) }
    }
}

impl Map for QuickGelu {
    #[inline(always)]
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as the caller's.
        unsafe { S::mul(S::silu(S::mul(x, S::splat(1.702))), S::splat(1.0 / 1.702)) }
    }
}

impl Map for Relu {
    #[inline(always)]
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as the caller's.
        unsafe { S::max(x, S::splat(0.0)) }
    }
}

/// `a · GELU(g)` of rows `[a, g]`: `[rows, 2 · width]` → `[rows, width]`.
pub(super) fn geglu(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.len() / (2 * width);
    let mut out = Vec::with_capacity(rows * width);
    let shared = Shared(out.as_mut_ptr());
    let span = CHUNK.div_ceil(width);
    for_each(rows.div_ceil(span), 20 * span * width, |i| {
        let range = i * span..((i + 1) * span).min(rows);
        // SAFETY: `out` has half of the size of `x`.
        let to = unsafe { shared.get().add(range.start * width) };
        let gate = Gate { x: &x[range.start * 2 * width..range.end * 2 * width], width, out: to };
        // SAFETY: tasks write different rows of `out`, which is alive, and read slices.
        unsafe { Width::widest().run(&gate) };
    });
    // SAFETY: spans cover all rows.
    unsafe { written(out, rows * width) }
}

struct Gate<'a> {
    x: &'a [f32],
    width: usize,
    out: *mut f32,
}

impl Task for Gate<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        for (row, x) in self.x.chunks_exact(2 * self.width).enumerate() {
            let (value, gate) = x.split_at(self.width);
            // SAFETY: this task owns these rows of `out`.
            unsafe {
                let out = self.out.add(row * self.width);
                each::<S>(gate, out, &Gelu);
                for (i, value) in value.iter().enumerate() {
                    *out.add(i) *= value;
                }
            }
        }
    }
}
