//! DDIM with η = 0 (Song et al. 2021, equation 12); diffusers' `DDIMScheduler`.

use super::solver::{About, Clips, Now, Past, Solver, Space};
use super::{BetaSchedule, NoiseLevel, SchedulerConfig, Step, StepOutput, TimestepSpacing};
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Ddim;

impl Solver for Ddim {
    fn about(&self) -> &'static About {
        &About {
            name: "ddim",
            label: "DDIM",
            class: "DDIMScheduler",
            stands_in_for: &["DDIMParallelScheduler"],
            source: "Song et al. 2021 (arXiv 2010.02502), equation 12 with η = 0",
            space: Space::Unscaled,
            evaluations: 1,
            distilled_for: None,
            betas: (0.0001, 0.02, BetaSchedule::Linear),
            spacing: TimestepSpacing::Leading,
            clips: Clips::Unless,
            begins_at_pure_noise: true,
        }
    }

    fn refuses(&self, config: &SchedulerConfig) -> Option<&'static str> {
        (config.thresholding == Some(true)).then_some("thresholding")
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let count = alphas_cumprod.len();
        let last = if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { alphas_cumprod[0] };
        let stride = count / steps;
        Ok(config
            .spaced(spacing, count, steps)
            .into_iter()
            .map(f64::round_ties_even)
            .map(|t| {
                let index = (t as usize).min(count - 1);
                // A whole stride back, whatever the spacing.
                let previous = index.checked_sub(stride).map_or(last, |i| alphas_cumprod[i]);
                let [from, to] = [alphas_cumprod[index], previous].map(NoiseLevel::cumulative);
                Step::new(t, from, to)
            })
            .collect())
    }

    /// `α' x₀ + σ' ε`.
    fn step(&self, now: Now, _: &mut Vec<Past>) -> StepOutput {
        let Now { schedule, step, sample, model_output, original, .. } = now;
        let epsilon = schedule.prediction().epsilon(step.from, &sample, &model_output);
        StepOutput {
            sample: original.clone() * step.to.alpha + epsilon * step.to.sigma,
            pred_original: original,
        }
    }
}
