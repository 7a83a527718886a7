//! Attention without a matrix of scores: a panel of queries at a time, one query a lane.

use super::product::{Left, Start, product};
use super::simd::{MOST_LANES, Simd, Task, Width};
use super::{Heads, Shared, Sizes, for_each, written};

/// `softmax(Q Kᵀ / √dim) V`, `[batch, queries, heads, dim]`; of each context apart, summed by `weights`, `[1 or batch,
/// contexts, queries]`, if there are any.
pub(super) fn attention(
    query: Heads,
    key: Heads,
    value: Heads,
    weights: Option<&[f32]>,
    sizes: Sizes,
) -> Vec<f32> {
    let Sizes { batch, heads, queries, contexts, keys, dim } = sizes;
    // From one image's weights to the next; a set for all of them is read again.
    let set =
        weights.map_or(0, |weights| if weights.len() == contexts * queries { 0 } else { contexts * queries });
    let count = batch * queries * heads * dim;
    let mut out = Vec::with_capacity(count);
    let shared = Shared(out.as_mut_ptr());
    let width = Width::of(queries);
    let lanes = width.panel();
    let panels = queries.div_ceil(lanes);
    for_each(batch * heads * panels, 4 * contexts * keys * dim * lanes, |i| {
        let (image, head, first) = (i / (heads * panels), i / panels % heads, i % panels * lanes);
        let task = Queries {
            query: query.from(image, head, first),
            key: key.from(image, head, 0),
            value: value.from(image, head, 0),
            rows: [query.token, key.token, value.token],
            count: lanes.min(queries - first),
            weights: weights.map(|weights| &weights[image * set + first..]),
            sizes,
            // SAFETY: `out` holds `heads · dim` floats for each of `batch · queries`.
            out: unsafe { shared.get().add(((image * queries + first) * heads + head) * dim) },
            out_row: heads * dim,
        };
        // SAFETY: tasks write different queries or heads of `out`, which is alive, and read slices.
        unsafe { width.run(&task) };
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
    /// The first context's at the first query.
    weights: Option<&'a [f32]>,
    sizes: Sizes,
    out: *mut f32,
    out_row: usize,
}

impl Task for Queries<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let lanes = 2 * S::LANES;
        let Self { rows: [by_query, by_key, by_value], count, weights, .. } = *self;
        let Sizes { queries: context_row, contexts, keys, dim, .. } = self.sizes;
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
        // SAFETY: lanes write their own queries' `dim` floats of `out`.
        unsafe {
            for lane in 0..count {
                self.out.add(lane * self.out_row).write_bytes(0, dim);
            }
        }
        for context in 0..contexts {
            let mut shares = [1.0_f32; MOST_LANES];
            if let Some(weights) = weights {
                shares[..count].copy_from_slice(&weights[context * context_row..][..count]);
                if shares[..count].iter().all(|share| *share == 0.0) {
                    continue;
                }
            }
            let (key, value) =
                (&self.key[context * keys * by_key..], &self.value[context * keys * by_value..]);
            let keyed = Left { from: key.as_ptr(), row: by_key, step: 1 };
            let valued = Left { from: value.as_ptr(), row: 1, step: by_value };
            // SAFETY: keys and values are `keys` rows of `dim`; buffers are as long as their products.
            unsafe {
                product::<S>(keyed, [keys, dim], queries.as_ptr(), Start::Zero, scores.as_mut_ptr(), lanes);
                let sums = softmax::<S>(&mut scores);
                product::<S>(valued, [dim, keys], scores.as_ptr(), Start::Zero, out.as_mut_ptr(), lanes);
                for lane in 0..count {
                    if shares[lane] == 0.0 {
                        continue;
                    }
                    let to = self.out.add(lane * self.out_row);
                    for k in 0..dim {
                        *to.add(k) += out[k * lanes + lane] / sums[lane] * shares[lane];
                    }
                }
            }
        }
    }
}

/// `e^(score − largest)` of every lane, rows two vectors wide, and the lanes' sums.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: &mut [f32]) -> [f32; MOST_LANES] {
    let lanes = 2 * S::LANES;
    let mut sums = [0.0; MOST_LANES];
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
