//! Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without churn); diffusers'
//! `EulerDiscreteScheduler`.

use burn::tensor::Tensor;

use super::solver::{About, Clips, Now, Past, Solver, Space, first, other};
use super::spacing::{interpolate, joined, karras, ratio, sigma_to_t};
use super::{BetaSchedule, FinalSigmas, NoiseLevel, SchedulerConfig, Step, StepOutput, TimestepSpacing};
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Euler;

impl Solver for Euler {
    fn about(&self) -> &'static About {
        &About {
            name: "euler",
            label: "Euler",
            class: "EulerDiscreteScheduler",
            stands_in_for: &[],
            source: "Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without churn",
            space: Space::Exploding,
            evaluations: 1,
            distilled_for: None,
            betas: (0.0001, 0.02, BetaSchedule::Linear),
            spacing: TimestepSpacing::Linspace,
            clips: Clips::Never,
            begins_at_pure_noise: false,
        }
    }

    fn refuses(&self, config: &SchedulerConfig) -> Option<&'static str> {
        first(&[
            ("use_exponential_sigmas", config.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", config.use_beta_sigmas == Some(true)),
            ("interpolation_type", other(&config.interpolation_type, &["linear"])),
            ("timestep_type", other(&config.timestep_type, &["discrete"])),
        ])
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let last = match (config.final_sigmas_type, alphas_cumprod.first()) {
            (Some(FinalSigmas::SigmaMin), Some(first)) => ratio(*first),
            _ => 0.0,
        };
        let (timesteps, sigmas) = levels(config, alphas_cumprod, spacing, steps, true);
        Ok(between(&timesteps, sigmas, last))
    }

    fn step(&self, now: Now, _: &mut Vec<Past>) -> StepOutput {
        let Now { step: at, sample, original, .. } = now;
        StepOutput { sample: step(at.from, at.to, sample, original.clone()), pred_original: original }
    }
}

/// Timesteps and σ of `steps` steps; Karras' levels only where the sampler knows them and the config asks for them.
pub(super) fn levels(
    config: &SchedulerConfig,
    alphas_cumprod: &[f64],
    spacing: TimestepSpacing,
    steps: usize,
    knows_karras: bool,
) -> (Vec<f64>, Vec<f64>) {
    let train_sigmas: Vec<f64> = alphas_cumprod.iter().map(|a| ratio(*a)).collect();
    let mut timesteps = config.spaced(spacing, alphas_cumprod.len(), steps);
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(&train_sigmas, *t)).collect();
    if knows_karras && config.use_karras_sigmas.unwrap_or(false) {
        let low = config.sigma_min.unwrap_or(sigmas[steps - 1]);
        let high = config.sigma_max.unwrap_or(sigmas[0]);
        sigmas = karras(low, high, steps);
        timesteps = sigmas.iter().map(|sigma| sigma_to_t(&train_sigmas, *sigma)).collect();
    }
    (timesteps, sigmas)
}

/// From each σ to the next, and from the last one to `last`.
pub(super) fn between(timesteps: &[f64], sigmas: Vec<f64>, last: f64) -> Vec<Step> {
    let levels = sigmas.into_iter().chain([last]).map(NoiseLevel::exploding).collect::<Vec<_>>();
    joined(timesteps, &levels)
}

/// `x + (σ' − σ) dx/dσ` with `dx/dσ = (x − x₀) / σ`, as a blend of sample and x₀.
pub(super) fn step(from: NoiseLevel, to: NoiseLevel, sample: Tensor<4>, original: Tensor<4>) -> Tensor<4> {
    let keep = to.sigma / from.sigma;
    sample * keep + original * (1.0 - keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_ends_at_zero_or_at_the_lowest_level_of_training() {
        let last = |final_sigmas_type| {
            let config = SchedulerConfig { final_sigmas_type, ..SchedulerConfig::default() };
            // σ of the first training step is √(0.2 / 0.8).
            let steps = Euler.steps(&config, &[0.8, 0.5, 0.1], TimestepSpacing::Linspace, 2).unwrap();
            steps.last().unwrap().to.sigma
        };
        assert_eq!([None, Some(FinalSigmas::Zero)].map(last), [0.0, 0.0]);
        assert!((last(Some(FinalSigmas::SigmaMin)) - 0.5).abs() < 1e-12);
    }
}
