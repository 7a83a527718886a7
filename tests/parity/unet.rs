//! `UNet2DConditionModel` against diffusers.

use burn::tensor::{Device, Tensor};
use facestudio::condition::{Added, Condition, Places, Projection, Regions, Stream};
use facestudio::unet::UNet2DConditionModel;
use facestudio::weights::{Component, Tensors};

use crate::{assert_close, fixture, io};

/// Measured: at most 1.1e-6, from another order of summing in f32. A GroupNorm epsilon of 1e-5 for 1e-6 costs
/// 0.7e-5 to 3e-5, GELU's tanh approximation 3e-5 and more: this tells them apart, 1e-4 would not.
const TOLERANCE: f32 = 5e-6;

fn load(case: &str, device: &Device) -> (UNet2DConditionModel, Tensors) {
    let folder = fixture(case);
    let model = UNet2DConditionModel::load(&Component::new(&folder, ""), device).unwrap();
    (model, io(&folder))
}

fn assert_parity(case: &str, tokens: &[usize]) {
    let device = Device::flex();
    let (model, io) = load(case, &device);
    for n in tokens {
        let added = io.0.contains_key("class_labels").then(|| io.tensor("class_labels", &device).unwrap());
        let condition = Condition::single(io.tensor(&format!("condition.{n}"), &device).unwrap());
        let condition = condition.adding(added.map(Added::ClassLabels));
        let output = model.forward(
            io.tensor("sample", &device).unwrap(),
            io.tensor("timestep", &device).unwrap(),
            &condition,
        );
        assert_close(output.unwrap(), io.tensor::<4>(&format!("output.{n}"), &device).unwrap(), TOLERANCE);
    }
}

#[test]
fn stable_diffusion_1() {
    assert_parity("unet/sd1", &[4]);
}

#[test]
fn stable_diffusion_2_with_few_and_many_tokens() {
    assert_parity("unet/sd2", &[4, 77]);
}

#[test]
fn odd_latents_and_the_rarer_config_values() {
    assert_parity("unet/uneven", &[1, 4]);
}

#[test]
fn class_labels_beside_the_timestep() {
    assert_parity("unet/labels", &[4]);
}

/// What the network has no layer for, of another width, or missing.
#[test]
fn class_labels_that_do_not_fit_are_refused() {
    let device = Device::flex();
    let labels = |width| Some(Added::ClassLabels(Tensor::zeros([2, width], &device)));
    for (case, added, fits) in [
        ("unet/labels", labels(11), true),
        ("unet/labels", labels(10), false),
        ("unet/labels", None, false),
        ("unet/uneven", labels(11), false),
    ] {
        let (model, io) = load(case, &device);
        let condition = Condition::single(io.tensor("condition.4", &device).unwrap()).adding(added);
        let output = model.forward(
            io.tensor("sample", &device).unwrap(),
            io.tensor("timestep", &device).unwrap(),
            &condition,
        );
        assert_eq!(output.err().map(|e| e.code), (!fits).then_some("condition-added"), "{case}");
    }
}

#[test]
fn identities_blend_by_their_regions() {
    let device = Device::flex();
    let (model, io) = load("unet/regions", &device);
    let identities: Tensor<4> = io.tensor("identities", &device).unwrap();
    let identities = (0..3).map(|i| identities.clone().narrow(0, i, 1).squeeze_dim::<3>(0)).collect();
    let (shape, masks) = &io.0["masks"];
    let masks = masks.chunks(shape[1] * shape[2]).map(<[f32]>::to_vec).collect();
    let regions = Regions::new(shape[1], shape[2], masks, 2).unwrap();
    let stream = Stream::new(Projection::Own, identities, Some(Places::Regions(regions)));
    let condition = Condition::new(vec![stream.unwrap()]);
    let output = model.forward(
        io.tensor("sample", &device).unwrap(),
        io.tensor("timestep", &device).unwrap(),
        &condition,
    );
    assert_close(output.unwrap(), io.tensor::<4>("output", &device).unwrap(), TOLERANCE);
}
