//! Attention without a matrix of scores: a panel of queries at a time, one query a lane.

use super::product::{Left, product};
use super::simd::{Simd, Task, dispatch, panel};
use super::{Heads, Shared, Sizes, for_each, written};

/// `softmax(Q Kᵀ / √dim) V`, `[batch, queries, heads, dim]`.
pub(super) fn attention(query: Heads, key: Heads, value: Heads, sizes: Sizes) -> Vec<f32> {
    let Sizes { batch, heads, queries, keys, dim } = sizes;
    let count = batch * queries * heads * dim;
    let mut out = Vec::with_capacity(count);
    let shared = Shared(out.as_mut_ptr());
    let lanes = panel();
    let panels = queries.div_ceil(lanes);
    for_each(batch * heads * panels, 4 * keys * dim * lanes, |i| {
        let (image, head, first) = (i / (heads * panels), i / panels % heads, i % panels * lanes);
        let task = Queries {
            query: query.from(image, head, first),
            key: key.from(image, head, 0),
            value: value.from(image, head, 0),
            rows: [query.token, key.token, value.token],
            count: lanes.min(queries - first),
            keys,
            dim,
            // SAFETY: `out` holds `heads · dim` floats for each of `batch · queries`.
            out: unsafe { shared.get().add(((image * queries + first) * heads + head) * dim) },
            out_row: heads * dim,
        };
        // SAFETY: tasks write different queries or heads of `out`, which is alive, and read slices.
        unsafe { dispatch(&task) };
    });
    // SAFETY: panels cover all queries of all heads.
    unsafe { written(out, count) }
}

/// At most a panel of queries of one head.
struct Queries<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    /// From one query, key and value to the next.
    rows: [usize; 3],
    count: usize,
    keys: usize,
    dim: usize,
    out: *mut f32,
    out_row: usize,
}

impl Task for Queries<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let lanes = 2 * S::LANES;
        let Self { rows: [by_query, by_key, by_value], count, keys, dim, .. } = *self;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut queries = vec![0.0_f32; dim * lanes];
        for lane in 0..lanes {
            // Lanes beyond the end repeat the last query; what they get is dropped.
            let query = &self.query[lane.min(count - 1) * by_query..][..dim];
            for (k, q) in query.iter().enumerate() {
                queries[k * lanes + lane] = q * scale;
            }
        }
        let mut scores = vec![0.0_f32; keys * lanes];
        let mut out = vec![0.0_f32; dim * lanes];
        let keyed = Left { from: self.key.as_ptr(), row: by_key, step: 1 };
        let valued = Left { from: self.value.as_ptr(), row: 1, step: by_value };
        let null = std::ptr::null();
        // SAFETY: keys and values are `keys` rows of `dim`; buffers are as long as their products.
        unsafe {
            product::<S>(keyed, [keys, dim], queries.as_ptr(), null, scores.as_mut_ptr(), lanes);
            let sums = softmax::<S>(&mut scores);
            product::<S>(valued, [dim, keys], scores.as_ptr(), null, out.as_mut_ptr(), lanes);
            for lane in 0..count {
                let to = self.out.add(lane * self.out_row);
                for k in 0..dim {
                    *to.add(k) = out[k * lanes + lane] / sums[lane];
                }
            }
        }
    }
}

/// `e^(score − largest)` of every lane, rows two vectors wide, and the lanes' sums.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: &mut [f32]) -> [f32; 32] {
    let lanes = 2 * S::LANES;
    let mut sums = [0.0; 32];
    for half in [0, S::LANES] {
        // SAFETY: rows are two vectors.
        unsafe {
            let mut most = S::splat(f32::NEG_INFINITY);
            for row in scores.chunks_exact(lanes) {
                most = S::max(most, S::load(row.as_ptr().add(half)));
            }
            let mut sum = S::splat(0.0);
            for row in scores.chunks_exact_mut(lanes) {
                let at = row.as_mut_ptr().add(half);
                let e = S::exp(S::sub(S::load(at), most));
                S::store(at, e);
                sum = S::add(sum, e);
            }
            S::store(sums.as_mut_ptr().add(half), sum);
        }
    }
    sums
}
