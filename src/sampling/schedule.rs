//! The noise levels of a picture's steps: plain numbers on the host.

use super::{FinalSigmas, Prediction, SchedulerConfig, TimestepSpacing, lcm};
use crate::error::{Error, Result};
use crate::request::Sampler;

/// A noisy sample is `alpha · x₀ + sigma · ε`.
///
/// Euler samplers keep `alpha` 1 and `sigma` the noise-to-signal ratio (variance exploding); the others keep
/// α² + σ² = 1 (variance preserving).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// Factor of the clean sample.
    pub alpha: f64,
    /// Deviation of the noise.
    pub sigma: f64,
}

impl NoiseLevel {
    fn exploding(sigma: f64) -> Self {
        Self { alpha: 1.0, sigma }
    }

    /// With α² + σ² = 1, from the noise-to-signal ratio.
    fn preserving(ratio: f64) -> Self {
        let alpha = 1.0 / ratio.hypot(1.0);
        Self { alpha, sigma: ratio * alpha }
    }

    fn cumulative(alpha_cumprod: f64) -> Self {
        Self { alpha: alpha_cumprod.sqrt(), sigma: (1.0 - alpha_cumprod).max(0.0).sqrt() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// For the denoiser, in training steps.
    pub timestep: f32,
    pub from: NoiseLevel,
    pub to: NoiseLevel,
    /// Whether DPM-Solver++ may use the step before.
    pub second_order: bool,
}

/// The steps of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    sampler: Sampler,
    prediction: Prediction,
    steps: Vec<Step>,
    init_noise_sigma: f64,
    clip: Option<f64>,
    timestep_scaling: f64,
}

impl Schedule {
    /// The sampler that these steps are for.
    pub fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// What the denoiser predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Number of steps; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// What each step tells the denoiser, in training steps.
    pub fn timesteps(&self) -> Vec<f32> {
        self.steps.iter().map(|step| step.timestep).collect()
    }

    /// Noise-to-signal ratio σ/α at the start of each step and after the last one.
    pub fn sigmas(&self) -> Vec<f64> {
        let ends = self.steps.last().map(|step| step.to);
        self.steps.iter().map(|step| step.from).chain(ends).map(|level| level.sigma / level.alpha).collect()
    }

    /// Deviation of the pure noise that a picture without an init image starts from.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// x₀ is clipped to ± this.
    pub(super) fn clip(&self) -> Option<f64> {
        self.clip
    }

    pub(super) fn step(&self, i: usize) -> Result<Step> {
        self.steps.get(i).copied().ok_or_else(|| {
            Error::internal("step-index", format!("step {i} of a schedule of {}", self.steps.len()))
        })
    }

    /// LCM's timestep in its boundary condition.
    pub(super) fn scaled_timestep(&self, i: usize) -> f64 {
        self.steps.get(i).map_or(0.0, |step| f64::from(step.timestep)) * self.timestep_scaling
    }
}

/// ρ of Karras et al. 2022, equation 5.
const KARRAS_RHO: f64 = 7.0;
/// Below this many steps DPM-Solver++ ends with the first order (diffusers' bound).
const FEW_STEPS: usize = 15;

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
        let spacing = self.timestep_spacing.unwrap_or(match sampler {
            Sampler::Ddim | Sampler::Lcm => TimestepSpacing::Leading,
            _ => TimestepSpacing::Linspace,
        });
        let mut all = match sampler {
            Sampler::EulerAncestral | Sampler::Euler => self.euler(sampler, &alphas_cumprod, spacing, steps),
            Sampler::Dpmpp2m => self.dpmpp_2m(&alphas_cumprod, spacing, steps)?,
            Sampler::Ddim => self.ddim(&alphas_cumprod, spacing, steps),
            Sampler::Lcm => self.lcm(&alphas_cumprod, steps)?,
        };
        let prediction = self.prediction_type.unwrap_or_default();
        let sound = |level: NoiseLevel| level.alpha >= 0.0 && level.sigma > 0.0 && level.sigma.is_finite();
        if !all.iter().all(|step| sound(step.from)) {
            return Err(Error::weights(
                "config-range",
                "scheduler config: a step begins without noise, or with infinite noise",
                "use the config of a supported model",
            ));
        }
        let noisier = |a: NoiseLevel, b: NoiseLevel| a.sigma * b.alpha > b.sigma * a.alpha;
        if all.is_empty() || all.windows(2).any(|pair| !noisier(pair[0].from, pair[1].from)) {
            return Err(too_many(steps, alphas_cumprod.len()));
        }
        if prediction == Prediction::Epsilon && all.iter().any(|step| step.from.alpha == 0.0) {
            return Err(Error::weights(
                "zero-snr-epsilon",
                "the schedule starts at pure noise, where noise prediction says nothing of the picture",
                "use an Euler sampler, or a model that predicts the velocity",
            ));
        }
        // As the Euler schedulers of diffusers: leading spacing does not reach the last training step, so the noise
        // of variance σ² is not yet all there is.
        let highest = all.first().map_or(1.0, |step| step.from.sigma);
        let init_noise_sigma = match (sampler, spacing) {
            (Sampler::EulerAncestral | Sampler::Euler, TimestepSpacing::Leading) => highest.hypot(1.0),
            (Sampler::EulerAncestral | Sampler::Euler, _) => highest,
            _ => 1.0,
        };
        if let Some(strength) = strength {
            // As diffusers counts, which multiplies the shortest decimal in f64: 0.7 of 10 steps are 7, 0.58 of 50 are 28.
            let decimal = strength.to_string().parse().unwrap_or(f64::from(strength));
            let kept = (steps as f64 * decimal).floor() as usize;
            all.drain(..all.len() - kept.clamp(1, all.len()));
        }
        Ok(Schedule {
            sampler,
            prediction,
            steps: all,
            init_noise_sigma,
            clip: self.clip(sampler),
            timestep_scaling: self.timestep_scaling.unwrap_or(lcm::TIMESTEP_SCALING),
        })
    }

    fn euler(
        &self,
        sampler: Sampler,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Vec<Step> {
        let train_sigmas: Vec<f64> = alphas_cumprod.iter().map(|a| ratio(*a)).collect();
        let mut timesteps = self.spaced(spacing, alphas_cumprod.len(), steps);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(&train_sigmas, *t)).collect();
        let mut last = 0.0;
        if sampler == Sampler::Euler {
            if self.use_karras_sigmas.unwrap_or(false) {
                let low = self.sigma_min.unwrap_or(sigmas[steps - 1]);
                let high = self.sigma_max.unwrap_or(sigmas[0]);
                sigmas = karras(low, high, steps);
                timesteps = sigmas.iter().map(|sigma| sigma_to_t(&train_sigmas, *sigma)).collect();
            }
            if self.final_sigmas_type == Some(FinalSigmas::SigmaMin) {
                last = train_sigmas[0];
            }
        }
        let levels = sigmas.into_iter().chain([last]).map(NoiseLevel::exploding).collect::<Vec<_>>();
        joined(&timesteps, &levels)
    }

    fn dpmpp_2m(&self, alphas_cumprod: &[f64], spacing: TimestepSpacing, steps: usize) -> Result<Vec<Step>> {
        let train_sigmas: Vec<f64> = alphas_cumprod.iter().map(|a| ratio(*a)).collect();
        let count = alphas_cumprod.len();
        // λ = −ln σ falls with t.
        let clipped = self
            .lambda_min_clipped
            .map_or(0, |least| train_sigmas.iter().filter(|sigma| -sigma.ln() < least).count());
        let last_timestep = count - clipped;
        if last_timestep <= steps && spacing != TimestepSpacing::Trailing {
            return Err(too_many(steps, last_timestep.saturating_sub(1)));
        }
        let mut timesteps: Vec<f64> = match spacing {
            TimestepSpacing::Linspace => linspace(0.0, last_timestep as f64 - 1.0, steps + 1)
                .into_iter()
                .skip(1)
                .rev()
                .map(f64::round_ties_even)
                .collect(),
            TimestepSpacing::Leading => {
                let stride = last_timestep / (steps + 1);
                (1..=steps).rev().map(|i| (i * stride + self.steps_offset.unwrap_or(0)) as f64).collect()
            }
            TimestepSpacing::Trailing => {
                let stride = count as f64 / steps as f64;
                (0..steps)
                    .map(|i| (last_timestep as f64 - i as f64 * stride).round_ties_even() - 1.0)
                    .take_while(|t| *t >= 0.0)
                    .collect()
            }
        };
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(&train_sigmas, *t)).collect();
        if self.use_karras_sigmas.unwrap_or(false) {
            sigmas = karras(train_sigmas[0], train_sigmas[count - 1], steps);
            timesteps = sigmas
                .iter()
                .map(|sigma| sigma_to_t(&train_sigmas, *sigma))
                .map(|t| match self.beta_schedule {
                    Some(super::BetaSchedule::SquaredcosCapV2) => t.trunc(),
                    _ => t.round_ties_even(),
                })
                .collect();
        }
        let last = match self.final_sigmas_type.unwrap_or(FinalSigmas::Zero) {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => train_sigmas[0],
        };
        let levels = sigmas.into_iter().chain([last]).map(NoiseLevel::preserving).collect::<Vec<_>>();
        let mut all = joined(&timesteps, &levels);
        let count = all.len();
        let second = self.solver_order.unwrap_or(2) == 2;
        let first_at_end = last == 0.0
            || self.euler_at_final.unwrap_or(false)
            || self.lower_order_final.unwrap_or(true) && count < FEW_STEPS;
        for (i, step) in all.iter_mut().enumerate() {
            step.second_order = second && !(i + 1 == count && first_at_end);
        }
        Ok(all)
    }

    fn ddim(&self, alphas_cumprod: &[f64], spacing: TimestepSpacing, steps: usize) -> Vec<Step> {
        let count = alphas_cumprod.len();
        let last = if self.set_alpha_to_one.unwrap_or(true) { 1.0 } else { alphas_cumprod[0] };
        let stride = count / steps;
        self.spaced(spacing, count, steps)
            .into_iter()
            .map(f64::round_ties_even)
            .map(|t| {
                let index = (t as usize).min(count - 1);
                // A whole stride back, whatever the spacing.
                let previous = index.checked_sub(stride).map_or(last, |i| alphas_cumprod[i]);
                Step {
                    timestep: t as f32,
                    from: NoiseLevel::cumulative(alphas_cumprod[index]),
                    to: NoiseLevel::cumulative(previous),
                    second_order: false,
                }
            })
            .collect()
    }

    fn lcm(&self, alphas_cumprod: &[f64], steps: usize) -> Result<Vec<Step>> {
        let count = alphas_cumprod.len();
        let original = self.original_inference_steps.unwrap_or(50);
        if original == 0 || original > count {
            return Err(Error::weights(
                "config-range",
                format!("scheduler config: original_inference_steps is {original} of {count} training steps"),
                "use the config of a supported model",
            ));
        }
        if steps > original {
            return Err(too_many(steps, original));
        }
        let stride = count / original;
        let timesteps: Vec<usize> = (0..steps)
            .map(|i| original - (i as f64 * (original as f64 / steps as f64)).floor() as usize)
            .map(|k| k * stride - 1)
            .collect();
        Ok((0..steps)
            .map(|i| {
                let next = timesteps.get(i + 1).unwrap_or(&timesteps[i]);
                Step {
                    timestep: timesteps[i] as f32,
                    from: NoiseLevel::cumulative(alphas_cumprod[timesteps[i]]),
                    to: NoiseLevel::cumulative(alphas_cumprod[*next]),
                    second_order: false,
                }
            })
            .collect())
    }

    /// Timesteps of the Euler and DDIM schedulers, before rounding.
    fn spaced(&self, spacing: TimestepSpacing, count: usize, steps: usize) -> Vec<f64> {
        match spacing {
            TimestepSpacing::Linspace => linspace(0.0, count as f64 - 1.0, steps).into_iter().rev().collect(),
            TimestepSpacing::Leading => {
                let stride = count / steps;
                (0..steps).rev().map(|i| (i * stride + self.steps_offset.unwrap_or(0)) as f64).collect()
            }
            TimestepSpacing::Trailing => {
                let stride = count as f64 / steps as f64;
                (0..steps).map(|i| (count as f64 - i as f64 * stride).round_ties_even() - 1.0).collect()
            }
        }
    }
}

/// Steps between neighbouring levels.
fn joined(timesteps: &[f64], levels: &[NoiseLevel]) -> Vec<Step> {
    timesteps
        .iter()
        .zip(levels.windows(2))
        .map(|(t, pair)| Step { timestep: *t as f32, from: pair[0], to: pair[1], second_order: false })
        .collect()
}

fn too_many(steps: usize, most: usize) -> Error {
    Error::input(
        "steps-range",
        format!("{steps} steps do not fit in this sampler's schedule of {most}"),
        "use fewer steps, at least one",
    )
}

/// Noise-to-signal ratio √((1 − ᾱ) / ᾱ).
fn ratio(alpha_cumprod: f64) -> f64 {
    ((1.0 - alpha_cumprod) / alpha_cumprod).sqrt()
}

/// `count` even values from `start` to `end`; one value is `start`.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| start + step * i as f64).collect()
}

/// Between the values at whole positions; clamped at the ends.
fn interpolate(values: &[f64], position: f64) -> f64 {
    let position = position.clamp(0.0, values.len() as f64 - 1.0);
    let low = (position as usize).min(values.len() - 2);
    let fraction = position - low as f64;
    values[low] * (1.0 - fraction) + values[low + 1] * fraction
}

/// The (fractional) training step with noise-to-signal ratio `sigma`, linear in ln σ.
fn sigma_to_t(train_sigmas: &[f64], sigma: f64) -> f64 {
    let above = train_sigmas.partition_point(|s| *s <= sigma);
    let low = above.saturating_sub(1).min(train_sigmas.len() - 2);
    let (low_log, high_log) = (train_sigmas[low].ln(), train_sigmas[low + 1].ln());
    let fraction = (low_log - sigma.max(1e-10).ln()) / (low_log - high_log);
    low as f64 + fraction.clamp(0.0, 1.0)
}

/// Karras et al. 2022, equation 5, without the final zero.
fn karras(low: f64, high: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (low.powf(1.0 / KARRAS_RHO), high.powf(1.0 / KARRAS_RHO));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| (high + ramp * (low - high)).powf(KARRAS_RHO)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::BetaSchedule;

    const SAMPLERS: [Sampler; 5] =
        [Sampler::EulerAncestral, Sampler::Euler, Sampler::Ddim, Sampler::Dpmpp2m, Sampler::Lcm];

    /// Whatever the config, a schedule is an error or falls from noise to (almost) none in finite numbers.
    #[test]
    fn levels_fall_and_stay_finite() {
        let mut schedules = 0;
        for sampler in SAMPLERS {
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
                            assert_eq!(schedule.len(), steps);
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
        for sampler in SAMPLERS {
            let whole = config.schedule(sampler, 10, None).unwrap();
            for (strength, kept) in [(0.0, 1), (0.3, 3), (0.7, 7), (0.75, 7), (1.0, 10)] {
                let part = config.schedule(sampler, 10, Some(strength)).unwrap();
                assert_eq!(part.steps, whole.steps[10 - kept..], "{sampler:?} {strength}");
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
            for sampler in SAMPLERS {
                let result = config.schedule(sampler, 25, None);
                let ignored = json.contains("thresholding") && sampler == Sampler::EulerAncestral;
                assert_eq!(result.is_ok(), ignored, "{json} with {sampler:?}");
            }
        }
        for json in
            [r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, r#"{"prediction_type": "flow"}"#]
        {
            assert!(SchedulerConfig::from_json(json.as_bytes()).is_err(), "{json}");
        }
        // As diffusers writes it.
        assert!(SchedulerConfig::from_json(br#"{"lambda_min_clipped": -Infinity}"#).is_ok());
        for sampler in SAMPLERS {
            for steps in [0, 1001, usize::MAX] {
                let error = SchedulerConfig::default().schedule(sampler, steps, None).unwrap_err();
                assert_eq!(error.code, "steps-range");
            }
        }
    }
}
