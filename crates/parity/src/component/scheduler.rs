//! A sampler's whole run on given denoiser outputs.

use burn::tensor::{Device, Tensor};
use facestudio::Result;
use facestudio::sampling::{Scheduler, SchedulerConfig};
use facestudio::weights::{Component, Tensors};

use super::Forward;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn load(component: &Component, inputs: &Inputs, steps: usize, device: &Device) -> Result<Forward> {
    let config = SchedulerConfig::from_component(component)?;
    let schedule = config.schedule(config.default_sampler()?, steps, None)?;
    let axes = [Any("batch"), Any("channels"), Any("height"), Any("width")];
    let sample: Tensor<4> = inputs.tensor("sample", axes, device)?;
    let [batch, channels, height, width] = sample.dims().map(Exactly);
    let axes = [Exactly(schedule.len()), batch, channels, height, width];
    let model_outputs: Tensor<5> = inputs.tensor("model_outputs", axes, device)?;
    let scheduler = Scheduler::new(schedule.clone());
    let needs_noise = (0..schedule.len()).any(|i| scheduler.needs_noise(i));
    let noise: Option<Tensor<5>> = if needs_noise {
        Some(inputs.tensor("noise", axes, device)?)
    } else {
        inputs.optional("noise", axes, device)?
    };
    let at = |all: &Tensor<5>, i: usize| all.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
    Ok(Box::new(move || {
        let mut scaled_inputs = Vec::new();
        let predict = |input, _| {
            scaled_inputs.push(input);
            Ok(at(&model_outputs, scaled_inputs.len() - 1))
        };
        let fresh = |i| noise.as_ref().map(|noise| at(noise, i));
        let sample = sample.clone() * schedule.init_noise_sigma();
        let sample = Scheduler::new(schedule.clone()).run(sample, predict, fresh)?;
        let mut outputs = Tensors::default();
        outputs.insert("sample", sample)?;
        outputs.insert("scaled_inputs", Tensor::stack::<5>(scaled_inputs, 0))?;
        let timesteps = schedule.timesteps();
        outputs.0.insert("timesteps".to_owned(), (vec![timesteps.len()], timesteps));
        Ok(outputs)
    }))
}
