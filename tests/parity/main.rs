//! Component by component, the same weights give the same numbers as in the Python reference.
//!
//! Each room has a folder with the script that made its fixtures (`reference.py`), and the fixtures: `config.json`
//! and `model.safetensors` as a checkpoint has them, and `io.safetensors` with inputs and expected outputs.

mod align;
mod arc2face;
mod beside;
mod codec;
mod consistency;
mod convert;
mod declared;
mod face;
mod flow_matching;
mod flux2;
mod gguf;
mod ip_adapter;
mod kinds;
mod klein;
mod klein_convert;
mod layouts;
mod lora;
mod lora_kinds;
mod onnx;
mod pixart;
mod preprocess;
mod prior;
mod qwen2_tokenizer;
mod qwen3;
mod refused;
mod sampling;
mod segmenter;
mod text;
mod tokenizer;
mod train;
mod unet;
mod upscaler;
mod vae;
mod vision;
mod weighted;
mod yunet;

use std::path::Path;

use burn::tensor::Tensor;
use facestudio::weights::{Files, Folder, SafetensorsFile, Tensors};

/// The fixture folder of a room's case, for example `unet/sd1`.
fn fixture(case: &str) -> Folder {
    Folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity").join(case))
}

/// The inputs and expected outputs of a fixture folder.
fn io(folder: &Folder) -> Tensors {
    SafetensorsFile::new(folder.read("io.safetensors").unwrap()).unwrap().into_tensors().unwrap()
}

/// Fails unless `max|ours − reference| ≤ tolerance · max|reference|`.
#[track_caller]
fn assert_close<const D: usize>(ours: Tensor<D>, reference: Tensor<D>, tolerance: f32) {
    assert_eq!(ours.dims(), reference.dims());
    let ours: Vec<f32> = ours.try_into_vec_as().unwrap();
    let reference: Vec<f32> = reference.try_into_vec_as().unwrap();
    let scale = reference.iter().fold(0.0, |max: f32, r| max.max(r.abs()));
    // `max` would pass over a NaN.
    let worst = ours
        .iter()
        .zip(&reference)
        .map(|(o, r)| (o - r).abs())
        .fold(0.0, |max: f32, d| if d.is_nan() || d > max { d } else { max });
    assert!(worst <= tolerance * scale, "off by {worst}, {} of the largest value", worst / scale);
}
