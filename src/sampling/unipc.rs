//! UniPC (Zhao et al. 2023, algorithms 5 to 8: multistep UniP and UniC with B(h), predicting x₀); diffusers'
//! `UniPCMultistepScheduler`.
//!
//! Every evaluation serves twice: it corrects the sample that it was made at, and predicts the next one.

use burn::tensor::Tensor;

use super::dpmpp_2m::{lambda, multistep};
use super::solver::{About, Clips, Now, Past, Solver, Space, first, other};
use super::{BetaSchedule, FinalSigmas, NoiseLevel, SchedulerConfig, Step, StepOutput, TimestepSpacing};
use crate::error::Result;

/// The highest order that is built in; diffusers advises 2 for guided sampling and 3 without guidance.
const MAX_ORDER: usize = 3;

#[derive(Debug)]
pub(super) struct UniPc;

impl Solver for UniPc {
    fn about(&self) -> &'static About {
        &About {
            name: "unipc",
            label: "UniPC",
            class: "UniPCMultistepScheduler",
            stands_in_for: &[],
            source: "Zhao et al. 2023 (arXiv 2302.04867), algorithms 7 and 8, B(h) of both kinds",
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
        let order = config.solver_order.unwrap_or(2);
        // At an end without noise B(h) = h and the second order are 0 times infinity, in diffusers too.
        let bh1 = config.solver_type.as_deref() == Some("bh1");
        let ends_low =
            config.final_sigmas_type == Some(FinalSigmas::SigmaMin) && config.use_karras_sigmas != Some(true);
        first(&[
            ("thresholding", config.thresholding == Some(true)),
            ("use_exponential_sigmas", config.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", config.use_beta_sigmas == Some(true)),
            ("use_dynamic_shifting", config.use_dynamic_shifting == Some(true)),
            ("predict_x0", config.predict_x0 == Some(false)),
            ("solver_p", config.solver_p.is_some()),
            ("solver_type", other(&config.solver_type, &["bh1", "bh2", "midpoint", "heun", "logrho"])),
            ("solver_type", bh1 && config.final_sigmas_type != Some(FinalSigmas::SigmaMin)),
            ("solver_order", !(1..=MAX_ORDER).contains(&order)),
            ("lower_order_final", config.lower_order_final == Some(false) && order > 1 && !ends_low),
        ])
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let mut all = multistep(config, alphas_cumprod, spacing, steps, 0, f64::round_ties_even)?;
        if config.use_karras_sigmas == Some(true)
            && config.final_sigmas_type == Some(FinalSigmas::SigmaMin)
            && let Some(last) = all.last_mut()
        {
            // As diffusers has it: Karras' lowest level is the last step's own, and a single step has only the highest.
            *last = Step::new(f64::from(last.timestep), last.from, last.from);
        }
        let (count, order) = (all.len(), config.solver_order.unwrap_or(2));
        let falls = config.lower_order_final.unwrap_or(true);
        for (i, step) in all.iter_mut().enumerate() {
            step.order = if falls { order.min(count - i) } else { order };
        }
        Ok(all)
    }

    fn step(&self, now: Now, past: &mut Vec<Past>) -> StepOutput {
        let Now { schedule, i, step: Step { from, to, order, .. }, sample, original, .. } = now;
        let config = schedule.config();
        let bh1 = config.solver_type.as_deref() == Some("bh1");
        // Counted from the whole schedule's first step, also where image-to-image leaves some out.
        let corrects = (schedule.left_out() + i)
            .checked_sub(1)
            .is_some_and(|before| !config.disable_corrector.iter().flatten().any(|off| *off == before));
        let sample = match past.split_last() {
            Some((last, earlier)) if corrects => update(last, earlier, from, Some(&original), bh1),
            _ => sample,
        };
        let order = order.min(past.len() + 1);
        let now = Past { level: from, sample, original: original.clone(), order };
        let sample = update(&now, past, to, None, bh1);
        past.push(now);
        if past.len() > MAX_ORDER {
            past.remove(0);
        }
        StepOutput { sample, pred_original: original }
    }
}

/// The sample at level `to`, from an evaluation and those before it, of that evaluation's order: as predicted, or corrected by
/// x₀ as predicted at that level.
fn update(
    now: &Past,
    earlier: &[Past],
    to: NoiseLevel,
    corrected_by: Option<&Tensor<4>>,
    bh1: bool,
) -> Tensor<4> {
    let at = lambda(now.level);
    let h = lambda(to) - at;
    // At the end h is infinite, which the first order takes well: all that is left is x₀.
    let weight = (-h).exp_m1();
    let scale = to.alpha * if bh1 { -h } else { weight };
    let mut sample =
        now.sample.clone() * (to.sigma / now.level.sigma) - now.original.clone() * (to.alpha * weight);
    let before: Vec<_> = earlier.iter().rev().take(now.order - 1).collect();
    let mut ratios: Vec<f64> = before.iter().map(|past| (lambda(past.level) - at) / h).collect();
    let rhos = match (corrected_by, now.order) {
        // The paper's section 3.4 and diffusers: these need no equations.
        (None, 1) => Vec::new(),
        (None, 2) | (Some(_), 1) => vec![0.5],
        (None, _) => rhos(&ratios, h, bh1),
        (Some(_), _) => {
            ratios.push(1.0);
            rhos(&ratios, h, bh1)
        }
    };
    for ((past, ratio), rho) in before.iter().zip(&ratios).zip(&rhos) {
        sample = sample - (past.original.clone() - now.original.clone()) * (scale * rho / ratio);
    }
    match (corrected_by, rhos.last()) {
        (Some(original), Some(rho)) => sample - (original.clone() - now.original.clone()) * (scale * rho),
        _ => sample,
    }
}

/// The factors of the differences: `R ρ = b` (equation 5 of the paper), where row i of R are the i-th powers of `ratios`.
fn rhos(ratios: &[f64], h: f64, bh1: bool) -> Vec<f64> {
    let count = ratios.len();
    let divisor = if bh1 { -h } else { (-h).exp_m1() };
    let mut phi = (-h).exp_m1() / -h - 1.0;
    let mut factorial = 1.0;
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(count);
    for i in 0..count {
        let mut row: Vec<f64> = ratios.iter().map(|ratio| ratio.powi(i as i32)).collect();
        row.push(phi * factorial / divisor);
        rows.push(row);
        factorial *= (i + 2) as f64;
        phi = phi / -h - 1.0 / factorial;
    }
    solve(rows)
}

/// Solves equations whose last number is the right side, by elimination with the largest pivot.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for column in 0..count {
        let largest =
            (column..count).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, largest.unwrap_or(column));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column] / pivot[column];
            for (value, pivot) in row.iter_mut().zip(&pivot).skip(column) {
                *value -= factor * pivot;
            }
        }
    }
    rows.iter().enumerate().map(|(i, row)| row[count] / row[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_does_not_do_is_refused_by_name() {
        for (json, refused) in [
            ("{}", None),
            (r#"{"thresholding": true}"#, Some("thresholding")),
            (r#"{"use_exponential_sigmas": true}"#, Some("use_exponential_sigmas")),
            (r#"{"use_beta_sigmas": true}"#, Some("use_beta_sigmas")),
            (r#"{"use_dynamic_shifting": true}"#, Some("use_dynamic_shifting")),
            (r#"{"predict_x0": false}"#, Some("predict_x0")),
            (r#"{"predict_x0": true}"#, None),
            (r#"{"solver_p": {"_class_name": "DDIMScheduler"}}"#, Some("solver_p")),
            (r#"{"solver_type": "heun3"}"#, Some("solver_type")),
            (r#"{"solver_type": "bh1"}"#, Some("solver_type")),
            (r#"{"solver_type": "bh1", "final_sigmas_type": "zero"}"#, Some("solver_type")),
            (r#"{"solver_type": "bh1", "final_sigmas_type": "sigma_min"}"#, None),
            (r#"{"solver_order": 0}"#, Some("solver_order")),
            (r#"{"solver_order": 1}"#, None),
            (r#"{"solver_order": 3}"#, None),
            (r#"{"solver_order": 4}"#, Some("solver_order")),
            (r#"{"lower_order_final": false}"#, Some("lower_order_final")),
            (r#"{"lower_order_final": false, "solver_order": 1}"#, None),
            (r#"{"lower_order_final": false, "final_sigmas_type": "sigma_min"}"#, None),
            (
                r#"{"lower_order_final": false, "final_sigmas_type": "sigma_min", "use_karras_sigmas": true}"#,
                Some("lower_order_final"),
            ),
        ] {
            let config = SchedulerConfig::from_json(json.as_bytes()).unwrap();
            assert_eq!(UniPc.refuses(&config), refused, "{json}");
        }
    }

    #[test]
    fn equations_are_solved() {
        let solved =
            solve(vec![vec![0.0, 2.0, 1.0, 7.0], vec![1.0, 1.0, 1.0, 6.0], vec![2.0, 0.0, 3.0, 11.0]]);
        for (ours, right) in solved.iter().zip([1.0, 2.0, 3.0]) {
            assert!((ours - right).abs() < 1e-12, "{solved:?}");
        }
    }
}
