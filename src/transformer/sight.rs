//! Who sees a reference picture, and how strongly: what is added to the scores of every attention.

use burn::tensor::{Device, Tensor, TensorData};

use super::latents::Reference;

/// Added to the scores of what is not seen: large enough that a softmax gives it exactly 0.
const UNSEEN: f32 = -1e4;

/// The logarithm of how strongly something is seen.
fn logarithm(strength: f32) -> f32 {
    if strength > 0.0 { strength.ln().max(UNSEEN) } else { UNSEEN }
}

/// `[1, 1, tokens, tokens]` of a text, a picture of so many tokens, and its references, in that order; `None` where every
/// reference is seen as the model was trained.
///
/// A reference sees itself whole. A picture's token sees it by its strength times its region there. Text and other references see
/// it by its strength if it has no region, and not at all if it has one: else it would reach the rest of the picture through them.
pub(super) fn bias(
    text: usize,
    picture: usize,
    references: &[&Reference],
    device: &Device,
) -> Option<Tensor<4>> {
    if references.iter().all(|reference| reference.strength == 1.0 && reference.region.is_none()) {
        return None;
    }
    // For each token the reference that it is of.
    let counts = references.iter().map(|reference| reference.tokens());
    let owners: Vec<Option<usize>> = std::iter::repeat_n(None, text + picture)
        .chain(counts.enumerate().flat_map(|(i, count)| std::iter::repeat_n(Some(i), count)))
        .collect();
    let seen = |query: usize, key: usize| {
        let Some(of) = owners[key].filter(|of| owners[query] != Some(*of)) else { return 0.0 };
        let Reference { strength, region, .. } = references[of];
        match region {
            None => logarithm(*strength),
            Some(region) if (text..text + picture).contains(&query) => {
                logarithm(strength * region[query - text])
            }
            Some(_) => UNSEEN,
        }
    };
    let all = owners.len();
    let values: Vec<f32> = (0..all * all).map(|i| seen(i / all, i % all)).collect();
    Some(Tensor::from_data(TensorData::new(values, [1, 1, all, all]), device))
}
