//! DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), midpoint; diffusers' `DPMSolverMultistepScheduler`.

use burn::tensor::Tensor;

use super::solver::{About, Clips, Now, Past, Solver, Space, first, other};
use super::spacing::{interpolate, joined, karras, linspace, ratio, sigma_to_t, too_many};
use super::{BetaSchedule, FinalSigmas, NoiseLevel, SchedulerConfig, Step, StepOutput, TimestepSpacing};
use crate::error::Result;

/// Below this many steps it ends with the first order (diffusers' bound).
const FEW_STEPS: usize = 15;

#[derive(Debug)]
pub(super) struct Dpmpp2m;

impl Solver for Dpmpp2m {
    fn about(&self) -> &'static About {
        &About {
            name: "dpmpp2m",
            label: "DPM++ 2M",
            class: "DPMSolverMultistepScheduler",
            stands_in_for: &[],
            source: "Lu et al. 2022 (arXiv 2211.01095), algorithm 2, midpoint",
            space: Space::Unscaled,
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
            ("thresholding", config.thresholding == Some(true)),
            ("use_exponential_sigmas", config.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", config.use_beta_sigmas == Some(true)),
            ("use_lu_lambdas", config.use_lu_lambdas == Some(true)),
            ("variance_type", other(&config.variance_type, &["fixed_small", "fixed_large"])),
            ("algorithm_type", other(&config.algorithm_type, &["dpmsolver++", "deis"])),
            ("solver_type", other(&config.solver_type, &["midpoint", "logrho", "bh1", "bh2"])),
            ("solver_order", !(1..=2).contains(&config.solver_order.unwrap_or(2))),
        ])
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        // λ = −ln σ falls with t.
        let clipped = config
            .lambda_min_clipped
            .map_or(0, |least| alphas_cumprod.iter().filter(|a| -ratio(**a).ln() < least).count());
        let cut = matches!(config.beta_schedule, Some(BetaSchedule::SquaredcosCapV2));
        let round = if cut { f64::trunc } else { f64::round_ties_even };
        let mut all = multistep(config, alphas_cumprod, spacing, steps, clipped, round)?;
        let count = all.len();
        let second = config.solver_order.unwrap_or(2) == 2;
        let first_at_end = all.last().is_some_and(|step| step.to.sigma == 0.0)
            || config.euler_at_final.unwrap_or(false)
            || config.lower_order_final.unwrap_or(true) && count < FEW_STEPS;
        for (i, step) in all.iter_mut().enumerate() {
            step.order = if second && !(i + 1 == count && first_at_end) { 2 } else { 1 };
        }
        Ok(all)
    }

    fn step(&self, now: Now, past: &mut Vec<Past>) -> StepOutput {
        let Now { step: at, sample, original, .. } = now;
        let before = past.pop().filter(|_| at.order == 2).map(|past| (past.level, past.original));
        let (level, order) = (at.from, at.order);
        past.push(Past { level, sample: sample.clone(), original: original.clone(), order });
        let sample = step(at.from, at.to, sample, original.clone(), before);
        StepOutput { sample, pred_original: original }
    }
}

/// Levels of the multistep solvers in diffusers, all of the first order. The `clipped` noisiest training steps are not
/// visited; `round` is what becomes of the timesteps of Karras' levels.
pub(super) fn multistep(
    config: &SchedulerConfig,
    alphas_cumprod: &[f64],
    spacing: TimestepSpacing,
    steps: usize,
    clipped: usize,
    round: fn(f64) -> f64,
) -> Result<Vec<Step>> {
    let train_sigmas: Vec<f64> = alphas_cumprod.iter().map(|a| ratio(*a)).collect();
    let count = alphas_cumprod.len();
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
            (1..=steps).rev().map(|i| (i * stride + config.steps_offset.unwrap_or(0)) as f64).collect()
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
    if config.use_karras_sigmas.unwrap_or(false) {
        let low = config.sigma_min.unwrap_or(train_sigmas[0]);
        let high = config.sigma_max.unwrap_or(train_sigmas[count - 1]);
        sigmas = karras(low, high, steps);
        timesteps = sigmas.iter().map(|sigma| round(sigma_to_t(&train_sigmas, *sigma))).collect();
    }
    let last = match config.final_sigmas_type {
        Some(FinalSigmas::Zero) | None => 0.0,
        Some(FinalSigmas::SigmaMin) => train_sigmas[0],
    };
    let levels = sigmas.into_iter().chain([last]).map(NoiseLevel::preserving).collect::<Vec<_>>();
    Ok(joined(&timesteps, &levels))
}

/// Half the logarithm of the signal-to-noise ratio, the paper's λ.
pub(super) fn lambda(level: NoiseLevel) -> f64 {
    (level.alpha / level.sigma).ln()
}

/// One step from x₀ now (`original`) and, for the second order, the level and x₀ of the step before.
fn step(
    from: NoiseLevel,
    to: NoiseLevel,
    sample: Tensor<4>,
    original: Tensor<4>,
    before: Option<(NoiseLevel, Tensor<4>)>,
) -> Tensor<4> {
    // At the end σ' = 0: h is infinite and exp(−h) zero, which the first order takes well.
    let h = lambda(to) - lambda(from);
    let weight = -to.alpha * (-h).exp_m1();
    let sample = sample * (to.sigma / from.sigma);
    match before {
        None => sample + original * weight,
        Some((level, before)) => {
            let r = (lambda(from) - lambda(level)) / h;
            let half = 0.5 * weight / r;
            sample + original * (weight + half) - before * half
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// diffusers' `lower_order_final`, where the last level is above zero and so no reason of its own.
    #[test]
    fn fewer_than_fifteen_steps_end_with_the_first_order() {
        let orders = |json: &str, steps: usize| -> [usize; 2] {
            let config = SchedulerConfig::from_json(json.as_bytes()).unwrap();
            let alphas_cumprod = config.alphas_cumprod().unwrap();
            let all = Dpmpp2m.steps(&config, &alphas_cumprod, TimestepSpacing::Linspace, steps).unwrap();
            [steps - 2, steps - 1].map(|i| all[i].order)
        };
        let usual = r#"{"final_sigmas_type": "sigma_min"}"#;
        assert_eq!([14, 15].map(|steps| orders(usual, steps)), [[2, 1], [2, 2]]);
        let never = r#"{"final_sigmas_type": "sigma_min", "lower_order_final": false}"#;
        assert_eq!(orders(never, 14), [2, 2]);
        let always = r#"{"final_sigmas_type": "sigma_min", "euler_at_final": true}"#;
        assert_eq!(orders(always, 20), [2, 1]);
        // An infinite step takes the first order alone.
        assert_eq!(orders("{}", 20), [2, 1]);
    }
}
