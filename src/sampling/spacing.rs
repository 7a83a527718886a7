//! Which training steps are visited, and the arithmetic between timesteps and noise levels.

use super::{NoiseLevel, SchedulerConfig, Step, TimestepSpacing};
use crate::error::Error;

/// ρ of Karras et al. 2022, equation 5.
const KARRAS_RHO: f64 = 7.0;

impl SchedulerConfig {
    /// Timesteps of diffusers' Euler, Heun and DDIM schedulers, before rounding.
    pub(super) fn spaced(&self, spacing: TimestepSpacing, count: usize, steps: usize) -> Vec<f64> {
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
pub(super) fn joined(timesteps: &[f64], levels: &[NoiseLevel]) -> Vec<Step> {
    timesteps.iter().zip(levels.windows(2)).map(|(t, pair)| Step::new(*t, pair[0], pair[1])).collect()
}

pub(super) fn too_many(steps: usize, most: usize) -> Error {
    Error::input(
        "steps-range",
        format!("{steps} steps do not fit in this sampler's schedule of {most}"),
        "use fewer steps, at least one",
    )
}

/// Noise-to-signal ratio √((1 − ᾱ) / ᾱ).
pub(super) fn ratio(alpha_cumprod: f64) -> f64 {
    ((1.0 - alpha_cumprod) / alpha_cumprod).sqrt()
}

/// `count` even values from `start` to `end`; one value is `start`.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| start + step * i as f64).collect()
}

/// Between the values at whole positions; clamped at the ends.
pub(super) fn interpolate(values: &[f64], position: f64) -> f64 {
    let position = position.clamp(0.0, values.len() as f64 - 1.0);
    let low = (position as usize).min(values.len() - 2);
    let fraction = position - low as f64;
    values[low] * (1.0 - fraction) + values[low + 1] * fraction
}

/// The (fractional) training step with noise-to-signal ratio `sigma`, linear in ln σ.
pub(super) fn sigma_to_t(train_sigmas: &[f64], sigma: f64) -> f64 {
    let above = train_sigmas.partition_point(|s| *s <= sigma);
    let low = above.saturating_sub(1).min(train_sigmas.len() - 2);
    let (low_log, high_log) = (train_sigmas[low].ln(), train_sigmas[low + 1].ln());
    let fraction = (low_log - sigma.max(1e-10).ln()) / (low_log - high_log);
    low as f64 + fraction.clamp(0.0, 1.0)
}

/// Karras et al. 2022, equation 5, without the final zero.
pub(super) fn karras(low: f64, high: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (low.powf(1.0 / KARRAS_RHO), high.powf(1.0 / KARRAS_RHO));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| (high + ramp * (low - high)).powf(KARRAS_RHO)).collect()
}
