use burn::tensor::{DType, Tensor, module, ops::AttentionModuleOptions};

use crate::kernels;

/// `[batch, tokens, heads · dim]` → `[batch, heads, tokens, dim]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, channels] = x.dims();
    x.reshape([batch, tokens, heads, channels / heads]).swap_dims(1, 2)
}

/// `[batch, heads, tokens, dim]` → `[batch, tokens, heads · dim]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, tokens, heads * dim])
}

/// Scaled dot-product attention, `softmax(Q Kᵀ / √dim + bias) V`, all `[batch, heads, tokens, dim]`.
///
/// `bias`, if any, is added to the scores and must be `[batch, heads, queries, keys]`.
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<4> {
    if bias.is_none()
        && let Some(out) = kernels::attention(&query, &key, &value)
    {
        return out;
    }
    if query.dtype() == DType::F16 {
        // Scores reach beyond f16, and a softmax is summed in f32 in the kernels too.
        let [query, key, value] = [query, key, value].map(|x| x.cast(DType::F32));
        return attention(query, key, value, bias.map(|bias| bias.cast(DType::F32))).cast(DType::F16);
    }
    let attend = |query, bias| {
        let options = AttentionModuleOptions::default();
        module::attention(query, key.clone(), value.clone(), None, bias, options)
    };
    let [batch, heads, queries, _] = query.dims();
    let rows = query_chunk(batch * heads * key.dims()[2]);
    if rows >= queries {
        return attend(query, bias);
    }
    let chunk = |start| {
        let of = |x: &Tensor<4>| x.clone().narrow(2, start, rows.min(queries - start));
        attend(of(&query), bias.as_ref().map(of))
    };
    Tensor::cat((0..queries).step_by(rows).map(chunk).collect(), 2)
}

/// Attention to several contexts apart, `Σᵢ wᵢ · softmax(Q Kᵢᵀ / √dim) Vᵢ` (arXiv 2312.02663, section 3.4).
///
/// `query`: `[batch, heads, queries, dim]`; `key` and `value`: `[batch, heads, contexts · keys, dim]`, one context after the
/// other; `weights`: `[1 or batch, contexts, queries]`, one context at least → as `query`. Where a weight is 0 its context, if it
/// is finite, alters nothing.
///
/// # Panics
/// Without a context.
pub fn attention_by_regions(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    weights: Tensor<3>,
) -> Tensor<4> {
    if let Some(out) = kernels::attention_by_regions(&query, &key, &value, &weights) {
        return out;
    }
    let contexts = weights.dims()[1];
    let keys = key.dims()[2] / contexts;
    let attend = |i| {
        let [key, value] = [&key, &value].map(|x| x.clone().narrow(2, i * keys, keys));
        let weight = weights.clone().narrow(1, i, 1).swap_dims(1, 2).unsqueeze_dim::<4>(1);
        attention(query.clone(), key, value, None) * weight
    };
    let first = attend(0);
    (1..contexts).fold(first, |sum, i| sum + attend(i))
}

/// The most scores that one product may make, 64 MiB of f32: burn's attention may hold all of them, and a WebGPU device
/// need not bind more than 128 MiB at once (`maxStorageBufferBindingSize`).
pub const MOST_SCORES: usize = 1 << 24;

/// Queries of a chunk, each of which makes so many scores over all heads of a batch. One at least.
fn query_chunk(scores_of_one: usize) -> usize {
    (MOST_SCORES / scores_of_one.max(1)).max(1)
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn chunks_keep_to_the_bound() {
        // Stable Diffusion 1.5 at 512², both halves of guidance: 1 GiB of scores in one piece.
        let of_one = 2 * 8 * 4096;
        let rows = query_chunk(of_one);
        assert_eq!((rows, rows * of_one), (256, MOST_SCORES));
        assert_eq!(query_chunk(2 * MOST_SCORES), 1);
        assert!(query_chunk(2 * 6 * 256) >= 256, "mini's are never cut");
    }

    #[test]
    fn chunks_make_what_the_whole_makes() {
        let device = Device::flex();
        let waves = |shape: [usize; 4], of: f32| {
            let values = (0..shape.iter().product()).map(|i| (of * i as f32).sin()).collect::<Vec<_>>();
            Tensor::<4>::from_data(TensorData::new(values, shape), &device)
        };
        // 4 heads × 3,000 keys: 1,398 queries a chunk, three chunks, the last one of 4.
        let (queries, keys) = (2800, 3000);
        assert_eq!(query_chunk(4 * keys), 1398);
        let query = waves([1, 4, queries, 2], 0.7);
        let [key, value] = [1.3, 2.1].map(|of| waves([1, 4, keys, 2], of));
        let bias = waves([1, 4, queries, keys], 0.37);
        // The bias keeps our own kernel out of it.
        let chunked = attention(query.clone(), key.clone(), value.clone(), Some(bias.clone()));
        let whole = module::attention(query, key, value, None, Some(bias), AttentionModuleOptions::default());
        let off: f32 = (chunked - whole).abs().max().into_scalar();
        assert!(off < 1e-6, "{off}");
    }
}
