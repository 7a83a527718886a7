//! From noise to latents, one evaluation of the denoiser after the other. Knows no network: [`Scheduler::advance`] takes it as a
//! closure, and is all that a loop repeats: [`Scheduler::run`], or one that waits between two evaluations.
//!
//! A sampler is a file with its solver, and a row in `sampler.rs`. Noise levels are pairs of factors `α x₀ + σ ε`, so
//! that those of flow matching (α = 1 − σ) fit as well, and a step may take several evaluations.

mod config;
mod ddim;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod flow_match_euler;
mod heun;
mod lcm;
mod noise;
mod prediction;
mod sampler;
mod schedule;
mod solver;
mod spacing;
mod tcd;
mod unipc;

pub use config::{BetaSchedule, FinalSigmas, SchedulerConfig, TimeShift, TimestepSpacing};
pub use noise::NoiseSource;
pub use prediction::Prediction;
pub use sampler::Sampler;
pub use schedule::{NoiseLevel, Schedule};

use burn::tensor::Tensor;

use self::schedule::Step;
use self::solver::{Now, Past, Space};
use crate::error::{Error, Result};

/// What one evaluation gives.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The sample at the next noise level.
    pub sample: Tensor<4>,
    /// The clean sample as predicted now: what a preview shows.
    pub pred_original: Tensor<4>,
}

/// Takes a sample through a [`Schedule`], evaluation 0 first; holds what multistep samplers need of those before.
#[derive(Debug, Clone)]
pub struct Scheduler {
    schedule: Schedule,
    past: Vec<Past>,
}

impl Scheduler {
    /// At the start of `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, past: Vec::new() }
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The denoiser's input for evaluation `i`: samplers of Euler's kind keep `x₀ + σ ε`, networks expect variance 1.
    pub fn scale_model_input(&self, i: usize, sample: Tensor<4>) -> Result<Tensor<4>> {
        let NoiseLevel { alpha, sigma } = self.schedule.step(i)?.from;
        Ok(match self.schedule.sampler().about().space {
            Space::Exploding => sample / alpha.hypot(sigma),
            Space::Unscaled | Space::Flow => sample,
        })
    }

    /// Whether evaluation `i` takes fresh noise.
    pub fn needs_noise(&self, i: usize) -> bool {
        self.schedule.sampler().solver().needs_noise(&self.schedule, i)
    }

    /// Evaluation `i`: `sample` and the denoiser's output for it, both `[batch, channels, height, width]`, to the next level.
    ///
    /// `noise` is standard normal, of the sample's shape, and used only where [`Scheduler::needs_noise`]. Computes in
    /// the sample's precision. Fails where the noise is missing or there is no such evaluation.
    pub fn step(
        &mut self,
        i: usize,
        model_output: Tensor<4>,
        sample: Tensor<4>,
        noise: Option<Tensor<4>>,
    ) -> Result<StepOutput> {
        let step = self.schedule.step(i)?;
        let needs_noise = self.needs_noise(i);
        if needs_noise && noise.is_none() {
            return Err(Error::internal("noise-missing", format!("step {i} needs noise")));
        }
        let noise = noise.filter(|_| needs_noise).map(|noise| noise.cast(sample.dtype()));
        let model_output = model_output.cast(sample.dtype());
        let (sampler, schedule) = (self.schedule.sampler(), &self.schedule);
        let mut original = schedule.prediction().original(step.from, &sample, &model_output);
        if let Some(range) = schedule.config().clip(sampler) {
            original = original.clamp(-range, range);
        }
        let now = Now { schedule, i, step, sample, model_output, original, noise };
        Ok(sampler.solver().step(now, &mut self.past))
    }

    /// All of evaluation `i` of `sample`: its input is scaled, `predict` runs the denoiser on it at its timestep, and what that says
    /// takes the sample to the next level. `noise` is asked where fresh noise is needed.
    ///
    /// Fails as [`step`](Self::step), and where `predict` does.
    pub fn advance(
        &mut self,
        i: usize,
        sample: Tensor<4>,
        predict: impl FnOnce(Tensor<4>, f32) -> Result<Tensor<4>>,
        noise: impl FnOnce(usize) -> Option<Tensor<4>>,
    ) -> Result<StepOutput> {
        let input = self.scale_model_input(i, sample.clone())?;
        let model_output = predict(input, self.schedule.step(i)?.timestep)?;
        let noise = if self.needs_noise(i) { noise(i) } else { None };
        self.step(i, model_output, sample, noise)
    }

    /// Takes `sample`, at the level of evaluation 0, through every evaluation, and gives the sample after the last.
    ///
    /// It never waits: a loop that tells how far it is, or that can be cancelled, calls [`advance`](Self::advance) itself.
    pub fn run(
        mut self,
        mut sample: Tensor<4>,
        mut predict: impl FnMut(Tensor<4>, f32) -> Result<Tensor<4>>,
        noise: impl Fn(usize) -> Option<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        for i in 0..self.schedule.len() {
            sample = self.advance(i, sample, &mut predict, &noise)?.sample;
        }
        Ok(sample)
    }

    /// `original` noised to the level that evaluation `i` starts from: image-to-image begins here, and latents that are held
    /// fixed are brought here. `noise` is standard normal, of the same shape.
    pub fn add_noise(&self, i: usize, original: Tensor<4>, noise: Tensor<4>) -> Result<Tensor<4>> {
        let NoiseLevel { alpha, sigma } = self.schedule.step(i)?.from;
        Ok(original * alpha + noise * sigma)
    }
}

pub(crate) mod internal {
    pub use super::lcm::{TIMESTEP_SCALING, boundary};
}
