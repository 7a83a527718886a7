use std::slice::Iter;

use burn::tensor::Tensor;

use super::{Sight, misfit};
use crate::error::Result;
use crate::nn::attention;

/// Keys and values of reference tokens in a block, turned by their positions, `[batch, heads, reference tokens, dim]` both.
#[derive(Debug, Clone)]
pub(super) struct KeyValue {
    key: Tensor<4>,
    value: Tensor<4>,
}

/// Keys and values of a picture's reference tokens in every block, double-stream blocks first: computed once, used in every
/// step (diffusers' `Flux2KVCache`).
#[derive(Debug, Clone, Default)]
pub struct ReferenceCache {
    pub(super) blocks: Vec<KeyValue>,
}

impl ReferenceCache {
    /// Reference tokens.
    pub fn tokens(&self) -> usize {
        self.blocks.first().map_or(0, |block| block.key.dims()[2])
    }
}

/// What attention does with reference tokens. A sequence is text, references, picture.
pub(super) enum References<'a> {
    /// They are tokens as all others, with what is added to scores.
    Tokens { sight: Option<&'a Sight> },
    /// `count` of them, after the text, attend to each other alone, and their keys and values are kept.
    Kept { text: usize, count: usize, cache: &'a mut ReferenceCache },
    /// They are not there: their keys and values come from here.
    Cached { text: usize, next: Iter<'a, KeyValue> },
}

impl References<'_> {
    /// Attention in the next block, `[batch, heads, tokens, dim]` all.
    pub fn attend(&mut self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Result<Tensor<4>> {
        match self {
            Self::Tokens { sight: None } => Ok(attention(query, key, value, None)),
            Self::Tokens { sight: Some(sight) } => Ok(sight.attention(query, key, value)),
            Self::Kept { text, count, cache } => {
                let (text, count) = (*text, *count);
                let of = |x: &Tensor<4>| x.clone().narrow(2, text, count);
                let kept = KeyValue { key: of(&key), value: of(&value) };
                let alone = attention(of(&query), kept.key.clone(), kept.value.clone(), None);
                cache.blocks.push(kept);
                let [before, after] = around(&query, text, count);
                let seen = attention(Tensor::cat(vec![before, after], 2), key, value, None);
                let [before, after] = around(&seen, text, 0);
                Ok(Tensor::cat(vec![before, alone, after], 2))
            }
            Self::Cached { text, next } => {
                let Some(kept) = next.next() else {
                    return Err(misfit("the references' keys are of a transformer with fewer blocks"));
                };
                let ([batch, heads, _, dim], [b, h, _, d]) = (key.dims(), kept.key.dims());
                if [batch, heads, dim] != [b, h, d] {
                    return Err(misfit("the references' keys are of another transformer, or another batch"));
                }
                let with = |x: &Tensor<4>, kept: &Tensor<4>| {
                    let [before, after] = around(x, *text, 0);
                    Tensor::cat(vec![before, kept.clone(), after], 2)
                };
                Ok(attention(query, with(&key, &kept.key), with(&value, &kept.value), None))
            }
        }
    }
}

/// The first `first` tokens, and those behind the next `count`.
fn around(x: &Tensor<4>, first: usize, count: usize) -> [Tensor<4>; 2] {
    let behind = first + count;
    [x.clone().narrow(2, 0, first), x.clone().narrow(2, behind, x.dims()[2] - behind)]
}
