//! Who sees a reference picture, and how strongly: what is added to the scores of every attention.

use burn::tensor::{Device, Tensor, TensorData};

use crate::condition::Reference;
use crate::nn::attention;

/// Added to the scores of what is not seen: so much that a softmax gives it exactly 0, and within f16's range.
const UNSEEN: f32 = -1e3;
/// Kernels take heads of whole fours of channels.
const FOURS: usize = 4;

/// What is added to the scores of every attention, as a product `query · keyᵀ`: how strongly a token sees another depends on the
/// reference that this is of alone. The factors are further channels of queries and keys, so that no matrix of scores is made.
#[derive(Debug, Clone)]
pub struct Sight {
    query: Tensor<2>,
    key: Tensor<2>,
}

impl Sight {
    /// Of `[tokens, channels]` both.
    pub fn new(query: Tensor<2>, key: Tensor<2>) -> Self {
        Self { query, key }
    }

    /// Tokens of queries and keys.
    pub(super) fn tokens(&self) -> [usize; 2] {
        [self.query.dims()[0], self.key.dims()[0]]
    }

    /// `softmax(Q Kᵀ / √dim + query · keyᵀ) V`, all `[batch, heads, tokens, dim]`.
    pub(super) fn attention(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let [batch, heads, tokens, dim] = query.dims();
        let [_, more] = self.query.dims();
        // Attention divides by the root of the channels, which are more now.
        let all = (dim + more) as f64;
        let beside = |x: Tensor<4>, own: Tensor<2>| {
            let own = own.cast(x.dtype()).unsqueeze::<4>().expand([batch, heads, tokens, more]);
            Tensor::cat(vec![x, own], 3)
        };
        let query = beside(query * (all / dim as f64).sqrt(), self.query.clone() * all.sqrt());
        let key = beside(key, self.key.clone());
        let value = beside(value, self.key.zeros_like());
        attention(query, key, value, None).narrow(3, 0, dim)
    }
}

/// The logarithm of how strongly something is seen.
fn logarithm(strength: f32) -> f32 {
    if strength > 0.0 { strength.ln().max(UNSEEN) } else { UNSEEN }
}

/// Of a text, a picture of so many tokens, and its references, in that order; `None` where every reference is seen as the model
/// was trained.
///
/// A reference sees itself whole. A picture's token sees it by its strength times its region there. Text and other references see
/// it by its strength if it has no region, and not at all if it has one: else it would reach the rest of the picture through them.
pub(super) fn sight(
    text: usize,
    picture: usize,
    references: &[&Reference],
    device: &Device,
) -> Option<Sight> {
    let is_plain = |reference: &Reference| reference.strength == 1.0 && reference.region.is_none();
    // For each token the reference that it is of.
    let counts = references.iter().map(|reference| reference.tokens());
    let owners: Vec<Option<usize>> = std::iter::repeat_n(None, text + picture)
        .chain(counts.enumerate().flat_map(|(i, count)| std::iter::repeat_n(Some(i), count)))
        .collect();
    let told: Vec<usize> = (0..references.len()).filter(|i| !is_plain(references[*i])).collect();
    if told.is_empty() {
        return None;
    }
    let channels = told.len().next_multiple_of(FOURS);
    let seen = |token: usize, of: usize| {
        let Reference { strength, region, .. } = references[of];
        match region {
            _ if owners[token] == Some(of) => 0.0,
            None => logarithm(*strength),
            Some(region) if (text..text + picture).contains(&token) => {
                logarithm(strength * region[token - text])
            }
            Some(_) => UNSEEN,
        }
    };
    let factor = |value: &dyn Fn(usize, usize) -> f32| {
        let mut values = vec![0.0; owners.len() * channels];
        for (token, row) in values.chunks_mut(channels).enumerate() {
            row.iter_mut().zip(&told).for_each(|(cell, of)| *cell = value(token, *of));
        }
        Tensor::from_data(TensorData::new(values, [owners.len(), channels]), device)
    };
    let is_of = |token: usize, of: usize| f32::from(u8::from(owners[token] == Some(of)));
    Some(Sight::new(factor(&seen), factor(&is_of)))
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::sampling::NoiseSource;

    /// The same as a matrix that is added to the scores.
    #[test]
    fn further_channels_add_what_a_matrix_would() {
        let device = Device::flex();
        let (text, picture) = (3, 4);
        let reference = |number, strength, region: Option<Vec<f32>>| Reference {
            strength,
            region,
            ..Reference::new(Tensor::zeros([1, 1, 1, 2], &device), number)
        };
        let references = [
            reference(1, 1.0, None),
            reference(2, 0.25, None),
            reference(3, 2.0, Some(vec![1.0, 0.5, 0.0, 0.0])),
        ];
        let references: Vec<&Reference> = references.iter().collect();
        let sight = sight(text, picture, &references, &device).unwrap();
        let tokens = text + picture + 6;
        assert_eq!(sight.tokens(), [tokens; 2]);
        let shape = [1, 2, tokens, 8];
        let random = |stream| NoiseSource::new(1).tensor::<4>(stream, shape, &device);
        let (query, key, value) = (random(1), random(2), random(3));
        let bias = sight.query.clone().matmul(sight.key.clone().transpose());
        let row =
            |token: usize| -> Vec<f32> { bias.clone().narrow(0, token, 1).try_into_vec_as::<f32>().unwrap() };
        let (quarter, out) = (0.25_f32.ln(), UNSEEN);
        let plain = [0.0; 9];
        // A text's token, the picture's first and its last, and the third reference's own.
        assert_eq!(row(0), [&plain[..], &[quarter, quarter, out, out]].concat());
        assert_eq!(row(3), [&plain[..], &[quarter, quarter, 2_f32.ln(), 2_f32.ln()]].concat());
        assert_eq!(row(4), [&plain[..], &[quarter, quarter, 0.0, 0.0]].concat());
        assert_eq!(row(6), [&plain[..], &[quarter, quarter, out, out]].concat());
        assert_eq!(row(12), [&plain[..], &[quarter, quarter, 0.0, 0.0]].concat());
        let matrix = bias.unsqueeze::<4>().expand([1, 2, tokens, tokens]);
        let expected = attention(query.clone(), key.clone(), value.clone(), Some(matrix));
        let off: f32 = (sight.attention(query, key, value) - expected).abs().max().into_scalar();
        assert!(off < 1e-5, "{off}");
    }

    #[test]
    fn what_is_seen_as_it_is_adds_nothing() {
        let device = Device::flex();
        let whole = Reference::new(Tensor::zeros([1, 1, 1, 2], &device), 1);
        assert!(sight(3, 4, &[&whole], &device).is_none());
        assert!(sight(3, 4, &[], &device).is_none());
    }
}
