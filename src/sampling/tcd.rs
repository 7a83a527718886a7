//! Strategic stochastic sampling (Zheng et al. 2024, "Trajectory consistency distillation", algorithm 4); diffusers'
//! `TCDScheduler`.

use super::solver::{About, Clips, Now, Past, Solver, Space};
use super::{BetaSchedule, NoiseLevel, Schedule, SchedulerConfig, Step, StepOutput, TimestepSpacing, lcm};
use crate::error::Result;

/// The share of a step that is noise, the paper's γ and diffusers' `eta`: the scheduler's default. No file states it.
const GAMMA: f32 = 0.3;

#[derive(Debug)]
pub(super) struct Tcd;

impl Solver for Tcd {
    fn about(&self) -> &'static About {
        &About {
            name: "tcd",
            label: "TCD",
            class: "TCDScheduler",
            stands_in_for: &[],
            source: "Zheng et al. 2024 (arXiv 2402.19159), algorithm 4 with γ = 0.3",
            space: Space::Unscaled,
            evaluations: 1,
            distilled_for: Some((4, 1.0)),
            betas: (0.00085, 0.012, BetaSchedule::ScaledLinear),
            spacing: TimestepSpacing::Leading,
            clips: Clips::Never,
            begins_at_pure_noise: true,
        }
    }

    /// diffusers' class has settings of clipping and thresholding, and obeys none.
    fn refuses(&self, _: &SchedulerConfig) -> Option<&'static str> {
        None
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        _: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let timesteps = lcm::timesteps(config, alphas_cumprod.len(), steps)?;
        // The last step ends at training step 0.
        let nexts = timesteps.iter().copied().skip(1).chain([0]);
        Ok(timesteps
            .iter()
            .zip(nexts)
            .map(|(t, next)| {
                // In f32, as diffusers computes it.
                let down = ((1.0 - GAMMA) * next as f32).floor() as usize;
                let [from, to, down] = [*t, next, down].map(|t| NoiseLevel::cumulative(alphas_cumprod[t]));
                Step { down, ..Step::new(*t as f64, from, to) }
            })
            .collect())
    }

    fn needs_noise(&self, schedule: &Schedule, i: usize) -> bool {
        i + 1 < schedule.len()
    }

    /// Along the trajectory down to level s, then up to the next with noise: `√(ᾱ'/ᾱ_s) x_s + √(1 − ᾱ'/ᾱ_s) z`.
    fn step(&self, now: Now, _: &mut Vec<Past>) -> StepOutput {
        let Now {
            schedule, step: Step { from, to, down, .. }, sample, model_output, original, noise, ..
        } = now;
        let epsilon = schedule.prediction().epsilon(from, &sample, &model_output);
        let sample = original.clone() * down.alpha + epsilon * down.sigma;
        let sample = match noise {
            Some(noise) => {
                let kept = to.alpha / down.alpha;
                sample * kept + noise * (1.0 - kept * kept).max(0.0).sqrt()
            }
            None => sample,
        };
        StepOutput { sample, pred_original: original }
    }
}
