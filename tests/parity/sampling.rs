//! Every sampler against diffusers' schedulers.

use burn::tensor::{Device, Tensor, TensorData};
use facestudio::sampling::{Scheduler, SchedulerConfig};
use facestudio::weights::Files;
use serde::Deserialize;

use crate::{assert_close, fixture, io};

/// diffusers computes its levels in f32, ours are f64: √((1 − ᾱ)/ᾱ) of a thousand multiplied f32 differs by up to 1e-5,
/// and 25 steps carry that on.
const TOLERANCE: f32 = 1e-4;
const SHAPE: [usize; 4] = [1, 2, 2, 3];

#[derive(Deserialize)]
struct Case {
    name: String,
    config: serde_json::Value,
    steps: usize,
    strength: Option<f32>,
    timesteps: Vec<f32>,
}

/// The stand-in for a network's output or noise, number `k`, of reference.py.
pub fn formula(k: i32, device: &Device) -> Tensor<4> {
    let count: usize = SHAPE.iter().product();
    let values: Vec<f32> =
        (0..count).map(|i| (1.7 * i as f64 + 0.9 * f64::from(k) + 0.3).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, SHAPE), device)
}

/// Timesteps, the last scaled input and the final sample.
fn run(case: &Case, device: &Device) -> (Vec<f32>, Tensor<4>, Tensor<4>) {
    let config = SchedulerConfig::from_json(case.config.to_string().as_bytes()).unwrap();
    let schedule = config.schedule(config.default_sampler().unwrap(), case.steps, case.strength).unwrap();
    let mut scheduler = Scheduler::new(schedule);
    let mut sample = match case.strength {
        Some(_) => scheduler.add_noise(0, formula(-1, device), formula(-2, device)).unwrap(),
        None => formula(-1, device) * scheduler.schedule().init_noise_sigma(),
    };
    let mut scaled = sample.clone();
    for i in 0..scheduler.schedule().len() {
        scaled = scheduler.scale_model_input(i, sample.clone()).unwrap();
        let output = formula(i as i32, device) * 0.5 + scaled.clone().tanh() * 0.5;
        let noise = scheduler.needs_noise(i).then(|| formula(1000 + i as i32, device));
        sample = scheduler.step(i, output, sample, noise).unwrap().sample;
    }
    (scheduler.schedule().timesteps(), scaled, sample)
}

fn assert_parity(class: &str) {
    let device = Device::flex();
    let folder = fixture("sampling");
    let cases: Vec<Case> = serde_json::from_slice(&folder.read("schedulers.json").unwrap()).unwrap();
    let io = io(&folder);
    let mut checked = 0;
    for case in cases.iter().filter(|case| case.config["_class_name"] == class) {
        println!("{} {} in {} steps, strength {:?}", case.name, case.config, case.steps, case.strength);
        let (timesteps, scaled, sample) = run(case, &device);
        assert_eq!(timesteps.len(), case.timesteps.len());
        let flag = |name: &str| case.config[name] == true;
        // diffusers cuts fractional timesteps off there, and where one is 999 but for f32's rounding, it gets 998.
        let cut = case.config["beta_schedule"] == "squaredcos_cap_v2" && flag("use_karras_sigmas");
        // With σ = 4096 diffusers' `x + (x − x₀)/σ · Δσ` takes large numbers from each other in f32; ours blends x and x₀.
        let tolerance = if flag("rescale_betas_zero_snr") { 1e-3 } else { TOLERANCE };
        for (ours, reference) in timesteps.iter().zip(&case.timesteps) {
            // Karras' levels fall between training steps; 0.01 of a step moves a timestep embedding by less than f16 does.
            assert!(
                (ours - reference).abs() < if cut { 1.01 } else { 0.01 },
                "{timesteps:?} for {:?}",
                case.timesteps
            );
        }
        assert_close(scaled, io.tensor::<4>(&format!("{}.scaled", case.name), &device).unwrap(), tolerance);
        assert_close(sample, io.tensor::<4>(&format!("{}.sample", case.name), &device).unwrap(), tolerance);
        checked += 1;
    }
    assert!(checked >= 20, "{checked} cases");
}

#[test]
fn euler_ancestral() {
    assert_parity("EulerAncestralDiscreteScheduler");
}

#[test]
fn euler() {
    assert_parity("EulerDiscreteScheduler");
}

#[test]
fn ddim() {
    assert_parity("DDIMScheduler");
}

#[test]
fn dpmpp_2m() {
    assert_parity("DPMSolverMultistepScheduler");
}

#[test]
fn lcm() {
    assert_parity("LCMScheduler");
}

#[test]
fn heun() {
    assert_parity("HeunDiscreteScheduler");
}

#[test]
fn unipc() {
    assert_parity("UniPCMultistepScheduler");
}

#[test]
fn tcd() {
    assert_parity("TCDScheduler");
}
