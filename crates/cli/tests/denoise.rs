//! `facestudio denoise` against the latents of every step of diffusers' `StableDiffusionPipeline` with adapters
//! (`tests/parity/ip_adapter/reference.py`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use facestudio::weights::{Folder, Manifest, Quantization, SafetensorsFile, Tensors, encode};

/// Measured: at most 1e-6 of the largest latent at any step, from another order of summing. A mask resized otherwise, or a
/// scale off by a hundredth, costs over 1e-4.
const TOLERANCE: f32 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity/ip_adapter").join(name)
}

fn read(path: &Path) -> Tensors {
    SafetensorsFile::new(std::fs::read(path).unwrap()).unwrap().into_tensors().unwrap()
}

fn facestudio(arguments: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio"));
    command.args(arguments);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    command.output().unwrap()
}

/// The largest difference, in parts of the largest value of the reference.
#[track_caller]
fn difference(ours: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(ours.len(), reference.len());
    let largest = reference.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    let worst = ours.iter().zip(reference).map(|(a, b)| (a - b).abs());
    worst.fold(0.0, |most: f32, d| if d.is_nan() || d > most { d } else { most }) / largest
}

/// Runs the loop on the inputs of a reference run and gives its steps.
#[track_caller]
fn denoise(model: &Path, inputs: &Path, arguments: &[&str]) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    let run = facestudio(
        &[&["denoise", "--steps", "25"], arguments].concat(),
        &[("--model", model), ("--inputs", inputs), ("--output", &output)],
    );
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    read(&output)
}

#[track_caller]
fn assert_parity(model: &Path, case: &str, arguments: &[&str]) {
    let inputs = fixture("sd").join(format!("{case}.safetensors"));
    let (reference, ours) = (read(&inputs), denoise(model, &inputs, arguments));
    let ((shape, expected), (our_shape, steps)) = (&reference.0["steps"], &ours.0["steps"]);
    assert_eq!(our_shape, shape);
    let one = expected.len() / shape[0];
    for (i, (ours, expected)) in steps.chunks(one).zip(expected.chunks(one)).enumerate() {
        let off = difference(ours, expected);
        assert!(off < TOLERANCE, "{case}: step {} is off by {off} of the largest latent", i + 1);
    }
}

/// The model with its second adapter alone.
fn with_the_second_adapter_alone() -> tempfile::TempDir {
    let model = tempfile::tempdir().unwrap();
    for (from, to) in [("unet", "unet"), ("scheduler", "scheduler"), ("ip_adapter_2", "ip_adapter")] {
        std::fs::create_dir(model.path().join(to)).unwrap();
        for file in std::fs::read_dir(fixture("sd").join(from)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), model.path().join(to).join(file.file_name())).unwrap();
        }
    }
    model
}

#[test]
fn two_adapters_two_masked_people_and_a_negative_prompt() {
    assert_parity(&fixture("sd"), "two", &["--guidance-scale", "4"]);
}

#[test]
fn without_guidance() {
    assert_parity(&fixture("sd"), "unguided", &[]);
}

#[test]
fn one_adapter_with_a_scale() {
    let model = with_the_second_adapter_alone();
    assert_parity(model.path(), "one", &["--guidance-scale", "4", "--ip-scale", "0.7"]);
}

#[test]
fn image_to_image() {
    let model = with_the_second_adapter_alone();
    let arguments = ["--guidance-scale", "4", "--ip-scale", "0.7", "--strength", "0.6"];
    assert_parity(model.path(), "from_picture", &arguments);
}

#[test]
fn inpainting() {
    let model = with_the_second_adapter_alone();
    assert_parity(model.path(), "inpaint", &["--guidance-scale", "4", "--ip-scale", "0.7"]);
}

#[test]
fn an_interval_ends_an_adapter_between_two_steps() {
    let model = with_the_second_adapter_alone();
    let config = model.path().join("ip_adapter/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen('{', "{ \"interval\": [0, 0.5],", 1)).unwrap();
    let inputs = fixture("sd").join("one.safetensors");
    let (whole, part) = (
        read(&inputs).0["steps"].clone(),
        denoise(model.path(), &inputs, &["--guidance-scale", "4", "--ip-scale", "0.7"]),
    );
    let one = whole.1.len() / 25;
    let off = |step: usize| {
        let range = step * one..(step + 1) * one;
        difference(&part.0["steps"].1[range.clone()], &whole.1[range])
    };
    // 13 of 25 steps begin before the half.
    assert!((0..13).all(|step| off(step) < TOLERANCE));
    assert!((13..25).all(|step| off(step) > 10.0 * TOLERANCE), "{:?}", (13..25).map(off).collect::<Vec<_>>());
}

/// FaceID as it is published, one pickled dictionary of two; its LoRA goes into the UNet.
#[test]
fn a_converted_face_id_with_its_lora() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let (unet, adapter) = (fixture("sd").join("unet"), format!("{}:0.9", fixture("face_id.bin").display()));
    let detector = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini/detector");
    let arguments = ["convert", "--dtype", "f32", "--identity-adapter", &adapter];
    let paths: [(&str, &Path); 3] = [("--unet", &unet), ("--detector", &detector), ("--out", &model)];
    let run = facestudio(&arguments, &paths);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let said = String::from_utf8(run.stdout).unwrap();
    // Query, key, value and output of each of 14 attentions.
    assert!(said.contains("56 LoRA updates"), "{said}");
    let manifest = Manifest::read(&Folder(model.clone())).unwrap();
    assert_eq!(manifest.components.keys().collect::<Vec<_>>(), ["detector", "ip_adapter", "unet"]);
    // The folder gets another file, so that its manifest goes.
    std::fs::remove_file(model.join("manifest.json")).unwrap();
    std::fs::create_dir(model.join("scheduler")).unwrap();
    let scheduler = "scheduler/scheduler_config.json";
    std::fs::copy(fixture("sd").join(scheduler), model.join(scheduler)).unwrap();
    assert_parity(&model, "face_id", &["--guidance-scale", "4"]);
}

#[test]
fn an_adapter_that_cannot_be_converted_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (face_id, plus) = (fixture("face_id.bin"), fixture("face_id_plus").join("model.safetensors"));
    let unet = fixture("sd").join("unet");
    type Case<'a> = (&'a [(&'a str, &'a Path)], &'a str, &'a str);
    let cases: [Case; 5] = [
        (&[("--identity-adapter", &face_id)], "convert-config", "LoRA"),
        (&[("--identity-adapter", &plus)], "convert-config", "FaceID-Plus"),
        (&[("--unet", &unet), ("--style-adapter", &face_id)], "convert-config", "style"),
        (&[("--identity-adapter", &unet)], "checkpoint-layout", "image_proj"),
        (&[("--style-blocks", Path::new("up_blocks.1")), ("--unet", &unet)], "style-blocks", "up_blocks.1"),
    ];
    for (paths, code, named) in cases {
        let run = facestudio(&["convert"], &[paths, &[("--out", &out)]].concat());
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(
            !run.status.success() && said.contains(&format!("[{code}]")) && said.contains(named),
            "{said}"
        );
        assert!(!out.exists());
    }
}

/// What the comparisons above could not tell: that adapters and scales each matter.
#[test]
fn each_input_of_an_adapter_has_its_effect() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = folder.path().join("in.safetensors");
    let whole = read(&fixture("sd").join("two.safetensors"));
    let expected = &whole.0["steps"].1;
    let changed = |drop: &[&str], arguments: &[&str]| {
        let mut given = whole.clone();
        given.0.retain(|name, _| !drop.contains(&name.as_str()));
        std::fs::write(&inputs, encode(&given, Quantization::None, &Default::default()).unwrap()).unwrap();
        let arguments = [&["--guidance-scale", "4"], arguments].concat();
        difference(&denoise(&fixture("sd"), &inputs, &arguments).0["steps"].1, expected)
    };
    for (drop, arguments) in [
        (&["image_embeds.1", "negative_image_embeds.1"][..], &[][..]),
        (&["hidden_states.0", "negative_hidden_states.0", "ip_mask.0"], &[]),
        (&[], &["--ip-scale", "0.8", "--ip-scale", "0.3"]),
    ] {
        let off = changed(drop, arguments);
        assert!(off > 1e-2, "{drop:?} {arguments:?}: {off}");
    }
}

#[test]
fn the_unet_alone_takes_tokens_masks_and_scales() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    let sd = fixture("sd");
    let inputs = sd.join("unet_step.safetensors");
    let (unet, first, second) = (sd.join("unet"), sd.join("ip_adapter"), sd.join("ip_adapter_2"));
    let paths: [(&str, &Path); 5] = [
        ("--model", &unet),
        ("--inputs", &inputs),
        ("--output", &output),
        ("--ip-adapter", &first),
        ("--ip-adapter", &second),
    ];
    let run = facestudio(&["component", "unet", "--ip-scale", "0.8", "--ip-scale", "0.5"], &paths);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let off = difference(&read(&output).0["sample"].1, &read(&inputs).0["output"].1);
    assert!(off < 1e-5, "off by {off}");
}

#[test]
fn the_program_projects_as_the_library_does() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    for case in ["image", "plus", "full_face", "face_id", "face_id_plus", "face_id_plus_v2"] {
        let (model, inputs) = (fixture(case), fixture(case).join("io.safetensors"));
        let paths: [(&str, &Path); 3] = [("--model", &model), ("--inputs", &inputs), ("--output", &output)];
        let run = facestudio(&["component", "ip-projection"], &paths);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let off = difference(&read(&output).0["tokens"].1, &read(&inputs).0["tokens"].1);
        assert!(off < 1e-4, "{case} is off by {off}");
    }
}

#[test]
fn what_fits_no_adapter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (inputs, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let whole = read(&fixture("sd").join("two.safetensors"));
    let cases: [(&str, &str, &[&str], &str); 6] = [
        ("ip_mask.0", "region-count", &[], "2 people"),
        ("negative_hidden_states.0", "input-missing", &[], "negative_hidden_states.0"),
        ("noise", "input-missing", &[], "noise"),
        ("init_latents", "input-missing", &[], "init_latents"),
        ("steps", "ip-scale", &["--ip-scale", "1", "--ip-scale", "1", "--ip-scale", "1"], "3 values"),
        ("hidden_states.0", "input-missing", &[], "hidden_states.0"),
    ];
    let refused = |given: &Tensors, code: &str, arguments: &[&str], named: &str| {
        std::fs::write(&inputs, encode(given, Quantization::None, &Default::default()).unwrap()).unwrap();
        let run = facestudio(
            &[&["denoise", "--steps", "25", "--guidance-scale", "4"], arguments].concat(),
            &[("--model", &fixture("sd")), ("--inputs", &inputs), ("--output", &output)],
        );
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("[{code}]")) && said.contains(named), "{said}");
        assert!(!output.exists());
    };
    for (drop, code, arguments, named) in cases {
        let mut given = whole.clone();
        given.0.remove(drop);
        if drop == "init_latents" {
            given.0.insert("mask".to_owned(), (vec![1, 1, 8, 16], vec![1.0; 128]));
        }
        refused(&given, code, arguments, named);
    }
    // Nothing is the same for everybody, and as an embedding zeros.
    for changed in ["negative_hidden_states.0", "negative_image_embeds.1"] {
        let mut given = whole.clone();
        *given.0.get_mut(changed).unwrap().1.last_mut().unwrap() += 1.0;
        refused(&given, "input-range", &[], changed);
    }
}
