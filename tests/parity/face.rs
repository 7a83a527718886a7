//! The identity encoder against a PyTorch network with InsightFace's names.

use burn::tensor::{DType, Device};
use facestudio::encoders::face::{FaceEncoder, FaceEncoderConfig};
use facestudio::weights::{Component, Files, SafetensorsFile, collect};

use crate::{assert_close, fixture, io};

/// Sums are taken in another order than PyTorch takes them, which costs about 1e-6 of the largest value; a wrong ε,
/// slope, stride or order of layers costs over 1e-2.
const TOLERANCE: f32 = 1e-4;

#[test]
fn embeddings() {
    for case in ["face/odd", "face/even"] {
        let (folder, device) = (fixture(case), Device::flex());
        let encoder = FaceEncoder::load(&Component::new(&folder, ""), &device).unwrap();
        let io = io(&folder);
        let pixels = io.tensor::<4>("pixel_values", &device).unwrap();
        let embedding = io.tensor::<2>("embedding", &device).unwrap();
        assert_close(encoder.forward(pixels.clone()).unwrap(), embedding.clone(), TOLERANCE);
        let length = embedding.clone().square().sum_dim(1).sqrt();
        assert_close(encoder.embed(pixels.clone()).unwrap(), embedding.clone() / length, TOLERANCE);
        // bf16 keeps 8 bits: 0.4 % a rounding, and dozens of roundings follow one another.
        let half = encoder.forward(pixels.cast(DType::BF16)).unwrap();
        assert_close(half.cast(DType::F32), embedding, 0.05);
    }
}

#[test]
fn a_networks_own_tensors_are_the_checkpoints() {
    let folder = fixture("face/odd");
    let config: FaceEncoderConfig = Component::new(&folder, "").json("config.json").unwrap();
    let file = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
    let names = collect(&config.init(&Device::flex()).unwrap(), "").unwrap();
    let expected = file.into_tensors().unwrap();
    assert!(names.0.keys().eq(expected.0.keys()));
}
