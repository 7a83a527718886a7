//! What checkpoints say of themselves, in the model folders that are made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use facestudio::Error;
use facestudio::sampling::SchedulerConfig;
use facestudio::weights::{Quantization, TensorSource, Tensors, encode};
use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::declared::Declared;
use facestudio_convert::{Plan, Slot, convert};
use serde_json::{Value, json};

fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity/convert").join(name)
}

fn tensors(path: &Path) -> Tensors {
    Checkpoint::open(path).unwrap().read_all().unwrap()
}

fn write(path: &Path, tensors: &Tensors, metadata: &[(&str, &str)]) {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    std::fs::write(path, encode(tensors, Quantization::None, &metadata.collect()).unwrap()).unwrap();
}

/// The scheduler of the folder that a plan makes, or its error.
fn scheduler(plan: Plan) -> Result<Value, Error> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let plan = Plan { quantization: Quantization::None, ..plan };
    convert(&plan, &out, &AtomicBool::new(false), &|_, _| ())?;
    let bytes = std::fs::read(out.join("scheduler/scheduler_config.json")).unwrap();
    SchedulerConfig::from_json(&bytes).unwrap();
    Ok(serde_json::from_slice(&bytes).unwrap())
}

/// `prediction_type` and whether the schedule ends in noise alone.
fn says(config: &Value) -> (&str, bool) {
    (config["prediction_type"].as_str().unwrap(), config["rescale_betas_zero_snr"] == true)
}

const V: &str = "v_prediction";

#[test]
fn a_single_file_says_what_it_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let whole = tensors(&path("sd2.safetensors"));
    let none: &[&str] = &[];
    type Case<'a> =
        (&'a [&'a str], &'a [(&'a str, &'a str)], Option<&'static str>, Result<(&'a str, bool), &'a str>);
    let cases: &[Case] = &[
        (none, &[], None, Ok(("epsilon", false))),
        (&["v_pred"], &[], None, Ok((V, false))),
        (&["v_pred", "ztsnr"], &[], None, Ok((V, true))),
        (none, &[("modelspec.prediction_type", "v")], None, Ok((V, false))),
        (none, &[("modelspec.predict_key", "v")], None, Ok((V, false))),
        (none, &[("modelspec.prediction_type", "v_prediction")], None, Ok((V, false))),
        (none, &[("modelspec.prediction_type", "epsilon")], None, Ok(("epsilon", false))),
        (&["ztsnr"], &[("modelspec.prediction_type", "v")], None, Ok((V, true))),
        (none, &[("ss_v_parameterization", "True"), ("ss_zero_terminal_snr", "True")], None, Ok((V, true))),
        (
            none,
            &[("ss_v_parameterization", "False"), ("ss_zero_terminal_snr", "False")],
            None,
            Ok(("epsilon", false)),
        ),
        (none, &[("modelspec.architecture", "stable-diffusion-v2-768-v")], None, Ok((V, false))),
        (none, &[("modelspec.architecture", "stable-diffusion-v2-512")], None, Ok(("epsilon", false))),
        (none, &[("modelspec.architecture", "Stable-Diffusion-V1")], None, Ok(("epsilon", false))),
        // The user settles it.
        (&["v_pred"], &[], Some("epsilon"), Ok(("epsilon", false))),
        (&["ztsnr"], &[], Some(V), Ok((V, true))),
        (none, &[("modelspec.prediction_type", "flow")], Some(V), Ok((V, false))),
        // What cannot be, or is not known.
        (&["v_pred"], &[("modelspec.prediction_type", "epsilon")], None, Err("'v_pred'")),
        (&["ztsnr"], &[], None, Err("zero terminal SNR")),
        (none, &[("modelspec.prediction_type", "flow")], None, Err("'flow'")),
        (&["edm_mean", "edm_std"], &[], None, Err("'edm_mean'")),
        (
            none,
            &[("modelspec.architecture", "stable-diffusion-xl-v1-base")],
            None,
            Err("stable-diffusion-xl-v1-base"),
        ),
        (none, &[("modelspec.architecture", "flux-1-dev")], None, Err("flux-1-dev")),
    ];
    for (marks, metadata, given, expected) in cases {
        let mut with = whole.clone();
        with.0.extend(marks.iter().map(|mark| ((*mark).to_owned(), (vec![0], vec![]))));
        write(&file, &with, metadata);
        let what = format!("{marks:?} {metadata:?} {given:?}");
        let made = scheduler(Plan { base: Some(file.clone()), prediction_type: *given, ..Plan::default() });
        match (&made, expected) {
            (Ok(config), Ok(expected)) => {
                assert_eq!(says(config), *expected, "{what}");
                // Pure noise is the first step's, or the model is never asked about it.
                let spacing = if expected.1 { "trailing" } else { "leading" };
                assert_eq!(config["timestep_spacing"], spacing, "{what}");
            }
            (Err(error), Err(part)) => {
                assert!(
                    error.code == "checkpoint-declares" && error.message.contains(part),
                    "{what}: {error}"
                );
                assert!(error.message.contains("model.safetensors"), "{error}");
            }
            _ => panic!("{what}: {made:?}"),
        }
    }
}

/// The same of a file of torch.save, and no mark becomes a weight.
#[test]
fn marks_are_read_from_every_kind_of_file() {
    let marks = path("transformers5/marks.pt");
    let checkpoint = Checkpoint::open(&marks).unwrap();
    assert_eq!((checkpoint.shape("v_pred"), checkpoint.read("ztsnr").unwrap()), (Some(vec![0]), vec![]));
    let declared = Declared::read(&checkpoint, &marks, None, None).unwrap();
    assert_eq!(declared, Declared { prediction_type: Some(V), zero_snr: true, scheduled: false });

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unet.safetensors");
    let whole = tensors(&path("sd1.ckpt"));
    let unet = whole
        .0
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("model.diffusion_model.")?.to_owned(), tensor)));
    let mut unet = Tensors(unet.collect());
    unet.0.insert("v_pred".to_owned(), (vec![0], vec![]));
    write(&file, &unet, &[]);
    let out = folder.path().join("out");
    let plan = Plan { parts: vec![(Slot::Unet, file)], quantization: Quantization::Q8, ..Plan::default() };
    convert(&plan, &out, &AtomicBool::new(false), &|_, _| ()).unwrap();
    assert_eq!(tensors(&out.join("unet")).0.get("v_pred"), None);
    // A UNet alone brings its schedule where it is not the usual one.
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.join("scheduler/scheduler_config.json")).unwrap()).unwrap();
    assert_eq!(says(&config), (V, false));
}

/// `v2-inference-v.yaml` lies beside the checkpoints that it belongs to.
#[test]
fn the_original_codes_yaml_says_what_is_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("768.ckpt");
    std::fs::copy(path("sd1.ckpt"), &file).unwrap();
    for (value, expected) in [("\"v\"", Ok(V)), ("eps # the noise", Ok("epsilon")), ("'x1'", Err("x1"))] {
        let text = format!("model:\n  params:\n    parameterization: {value}\n    linear_start: 0.00085\n");
        std::fs::write(folder.path().join("768.yaml"), text).unwrap();
        let made = scheduler(Plan { base: Some(file.clone()), ..Plan::default() });
        match expected {
            Ok(expected) => assert_eq!(says(&made.unwrap()).0, expected),
            Err(part) => assert!(made.unwrap_err().message.contains(part)),
        }
    }
}

/// A Stable Diffusion 2 without a word is told by its weights, as ComfyUI tells it.
#[test]
fn weights_tell_where_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let bias = |size: f32| (vec![4], vec![size, -size, size, -size]);
    let name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
    let linear = ("model.diffusion_model.middle_block.1.proj_in.weight".to_owned(), (vec![1, 1], vec![0.0]));
    let first =
        ("model.diffusion_model.input_blocks.0.0.weight".to_owned(), (vec![1, 4, 1, 1], vec![0.0; 4]));
    for (size, expected) in [(0.1, V), (0.08, "epsilon")] {
        let tensors = Tensors([(name.to_owned(), bias(size)), linear.clone(), first.clone()].into());
        write(&file, &tensors, &[]);
        let declared = Declared::read(&Checkpoint::open(&file).unwrap(), &file, None, None).unwrap();
        assert_eq!(declared.prediction_type, Some(expected));
    }
}

/// A diffusers folder: what its scheduler says is carried, and what a UNet from elsewhere says takes its place.
#[test]
fn a_folders_scheduler_is_carried_unless_its_unet_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    let plan = Plan { base: Some(path("sd1.ckpt")), quantization: Quantization::None, ..Plan::default() };
    convert(&plan, &base, &AtomicBool::new(false), &|_, _| ()).unwrap();
    let tokenizer = base.join("tokenizer");
    std::fs::create_dir(&tokenizer).unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(path("../prompt/model/tokenizer").join(name), tokenizer.join(name)).unwrap();
    }
    let file = base.join("scheduler/scheduler_config.json");
    // As Python writes it.
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "prediction_type": "epsilon"}"#;
    std::fs::write(&file, text).unwrap();
    // It is no longer what its manifest says.
    std::fs::remove_file(base.join("manifest.json")).unwrap();
    let of_base = Plan { base: Some(base.clone()), ..Plan::default() };
    let out = folder.path().join("out");
    convert(&of_base, &out, &AtomicBool::new(false), &|_, _| ()).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("scheduler/scheduler_config.json")).unwrap(), text);

    let given = Plan { prediction_type: Some(V), ..of_base.clone() };
    let config = scheduler(given).unwrap();
    assert_eq!((says(&config), &config["_class_name"]), ((V, false), &json!("DPMSolverMultistepScheduler")));

    // Another model's UNet, whose own scheduler says what it predicts.
    let other = folder.path().join("other");
    std::fs::create_dir_all(other.join("scheduler")).unwrap();
    std::fs::create_dir(other.join("unet")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(base.join("unet").join(name), other.join("unet").join(name)).unwrap();
    }
    let text = r#"{"prediction_type": "v_prediction", "rescale_betas_zero_snr": true}"#;
    std::fs::write(other.join("scheduler/scheduler_config.json"), text).unwrap();
    for unet in [other.join("unet"), other.join("unet/model.safetensors")] {
        let mixed = Plan { parts: vec![(Slot::Unet, unet)], ..of_base.clone() };
        assert_eq!(says(&scheduler(mixed).unwrap()), (V, true));
    }

    // A header against the scheduler beside it.
    let unet = tensors(&base.join("unet"));
    write(&base.join("unet/model.safetensors"), &unet, &[("modelspec.prediction_type", "v")]);
    let error = scheduler(of_base.clone()).unwrap_err();
    assert!(
        error.code == "checkpoint-declares" && error.message.contains("scheduler_config.json"),
        "{error}"
    );
    assert_eq!(says(&scheduler(Plan { prediction_type: Some(V), ..of_base }).unwrap()), (V, false));
    let nothing = Plan {
        parts: vec![(Slot::FaceEncoder, path("iresnet.pt"))],
        prediction_type: Some(V),
        ..Plan::default()
    };
    assert_eq!(scheduler(nothing).unwrap_err().code, "convert-config");
}

#[test]
fn another_kind_of_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let whole = tensors(&path("sd1.ckpt"));
    let (shape, values) = whole.0["model.diffusion_model.input_blocks.0.0.weight"].clone();
    let wide = |channels: usize| {
        let mut shape = shape.clone();
        shape[1] = channels;
        let count = shape.iter().product();
        (shape, values.iter().copied().cycle().take(count).collect::<Vec<f32>>())
    };
    let first = "model.diffusion_model.input_blocks.0.0.weight";
    let block = "model.diffusion_model.input_blocks.1.1.transformer_blocks.1.norm1.weight";
    for (name, tensor, slot, part) in [
        (first, wide(9), Slot::Unet, "inpainting"),
        (first, wide(8), Slot::Unet, "InstructPix2Pix"),
        (first, wide(5), Slot::Unet, "depths"),
        (
            "model.diffusion_model.label_emb.0.0.weight",
            (vec![1], vec![0.0]),
            Slot::Unet,
            "Stable Diffusion XL",
        ),
        (
            "conditioner.embedders.1.model.logit_scale",
            (vec![1], vec![0.0]),
            Slot::Unet,
            "Stable Diffusion XL",
        ),
        ("conditioner.embedders.1.model.logit_scale", (vec![1], vec![0.0]), Slot::Vae, "Stable Diffusion XL"),
        (block, (vec![1], vec![0.0]), Slot::Unet, "several blocks"),
    ] {
        let mut other = whole.clone();
        other.0.insert(name.to_owned(), tensor);
        write(&file, &other, &[]);
        let plan = Plan { parts: vec![(slot, file.clone())], ..Plan::default() };
        let error =
            convert(&plan, &folder.path().join("out"), &AtomicBool::new(false), &|_, _| ()).unwrap_err();
        assert!(error.code == "checkpoint-layout" && error.message.contains(part), "{name}: {error}");
    }

    // An autoencoder's header is all that tells whose it is.
    write(&file, &whole, &[("modelspec.architecture", "stable-diffusion-xl-v1-base/vae")]);
    let plan = Plan { parts: vec![(Slot::Vae, file)], ..Plan::default() };
    let error = convert(&plan, &folder.path().join("out"), &AtomicBool::new(false), &|_, _| ()).unwrap_err();
    assert_eq!(error.code, "checkpoint-declares", "{error}");

    // diffusers' folders, for inpainting and of Stable Diffusion XL.
    let unet = folder.path().join("unet");
    std::fs::create_dir(&unet).unwrap();
    let one = Tensors(BTreeMap::from([("a".to_owned(), (vec![1], vec![0.0]))]));
    write(&unet.join("model.safetensors"), &one, &[]);
    for (config, part) in [
        (json!({ "in_channels": 9, "out_channels": 4 }), "9 channels"),
        (json!({ "in_channels": 4, "addition_embed_type": "text_time" }), "addition_embed_type"),
    ] {
        std::fs::write(unet.join("config.json"), config.to_string()).unwrap();
        let plan = Plan { parts: vec![(Slot::Unet, unet.clone())], ..Plan::default() };
        let error =
            convert(&plan, &folder.path().join("out"), &AtomicBool::new(false), &|_, _| ()).unwrap_err();
        assert!(error.code == "checkpoint-layout" && error.message.contains(part), "{error}");
    }
}
