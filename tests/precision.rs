//! Every family of models on WebGPU, in f16 beside f32: nearly the same pictures, whatever takes part in them.
#![cfg(all(feature = "gpu", feature = "cpu"))]

#[path = "support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;

use burn::tensor::{Device, DeviceKind};
use facestudio::pipeline::{FaceStudio, Precision};
use facestudio::request::{GenerateRequest, Layout, Person, RelativeBox};
use facestudio::weights::MemoryFiles;
use image::{Rgb, RgbImage};

/// A bright spot on a dark ground: what the tiny model's detector takes for a face.
fn photo(colour: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| {
        let near = (x as f32 - 33.5).powi(2) + (y as f32 - 29.5).powi(2) < 196.0;
        Rgb(if near { colour } else { [12, 20, 30] })
    })
}

fn half(left: f32) -> RelativeBox {
    RelativeBox { x: left, y: 0.0, width: 0.5, height: 1.0 }
}

#[test]
fn half_precision_draws_nearly_the_same_pictures() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let open = |files: &MemoryFiles| FaceStudio::load(files, &device).unwrap();
    if open(&tiny_model::files()).precision() != "f16" {
        assert!(option_env!("EXPECT_F16").is_none(), "{device:?} does not compute in f16");
        return;
    }
    let (ann, ben) = (photo([255, 210, 180]), photo([180, 255, 210]));
    let one =
        GenerateRequest { people: vec![Person::new(vec![ann.clone()])], steps: 3, ..Default::default() };
    let two = GenerateRequest {
        people: vec![Person::new(vec![ann]), Person::new(vec![ben])],
        layout: Layout::Boxes(vec![half(0.0), half(0.5)]),
        ..one.clone()
    };
    let style = RgbImage::from_fn(40, 48, |x, y| Rgb([(x * 3) as u8, (y * 2) as u8, 90]));
    let styled =
        |request: &GenerateRequest| GenerateRequest { style: Some(style.clone()), ..request.clone() };
    let families = [
        ("fused", tiny_model::files(), vec![styled(&one), styled(&two)]),
        ("adapters", tiny_model::files_with_adapters(true), vec![styled(&one), styled(&two)]),
        ("arc2face", tiny_model::files_of_arc2face(), vec![one.clone(), two.clone()]),
    ];
    for (family, files, requests) in families {
        for request in requests {
            let draw = |precision| {
                let studio = open(&files).with_precision(precision).unwrap();
                let pictures = studio.generate(&request, async |_| ControlFlow::Continue(()));
                pollster::block_on(pictures).unwrap().swap_remove(0).image
            };
            let (f16, f32) = (draw(Precision::F16), draw(Precision::F32));
            let apart: Vec<u8> = f16.iter().zip(f32.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
            let mean = apart.iter().map(|d| f32::from(*d)).sum::<f32>() / apart.len() as f32;
            let most = apart.iter().max().unwrap();
            // Three steps of random weights: a level of 255 on average would be a fault that shows.
            assert!(mean < 1.0 && *most > 0, "{family}, {} people: {mean} levels", request.people.len());
        }
    }
}
