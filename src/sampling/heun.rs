//! Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without churn, with lines 6 to 8); diffusers'
//! `HeunDiscreteScheduler`.
//!
//! A step takes two evaluations: Euler's to the next level, and one there, whose slope is averaged with the first. The last
//! step ends without noise, where there is no slope, and is Euler's.

use super::solver::{About, Clips, Now, Past, Solver, Space, first};
use super::{BetaSchedule, SchedulerConfig, Step, StepOutput, TimestepSpacing, euler};
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Heun;

impl Solver for Heun {
    fn about(&self) -> &'static About {
        &About {
            name: "heun",
            label: "Heun",
            class: "HeunDiscreteScheduler",
            stands_in_for: &[],
            source: "Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without churn, both orders",
            space: Space::Exploding,
            evaluations: 2,
            distilled_for: None,
            betas: (0.00085, 0.012, BetaSchedule::Linear),
            spacing: TimestepSpacing::Linspace,
            clips: Clips::IfStated,
            begins_at_pure_noise: false,
        }
    }

    fn refuses(&self, config: &SchedulerConfig) -> Option<&'static str> {
        first(&[
            ("use_exponential_sigmas", config.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", config.use_beta_sigmas == Some(true)),
        ])
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let (timesteps, sigmas) = euler::levels(config, alphas_cumprod, spacing, steps, true);
        let predicted = euler::between(&timesteps, sigmas, 0.0);
        let mut all = Vec::with_capacity(2 * predicted.len());
        for (step, next) in predicted.iter().zip(predicted.iter().skip(1)) {
            all.push(*step);
            all.push(Step { order: 2, ..Step::new(f64::from(next.timestep), step.to, step.to) });
        }
        all.extend(predicted.last());
        Ok(all)
    }

    fn step(&self, now: Now, past: &mut Vec<Past>) -> StepOutput {
        let Now { step: Step { from, to, order, .. }, sample, original, .. } = now;
        let begun = past.pop().filter(|_| order == 2);
        let after = match begun {
            Some(begun) => {
                // `x + (σ' − σ) (d + d') / 2`, equation 5 of the paper's appendix.
                let slope = (begun.sample.clone() - begun.original) / begun.level.sigma
                    + (sample - original.clone()) / from.sigma;
                begun.sample + slope * ((to.sigma - begun.level.sigma) / 2.0)
            }
            None => {
                let before = Past { level: from, sample: sample.clone(), original: original.clone(), order };
                past.push(before);
                euler::step(from, to, sample, original.clone())
            }
        };
        StepOutput { sample: after, pred_original: original }
    }
}
