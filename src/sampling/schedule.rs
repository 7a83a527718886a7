//! The evaluations of a picture and their noise levels: plain numbers on the host.

use super::solver::Space;
use super::spacing::too_many;
use super::{Prediction, Sampler, SchedulerConfig, TimestepSpacing};
use crate::error::{Error, Result};
use crate::weights::config_range;

/// A noisy sample is `alpha · x₀ + sigma · ε`.
///
/// Samplers of Euler's kind keep `alpha` 1 and `sigma` the noise-to-signal ratio (variance exploding); flow matching keeps
/// α + σ = 1, the others α² + σ² = 1 (variance preserving).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// Factor of the clean sample.
    pub alpha: f64,
    /// Deviation of the noise.
    pub sigma: f64,
}

impl NoiseLevel {
    pub(super) fn exploding(sigma: f64) -> Self {
        Self { alpha: 1.0, sigma }
    }

    /// With α² + σ² = 1, from the noise-to-signal ratio.
    pub(super) fn preserving(ratio: f64) -> Self {
        let alpha = 1.0 / ratio.hypot(1.0);
        Self { alpha, sigma: ratio * alpha }
    }

    /// With α + σ = 1.
    pub(super) fn flow(sigma: f64) -> Self {
        Self { alpha: 1.0 - sigma, sigma }
    }

    pub(super) fn cumulative(alpha_cumprod: f64) -> Self {
        Self { alpha: alpha_cumprod.sqrt(), sigma: (1.0 - alpha_cumprod).max(0.0).sqrt() }
    }
}

/// What one evaluation of the denoiser is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// For the denoiser, in training steps.
    pub timestep: f32,
    /// Of the sample that the denoiser sees.
    pub from: NoiseLevel,
    /// Of the sample after it.
    pub to: NoiseLevel,
    /// Where the trajectory is left and fresh noise begins; `to` but with trajectory consistency.
    pub down: NoiseLevel,
    /// The order of the method: what earlier evaluations it takes into account.
    pub order: usize,
}

impl Step {
    /// Of the first order.
    pub(super) fn new(timestep: f64, from: NoiseLevel, to: NoiseLevel) -> Self {
        Self { timestep: timestep as f32, from, to, down: to, order: 1 }
    }
}

/// The evaluations of one picture: one for each of its steps, or two with Heun's method.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    sampler: Sampler,
    config: SchedulerConfig,
    steps: Vec<Step>,
    /// Evaluations before the first, which image-to-image leaves out.
    left_out: usize,
    init_noise_sigma: f64,
}

impl Schedule {
    /// The sampler that this is for.
    pub fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// What the denoiser predicts.
    pub fn prediction(&self) -> Prediction {
        self.config.prediction()
    }

    /// Number of evaluations; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// What each evaluation tells the denoiser, in training steps.
    pub fn timesteps(&self) -> Vec<f32> {
        self.steps.iter().map(|step| step.timestep).collect()
    }

    /// Noise-to-signal ratio σ/α at the start of each evaluation and after the last one.
    pub fn sigmas(&self) -> Vec<f64> {
        let ends = self.steps.last().map(|step| step.to);
        self.steps.iter().map(|step| step.from).chain(ends).map(|level| level.sigma / level.alpha).collect()
    }

    /// Deviation of the pure noise that a picture without an init image starts from.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// What the schedule was made from.
    pub(super) fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(super) fn step(&self, i: usize) -> Result<Step> {
        self.steps.get(i).copied().ok_or_else(|| {
            Error::internal("step-index", format!("step {i} of a schedule of {}", self.steps.len()))
        })
    }
}

impl SchedulerConfig {
    /// The schedule of `steps` steps with `sampler`.
    ///
    /// `strength` (image-to-image) keeps the last `steps · strength` steps, at least one. Fails if the config asks for
    /// something unsupported, or has no room for that many steps.
    pub fn schedule(&self, sampler: Sampler, steps: usize, strength: Option<f32>) -> Result<Schedule> {
        self.check_supported(sampler)?;
        let alphas_cumprod = self.alphas_cumprod_for(sampler)?;
        if steps == 0 || steps > alphas_cumprod.len() {
            return Err(too_many(steps, alphas_cumprod.len()));
        }
        let about = sampler.about();
        let spacing = self.timestep_spacing.unwrap_or(about.spacing);
        let mut all = sampler.solver().steps(self, &alphas_cumprod, spacing, steps)?;
        let sound = |level: NoiseLevel| level.alpha >= 0.0 && level.sigma > 0.0 && level.sigma.is_finite();
        if !all.iter().all(|step| sound(step.from)) {
            return Err(config_range(
                "scheduler config: a step begins without noise, or with infinite noise",
            ));
        }
        let noisier = |a: NoiseLevel, b: NoiseLevel| a.sigma * b.alpha > b.sigma * a.alpha;
        let starts: Vec<NoiseLevel> = all.iter().step_by(about.evaluations).map(|step| step.from).collect();
        if all.is_empty() || starts.windows(2).any(|pair| !noisier(pair[0], pair[1])) {
            return Err(too_many(steps, alphas_cumprod.len()));
        }
        if self.prediction() == Prediction::Epsilon && all.iter().any(|step| step.from.alpha == 0.0) {
            return Err(Error::weights(
                "zero-snr-epsilon",
                "the schedule starts at pure noise, where noise prediction says nothing of the picture",
                "use an Euler sampler, or a model that predicts the velocity",
            ));
        }
        // As the Euler schedulers of diffusers: leading spacing does not reach the last training step, so the noise
        // of variance σ² is not yet all there is.
        let highest = all.first().map_or(1.0, |step| step.from.sigma);
        let init_noise_sigma = match (about.space, spacing) {
            (Space::Exploding, TimestepSpacing::Leading) => highest.hypot(1.0),
            (Space::Exploding, TimestepSpacing::Linspace | TimestepSpacing::Trailing) => highest,
            (Space::Unscaled | Space::Flow, _) => 1.0,
        };
        let mut left_out = 0;
        if let Some(strength) = strength {
            // As diffusers counts, which multiplies the shortest decimal in f64: 0.7 of 10 steps are 7, 0.58 of 50 are 28.
            let decimal = strength.to_string().parse().unwrap_or(f64::from(strength));
            let kept = steps as f64 * decimal;
            // Its pipelines of flow matching count the steps that are left out, and cut that off.
            let kept = if about.space == Space::Flow { kept.ceil() } else { kept.floor() } as usize;
            left_out = (starts.len() - kept.clamp(1, starts.len())) * about.evaluations;
            all.drain(..left_out);
        }
        Ok(Schedule { sampler, config: self.clone(), steps: all, left_out, init_noise_sigma })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::BetaSchedule;

    /// Whatever the config, a schedule is an error or falls from noise to (almost) none in finite numbers.
    #[test]
    fn levels_fall_and_stay_finite() {
        let mut schedules = 0;
        for sampler in Sampler::of_diffusion() {
            for spacing in [TimestepSpacing::Linspace, TimestepSpacing::Leading, TimestepSpacing::Trailing] {
                for beta_schedule in
                    [BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::SquaredcosCapV2]
                {
                    for flags in 0..4 {
                        let config = SchedulerConfig {
                            timestep_spacing: Some(spacing),
                            beta_schedule: Some(beta_schedule),
                            use_karras_sigmas: Some(flags & 1 == 1),
                            rescale_betas_zero_snr: Some(flags & 2 == 2),
                            prediction_type: Some(Prediction::VPrediction),
                            ..Default::default()
                        };
                        for steps in [1, 2, 3, 7, 49, 50, 51, 333, 999, 1000] {
                            let Ok(schedule) = config.schedule(sampler, steps, None) else {
                                assert!(steps > 50, "{sampler:?} {spacing:?} {beta_schedule:?} {steps}");
                                continue;
                            };
                            schedules += 1;
                            assert_eq!(schedule.len(), sampler.evaluations(steps));
                            for step in &schedule.steps {
                                let numbers =
                                    [step.from.alpha, step.from.sigma, step.to.alpha, step.to.sigma];
                                assert!(numbers.iter().all(|n| n.is_finite() && *n >= 0.0), "{step:?}");
                                assert!((0.0..=1000.0).contains(&step.timestep), "{step:?}");
                            }
                        }
                    }
                }
            }
        }
        assert!(schedules > 1000, "{schedules}");
    }

    #[test]
    fn strength_keeps_the_last_steps() {
        let config = SchedulerConfig::default();
        for sampler in Sampler::of_diffusion() {
            let whole = config.schedule(sampler, 10, None).unwrap();
            for (strength, kept) in [(0.0, 1), (0.3, 3), (0.7, 7), (0.75, 7), (1.0, 10)] {
                let part = config.schedule(sampler, 10, Some(strength)).unwrap();
                let first = whole.steps.len() - sampler.evaluations(kept);
                assert_eq!(part.steps, whole.steps[first..], "{sampler:?} {strength}");
            }
        }
    }

    #[test]
    fn hostile_configs_are_errors() {
        for json in [
            r#"{"num_train_timesteps": 0}"#,
            r#"{"num_train_timesteps": 9999999999}"#,
            r#"{"beta_start": -1}"#,
            r#"{"beta_end": 1.5}"#,
            r#"{"beta_start": 0.99, "beta_end": 0.99}"#,
            r#"{"beta_start": 0, "beta_end": 0}"#,
            r#"{"beta_start": 0, "beta_end": 0, "rescale_betas_zero_snr": true}"#,
            r#"{"trained_betas": [0.1]}"#,
            r#"{"steps_offset": 18446744073709551615}"#,
            r#"{"thresholding": true, "use_exponential_sigmas": true}"#,
        ] {
            let config = SchedulerConfig::from_json(json.as_bytes()).unwrap();
            for sampler in Sampler::ALL.iter().copied() {
                let result = config.schedule(sampler, 25, None);
                let ignored = json.contains("thresholding")
                    && matches!(sampler, Sampler::EulerAncestral | Sampler::Tcd);
                assert_eq!(result.is_ok(), ignored, "{json} with {sampler:?}");
            }
        }
        for json in [r#"{"_class_name": "FlowMatchHeunDiscreteScheduler"}"#, r#"{"prediction_type": "flow"}"#]
        {
            assert!(SchedulerConfig::from_json(json.as_bytes()).is_err(), "{json}");
        }
        // As diffusers writes it.
        assert!(SchedulerConfig::from_json(br#"{"lambda_min_clipped": -Infinity}"#).is_ok());
        for sampler in Sampler::of_diffusion() {
            for steps in [0, 1001, usize::MAX] {
                let error = SchedulerConfig::default().schedule(sampler, steps, None).unwrap_err();
                assert_eq!(error.code, "steps-range");
            }
        }
    }
}
