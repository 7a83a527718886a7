//! CLIP vision encoders against transformers and open_clip.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use facestudio::encoders::vision::{
    ClipResNetConfig, ClipVitConfig, VisionConfig, VisionEncoder, VisionEnsemble,
};
use facestudio::image::processor::Preprocessing;
use facestudio::weights::{Component, Files, MemoryFiles, Quantization, SafetensorsFile, Tensors, encode};

use crate::{assert_close, fixture, io};

/// Sums are taken in another order than PyTorch takes them, which costs about 1e-6 of the largest value through a few
/// layers; a wrong ε, activation, pooling or position costs over 1e-3.
const TOLERANCE: f32 = 1e-4;

fn load(case: &str) -> (VisionEncoder, Tensors) {
    let folder = fixture(case);
    let encoder = VisionEncoder::load(&Component::new(&folder, ""), &Device::flex()).unwrap();
    (encoder, io(&folder))
}

fn tensor<const D: usize>(io: &Tensors, name: &str) -> Tensor<D> {
    io.tensor(name, &Device::flex()).unwrap()
}

#[test]
fn vision_transformer() {
    let (encoder, io) = load("vision/vit");
    let output = encoder.forward(tensor(&io, "pixel_values")).unwrap();
    assert_close(output.image_embeds, tensor(&io, "image_embeds"), TOLERANCE);
    assert_close(output.last_hidden_state.unwrap(), tensor(&io, "last_hidden_state"), TOLERANCE);
    let penultimate = output.penultimate_hidden_state.unwrap();
    assert_close(penultimate, tensor(&io, "penultimate_hidden_state"), TOLERANCE);
}

#[test]
fn vision_half_of_a_whole_clip() {
    let (encoder, io) = load("vision/clip");
    assert_eq!(encoder.embed_dim(), 16);
    let output = encoder.forward(tensor(&io, "pixel_values")).unwrap();
    assert_close(output.image_embeds, tensor(&io, "image_embeds"), TOLERANCE);
}

#[test]
fn modified_resnet() {
    let (encoder, io) = load("vision/resnet");
    let output = encoder.forward(tensor(&io, "pixel_values")).unwrap();
    assert_close(output.image_embeds, tensor(&io, "image_embeds"), TOLERANCE);
    assert!(output.last_hidden_state.is_none());
}

#[test]
fn a_resnet_with_the_names_of_a_whole_clip_loads() {
    let folder = fixture("vision/resnet");
    let file = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
    let named = file.into_tensors().unwrap().0;
    let renamed = named.into_iter().map(|(name, value)| (format!("visual.{name}"), value)).collect();
    let files = MemoryFiles(BTreeMap::from([
        ("config.json".to_owned(), folder.read("config.json").unwrap()),
        (
            "model.safetensors".to_owned(),
            encode(&Tensors(renamed), Quantization::None, &BTreeMap::new()).unwrap(),
        ),
    ]));
    let encoder = VisionEncoder::load(&Component::new(&files, ""), &Device::flex()).unwrap();
    let io = io(&folder);
    let output = encoder.forward(tensor(&io, "pixel_values")).unwrap();
    assert_close(output.image_embeds, tensor(&io, "image_embeds"), TOLERANCE);
}

#[test]
fn a_networks_own_tensors_are_the_checkpoints() {
    for case in ["vision/vit", "vision/resnet"] {
        let folder = fixture(case);
        let config = VisionConfig::read(&Component::new(&folder, "")).unwrap();
        let file = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
        let network = config.init(&Device::flex()).unwrap().apply(&file, "").unwrap();
        assert_eq!(network.collect("").unwrap(), file.into_tensors().unwrap());
    }
}

#[test]
fn preprocessing_is_the_folders_or_clips() {
    let (mean, std) = ([0.5, 0.4, 0.3], [0.25, 0.26, 0.27]);
    let expected = Preprocessing { mean, std, ..Preprocessing::clip(20) };
    assert_eq!(load("vision/vit").0.preprocessing(), expected);
    assert_eq!(load("vision/resnet").0.preprocessing(), Preprocessing::clip(64));
}

#[test]
fn the_ensemble_concatenates_embeddings_of_equal_scale() {
    let (vit, vit_io) = load("vision/vit");
    let (resnet, resnet_io) = load("vision/resnet");
    let first = |io: &Tensors, name: &str| tensor::<4>(io, name).narrow(0, 0, 2);
    let inputs = vec![first(&vit_io, "pixel_values"), first(&resnet_io, "pixel_values")];
    let ensemble = VisionEnsemble { encoders: vec![vit, resnet] };
    assert_eq!(ensemble.embed_dim(), 48);
    let embeds = ensemble.forward(inputs.clone()).unwrap();
    assert_eq!(embeds.dims(), [2, 48]);
    for (start, io) in [(0, &vit_io), (24, &resnet_io)] {
        let ours = embeds.clone().narrow(1, start, 24);
        let reference = tensor::<2>(io, "image_embeds").narrow(0, 0, 2);
        // The same direction, at length √24.
        let length = reference.clone().square().sum_dim(1).sqrt();
        assert_close(ours, reference / length * 24f32.sqrt(), TOLERANCE);
    }
    let swapped = inputs.into_iter().rev().collect();
    assert_eq!(ensemble.forward(swapped).unwrap_err().code, "vision-input");
    assert_eq!(ensemble.forward(Vec::new()).unwrap_err().code, "vision-input");
}

#[test]
fn absurd_configs_are_an_error() {
    let vit = ClipVitConfig::default;
    let resnet = ClipResNetConfig { layers: [1; 4], embed_dim: 8, heads: 4, image_size: 64, width: 4 };
    let absurd = [
        VisionConfig::Vit(ClipVitConfig { patch_size: 0, ..vit() }),
        VisionConfig::Vit(ClipVitConfig { patch_size: 225, ..vit() }),
        VisionConfig::Vit(ClipVitConfig { image_size: usize::MAX, ..vit() }),
        VisionConfig::Vit(ClipVitConfig { num_channels: 4, ..vit() }),
        VisionConfig::Vit(ClipVitConfig { hidden_size: usize::MAX, ..vit() }),
        VisionConfig::ResNet(ClipResNetConfig { layers: [1, 0, 1, 1], ..resnet }),
        VisionConfig::ResNet(ClipResNetConfig { heads: 0, ..resnet }),
        VisionConfig::ResNet(ClipResNetConfig { heads: 3, ..resnet }),
        VisionConfig::ResNet(ClipResNetConfig { image_size: 48, ..resnet }),
        VisionConfig::ResNet(ClipResNetConfig { width: 3, ..resnet }),
        VisionConfig::ResNet(ClipResNetConfig { width: usize::MAX, ..resnet }),
    ];
    for config in absurd {
        assert_eq!(config.init(&Device::flex()).unwrap_err().code, "config-range", "{config:?}");
    }
}

#[test]
fn half_precision_stays_close() {
    for case in ["vision/vit", "vision/resnet"] {
        let (encoder, io) = load(case);
        for dtype in [DType::F16, DType::BF16] {
            let output = encoder.forward(tensor::<4>(&io, "pixel_values").cast(dtype)).unwrap();
            assert_eq!(output.image_embeds.dtype(), dtype);
            // bf16 keeps 8 bits: 0.4 % a rounding, and dozens of roundings follow one another.
            assert_close(output.image_embeds.cast(DType::F32), tensor(&io, "image_embeds"), 0.05);
        }
    }
}
