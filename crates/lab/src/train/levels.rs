//! What a denoiser is still wrong about, by level of noise: the mean over all levels hides that a run learns some of them and not others.

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use super::denoiser::Denoiser;
use super::encoded::Encoded;
use crate::read_back::read_scalar;
use facestudio::condition::Condition;
use facestudio::error::Result;
use facestudio::sampling::{NoiseLevel, NoiseSource, Prediction};

/// Shares of noise against picture that are looked at, σ / (α + σ).
const SHARES: [f64; 7] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95];
/// Pictures that go through the denoiser at once.
const BATCH: usize = 32;

/// Pictures of known latents and the levels at which a denoiser is asked about them.
pub(super) struct Levels {
    prediction: Prediction,
    /// Timestep and level of each share.
    levels: Vec<(usize, NoiseLevel)>,
}

impl Levels {
    /// The levels of a schedule that come nearest to [`SHARES`].
    pub fn new(prediction: Prediction, alphas_cumprod: &[f64]) -> Self {
        let level = |a: &f64| NoiseLevel { alpha: a.sqrt(), sigma: (1.0 - a).sqrt() };
        let share = |a: &f64| level(a).sigma / (level(a).alpha + level(a).sigma);
        let nearest = |wanted: &f64| {
            let timestep =
                alphas_cumprod.partition_point(|a| share(a) < *wanted).min(alphas_cumprod.len() - 1);
            (timestep, level(&alphas_cumprod[timestep]))
        };
        Self { prediction, levels: SHARES.iter().map(nearest).collect() }
    }

    /// Mean square of what is wrong in the clean latents that the denoiser makes out, over their own mean square, a number for each
    /// share. The same pictures and noise give the same numbers; 1 is what knowing nothing but the mean picture gives.
    pub fn errors(
        &self,
        denoiser: &Denoiser,
        encoded: &Encoded,
        indices: &[usize],
        condition: impl Fn(&[usize]) -> Condition,
        dtype: DType,
    ) -> Result<Vec<f32>> {
        let device = denoiser.devices().into_iter().next().unwrap_or_default();
        let mut errors = vec![0f32; self.levels.len()];
        let mut power = 0f32;
        for (part, indices) in indices.chunks(BATCH).enumerate() {
            let latents = encoded.latents(indices, &device);
            let condition = condition(indices);
            power += read_scalar(latents.clone().square().sum(), "a measure")?;
            for (k, ((timestep, level), error)) in self.levels.iter().zip(&mut errors).enumerate() {
                let stream = (part * self.levels.len() + k) as u64;
                let noise = NoiseSource::new(0).tensor::<4>(stream, latents.dims(), &device);
                let noised = latents.clone() * level.alpha + noise * level.sigma;
                let timesteps = Tensor::<1>::full([indices.len()], *timestep as f32, &device);
                let predicted =
                    denoiser.forward(noised.clone().cast(dtype), timesteps, &condition)?.cast(DType::F32);
                let wrong = self.prediction.original(*level, &noised, &predicted) - latents.clone();
                *error += read_scalar(wrong.square().sum(), "a measure")?;
            }
        }
        Ok(errors.into_iter().map(|error| error / power).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_the_shares_that_are_said() {
        let alphas: Vec<f64> = (1..=1000).map(|t| 1.0 - f64::from(t) / 1000.0).collect();
        let levels = Levels::new(Prediction::VPrediction, &alphas).levels;
        for ((_, level), share) in levels.iter().zip(SHARES) {
            assert!(
                (level.sigma / (level.alpha + level.sigma) - share).abs() < 0.02,
                "{level:?} for {share}"
            );
        }
        assert!(levels.is_sorted_by_key(|(timestep, _)| *timestep));
    }
}
