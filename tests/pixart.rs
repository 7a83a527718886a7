//! The whole flow on a small model whose denoiser is a transformer: what must hold of any model's pictures.

#[path = "support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;

use burn::tensor::Device;
use facestudio::Result;
use facestudio::pipeline::FaceStudio;
use facestudio::request::{GenerateRequest, Layout, Person, RelativeBox};
use facestudio::weights::MemoryFiles;
use image::{Rgb, RgbImage};

fn open(files: &MemoryFiles) -> Result<FaceStudio> {
    FaceStudio::load(files, &Device::flex())
}

#[track_caller]
fn picture(studio: &FaceStudio, request: &GenerateRequest) -> RgbImage {
    let drawn = pollster::block_on(studio.generate(request, async |_| ControlFlow::Continue(())));
    drawn.unwrap().swap_remove(0).image
}

/// A bright spot on a dark ground: what the tiny model takes for a face.
fn person(colour: [u8; 3]) -> Person {
    Person::new(vec![RgbImage::from_fn(64, 64, |x, y| {
        let squared = (x as f32 - 33.5).powi(2) + (y as f32 - 29.5).powi(2);
        Rgb(if squared < 196.0 { colour } else { [12, 20, 30] })
    })])
}

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [140, 255, 170];

fn request() -> GenerateRequest {
    GenerateRequest {
        people: vec![person(ANN)],
        style: Some(RgbImage::from_fn(40, 48, |x, y| Rgb([(x * 3) as u8, (y * 2) as u8, 90]))),
        prompt: "a smiling man".to_owned(),
        steps: 3,
        watermark: false,
        ..GenerateRequest::default()
    }
}

#[test]
fn a_transformer_draws_what_it_is_told() {
    let studio = open(&tiny_model::files_of_transformer()).unwrap();
    let plain = picture(&studio, &request());
    assert_eq!(plain, picture(&studio, &request()));
    for (what, other) in [
        ("seed", GenerateRequest { seed: request().seed + 1, ..request() }),
        ("person", GenerateRequest { people: vec![person(BEN)], ..request() }),
        ("style", GenerateRequest { style: None, ..request() }),
        ("words", GenerateRequest { prompt: "a house".to_owned(), ..request() }),
    ] {
        assert_ne!(plain, picture(&studio, &other), "{what}");
    }
    // Sides that the positions were not made for.
    let wide = picture(&studio, &GenerateRequest { width: Some(64), height: Some(32), ..request() });
    assert_eq!(wide.dimensions(), (64, 32));
}

/// Two people exchange their places with their boxes, and nothing else changes.
#[test]
fn each_person_has_a_place() {
    let studio = open(&tiny_model::files_of_transformer()).unwrap();
    let side = |x| RelativeBox { x, y: 0.0, width: 0.5, height: 1.0 };
    let drawn = |colours: [[u8; 3]; 2], boxes: Vec<RelativeBox>| {
        let people = colours.map(person).to_vec();
        picture(&studio, &GenerateRequest { people, layout: Layout::Boxes(boxes), ..request() })
    };
    let first = drawn([ANN, BEN], vec![side(0.0), side(0.5)]);
    let exchanged = drawn([BEN, ANN], vec![side(0.5), side(0.0)]);
    let off = first.as_raw().iter().zip(exchanged.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{off:?}");
    assert_ne!(first, drawn([ANN, BEN], vec![side(0.5), side(0.0)]));
}

#[test]
fn a_folder_has_one_denoiser_that_fits() {
    let mut both = tiny_model::files_of_transformer();
    let unet = tiny_model::files().0.into_iter().filter(|(path, _)| path.starts_with("unet/"));
    both.0.extend(unet);
    both.0.remove("manifest.json");
    assert_eq!(open(&both).unwrap_err().code, "model-mismatch");

    let with = |key: &str, value: serde_json::Value| {
        let mut files = tiny_model::files_of_transformer();
        files.0.remove("manifest.json");
        let config = files.0.get_mut("transformer/config.json").unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(config).unwrap();
        json[key] = value;
        *config = serde_json::to_vec(&json).unwrap();
        open(&files).unwrap_err()
    };
    for (key, value, code, says) in [
        ("caption_channels", 9.into(), "model-mismatch", "the transformer's tokens"),
        ("num_layers", 1_000_000.into(), "config-range", "num_layers"),
        ("num_layers", 3.into(), "weights-mismatch", "transformer"),
        ("norm_type", "layer_norm".into(), "config-unsupported", "norm_type"),
        ("in_channels", 5.into(), "weights-mismatch", "pos_embed"),
    ] {
        let error = with(key, value);
        assert!(error.code == code && error.to_string().contains(says), "{key}: {error}");
    }
}
