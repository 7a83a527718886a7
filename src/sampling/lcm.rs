//! Multistep consistency sampling (Luo et al. 2023, "Latent consistency models", algorithm 3); diffusers' `LCMScheduler`.

use super::solver::{About, Clips, Now, Past, Solver, Space};
use super::spacing::too_many;
use super::{BetaSchedule, NoiseLevel, Schedule, SchedulerConfig, Step, StepOutput, TimestepSpacing};
use crate::error::Result;
use crate::weights::config_range;

/// The deviation of the data in the boundary condition (Song et al. 2023, appendix C).
const SIGMA_DATA: f64 = 0.5;

/// Factor on timesteps in the boundary condition where a config has none (diffusers' default).
pub const TIMESTEP_SCALING: f64 = 10.0;

/// `c_skip` and `c_out` of the consistency function: 1 and 0 at time 0.
pub fn boundary(scaled_timestep: f64) -> [f64; 2] {
    let square = scaled_timestep * scaled_timestep + SIGMA_DATA * SIGMA_DATA;
    [SIGMA_DATA * SIGMA_DATA / square, scaled_timestep / square.sqrt()]
}

#[derive(Debug)]
pub(super) struct Lcm;

impl Solver for Lcm {
    fn about(&self) -> &'static About {
        &About {
            name: "lcm",
            label: "LCM",
            class: "LCMScheduler",
            stands_in_for: &[],
            source: "Luo et al. 2023 (arXiv 2310.04378), algorithm 3",
            space: Space::Unscaled,
            evaluations: 1,
            // Distilled for 2 to 4 steps with guidance inside: to guide once more only doubles the work.
            distilled_for: Some((4, 1.0)),
            betas: (0.00085, 0.012, BetaSchedule::ScaledLinear),
            spacing: TimestepSpacing::Leading,
            clips: Clips::IfStated,
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
        _: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let timesteps = timesteps(config, alphas_cumprod.len(), steps)?;
        // There is no noise after the last step, so that its end does not count.
        let nexts = timesteps.iter().skip(1).chain(timesteps.last());
        Ok(timesteps
            .iter()
            .zip(nexts)
            .map(|(t, next)| {
                let [from, to] = [*t, *next].map(|t| NoiseLevel::cumulative(alphas_cumprod[t]));
                Step::new(*t as f64, from, to)
            })
            .collect())
    }

    fn needs_noise(&self, schedule: &Schedule, i: usize) -> bool {
        i + 1 < schedule.len()
    }

    /// The consistency function's value, `c_skip x + c_out x₀`, which is x itself at time 0; noised to the next level, and the
    /// result where there is no noise.
    fn step(&self, now: Now, _: &mut Vec<Past>) -> StepOutput {
        let Now { schedule, step: Step { timestep, to, .. }, sample, original, noise, .. } = now;
        let scaling = schedule.config().timestep_scaling.unwrap_or(TIMESTEP_SCALING);
        let [skip, out] = boundary(f64::from(timestep) * scaling);
        let denoised = original * out + sample * skip;
        let sample = match noise {
            Some(noise) => denoised.clone() * to.alpha + noise * to.sigma,
            None => denoised.clone(),
        };
        StepOutput { sample, pred_original: denoised }
    }
}

/// Training steps of `steps` steps, evenly from those of the distillation: diffusers' `original_inference_steps`.
pub(super) fn timesteps(config: &SchedulerConfig, count: usize, steps: usize) -> Result<Vec<usize>> {
    let original = config.original_inference_steps.unwrap_or(50);
    if original == 0 || original > count {
        return Err(config_range(format!(
            "scheduler config: original_inference_steps is {original} of {count} training steps"
        )));
    }
    if steps > original {
        return Err(too_many(steps, original));
    }
    let stride = count / original;
    Ok((0..steps)
        .map(|i| original - (i as f64 * (original as f64 / steps as f64)).floor() as usize)
        .map(|k| k * stride - 1)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_condition_is_the_papers() {
        // c_skip = σ² / (s² + σ²), c_out = s / √(s² + σ²), with σ = 0.5 (Luo et al. 2023, appendix; diffusers' defaults).
        for (scaled, [skip, out]) in
            [(0.0, [1.0, 0.0]), (0.5, [0.5, 0.5f64.sqrt()]), (1.0, [0.2, 0.8f64.sqrt()])]
        {
            let [s, o] = boundary(scaled);
            assert!((s - skip).abs() < 1e-12 && (o - out).abs() < 1e-12, "{scaled}: {s} {o}");
        }
    }
}
