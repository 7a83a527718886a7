//! Euler with ancestral noise (k-diffusion's `sample_euler_ancestral`, η = 1): the paper's sampler; diffusers'
//! `EulerAncestralDiscreteScheduler`.

use super::solver::{About, Clips, Now, Past, Solver, Space};
use super::{BetaSchedule, NoiseLevel, Schedule, SchedulerConfig, Step, StepOutput, TimestepSpacing, euler};
use crate::error::Result;

#[derive(Debug)]
pub(super) struct EulerAncestral;

impl Solver for EulerAncestral {
    fn about(&self) -> &'static About {
        &About {
            name: "euler_ancestral",
            label: "Euler ancestral",
            class: "EulerAncestralDiscreteScheduler",
            // Not built in, and without a class: the paper's sampler draws from any model that predicts noise.
            stands_in_for: &[
                "",
                "PNDMScheduler",
                "DDPMScheduler",
                "DDPMParallelScheduler",
                "LMSDiscreteScheduler",
                "DEISMultistepScheduler",
                "DPMSolverSinglestepScheduler",
                "DPMSolverSDEScheduler",
                "SASolverScheduler",
                "KDPM2DiscreteScheduler",
                "KDPM2AncestralDiscreteScheduler",
            ],
            source: "k-diffusion's `sample_euler_ancestral`, η = 1",
            space: Space::Exploding,
            evaluations: 1,
            distilled_for: None,
            betas: (0.0001, 0.02, BetaSchedule::Linear),
            spacing: TimestepSpacing::Linspace,
            clips: Clips::Never,
            begins_at_pure_noise: false,
        }
    }

    fn refuses(&self, _: &SchedulerConfig) -> Option<&'static str> {
        None
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let (timesteps, sigmas) = euler::levels(config, alphas_cumprod, spacing, steps, false);
        Ok(euler::between(&timesteps, sigmas, 0.0))
    }

    fn needs_noise(&self, schedule: &Schedule, i: usize) -> bool {
        schedule.step(i).is_ok_and(|step| ancestral(step.from, step.to).1 > 0.0)
    }

    /// Euler to `σ_down`, then noise of deviation `σ_up`.
    fn step(&self, now: Now, _: &mut Vec<Past>) -> StepOutput {
        let Now { step: Step { from, to, .. }, sample, original, noise, .. } = now;
        let (down, up) = ancestral(from, to);
        let sample = euler::step(from, NoiseLevel { sigma: down, ..to }, sample, original.clone());
        let sample = match noise {
            Some(noise) => sample + noise * up,
            None => sample,
        };
        StepOutput { sample, pred_original: original }
    }
}

/// Splits the way from σ to σ' into a deterministic part down to `σ_down` and fresh noise of deviation `σ_up`.
fn ancestral(from: NoiseLevel, to: NoiseLevel) -> (f64, f64) {
    let (from, to) = (from.sigma, to.sigma);
    let up = (to * to * (from * from - to * to).max(0.0)).sqrt() / from;
    let down = (to * to - up * up).max(0.0).sqrt();
    (down, up)
}
