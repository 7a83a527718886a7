//! DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), midpoint.

use burn::tensor::Tensor;

use super::NoiseLevel;

/// Half the logarithm of the signal-to-noise ratio, the paper's λ.
fn lambda(level: NoiseLevel) -> f64 {
    (level.alpha / level.sigma).ln()
}

/// One step from x₀ now (`original`) and, for the second order, the level and x₀ of the step before.
pub(super) fn step(
    from: NoiseLevel,
    to: NoiseLevel,
    sample: Tensor<4>,
    original: Tensor<4>,
    previous: Option<(NoiseLevel, Tensor<4>)>,
) -> Tensor<4> {
    // At the end σ' = 0: h is infinite and exp(−h) zero, which the first order takes well.
    let h = lambda(to) - lambda(from);
    let weight = -to.alpha * (-h).exp_m1();
    let sample = sample * (to.sigma / from.sigma);
    match previous {
        None => sample + original * weight,
        Some((level, before)) => {
            let r = (lambda(from) - lambda(level)) / h;
            let half = 0.5 * weight / r;
            sample + original * (weight + half) - before * half
        }
    }
}
