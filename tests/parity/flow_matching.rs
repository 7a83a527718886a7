//! Flow matching against diffusers' `FlowMatchEulerDiscreteScheduler`, step by step.

use burn::tensor::{Device, Tensor};
use facestudio::sampling::{Sampler, Scheduler, SchedulerConfig};
use facestudio::weights::Files;
use serde::Deserialize;

use crate::sampling::formula;
use crate::{assert_close, fixture, io};

/// diffusers' levels are f32, ours f64; 50 steps carry that on.
const TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: serde_json::Value,
    /// Of the picture, where a pipeline of FLUX.2 gives the levels.
    tokens: Option<usize>,
    steps: usize,
    strength: Option<f32>,
    timesteps: Vec<f32>,
}

#[test]
fn every_step_is_that_of_diffusers() {
    let device = Device::flex();
    let folder = fixture("flow_matching");
    let cases: Vec<Case> = serde_json::from_slice(&folder.read("cases.json").unwrap()).unwrap();
    let io = io(&folder);
    assert!(cases.len() > 100, "{}", cases.len());
    for case in cases {
        println!(
            "{} {} {:?} in {} steps, {:?}",
            case.name, case.config, case.tokens, case.steps, case.strength
        );
        let config = SchedulerConfig::from_json(case.config.to_string().as_bytes()).unwrap();
        let config = match case.tokens {
            Some(tokens) => config.for_image_tokens(tokens),
            None => config,
        };
        assert_eq!(config.default_sampler().unwrap(), Sampler::FlowMatchEuler);
        let schedule = config.schedule(Sampler::FlowMatchEuler, case.steps, case.strength).unwrap();
        let timesteps = schedule.timesteps();
        assert_eq!(timesteps.len(), case.timesteps.len());
        for (ours, reference) in timesteps.iter().zip(&case.timesteps) {
            assert!((ours - reference).abs() < 1e-3, "{timesteps:?} for {:?}", case.timesteps);
        }
        let mut scheduler = Scheduler::new(schedule);
        let mut sample = match case.strength {
            Some(_) => scheduler.add_noise(0, formula(-1, &device), formula(-2, &device)).unwrap(),
            None => formula(-1, &device) * scheduler.schedule().init_noise_sigma(),
        };
        let mut samples = vec![sample.clone()];
        for i in 0..timesteps.len() {
            let scaled = scheduler.scale_model_input(i, sample.clone()).unwrap();
            let output = formula(i as i32, &device) * 0.5 + scaled.tanh() * 0.5;
            let noise = scheduler.needs_noise(i).then(|| formula(1000 + i as i32, &device));
            sample = scheduler.step(i, output, sample, noise).unwrap().sample;
            samples.push(sample.clone());
        }
        assert_close(Tensor::cat(samples, 0), io.tensor::<4>(&case.name, &device).unwrap(), TOLERANCE);
    }
}
