//! `facestudio denoise` against diffusers' pipelines of Stable Diffusion: from noise, from a picture and inside a mask, with
//! every sampler, and scheduler configs as they are published (`tests/parity/pipelines/reference.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use facestudio::weights::{Quantization, SafetensorsFile, Tensors, encode};
use serde_json::Value;

/// Measured: at most 7e-7 of the largest latent, from another order of summing; what these cases tell apart costs over 1e-2.
const TOLERANCE: f32 = 2e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity").join(name)
}

fn read(path: &Path) -> Tensors {
    SafetensorsFile::new(std::fs::read(path).unwrap()).unwrap().into_tensors().unwrap()
}

/// The largest difference after the first and after the last step, in parts of that step's largest latent.
fn difference(case: &Value, io: &Tensors) -> f32 {
    let model = tempfile::tempdir().unwrap();
    let at = |name: &str| model.path().join(name);
    for folder in ["unet", "scheduler"] {
        std::fs::create_dir(at(folder)).unwrap();
    }
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("ip_adapter/sd/unet").join(file), at("unet").join(file)).unwrap();
    }
    std::fs::write(at("scheduler/scheduler_config.json"), case["scheduler"].to_string()).unwrap();

    let strength = case["strength"].as_f64();
    let steps = case["steps"].as_u64().unwrap() as usize;
    let kept = strength.map_or(steps, |strength| (steps as f64 * strength) as usize);
    // Heun's method evaluates twice but at the last step, and takes no noise.
    let heun = case["scheduler"]["_class_name"] == "HeunDiscreteScheduler";
    let evaluations = if heun { 2 * kept - 1 } else { kept };
    let mut inputs = Tensors::default();
    let mut names = vec!["latents", "encoder_hidden_states"];
    names.extend(strength.map(|_| "init_latents"));
    names.extend((case["what"] == "inpaint").then_some("mask"));
    for name in names {
        inputs.0.insert(name.to_owned(), io.0[name].clone());
    }
    let (mut shape, mut noise) = io.0["noise"].clone();
    noise.truncate(noise.len() / shape[0] * kept);
    shape[0] = kept;
    inputs.0.insert("noise".to_owned(), (shape, noise));
    std::fs::write(at("in"), encode(&inputs, Quantization::None, &Default::default()).unwrap()).unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio"));
    command.args(["denoise", "--steps", &steps.to_string()]);
    command.args(strength.map(|strength| format!("--strength={strength}")));
    for (flag, path) in [("--model", at("")), ("--inputs", at("in")), ("--output", at("out"))] {
        command.arg(flag).arg(path);
    }
    let run = command.output().unwrap();
    assert!(run.status.success(), "{case}: {}", String::from_utf8_lossy(&run.stderr));
    let ((shape, ours), (_, reference)) =
        (&read(&at("out")).0["steps"], &io.0[case["name"].as_str().unwrap()]);
    assert_eq!(shape[0], evaluations, "{case}");
    let one = reference.len() / 2;
    let last = &ours[ours.len() - one..];
    [&ours[..one], last].into_iter().zip(reference.chunks(one)).fold(0.0, |worst, (ours, reference)| {
        let largest = reference.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        let off = ours.iter().zip(reference).map(|(a, b)| (a - b).abs() / largest);
        off.fold(worst, |most: f32, d| if d.is_nan() || d > most { d } else { most })
    })
}

#[track_caller]
fn assert_parity(what: &str, least: usize) {
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(fixture("pipelines/cases.json")).unwrap()).unwrap();
    let io = read(&fixture("pipelines/io.safetensors"));
    let cases: Vec<&Value> = cases.iter().filter(|case| case["what"] == what).collect();
    assert!(cases.len() >= least, "{} cases", cases.len());
    let off: Vec<_> = cases.iter().map(|case| (difference(case, &io), case)).collect();
    off.iter().for_each(|(off, case)| println!("{off:.1e} {case}"));
    let wrong: Vec<_> = off.iter().filter(|(off, _)| off.is_nan() || *off > TOLERANCE).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn scheduler_configs_mean_what_they_mean_to_stable_diffusion() {
    assert_parity("text", 25);
}

#[test]
fn a_picture_is_noised_at_every_strength() {
    assert_parity("image", 20);
}

#[test]
fn inside_a_mask_strength_one_begins_with_noise_alone() {
    assert_parity("inpaint", 15);
}
