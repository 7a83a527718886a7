//! From noise to latents, step by step. Knows no network: the caller runs the denoiser between
//! [`Scheduler::scale_model_input`] and [`Scheduler::step`], so one loop, sync or async, serves every sampler.

mod config;
mod ddim;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod lcm;
mod noise;
mod prediction;
mod schedule;

pub use config::{BetaSchedule, FinalSigmas, SchedulerConfig, TimestepSpacing};
pub use noise::NoiseSource;
pub use prediction::Prediction;
pub use schedule::{NoiseLevel, Schedule};

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::request::Sampler;

/// What one step gives.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The sample at the next noise level.
    pub sample: Tensor<4>,
    /// The clean sample as predicted now: what a preview shows.
    pub pred_original: Tensor<4>,
}

/// Steps a sample through a [`Schedule`], step 0 first; holds the history that multistep samplers need.
#[derive(Debug, Clone)]
pub struct Scheduler {
    schedule: Schedule,
    /// Level and predicted x₀ of the step before.
    previous: Option<(NoiseLevel, Tensor<4>)>,
}

impl Scheduler {
    /// At the start of `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, previous: None }
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The denoiser's input for step `i`: Euler samplers keep `x₀ + σ ε`, networks expect variance 1.
    pub fn scale_model_input(&self, i: usize, sample: Tensor<4>) -> Result<Tensor<4>> {
        let NoiseLevel { alpha, sigma } = self.schedule.step(i)?.from;
        Ok(match self.schedule.sampler() {
            Sampler::EulerAncestral | Sampler::Euler => sample / alpha.hypot(sigma),
            Sampler::Ddim | Sampler::Dpmpp2m | Sampler::Lcm => sample,
        })
    }

    /// Whether step `i` takes fresh noise.
    pub fn needs_noise(&self, i: usize) -> bool {
        match self.schedule.sampler() {
            Sampler::EulerAncestral => {
                self.schedule.step(i).is_ok_and(|step| euler_ancestral::ancestral(step.from, step.to).1 > 0.0)
            }
            Sampler::Lcm => i + 1 < self.schedule.len(),
            Sampler::Euler | Sampler::Ddim | Sampler::Dpmpp2m => false,
        }
    }

    /// Step `i`: `sample` and the denoiser's output for it, both `[batch, channels, height, width]`, to the next level.
    ///
    /// `noise` is standard normal, of the sample's shape, and used only where [`Scheduler::needs_noise`]. Computes in
    /// the sample's precision. Fails where the noise is missing or there is no such step.
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
        let prediction = self.schedule.prediction();
        let mut original = prediction.original(step.from, &sample, &model_output);
        if let Some(range) = self.schedule.clip() {
            original = original.clamp(-range, range);
        }
        let sample = match self.schedule.sampler() {
            Sampler::EulerAncestral => {
                euler_ancestral::step(step.from, step.to, sample, original.clone(), noise)
            }
            Sampler::Euler => euler::step(step.from, step.to, sample, original.clone()),
            Sampler::Ddim => {
                let epsilon = prediction.epsilon(step.from, &sample, &model_output);
                ddim::step(step.to, original.clone(), epsilon)
            }
            Sampler::Dpmpp2m => {
                let previous = self.previous.take().filter(|_| step.second_order);
                self.previous = Some((step.from, original.clone()));
                dpmpp_2m::step(step.from, step.to, sample, original.clone(), previous)
            }
            Sampler::Lcm => {
                original = lcm::denoised(self.schedule.scaled_timestep(i), sample, original);
                lcm::step(step.to, original.clone(), noise)
            }
        };
        Ok(StepOutput { sample, pred_original: original })
    }

    /// `original` noised to the level that step `i` starts from: image-to-image begins here, and latents that are held
    /// fixed are brought here. `noise` is standard normal, of the same shape.
    pub fn add_noise(&self, i: usize, original: Tensor<4>, noise: Tensor<4>) -> Result<Tensor<4>> {
        let NoiseLevel { alpha, sigma } = self.schedule.step(i)?.from;
        Ok(original * alpha + noise * sigma)
    }
}

pub(crate) mod internal {
    pub use super::lcm::{TIMESTEP_SCALING, boundary};
}
