//! Euler's method on the ODE of flow matching (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206);
//! diffusers' `FlowMatchEulerDiscreteScheduler`, with the levels that its pipelines of FLUX.2 give it.
//!
//! Noisy samples are `(1 − σ) x₀ + σ ε`, the denoiser predicts `ε − x₀`, and a level's timestep is σ of all training steps.

use super::config::range;
use super::solver::{About, Clips, Now, Past, Solver, Space, first};
use super::spacing::{joined, karras, linspace};
use super::{
    BetaSchedule, NoiseLevel, Schedule, SchedulerConfig, Step, StepOutput, TimeShift, TimestepSpacing, euler,
};
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct FlowMatchEuler;

impl Solver for FlowMatchEuler {
    fn about(&self) -> &'static About {
        &About {
            name: "flow_match_euler",
            label: "Flow matching, Euler",
            class: "FlowMatchEulerDiscreteScheduler",
            stands_in_for: &[],
            source: "Esser et al. 2024 (arXiv 2403.03206), sections 3 and 5.3.2",
            space: Space::Flow,
            evaluations: 1,
            distilled_for: None,
            // Its levels are no matter of β.
            betas: (0.0001, 0.02, BetaSchedule::Linear),
            spacing: TimestepSpacing::Trailing,
            clips: Clips::Never,
            begins_at_pure_noise: true,
        }
    }

    fn refuses(&self, config: &SchedulerConfig) -> Option<&'static str> {
        first(&[
            ("use_exponential_sigmas", config.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", config.use_beta_sigmas == Some(true)),
            ("invert_sigmas", config.invert_sigmas == Some(true)),
        ])
    }

    fn steps(
        &self,
        config: &SchedulerConfig,
        _: &[f64],
        _: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>> {
        let sigmas = levels(config, steps)?;
        let count = config.train_timesteps() as f64;
        let timesteps: Vec<f64> = sigmas.iter().map(|sigma| sigma * count).collect();
        let levels: Vec<_> = sigmas.into_iter().chain([0.0]).map(NoiseLevel::flow).collect();
        Ok(joined(&timesteps, &levels))
    }

    fn needs_noise(&self, schedule: &Schedule, i: usize) -> bool {
        schedule.config().stochastic_sampling == Some(true) && i + 1 < schedule.len()
    }

    fn step(&self, now: Now, _: &mut Vec<Past>) -> StepOutput {
        let Now { schedule, step: Step { from, to, .. }, sample, original, noise, .. } = now;
        let stochastic = schedule.config().stochastic_sampling == Some(true);
        let sample = match noise {
            Some(noise) => original.clone() * to.alpha + noise * to.sigma,
            None if stochastic => original.clone(),
            // `x + (σ' − σ) v` is a blend of x and x₀ here too, since v = (x − x₀) / σ.
            None => euler::step(from, to, sample, original.clone()),
        };
        StepOutput { sample, pred_original: original }
    }
}

/// σ of the beginning of each step.
fn levels(config: &SchedulerConfig, steps: usize) -> Result<Vec<f64>> {
    let shift = config.shift.unwrap_or(1.0);
    if !(shift.is_finite() && shift > 0.0) {
        return Err(range(format!("shift is {shift}")));
    }
    let dynamic = config.use_dynamic_shifting == Some(true);
    let shifted = |sigma: f64| shift * sigma / (1.0 + (shift - 1.0) * sigma);
    let even = match config.image_tokens {
        Some(_) => linspace(1.0, 1.0 / steps as f64, steps),
        // The class's own lowest level is shifted already. (By a size it would not be; that is refused below.)
        None => {
            let lowest = 1.0 / config.train_timesteps() as f64;
            linspace(1.0, shifted(lowest), steps)
        }
    };
    let mut sigmas: Vec<f64> = if dynamic {
        let tokens = config.image_tokens.filter(|tokens| *tokens > 0).ok_or_else(|| {
            Error::weights(
                "config-unsupported",
                "scheduler config: use_dynamic_shifting asks for the picture's size, which is not known here",
                "use a scheduler config without it",
            )
        })?;
        let mu = empirical_mu(tokens, steps);
        let factor = match config.time_shift_type.unwrap_or(TimeShift::Exponential) {
            TimeShift::Exponential => mu.exp(),
            TimeShift::Linear => mu,
        };
        // The fitted lines fall below 0 for many steps.
        if factor <= 0.0 {
            return Err(Error::input(
                "steps-range",
                format!(
                    "{steps} steps of a picture of {tokens} tokens would be shifted by a factor of {factor}"
                ),
                "use fewer steps",
            ));
        }
        even.into_iter().map(|sigma| factor / (factor + (1.0 / sigma - 1.0))).collect()
    } else {
        even.into_iter().map(shifted).collect()
    };
    if let Some(terminal) = config.shift_terminal.filter(|terminal| *terminal != 0.0) {
        let last = sigmas.last().copied().unwrap_or(1.0);
        if !(0.0..1.0).contains(&terminal) || last >= 1.0 {
            return Err(range(format!("shift_terminal is {terminal}, with a last level of {last}")));
        }
        let stretch = (1.0 - terminal) / (1.0 - last);
        sigmas = sigmas.into_iter().map(|sigma| 1.0 - (1.0 - sigma) * stretch).collect();
    }
    if config.use_karras_sigmas == Some(true)
        && let (Some(high), Some(low)) = (sigmas.first(), sigmas.last())
    {
        sigmas = karras(*low, *high, steps);
    }
    Ok(sigmas)
}

/// Tokens from which on μ does not depend on the number of steps.
const MANY_TOKENS: usize = 4300;

/// μ of FLUX.2's pipelines for a picture of so many tokens: lines fitted to tokens at 10 and at 200 steps, with a line
/// between both (diffusers' `compute_empirical_mu`, whose numbers these are).
fn empirical_mu(tokens: usize, steps: usize) -> f64 {
    let tokens_in_all = tokens as f64;
    let at_10 = 8.73809524e-5 * tokens_in_all + 1.89833333;
    let at_200 = 0.00016927 * tokens_in_all + 0.45666666;
    if tokens > MANY_TOKENS {
        return at_200;
    }
    let slope = (at_200 - at_10) / 190.0;
    at_200 + slope * (steps as f64 - 200.0)
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::*;

    fn config(json: &str) -> SchedulerConfig {
        let text = format!(r#"{{"_class_name": "FlowMatchEulerDiscreteScheduler"{json}}}"#);
        SchedulerConfig::from_json(text.as_bytes()).unwrap()
    }

    fn schedule(json: &str, tokens: Option<usize>, steps: usize) -> Result<Schedule> {
        let config = config(json);
        let config = match tokens {
            Some(tokens) => config.for_image_tokens(tokens),
            None => config,
        };
        config.schedule(Sampler::FlowMatchEuler, steps, None)
    }

    #[test]
    fn levels_fall_from_pure_noise_to_none() {
        for (json, tokens) in [
            ("", None),
            (r#", "shift": 3.0"#, None),
            (r#", "shift": 3.0"#, Some(1024)),
            (r#", "use_dynamic_shifting": true"#, Some(1)),
            (r#", "use_dynamic_shifting": true, "shift_terminal": 0.02"#, Some(5000)),
            (r#", "use_karras_sigmas": true"#, None),
        ] {
            for steps in [2, 4, 50, 1000] {
                let schedule = schedule(json, tokens, steps).unwrap();
                assert_eq!((schedule.len(), schedule.init_noise_sigma()), (steps, 1.0), "{json}");
                let timesteps = schedule.timesteps();
                assert_eq!(timesteps[0], 1000.0, "{json}");
                assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]), "{json}: {timesteps:?}");
                assert_eq!(schedule.sigmas().last(), Some(&0.0));
            }
        }
    }

    /// Others would be refused further on, by another name.
    #[test]
    fn a_shift_is_a_number_above_zero() {
        for (shift, said) in [(0.0, "0"), (-2.0, "-2"), (f64::INFINITY, "inf"), (f64::NAN, "NaN")] {
            let error = levels(&SchedulerConfig { shift: Some(shift), ..config("") }, 4).unwrap_err();
            assert_eq!(
                (error.code, error.message.contains(&format!("shift is {said}"))),
                ("config-range", true),
                "{error}"
            );
        }
        assert!(levels(&SchedulerConfig { shift: Some(1e-3), ..config("") }, 4).is_ok());
    }

    /// diffusers' `compute_empirical_mu`, run in Python.
    #[test]
    fn mu_is_fitted_to_tokens_and_steps() {
        for (tokens, steps, expected) in [
            (4300, 10, 2.27407142532),
            (4300, 50, 2.0446937905157894),
            (4300, 200, 1.18452766),
            (4301, 10, 1.18469693),
            (4301, 50, 1.18469693),
            (1024, 4, 2.0306897079499455),
            (1024, 50, 1.7019562073086316),
        ] {
            let found = empirical_mu(tokens, steps);
            assert!((found - expected).abs() < 1e-12, "{tokens} tokens, {steps} steps: {found}");
        }
    }

    #[test]
    fn strength_leaves_out_whole_steps() {
        let whole = schedule("", None, 10).unwrap().timesteps();
        // diffusers' pipelines leave ⌊10 − 10 s⌋ out: 7.5 of 10 steps are 8.
        for (strength, kept) in [(0.0, 1), (0.7, 7), (0.75, 8), (1.0, 10)] {
            let part = config("").schedule(Sampler::FlowMatchEuler, 10, Some(strength)).unwrap();
            assert_eq!(part.timesteps(), whole[10 - kept..], "{strength}");
        }
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused() {
        for (json, code) in [
            (r#", "use_exponential_sigmas": true"#, "config-unsupported"),
            (r#", "use_beta_sigmas": true"#, "config-unsupported"),
            (r#", "invert_sigmas": true"#, "config-unsupported"),
            (r#", "prediction_type": "epsilon""#, "config-unsupported"),
            (r#", "shift": 0"#, "config-range"),
            (r#", "shift": -2"#, "config-range"),
            (r#", "shift_terminal": 1"#, "config-range"),
            (r#", "shift_terminal": -0.1"#, "config-range"),
            (r#", "num_train_timesteps": 0"#, "config-range"),
        ] {
            assert_eq!(schedule(json, Some(16), 4).unwrap_err().code, code, "{json}");
        }
        // One step alone begins at pure noise, and cannot be brought to another level.
        assert_eq!(schedule(r#", "shift_terminal": 0.1"#, None, 1).unwrap_err().code, "config-range");
        let sized = r#", "use_dynamic_shifting": true"#;
        let linear = r#", "use_dynamic_shifting": true, "time_shift_type": "linear""#;
        assert!(schedule(linear, Some(4096), 50).is_ok());
        assert_eq!(schedule(linear, Some(4096), 1000).unwrap_err().code, "steps-range");
        for tokens in [None, Some(0)] {
            assert_eq!(schedule(sized, tokens, 4).unwrap_err().code, "config-unsupported");
        }
        for steps in [0, 1001, usize::MAX] {
            assert_eq!(schedule("", None, steps).unwrap_err().code, "steps-range");
        }
        for json in [r#", "time_shift_type": "square""#, r#", "shift": "much""#] {
            let text = format!(r#"{{"_class_name": "FlowMatchEulerDiscreteScheduler"{json}}}"#);
            assert_eq!(SchedulerConfig::from_json(text.as_bytes()).unwrap_err().code, "config");
        }
    }

    #[test]
    fn models_of_diffusion_and_of_flow_matching_keep_to_their_samplers() {
        for sampler in Sampler::of_diffusion() {
            let error = config("").schedule(sampler, 4, None).unwrap_err();
            assert_eq!(error.code, "config-unsupported", "{sampler}");
            assert!(error.remedy.ends_with("--sampler flow-match-euler"), "{error}");
        }
        let error = SchedulerConfig::default().schedule(Sampler::FlowMatchEuler, 4, None).unwrap_err();
        assert_eq!(error.code, "config-unsupported");
        assert!(
            error.message.contains("flow matching") && error.remedy.contains("--sampler euler"),
            "{error}"
        );
        // A UNet's pipeline has no use for it.
        let error = config("").for_latents().unwrap_err();
        assert!(error.message.contains("FlowMatchEulerDiscreteScheduler"), "{error}");
        assert!(!error.remedy.contains("FlowMatch"), "{error}");
    }
}
