//! Classifier-free guidance (Ho & Salimans 2022) with a zero null embedding.

use burn::tensor::Tensor;

/// `ε̂ = ε_null + s (ε_cond − ε_null)` for the two halves of one batch, null first.
///
/// `noise_pred`: `[2 · batch, c, h, w]` → `[batch, c, h, w]`.
pub fn guide(noise_pred: Tensor<4>, guidance_scale: f32) -> Tensor<4> {
    let mut halves = noise_pred.chunk(2, 0).into_iter();
    match (halves.next(), halves.next()) {
        (Some(null), Some(conditional)) => null.clone() + (conditional - null) * guidance_scale,
        // `chunk` of an even batch has two parts; a single one is already unguided.
        (Some(only), None) => only,
        _ => unreachable!("chunk returns at least one part"),
    }
}
