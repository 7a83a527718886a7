//! CLIP's preprocessing against transformers' with Pillow.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use facestudio::encoders::vision::{ClipVitConfig, VisionConfig, preprocessing};
use facestudio::image::processor::Preprocessing;
use facestudio::weights::{Component, Files, MemoryFiles, TensorSource, Tensors};
use image::RgbImage;
use serde_json::{Map, Value, json};

use crate::{assert_close, fixture, io};

/// Pillow rounds to whole bytes between its two passes and we only after both: pixels differ by up to two of 255.
/// Another filter, no antialiasing or a crop that is one pixel off costs over 0.1.
const TOLERANCE: f32 = 0.02;
const SIZE: usize = 24;

fn picture(io: &Tensors, index: usize) -> RgbImage {
    let name = format!("picture_{index}");
    let shape = io.shape(&name).unwrap();
    let bytes = io.read(&name).unwrap().into_iter().map(|value| value as u8).collect();
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, bytes).unwrap()
}

#[test]
fn pictures_of_any_shape() {
    let (io, device) = (io(&fixture("preprocess")), Device::flex());
    for index in 0..4 {
        let ours = Preprocessing::clip(SIZE).tensor(&picture(&io, index), &device).unwrap();
        let reference = io.tensor(&format!("pixel_values_{index}"), &device).unwrap();
        assert_close(ours, reference, TOLERANCE);
    }
}

#[test]
fn every_step_is_as_the_config_says() {
    let (folder, device) = (fixture("preprocess"), Device::flex());
    let io = io(&folder);
    let configs: BTreeMap<String, Map<String, Value>> =
        serde_json::from_slice(&folder.read("configs.json").unwrap()).unwrap();
    assert_eq!(configs.len(), 9);
    for (name, config) in configs {
        let preprocessing = Preprocessing::from_config(&config, SIZE).unwrap();
        for index in 0..2 {
            let ours: Tensor<4> = preprocessing.tensor(&picture(&io, index), &device).unwrap();
            let reference = io.tensor(&format!("{name}_{index}"), &device).unwrap();
            println!("{name} {index}");
            assert_close(ours, reference, TOLERANCE);
        }
    }
}

#[test]
fn it_is_found_beside_the_weights_or_in_the_pipeline_around_them() {
    let config = json!({ "image_mean": 0.5, "image_std": 0.25 }).to_string().into_bytes();
    let expected = Preprocessing { mean: [0.5; 3], std: [0.25; 3], ..Preprocessing::clip(SIZE) };
    let size = VisionConfig::Vit(ClipVitConfig { image_size: SIZE, ..ClipVitConfig::default() }).image_size();
    let read = |at: &str, folder: &str| {
        let files = BTreeMap::from([
            (format!("{at}/preprocessor_config.json"), config.clone()),
            (format!("{folder}/config.json"), b"{}".to_vec()),
        ]);
        preprocessing(&Component::new(&MemoryFiles(files), folder), size).unwrap()
    };
    for (at, folder) in [
        ("vision_encoder", "vision_encoder"),
        ("vision_encoder_2", "vision_encoder_2"),
        ("feature_extractor", "vision_encoder"),
        ("image_processor", "image_encoder"),
        ("pipeline/feature_extractor", "pipeline/image_encoder"),
    ] {
        assert_eq!(read(at, folder), expected, "{at}");
    }
    // A pipeline has one image encoder, the first of an ensemble; what lies elsewhere is another's.
    for (at, folder) in [("feature_extractor", "vision_encoder_2"), ("vision_encoder_2", "vision_encoder")] {
        assert_eq!(read(at, folder), Preprocessing::clip(SIZE), "{at}");
    }
}
