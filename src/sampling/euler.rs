//! Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without churn).

use burn::tensor::Tensor;

use super::NoiseLevel;

/// `x + (σ' − σ) dx/dσ` with `dx/dσ = (x − x₀) / σ`, as a blend of sample and x₀.
pub(super) fn step(from: NoiseLevel, to: NoiseLevel, sample: Tensor<4>, original: Tensor<4>) -> Tensor<4> {
    let keep = to.sigma / from.sigma;
    sample * keep + original * (1.0 - keep)
}
