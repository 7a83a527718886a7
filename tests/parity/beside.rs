//! Files beside weights that decide what they mean: converted folders read texts and pictures as the originals do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use facestudio::Error;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::encoders::vision::VisionEncoder;
use facestudio::image::processor::{Preprocessing, Resize};
use facestudio::weights::{Component, Files, Folder, Manifest, Quantization};
use facestudio_convert::scheduler::Sampling;
use facestudio_convert::{Plan, Slot, convert};
use image::imageops::FilterType;
use serde_json::{Value, json};

use crate::fixture;
use crate::tokenizer::{Beside, cases, folder};

/// Converts, and says which files the new folder has.
fn run(plan: Plan, out: &Path) -> Result<Vec<String>, Error> {
    convert(&plan, out, &AtomicBool::new(false), &|_, _| ())?;
    let files = Folder(out.to_owned());
    Manifest::read(&files)?.verify(&files)?;
    let mut found = files.list("")?;
    for folder in files.folders("")? {
        found.extend(files.list(&folder)?.into_iter().map(|name| format!("{folder}/{name}")));
    }
    Ok(found)
}

fn plan(parts: &[(Slot, PathBuf)]) -> Plan {
    Plan { parts: parts.to_vec(), quantization: Quantization::None, ..Plan::default() }
}

fn with_tokenizer(folder: &Path) -> Plan {
    Plan { tokenizer: Some(folder.to_owned()), ..plan(&[(Slot::Unet, fixture("prompt/model/unet").0)]) }
}

fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn json_file(path: &Path, content: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content.to_string()).unwrap();
}

#[test]
fn every_file_of_a_tokenizer_comes_along() {
    let at = tempfile::tempdir().unwrap();
    let Beside { texts, cases } = cases();
    for (number, case) in cases.iter().enumerate() {
        let (from, out) = (at.path().join(format!("from-{number}")), at.path().join(format!("out-{number}")));
        write(&from, &folder(&case.files).0);
        let files = run(with_tokenizer(&from), &out).unwrap();
        for (name, content) in &case.files {
            assert_eq!(
                files.contains(&format!("tokenizer/{name}")),
                !content.is_null(),
                "{}: {name}",
                case.name
            );
        }
        let tokenizer = Tokenizer::load(&Component::new(&Folder(out), "tokenizer")).unwrap();
        for (text, ids) in texts.iter().zip(&case.ids) {
            assert_eq!(tokenizer.encode(text, 77).unwrap(), *ids, "{}: {text}", case.name);
        }
    }
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_not_converted() {
    let at = tempfile::tempdir().unwrap();
    let from = at.path().join("from");
    let files = BTreeMap::from([("tokenizer_config.json".to_owned(), json!({ "padding_side": "left" }))]);
    write(&from, &folder(&files).0);
    let error = run(with_tokenizer(&from), &at.path().join("out")).unwrap_err();
    assert!(error.code == "config-unsupported" && error.message.contains("padding_side"), "{error}");
    assert!(!at.path().join("out").exists());
}

#[test]
fn a_text_encoder_brings_the_tokenizer_of_its_folder() {
    let at = tempfile::tempdir().unwrap();
    let from = at.path().join("clip");
    copy(&fixture("prompt/model/text_encoder").0, &from);
    copy(&fixture("prompt/model/tokenizer").0, &from);
    json_file(&from.join("added_tokens.json"), &json!({ "<cat-toy>": 784 + 1 }));
    let out = at.path().join("out");
    let files = run(plan(&[(Slot::TextEncoder, from.clone())]), &out).unwrap();
    assert!(files.contains(&"tokenizer/added_tokens.json".to_owned()), "{files:?}");
    // Another that is given wins.
    let other = at.path().join("other");
    let given = fixture("prompt/model/tokenizer").0;
    let files = run(Plan { tokenizer: Some(given), ..plan(&[(Slot::TextEncoder, from)]) }, &other).unwrap();
    assert!(!files.contains(&"tokenizer/added_tokens.json".to_owned()), "{files:?}");
}

#[test]
fn stable_diffusion_2_in_one_file_needs_its_own_padding() {
    let at = tempfile::tempdir().unwrap();
    let base = fixture("convert").0.join("sd2.safetensors");
    let of = |tokenizer: &str| Plan {
        base: Some(base.clone()),
        tokenizer: Some(fixture(tokenizer).0),
        ..plan(&[])
    };
    let error = run(of("tokenizer/plain"), &at.path().join("plain")).unwrap_err();
    assert!(error.code == "convert-config" && error.message.contains("'!'"), "{error}");
    run(of("tokenizer/padding"), &at.path().join("padding")).unwrap();
}

#[test]
fn a_vision_encoder_sees_pictures_as_its_preprocessor_says() {
    let at = tempfile::tempdir().unwrap();
    let config = json!({ "image_mean": [0.5, 0.4, 0.3], "image_std": 0.5, "size": 22, "crop_size": 20, "resample": 2 });
    let expected = Preprocessing {
        resize: Resize::ShortestEdge(22),
        filter: FilterType::Triangle,
        mean: [0.5, 0.4, 0.3],
        std: [0.5; 3],
        ..Preprocessing::clip(20)
    };
    let place = |name: &str, preprocessor: &str| {
        let encoder = at.path().join(name).join("image_encoder");
        copy(&fixture("vision/vit").0, &encoder);
        std::fs::remove_file(encoder.join("preprocessor_config.json")).unwrap();
        json_file(&encoder.join(preprocessor), &config);
        encoder
    };
    let seen = |encoder: &Path, name: &str| -> Result<Preprocessing, Error> {
        let out = at.path().join(format!("{name}-out"));
        run(plan(&[(Slot::VisionEncoder, encoder.to_owned())]), &out)?;
        let files = Folder(out);
        Ok(VisionEncoder::load(&Component::new(&files, "vision_encoder"), &Device::flex())?.preprocessing())
    };
    for (name, preprocessor) in [
        ("own", "preprocessor_config.json"),
        ("extractor", "../feature_extractor/preprocessor_config.json"),
        ("processor", "../image_processor/preprocessor_config.json"),
    ] {
        assert_eq!(seen(&place(name, preprocessor), name).unwrap(), expected, "{name}");
    }
    let encoder = place("none", "other.json");
    assert_eq!(seen(&encoder, "none").unwrap(), Preprocessing::clip(20));
    // As `CLIPProcessor` of transformers 5 saves it.
    json_file(&encoder.join("processor_config.json"), &json!({ "image_processor": config }));
    assert_eq!(seen(&encoder, "whole").unwrap(), expected);
    // Both, which agree though one spells its size otherwise, and then do not.
    let mut spelt = config.clone();
    spelt["size"] = json!({ "shortest_edge": 22 });
    json_file(&encoder.join("preprocessor_config.json"), &spelt);
    assert_eq!(seen(&encoder, "both").unwrap(), expected);
    for (entry, value) in [("size", json!(24)), ("image_mean", Value::Null), ("resample", json!(3))] {
        let mut other = config.clone();
        other[entry] = value;
        json_file(&encoder.join("preprocessor_config.json"), &other);
        let error = seen(&encoder, "differing").unwrap_err();
        assert_eq!(error.code, "preprocessor", "{error}");
        for named in ["preprocessor_config.json and processor_config.json", &format!("differ in {entry}")] {
            assert!(error.message.contains(named), "{error}");
        }
    }
    std::fs::remove_file(encoder.join("preprocessor_config.json")).unwrap();
    std::fs::remove_file(encoder.join("processor_config.json")).unwrap();
    // Another program's file of a model's manifest's name.
    json_file(&encoder.join("manifest.json"), &json!({ "name": "a page", "icons": [] }));
    assert_eq!(seen(&encoder, "page").unwrap(), Preprocessing::clip(20));
    std::fs::remove_file(encoder.join("manifest.json")).unwrap();
    // A whole CLIP's config, whose old half does not say what it is.
    let own: Value = serde_json::from_slice(&std::fs::read(encoder.join("config.json")).unwrap()).unwrap();
    let mut old = own.clone();
    old.as_object_mut().unwrap().remove("model_type");
    let whole = json!({
        "model_type": "clip", "projection_dim": own["projection_dim"], "vision_config": own, "vision_config_dict": old,
    });
    json_file(&encoder.join("config.json"), &whole);
    assert_eq!(seen(&encoder, "old").unwrap(), Preprocessing::clip(20));
    json_file(&encoder.join("config.json"), &own);
    json_file(&encoder.join("preprocessor_config.json"), &json!({ "crop_size": 24 }));
    let error = seen(&encoder, "other-size").unwrap_err();
    assert!(error.code == "preprocessor" && error.message.contains("crop_size"), "{error}");
    assert!(!at.path().join("other-size-out").exists());
}

#[test]
fn open_clips_config_says_what_its_tensors_do_not() {
    let at = tempfile::tempdir().unwrap();
    let file = at.path().join("open_clip_pytorch_model.bin");
    std::fs::copy(fixture("convert").0.join("clip.pt"), &file).unwrap();
    let parts = [(Slot::TextEncoder, file.clone()), (Slot::VisionEncoder, file)];
    let read = |out: &str, component: &str| -> Value {
        let files = Folder(at.path().join(out));
        Component::new(&files, component).json("config.json").unwrap()
    };
    run(plan(&parts), &at.path().join("alone")).unwrap();
    let image_size = read("alone", "vision_encoder")["image_size"].as_u64().unwrap();
    let width = read("alone", "vision_encoder")["hidden_size"].as_u64().unwrap();
    json_file(
        &at.path().join("open_clip_config.json"),
        &json!({
            "model_cfg": { "vision_cfg": { "image_size": image_size, "head_width": width / 2 }, "text_cfg": { "heads": 2 } },
            "preprocess_cfg": { "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear" },
        }),
    );
    run(plan(&parts), &at.path().join("beside")).unwrap();
    let [text, vision] = ["text_encoder", "vision_encoder"].map(|name| read("beside", name));
    assert_eq!([&text["num_attention_heads"], &vision["num_attention_heads"]], [&json!(2), &json!(2)]);
    assert_eq!([&text["hidden_act"], &vision["hidden_act"]], ["gelu", "gelu"], "no quick_gelu there");
    let files = Folder(at.path().join("beside"));
    let encoder = VisionEncoder::load(&Component::new(&files, "vision_encoder"), &Device::flex()).unwrap();
    let usual = Preprocessing::clip(image_size as usize);
    let filter = FilterType::Triangle;
    assert_eq!(encoder.preprocessing(), Preprocessing { filter, mean: [0.5; 3], std: [0.25; 3], ..usual });
}

#[test]
fn a_prior_finds_its_schedule_in_the_pipeline_around_it() {
    let at = tempfile::tempdir().unwrap();
    copy(&fixture("prior/bare").0, &at.path().join("prior"));
    let schedule = at.path().join("scheduler/scheduler_config.json");
    json_file(&schedule, &json!({ "_class_name": "DDIMScheduler", "prediction_type": "sample" }));
    let convert_to = |out: &str| run(plan(&[(Slot::Prior, at.path().join("prior"))]), &at.path().join(out));
    let files = convert_to("out").unwrap();
    assert!(files.contains(&"prior/scheduler_config.json".to_owned()), "{files:?}");
    json_file(&schedule, &json!({ "_class_name": "UnCLIPScheduler" }));
    let error = convert_to("other").unwrap_err();
    assert!(error.message.contains("UnCLIPScheduler"), "{error}");
}

#[test]
fn a_model_folder_as_base_keeps_its_steps_and_guidance() {
    let at = tempfile::tempdir().unwrap();
    let sampling = |steps, guidance_scale| Sampling { steps, guidance_scale, ..Sampling::default() };
    let first = Plan {
        base: Some(fixture("convert").0.join("sd1.ckpt")),
        sampling: sampling(Some(4), Some(1.5)),
        ..plan(&[])
    };
    run(first, &at.path().join("first")).unwrap();
    let again = |out: &str, sampling: Sampling| -> Value {
        // A file of a tokenizer as well, which a base folder brings.
        copy(&fixture("tokenizer/padding").0, &at.path().join("first/tokenizer"));
        let plan = Plan { base: Some(at.path().join("first")), sampling, ..plan(&[]) };
        let files = run(plan, &at.path().join(out)).unwrap();
        assert!(files.contains(&"tokenizer/special_tokens_map.json".to_owned()), "{files:?}");
        Component::new(&Folder(at.path().join(out)), "").json("defaults.json").unwrap()
    };
    assert_eq!(again("second", sampling(None, None)), json!({ "steps": 4, "guidance_scale": 1.5 }));
    assert_eq!(again("third", sampling(Some(8), None)), json!({ "steps": 8, "guidance_scale": 1.5 }));
}
