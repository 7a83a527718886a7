//! What every sampler says of itself, and does.

use std::fmt::Debug;

use burn::tensor::Tensor;

use super::{BetaSchedule, NoiseLevel, Schedule, SchedulerConfig, Step, StepOutput, TimestepSpacing};
use crate::error::Result;

/// What is known of a sampler before it runs.
#[derive(Debug)]
pub(super) struct About {
    /// In requests and files, snake case.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// diffusers' class.
    pub class: &'static str,
    /// Further classes of diffusers whose configs mean the same noise, and that are read as this sampler.
    pub stands_in_for: &'static [&'static str],
    /// Paper and equation.
    pub source: &'static str,
    /// The form of its samples.
    pub space: Space,
    /// Evaluations of the denoiser in a step that ends above no noise.
    pub evaluations: usize,
    /// Steps and guidance scale of the models that are distilled for it.
    pub distilled_for: Option<(usize, f32)>,
    /// First β, last β and schedule where a config does not say: the class's defaults.
    pub betas: (f64, f64, BetaSchedule),
    /// Likewise.
    pub spacing: TimestepSpacing,
    /// Whether it clips x₀.
    pub clips: Clips,
    /// Whether it can begin at pure noise (α = 0); others begin just below.
    pub begins_at_pure_noise: bool,
}

/// The form in which a sampler keeps noisy samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// `x₀ + σ ε`: what the denoiser takes is scaled to variance 1.
    Exploding,
    /// `α x₀ + σ ε` with α² + σ² = 1, as the denoiser takes it, from unit noise on.
    Unscaled,
    /// The same with α + σ = 1: flow matching, of which the denoiser knows nothing else.
    Flow,
}

/// Whether x₀ is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clips {
    /// Whatever a config states.
    Never,
    /// If a config states it.
    IfStated,
    /// As above, and in a config of the sampler's own class also if it does not state anything.
    Unless,
}

/// One sampling algorithm.
pub(super) trait Solver: Debug + Sync {
    /// What it is.
    fn about(&self) -> &'static About;

    /// The setting of a config that it would have to obey and cannot, by its name in the file.
    fn refuses(&self, config: &SchedulerConfig) -> Option<&'static str>;

    /// The evaluations of a picture of `steps` steps, from `alphas_cumprod` of the training steps.
    fn steps(
        &self,
        config: &SchedulerConfig,
        alphas_cumprod: &[f64],
        spacing: TimestepSpacing,
        steps: usize,
    ) -> Result<Vec<Step>>;

    /// Whether evaluation `i` takes fresh noise.
    fn needs_noise(&self, _schedule: &Schedule, _i: usize) -> bool {
        false
    }

    /// The sample after an evaluation. `past` are the evaluations before it, the latest last.
    fn step(&self, now: Now, past: &mut Vec<Past>) -> StepOutput;
}

/// An evaluation of the denoiser.
#[derive(Debug)]
pub(super) struct Now<'a> {
    pub schedule: &'a Schedule,
    /// Counted in the schedule.
    pub i: usize,
    pub step: Step,
    /// What it was given, before scaling.
    pub sample: Tensor<4>,
    pub model_output: Tensor<4>,
    /// x₀ as predicted, clipped where that is asked for.
    pub original: Tensor<4>,
    /// Standard normal, where [`Solver::needs_noise`].
    pub noise: Option<Tensor<4>>,
}

/// What an evaluation left for those after it.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub level: NoiseLevel,
    /// The sample at that level, corrected where the sampler corrects.
    pub sample: Tensor<4>,
    pub original: Tensor<4>,
    /// The order that the step from there had.
    pub order: usize,
}

/// Whether a text is stated that is none of `known`.
pub(super) fn other(value: &Option<String>, known: &[&str]) -> bool {
    value.as_deref().is_some_and(|value| !known.contains(&value))
}

/// The name of the first setting that is not supported.
pub(super) fn first(named: &[(&'static str, bool)]) -> Option<&'static str> {
    named.iter().find(|(_, bad)| *bad).map(|(name, _)| *name)
}
