use burn::tensor::{Tensor, module, ops::AttentionModuleOptions};

#[cfg(feature = "cpu")]
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
    #[cfg(feature = "cpu")]
    if bias.is_none()
        && let Some(out) = kernels::attention(&query, &key, &value)
    {
        return out;
    }
    module::attention(query, key, value, None, bias, AttentionModuleOptions::default())
}
