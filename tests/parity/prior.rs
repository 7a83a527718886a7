//! The prior against diffusers' `PriorTransformer`.

use burn::tensor::{DType, Device, Tensor};
use facestudio::guidance::prior::{PriorConfig, PriorTransformer};
use facestudio::weights::{Component, Files, SafetensorsFile, Tensors, collect};

use crate::{assert_close, fixture, io};

/// Sums are taken in another order than PyTorch takes them, which costs about 1e-6 of the largest value; a wrong
/// mask, token order or activation costs over 1e-2.
const TOLERANCE: f32 = 1e-4;

fn predict(prior: &PriorTransformer, io: &Tensors, dtype: DType) -> Tensor<2> {
    let device = Device::flex();
    prior
        .forward(
            io.tensor::<2>("hidden_states", &device).unwrap().cast(dtype),
            io.tensor("timestep", &device).unwrap(),
            io.tensor("proj_embedding", &device).unwrap(),
            io.tensor("encoder_hidden_states", &device).ok(),
            io.tensor("attention_mask", &device).ok(),
        )
        .unwrap()
}

#[test]
fn predictions() {
    for case in ["prior/karlo", "prior/parts", "prior/bare"] {
        let (folder, device) = (fixture(case), Device::flex());
        let prior = PriorTransformer::load(&Component::new(&folder, ""), &device).unwrap();
        let io = io(&folder);
        let expected = io.tensor::<2>("predicted_image_embedding", &device).unwrap();
        let predicted = predict(&prior, &io, DType::F32);
        assert_close(predicted.clone(), expected.clone(), TOLERANCE);
        let processed = io.tensor::<2>("post_processed", &device).unwrap();
        assert_close(prior.post_process_latents(predicted), processed, TOLERANCE);
        // bf16 keeps 8 bits: 0.4 % a rounding, and dozens of roundings follow one another.
        assert_close(predict(&prior, &io, DType::BF16).cast(DType::F32), expected, 0.05);
    }
}

#[test]
fn a_networks_own_tensors_are_the_checkpoints() {
    for case in ["prior/karlo", "prior/parts", "prior/bare"] {
        let folder = fixture(case);
        let config: PriorConfig = Component::new(&folder, "").json("config.json").unwrap();
        let file = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
        let names = collect(&config.init(&Device::flex()).unwrap(), "").unwrap();
        let expected = file.into_tensors().unwrap();
        assert!(names.0.keys().eq(expected.0.keys()));
    }
}
