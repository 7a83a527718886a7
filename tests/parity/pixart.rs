//! `PixArtTransformer2DModel` against diffusers.

use burn::tensor::{Device, Tensor};
use facestudio::condition::{Added, Condition, Places, Projection, Regions, Stream};
use facestudio::pixart::{PixArtTransformer2DConfig, PixArtTransformer2DModel};
use facestudio::weights::{Component, Tensors};

use crate::{assert_close, fixture, io};

/// f32 sums in another order; measured: at most 2e-6. GELU without its approximation costs 1e-4 and more.
const TOLERANCE: f32 = 1e-5;

fn load(case: &str, device: &Device) -> (PixArtTransformer2DModel, Tensors) {
    let folder = fixture(&format!("pixart/{case}"));
    (PixArtTransformer2DModel::load(&Component::new(&folder, ""), device).unwrap(), io(&folder))
}

#[test]
fn predictions_are_those_of_diffusers() {
    let device = Device::flex();
    for (case, sizes) in [("mini", ["4x4", "6x8"]), ("patches", ["8x8", "12x4"])] {
        let (model, io) = load(case, &device);
        let condition = Condition::single(io.tensor("condition", &device).unwrap());
        for size in sizes {
            let sample = io.tensor(&format!("sample.{size}"), &device).unwrap();
            let output = model.forward(sample, io.tensor("timestep", &device).unwrap(), &condition).unwrap();
            assert_close(output, io.tensor::<4>(&format!("output.{size}"), &device).unwrap(), TOLERANCE);
        }
    }
}

/// What a sampling loop asks for: one timestep for the whole batch takes a shorter way.
#[test]
fn one_timestep_counts_for_the_whole_batch() {
    let device = Device::flex();
    let (model, io) = load("mini", &device);
    let condition = Condition::single(io.tensor("condition", &device).unwrap());
    let sample: Tensor<4> = io.tensor("sample.6x8", &device).unwrap();
    let at = |timesteps: &[f32]| {
        let timesteps = Tensor::<1>::from_floats(timesteps, &device);
        model.forward(sample.clone(), timesteps, &condition).unwrap()
    };
    assert_close(at(&[37.5]), at(&[37.5, 37.5]), 1e-6);
}

/// An identity whose region is empty is as if it were not there, and one that has all is alone.
#[test]
fn identities_act_in_their_regions() {
    let device = Device::flex();
    let (model, io) = load("mini", &device);
    let first: Tensor<3> = io.tensor("condition", &device).unwrap();
    let second = first.clone() * -0.7 + 0.3;
    let sample: Tensor<4> = io.tensor("sample.4x4", &device).unwrap();
    let timestep: Tensor<1> = io.tensor("timestep", &device).unwrap();
    let output = |left: f32, second: Tensor<3>| {
        let mask: Vec<f32> = (0..16).map(|p| if p % 4 < 2 { left } else { 1.0 }).collect();
        let other = mask.iter().map(|m| 1.0 - m).collect();
        let regions = Regions::new(4, 4, vec![mask, other], 0).unwrap();
        let tokens = vec![first.clone(), second];
        let stream = Stream::new(Projection::Own, tokens, Some(Places::Regions(regions))).unwrap();
        model.forward(sample.clone(), timestep.clone(), &Condition::new(vec![stream])).unwrap()
    };
    let alone = model.forward(sample.clone(), timestep.clone(), &Condition::single(first.clone())).unwrap();
    assert_close(output(1.0, second.clone()), alone.clone(), 1e-6);
    let both = output(0.0, second.clone());
    let difference = (both.clone() - alone).abs().max().into_scalar::<f32>();
    assert!(difference > 1e-2, "the second identity is seen: {difference}");
    assert_close(output(0.0, first.clone()), output(1.0, second), 1e-5);
}

#[test]
fn what_it_has_no_layer_for_is_refused() {
    let device = Device::flex();
    let (model, io) = load("mini", &device);
    let tokens: Tensor<3> = io.tensor("condition", &device).unwrap();
    let ask = |condition: Condition| {
        let sample = io.tensor("sample.4x4", &device).unwrap();
        model.forward(sample, io.tensor("timestep", &device).unwrap(), &condition).err().map(|e| e.code)
    };
    let labels = Added::ClassLabels(Tensor::zeros([2, 4], &device));
    assert_eq!(ask(Condition::single(tokens.clone()).adding(Some(labels))), Some("condition-added"));
    let adapter = Condition::new(vec![Stream::everywhere(Projection::Adapter(0), tokens)]);
    assert_eq!(ask(adapter), Some("adapter-missing"));
}

#[test]
fn other_architectures_are_refused_by_name() {
    let plain = PixArtTransformer2DConfig {
        out_channels: None,
        use_additional_conditions: Some(false),
        ..PixArtTransformer2DConfig::default()
    };
    plain.check().unwrap();
    let changed = |change: fn(&mut PixArtTransformer2DConfig)| {
        let mut config = plain.clone();
        change(&mut config);
        let error = config.check().unwrap_err();
        assert!(config.init(&Device::flex()).is_err());
        (error.code, error.message)
    };
    for (name, (code, message)) in [
        ("norm_type", changed(|c| c.norm_type = "ada_norm_zero".into())),
        ("activation_fn", changed(|c| c.activation_fn = "geglu".into())),
        ("attention_type", changed(|c| c.attention_type = "gated".into())),
        ("norm_elementwise_affine", changed(|c| c.norm_elementwise_affine = true)),
        ("use_additional_conditions", changed(|c| c.use_additional_conditions = None)),
        ("out_channels", changed(|c| c.out_channels = Some(8))),
        ("_class_name", changed(|c| c.class_name = "DiTTransformer2DModel".into())),
    ] {
        assert!(code == "config-unsupported" && message.contains(name), "{name}: {message}");
    }
    for (name, (code, message)) in [
        ("num_layers", changed(|c| c.num_layers = 1 << 40)),
        ("attention_head_dim", changed(|c| c.attention_head_dim = 0)),
        ("heads", changed(|c| c.num_attention_heads = 1 << 40)),
        ("patch_size", changed(|c| c.patch_size = 0)),
        ("sample_size", changed(|c| c.sample_size = 1)),
        ("multiple of 4", changed(|c| (c.num_attention_heads, c.attention_head_dim) = (1, 6))),
        (
            "cross_attention_dim",
            changed(|c| (c.caption_channels, c.cross_attention_dim) = (Some(8), Some(8))),
        ),
        ("norm_eps", changed(|c| c.norm_eps = -1.0)),
        ("interpolation_scale", changed(|c| c.interpolation_scale = Some(f64::NAN))),
    ] {
        assert!(code == "config-range" && message.contains(name), "{name}: {message}");
    }
}
