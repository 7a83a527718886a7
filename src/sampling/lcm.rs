//! Multistep consistency sampling (Luo et al. 2023, "Latent consistency models", algorithm 3).

use burn::tensor::Tensor;

use super::NoiseLevel;

/// The deviation of the data in the boundary condition (Song et al. 2023, appendix C).
const SIGMA_DATA: f64 = 0.5;

/// Factor on timesteps in the boundary condition where a config has none (diffusers' default).
pub const TIMESTEP_SCALING: f64 = 10.0;

/// `c_skip` and `c_out` of the consistency function: 1 and 0 at time 0.
pub fn boundary(scaled_timestep: f64) -> [f64; 2] {
    let square = scaled_timestep * scaled_timestep + SIGMA_DATA * SIGMA_DATA;
    [SIGMA_DATA * SIGMA_DATA / square, scaled_timestep / square.sqrt()]
}

/// The consistency function's value: `c_skip x + c_out x₀`, which is x itself at time 0.
pub(super) fn denoised(scaled_timestep: f64, sample: Tensor<4>, original: Tensor<4>) -> Tensor<4> {
    let [skip, out] = boundary(scaled_timestep);
    original * out + sample * skip
}

/// Noises the consistency function's value to the next level; without noise it is the result.
pub(super) fn step(to: NoiseLevel, denoised: Tensor<4>, noise: Option<Tensor<4>>) -> Tensor<4> {
    match noise {
        Some(noise) => denoised * to.alpha + noise * to.sigma,
        None => denoised,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_condition_is_the_papers() {
        // c_skip = σ² / (s² + σ²), c_out = s / √(s² + σ²), with σ = 0.5 (Luo et al. 2023, appendix; diffusers' defaults).
        for (scaled, [skip, out]) in
            [(0.0, [1.0, 0.0]), (0.5, [0.5, 0.5f64.sqrt()]), (1.0, [0.2, 0.8f64.sqrt()])]
        {
            let [s, o] = boundary(scaled);
            assert!((s - skip).abs() < 1e-12 && (o - out).abs() < 1e-12, "{scaled}: {s} {o}");
        }
    }
}
