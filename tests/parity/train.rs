//! Loss, gradients and AdamW's updates against PyTorch.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use facestudio::condition::Condition;
use facestudio::unet::UNet2DConditionModel;
use facestudio::weights::{Component, Tensors, collect};
use facestudio_lab::train::optim::{AdamW, AdamWConfig};
use facestudio_lab::train::recompute;

use crate::{assert_close, fixture, io};

/// The project's measure for parity; another order of summing in f32, forward and back, stays far below it.
const TOLERANCE: f32 = 1e-4;

/// Gradients by parameter name.
struct Collector<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    out: Tensors,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.out.insert(self.path.join("."), gradient).unwrap();
        }
    }
}

/// Compares every tensor that the fixture has under `prefix`.
fn assert_all_close(ours: &Tensors, io: &Tensors, prefix: &str) {
    let device = Device::flex();
    let names: Vec<&str> = io.0.keys().filter_map(|name| name.strip_prefix(prefix)).collect();
    assert_eq!(names.len(), 8);
    for name in names {
        let (shape, theirs) = &io.0[&format!("{prefix}{name}")];
        let (our_shape, ours) = &ours.0[name];
        assert_eq!(our_shape, shape, "{name}");
        let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &device);
        assert_close(tensor(ours), tensor(theirs), TOLERANCE);
    }
}

#[test]
fn two_steps_of_a_unet_are_pytorchs() {
    two_steps(|unet, sample, timestep, condition, loss| {
        let loss = loss(unet.forward(sample, timestep, &condition).unwrap());
        (vec![loss.backward()], loss)
    });
}

#[test]
fn two_steps_are_pytorchs_with_segments_computed_again() {
    two_steps(|unet, sample, timestep, condition, loss| {
        let mut parts = Vec::new();
        let mut gather = |gradients| {
            parts.push(gradients);
            Ok(())
        };
        let loss = recompute::backward(unet, sample, timestep, &condition, loss, &mut gather).unwrap();
        (parts, loss)
    });
}

/// The loss of a prediction.
type Loss<'a> = &'a dyn Fn(Tensor<4>) -> Tensor<1>;

/// With the gradients of a step, in parts, and its loss.
fn two_steps(
    backward: impl Fn(&UNet2DConditionModel, Tensor<4>, Tensor<1>, Condition, Loss) -> (Vec<Gradients>, Tensor<1>),
) {
    let device = &Device::flex().autodiff();
    let unet = fixture("unet/sd1");
    let io = io(&fixture("train"));
    let mut model = UNet2DConditionModel::load(&Component::new(&unet, ""), device).unwrap();
    let config =
        AdamWConfig { beta_2: 0.99, weight_decay: 0.1, max_grad_norm: 1.0, ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(config);
    let sample = io.tensor::<5>("sample", device).unwrap();
    let noise = io.tensor::<5>("noise", device).unwrap();
    let timestep = io.tensor::<2>("timestep", device).unwrap();
    let condition = io.tensor::<4>("condition", device).unwrap();
    for step in 0..2 {
        let target: Tensor<4> = noise.clone().narrow(0, step, 1).squeeze_dim(0);
        let (parts, loss) = backward(
            &model,
            sample.clone().narrow(0, step, 1).squeeze_dim(0),
            timestep.clone().narrow(0, step, 1).squeeze_dim(0),
            Condition::single(condition.clone().narrow(0, step, 1).squeeze_dim(0)),
            &|noise_pred| (noise_pred - target.clone()).square().mean(),
        );
        if step == 0 {
            let mut out = Tensors::default();
            for gradients in &parts {
                let mut collector = Collector { gradients, path: Vec::new(), out: Tensors::default() };
                model.visit(&mut collector);
                out.0.extend(collector.out.0);
            }
            assert_all_close(&out, &io, "gradient.");
        }
        let loss: f32 = loss.into_scalar();
        let norm;
        for gradients in parts {
            optimizer.gather(&model, gradients).unwrap();
        }
        (model, norm) = optimizer.step(model, 1, 1e-3);
        for (ours, theirs) in [(loss, io.0["losses"].1[step]), (norm, io.0["norms"].1[step])] {
            assert!((ours - theirs).abs() <= TOLERANCE * theirs, "step {step}: {ours} and {theirs}");
        }
    }
    assert_all_close(&collect(&model, "").unwrap(), &io, "weight.");
}
