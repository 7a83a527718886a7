//! What consistency distillation computes around its networks, against diffusers' schedulers.

use burn::tensor::{Device, Tensor};
use facestudio::sampling::{Prediction, SchedulerConfig};
use facestudio_lab::train::consistency::{consistent, solve};

use crate::{assert_close, fixture, io};

/// diffusers' levels are products of a thousand f32, ours of f64.
const TOLERANCE: f32 = 1e-4;
/// As reference.py's; a DDIM step goes back by 20, or to 0.
const TIMESTEPS: [usize; 4] = [19, 39, 499, 999];

#[test]
fn solver_and_consistency_function_are_diffusers() {
    let device = Device::flex();
    let io = io(&fixture("consistency"));
    let tensor = |name: &str| -> Tensor<4> { io.tensor(name, &device).unwrap() };
    let config = r#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}"#;
    let alphas_cumprod = SchedulerConfig::from_json(config.as_bytes()).unwrap().alphas_cumprod().unwrap();
    let (sample, output) = (tensor("sample"), tensor("output"));
    let earlier = TIMESTEPS.map(|t| t.saturating_sub(20));
    for (name, prediction) in [
        ("epsilon", Prediction::Epsilon),
        ("v_prediction", Prediction::VPrediction),
        ("sample", Prediction::Sample),
    ] {
        let solved = solve(prediction, &sample, &output, [&TIMESTEPS, &earlier], &alphas_cumprod);
        assert_close(solved, tensor(&format!("solved.{name}")), TOLERANCE);
        let value = consistent(prediction, &sample, &output, &TIMESTEPS, &alphas_cumprod);
        assert_close(value, tensor(&format!("consistent.{name}")), TOLERANCE);
    }
    // At the end of the schedule the consistency function is the sample itself.
    let first = consistent(Prediction::Epsilon, &sample, &output, &[0; 4], &alphas_cumprod);
    assert_close(first, sample, 0.0);
}
