//! From prompts to latents: `facestudio denoise --prompt` against diffusers' `StableDiffusionPipeline` with one adapter
//! (`tests/parity/prompt/reference.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use facestudio::weights::{SafetensorsFile, Tensors};
use serde_json::Value;

/// Measured: at most 1.1e-6 of the largest latent at any step, from another order of summing; another prompt costs over 0.1.
const TOLERANCE: f32 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity/prompt").join(name)
}

fn read(path: &Path) -> Tensors {
    SafetensorsFile::new(std::fs::read(path).unwrap()).unwrap().into_tensors().unwrap()
}

/// The model folder with the scheduler of a case.
fn model(scheduler: &Value) -> tempfile::TempDir {
    let model = tempfile::tempdir().unwrap();
    for folder in ["unet", "text_encoder", "tokenizer", "ip_adapter"] {
        std::fs::create_dir(model.path().join(folder)).unwrap();
        for file in std::fs::read_dir(fixture("model").join(folder)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), model.path().join(folder).join(file.file_name())).unwrap();
        }
    }
    std::fs::create_dir(model.path().join("scheduler")).unwrap();
    std::fs::write(model.path().join("scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
    model
}

/// The largest difference of any step, in parts of the step's largest latent.
fn difference(case: &str, change: &[(&str, &str)]) -> f32 {
    let told: Value =
        serde_json::from_slice(&std::fs::read(fixture(&format!("{case}.json"))).unwrap()).unwrap();
    let model = model(&told["scheduler"]);
    let inputs = fixture(&format!("{case}.safetensors"));
    let output = model.path().join("out.safetensors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio"));
    command
        .arg("denoise")
        .arg("--model")
        .arg(model.path())
        .arg("--inputs")
        .arg(&inputs)
        .arg("--output")
        .arg(&output);
    for key in ["prompt", "negative_prompt", "steps", "guidance_scale"] {
        let value = told[key].as_str().map_or_else(|| told[key].to_string(), str::to_owned);
        let changed = change.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        command.arg(format!("--{}={}", key.replace('_', "-"), changed.unwrap_or(value)));
    }
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let ((shape, reference), (our_shape, ours)) = (&read(&inputs).0["steps"], &read(&output).0["steps"]);
    assert_eq!(shape, our_shape);
    let one = reference.len() / shape[0];
    let steps = ours.chunks(one).zip(reference.chunks(one)).map(|(ours, reference)| {
        let largest = reference.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        let off = ours.iter().zip(reference).map(|(a, b)| (a - b).abs());
        off.fold(0.0, |most: f32, d| if d.is_nan() || d > most { d } else { most }) / largest
    });
    steps.fold(0.0, |most: f32, d| if d.is_nan() || d > most { d } else { most })
}

#[test]
fn prompts_become_diffusers_latents() {
    for case in ["euler_ancestral", "lcm", "turbo", "hyper"] {
        let off = difference(case, &[]);
        println!("{case}: {off:.1e} of the largest latent");
        assert!(off < TOLERANCE, "{case} is off by {off}");
    }
}

#[test]
fn another_prompt_becomes_other_latents() {
    for change in [("prompt", "A portrait of an old woman"), ("negative_prompt", ""), ("guidance_scale", "1")]
    {
        let off = difference("euler_ancestral", &[change]);
        println!("{change:?}: {off:.1e}");
        assert!(off > 0.1, "{change:?} changes {off}");
    }
}
