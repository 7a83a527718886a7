//! The segmentation network against transformers' DETR, converted from its folders.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, Tensor};
use facestudio::encoders::segmenter::{Segmenter, SegmenterConfig};
use facestudio::weights::{Component, Folder, Quantization};
use facestudio_convert::{Plan, Slot, convert};
use image::RgbImage;
use serde_json::json;

use crate::{assert_close, fixture, io};

/// Sums in another order cost some 1e-6 of the largest value, and a few times more after two dozen layers; a wrong layer, name
/// or position costs over 1e-2.
const TOLERANCE: f32 = 1e-4;
/// Either of its backbones.
const CASES: [&str; 2] = ["segmenter/transformers", "segmenter/timm"];

fn converted(folder: &Folder, out: &Path) -> Result<Folder, facestudio::Error> {
    let parts = vec![(Slot::Segmenter, folder.0.clone())];
    let plan = Plan { parts, quantization: Quantization::None, ..Plan::default() };
    convert(&plan, out, &AtomicBool::new(false), &|_, _| ())?;
    Ok(Folder(out.to_owned()))
}

fn segmenter(case: &str, device: &Device) -> Segmenter {
    let out = tempfile::tempdir().unwrap();
    let files = converted(&fixture(case), &out.path().join("model")).unwrap();
    Segmenter::load(&Component::new(&files, "segmenter"), device).unwrap()
}

#[test]
fn labels_and_masks_are_transformers() {
    for case in CASES {
        let (device, io) = (Device::flex(), io(&fixture(case)));
        let segmenter = segmenter(case, &device);
        let seen = segmenter.network().look(io.tensor("pixel_values", &device).unwrap()).unwrap();
        assert_close(seen.logits.clone(), io.tensor::<2>("logits", &device).unwrap(), TOLERANCE);
        let expected = io.tensor::<3>("pred_masks", &device).unwrap();
        // In another order, one of them twice.
        let queries = [6, 0, 3, 3];
        let wanted = Tensor::cat(queries.map(|q| expected.clone().narrow(0, q, 1)).to_vec(), 0);
        assert_close(segmenter.network().masks(&seen, &queries).unwrap(), wanted, TOLERANCE);
        assert_eq!(segmenter.network().masks(&seen, &[]).unwrap().dims(), [0, 19, 27]);
        assert_eq!(segmenter.network().masks(&seen, &[8]).unwrap_err().code, "segmenter-query");
        let two = Tensor::zeros([2, 3, 64, 64], &device);
        assert_eq!(segmenter.network().look(two).unwrap_err().code, "segmenter-input");
    }
}

#[test]
fn people_are_the_sure_objects_that_are_persons() {
    for case in CASES {
        let (device, io) = (Device::flex(), io(&fixture(case)));
        let segmenter = segmenter(case, &device);
        let (shape, values) = &io.0["picture"];
        let plane = shape[1] * shape[2];
        let picture = RgbImage::from_fn(shape[2] as u32, shape[1] as u32, |x, y| {
            let at = y as usize * shape[2] + x as usize;
            image::Rgb([0, 1, 2].map(|channel| values[channel * plane + at] as u8))
        });
        let people = pollster::block_on(segmenter.people(&picture, &device)).unwrap();
        let (shape, values) = &io.0["people"];
        assert_eq!(people.len(), shape[0], "{case}");
        for (person, expected) in people.iter().zip(values.chunks_exact(shape[1] * shape[2])) {
            assert_eq!(person.size(), (shape[2], shape[1]));
            // Both sides cut at a half, where rounding decides; none of the fixtures' values lies that near.
            assert_eq!(person.values(), expected, "{case}");
        }
    }
}

#[test]
fn the_config_says_what_the_folder_said() {
    let (folder, out) = (fixture("segmenter/timm"), tempfile::tempdir().unwrap());
    let files = converted(&folder, &out.path().join("model")).unwrap();
    let config: SegmenterConfig = Component::new(&files, "segmenter").json("config.json").unwrap();
    assert_eq!((config.shortest_edge, config.longest_edge, config.person_label), (75, 107, 1));
    assert_eq!((config.network.num_labels, config.network.num_queries), (3, 8));
    assert_eq!(config.network.backbone_config.embedding_size, 64);
    assert_eq!(config.network.backbone_config.depths, [1, 2, 1, 1]);
    assert_eq!((config.network.encoder_attention_heads, config.network.decoder_attention_heads), (8, 4));
}

#[test]
fn pictures_that_would_be_brought_to_it_otherwise_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        let from = fixture("segmenter/transformers").0.join(name);
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    let said = |name: &str, value: &str| {
        let text = format!("{{ \"{name}\": {value} }}");
        std::fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        converted(&Folder(folder.path().to_owned()), &folder.path().join(name))
    };
    for (name, value) in [
        ("do_normalize", "false"),
        ("do_rescale", "false"),
        ("do_resize", "false"),
        ("rescale_factor", "1.0"),
        ("resample", "3"),
    ] {
        let error = said(name, value).unwrap_err();
        assert!(error.code == "checkpoint-layout" && error.message.ends_with(name), "{error}");
    }
    said("resample", "2").unwrap();
    said("rescale_factor", "0.00392156862745098").unwrap();
}

#[test]
fn what_is_no_segmenter_is_named() {
    let changed = |file: &str, change: &dyn Fn(&str) -> String| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
            let from = fixture("segmenter/transformers").0.join(name);
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
        let path = folder.path().join(file);
        let config = change(&std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, config).unwrap();
        converted(&Folder(folder.path().to_owned()), &folder.path().join("out")).unwrap_err()
    };
    let copy = |change: &dyn Fn(&str) -> String| changed("config.json", change);
    let nameless = copy(&|config| config.replace("\"person\"", "\"pilot\""));
    assert!(nameless.code == "checkpoint-layout" && nameless.message.contains("'person'"), "{nameless}");
    for (from, to, name) in [
        ("\"model_type\": \"detr\"", "\"model_type\": \"yolos\"", "model_type"),
        ("\"dilation\": false", "\"dilation\": true", "dilation"),
        ("\"layer_type\": \"bottleneck\"", "\"output_stride\": 16", "output_stride"),
        ("\"activation_function\": \"relu\"", "\"activation_function\": \"gelu\"", "activation_function"),
        (
            "\"position_embedding_type\": \"sine\"",
            "\"position_embedding_type\": \"learned\"",
            "position_embedding_type",
        ),
    ] {
        let error = copy(&|config| {
            assert!(config.contains(from), "{from}");
            config.replace(from, to)
        });
        assert!(error.code == "checkpoint-layout" && error.message.ends_with(name), "{error}");
    }
    for (name, value) in [
        ("do_resize", json!(false)),
        ("do_rescale", json!(false)),
        ("do_normalize", json!(false)),
        ("rescale_factor", json!(0.5)),
        ("resample", json!(3)),
        ("pad_size", json!({ "height": 9, "width": 9 })),
        ("image_mean", json!([0.5, 0.5, 0.5])),
        ("image_processor_type", json!("YolosImageProcessor")),
    ] {
        let error = changed("preprocessor_config.json", &|config| {
            let mut config: serde_json::Value = serde_json::from_str(config).unwrap();
            config[name] = value.clone();
            config.to_string()
        });
        assert!(error.code == "checkpoint-layout" && error.message.ends_with(name), "{error}");
    }
}
