//! Euler with ancestral noise (k-diffusion's `sample_euler_ancestral`, η = 1): the paper's sampler.

use burn::tensor::Tensor;

use super::NoiseLevel;

/// Splits the way from σ to σ' into a deterministic part down to `σ_down` and fresh noise of deviation `σ_up`.
pub(super) fn ancestral(from: NoiseLevel, to: NoiseLevel) -> (f64, f64) {
    let (from, to) = (from.sigma, to.sigma);
    let up = (to * to * (from * from - to * to).max(0.0)).sqrt() / from;
    let down = (to * to - up * up).max(0.0).sqrt();
    (down, up)
}

/// Euler to `σ_down`, then noise of deviation `σ_up`.
pub(super) fn step(
    from: NoiseLevel,
    to: NoiseLevel,
    sample: Tensor<4>,
    original: Tensor<4>,
    noise: Option<Tensor<4>>,
) -> Tensor<4> {
    let (down, up) = ancestral(from, to);
    let sample = super::euler::step(from, NoiseLevel { sigma: down, ..to }, sample, original);
    match noise {
        Some(noise) => sample + noise * up,
        None => sample,
    }
}
