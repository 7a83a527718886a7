//! A component at a time makes what all at once makes, though a source is dropped as soon as no step reads it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use facestudio::weights::{Quantization, sha256};
use facestudio_convert::convert;
use facestudio_convert::presets::Preset;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).to_owned()
}

/// What the program says, and whether it succeeded.
fn run(sources: &Path, model: &Path, words: &[&str]) -> (bool, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio-convert-wasi"));
    let output = command.arg(sources).arg(model).args(words).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The code of an error, which is the last that is said.
fn code(sources: &Path, words: &[&str]) -> String {
    let (success, said) = run(sources, Path::new("nowhere"), words);
    assert!(!success);
    said.last().unwrap()["error"]["code"].as_str().unwrap().to_owned()
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// A recipe whose files are the fixtures, all of them below `sources`, and the request for it.
fn put(sources: &Path) -> Preset {
    let mut preset = Preset::named("sd15-plus-face").unwrap();
    for file in preset.parts.iter_mut().flat_map(|part| &mut part.files) {
        (file.bytes, file.sha256) = (None, None);
    }
    let stand_ins = fs::read(root().join("tests/stand-ins.json")).unwrap();
    let stand_ins: BTreeMap<String, String> = serde_json::from_slice(&stand_ins).unwrap();
    for (part, file) in preset.files() {
        let to = part.at(sources, file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join("tests/parity").join(&stand_ins[&file.path]), to).unwrap();
    }
    fs::write(sources.join("request.json"), json!({ "recipe": preset, "dtype": "q8" }).to_string()).unwrap();
    preset
}

#[test]
fn steps_make_the_folder_that_all_at_once_makes() {
    let folder = tempfile::tempdir().unwrap();
    let [sources, whole, stepped] = ["sources", "whole", "stepped"].map(|name| folder.path().join(name));
    let preset = put(&sources);
    let folders: Vec<PathBuf> = preset.parts.iter().map(|part| sources.join(&part.repository)).collect();
    let never = AtomicBool::new(false);
    convert(&preset.plan(&folders, Quantization::Q8), &whole, &never, &|_, _| ()).unwrap();

    let (success, said) = run(&sources, &stepped, &["steps"]);
    assert!(success, "{said:?}");
    let steps = said[0]["steps"].as_array().unwrap();
    let reads = |step: &Value| -> BTreeSet<String> { serde_json::from_value(step["reads"].clone()).unwrap() };
    let unet = steps.iter().find(|step| step["component"] == "unet").unwrap();
    assert!(reads(unet).iter().any(|path| path.contains("plus-face")), "an adapter may bring a LoRA: {unet}");
    let mut told = BTreeMap::new();
    for k in 0..=steps.len() {
        let words =
            if k == steps.len() { vec!["finish".to_owned()] } else { vec!["make".to_owned(), k.to_string()] };
        let (success, said) = run(&sources, &stepped, &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(success, "{said:?}");
        let written = said.iter().filter_map(|said| said.get("file"));
        told.extend(written.map(|file| (file["path"].as_str().unwrap().to_owned(), file["sha256"].clone())));
        assert_eq!(said.iter().any(|said| said.get("tensor").is_some()), k < steps.len());
        // Large files that no later step reads; the small ones beside them stay.
        let later: BTreeSet<String> = steps.iter().skip(k + 1).flat_map(reads).collect();
        for name in
            files(&sources).into_keys().filter(|name| !name.ends_with(".json") && !name.ends_with(".txt"))
        {
            if !later.iter().any(|read| name.starts_with(read)) {
                fs::remove_file(sources.join(name)).unwrap();
            }
        }
    }
    let (whole, stepped) = (files(&whole), files(&stepped));
    assert_eq!(whole.keys().collect::<Vec<_>>(), stepped.keys().collect::<Vec<_>>());
    for (name, bytes) in &whole {
        assert!(stepped[name] == *bytes, "{name}");
        assert_eq!(told[name], sha256(bytes), "{name}");
    }
}

#[test]
fn what_cannot_be_made_is_said_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path();
    let preset = put(sources);
    assert_eq!(code(sources, &["mend"]), "usage");
    assert_eq!(code(sources, &["make", "99"]), "usage");
    let (part, unet) = preset.files().find(|(_, file)| file.path.starts_with("unet/diffusion")).unwrap();
    let unet = part.at(sources, unet);
    let (_, said) =
        run(sources, sources, &["recognize", unet.strip_prefix(sources).unwrap().to_str().unwrap()]);
    assert_eq!(said[0]["recognized"]["kind"], "unet");
    fs::write(&unet, b"no weights").unwrap();
    assert_eq!(code(sources, &["make", "0"]), "safetensors");
    let scheduler = unet.parent().unwrap().parent().unwrap().join("scheduler/scheduler_config.json");
    fs::write(scheduler, r#"{ "_class_name": "Another" }"#).unwrap();
    assert_eq!(code(sources, &["steps"]), "config-unsupported");
    for request in
        [json!({ "recipe": preset, "dtype": "q5" }), json!({ "recipe": 3, "dtype": "q8" }), json!(1)]
    {
        fs::write(sources.join("request.json"), request.to_string()).unwrap();
        assert_eq!(code(sources, &["steps"]), "preset-invalid");
    }
}
