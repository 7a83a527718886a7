//! DDIM with η = 0 (Song et al. 2021, equation 12).

use burn::tensor::Tensor;

use super::NoiseLevel;

/// `α' x₀ + σ' ε`.
pub(super) fn step(to: NoiseLevel, original: Tensor<4>, epsilon: Tensor<4>) -> Tensor<4> {
    original * to.alpha + epsilon * to.sigma
}
