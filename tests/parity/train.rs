//! Loss, gradients and AdamW's updates against PyTorch.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use facestudio::condition::Condition;
use facestudio::train::optim::{AdamW, AdamWConfig};
use facestudio::unet::UNet2DConditionModel;
use facestudio::weights::{Component, Tensors, collect};

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
    two_steps(&Device::flex().autodiff());
}

#[test]
fn two_steps_are_pytorchs_with_activations_computed_again() {
    two_steps(&Device::flex().autodiff().gradient_checkpointing());
}

fn two_steps(device: &Device) {
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
        let noise_pred = model.forward(
            sample.clone().narrow(0, step, 1).squeeze_dim(0),
            timestep.clone().narrow(0, step, 1).squeeze_dim(0),
            &Condition::single(condition.clone().narrow(0, step, 1).squeeze_dim(0)),
        );
        let loss = (noise_pred - noise.clone().narrow(0, step, 1).squeeze_dim(0)).square().mean();
        let gradients = loss.backward();
        if step == 0 {
            let mut collector =
                Collector { gradients: &gradients, path: Vec::new(), out: Tensors::default() };
            model.visit(&mut collector);
            assert_all_close(&collector.out, &io, "gradient.");
        }
        let loss: f32 = loss.into_scalar();
        let norm;
        optimizer.gather(&model, gradients).unwrap();
        (model, norm) = optimizer.step(model, 1e-3);
        for (ours, theirs) in [(loss, io.0["losses"].1[step]), (norm, io.0["norms"].1[step])] {
            assert!((ours - theirs).abs() <= TOLERANCE * theirs, "step {step}: {ours} and {theirs}");
        }
    }
    assert_all_close(&collect(&model, "").unwrap(), &io, "weight.");
}
