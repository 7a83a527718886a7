//! `facestudio presets` on small files in the places of the published ones.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use facestudio::weights::{Folder, Manifest};
use facestudio_convert::presets::PRESETS;

fn presets(arguments: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio"));
    command.arg("presets").args(arguments);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    command.output().unwrap()
}

/// A fixture for each published file of `sd15-plus-face`.
const STAND_INS: &[(&str, &str)] = &[
    ("unet/config.json", "ip_adapter/sd/unet/config.json"),
    ("unet/diffusion_pytorch_model.fp16.safetensors", "ip_adapter/sd/unet/model.safetensors"),
    ("vae/config.json", "vae/kl/config.json"),
    ("vae/diffusion_pytorch_model.fp16.safetensors", "vae/kl/model.safetensors"),
    ("text_encoder/config.json", "text/projection/config.json"),
    ("text_encoder/model.fp16.safetensors", "text/projection/model.safetensors"),
    ("tokenizer/vocab.json", "tokenizer/plain/vocab.json"),
    ("tokenizer/merges.txt", "tokenizer/plain/merges.txt"),
    ("scheduler/scheduler_config.json", "ip_adapter/sd/scheduler/scheduler_config.json"),
    ("models/face_detection_yunet/face_detection_yunet_2023mar.onnx", "yunet/plain/exported.onnx"),
    ("models/image_encoder/config.json", "vision/vit/config.json"),
    ("models/image_encoder/model.safetensors", "vision/vit/model.safetensors"),
    ("models/ip-adapter_sd15.safetensors", "ip_adapter/sd/ip_adapter_2/model.safetensors"),
    ("models/ip-adapter-plus-face_sd15.safetensors", "ip_adapter/sd/ip_adapter/model.safetensors"),
    ("config.json", "vae/tiny/config.json"),
    ("diffusion_pytorch_model.safetensors", "vae/tiny/model.safetensors"),
];

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).to_owned()
}

#[test]
fn every_recipe_is_listed_with_what_it_needs() {
    let list = String::from_utf8(presets(&[], &[]).stdout).unwrap();
    for preset in PRESETS {
        assert!(list.contains(preset.name), "{list}");
        let told = String::from_utf8(presets(&[preset.name], &[]).stdout).unwrap();
        for source in preset.files() {
            let file = format!("{}/{}", source.repository, source.path);
            let line = told.lines().find(|line| line.contains(&file)).unwrap_or_else(|| panic!("{file}"));
            assert!(line.contains(source.license) && line.contains(source.host), "{line}");
        }
    }
    assert!(String::from_utf8(presets(&["sdxl"], &[]).stderr).unwrap().contains("[preset]"));
}

#[test]
fn a_recipe_becomes_a_model_in_one_command_and_remembers_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    let name = "sd15-plus-face";
    let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
    let convert = |out: &Path| {
        let paths: [(&str, &Path); 2] = [("--files", &files), ("--out", out)];
        presets(&[name, "--dtype", "f32"], &paths)
    };
    let first = folder.path().join("first");
    let refused = convert(&first);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("[preset-file]"));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("missing"));

    for source in preset.files() {
        let (_, stand_in) = STAND_INS.iter().find(|(path, _)| *path == source.path).unwrap();
        let to = source.at(&files);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root().join("tests/parity").join(stand_in), to).unwrap();
    }
    let run = convert(&first);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8(run.stdout).unwrap().contains("To host"));
    let model = Folder(first);
    let manifest = Manifest::read(&model).unwrap();
    manifest.verify(&model).unwrap();
    let components: Vec<&String> = manifest.components.keys().collect();
    let expected = [
        "detector",
        "ip_adapter",
        "ip_adapter_2",
        "scheduler",
        "text_encoder",
        "tiny_vae",
        "tokenizer",
        "unet",
        "vae",
        "vision_encoder",
    ];
    assert_eq!(components, expected);
    assert_eq!(manifest.license, "Apache-2.0 AND CreativeML-OpenRAIL-M AND MIT");

    let list = std::fs::read_to_string(files.join(format!("{name}.sha256"))).unwrap();
    assert_eq!(list.lines().count(), preset.files().count());
    assert!(convert(&folder.path().join("second")).status.success(), "the same files once more");
    let scheduler = files.join("stable-diffusion-v1-5/stable-diffusion-v1-5/scheduler/scheduler_config.json");
    std::fs::write(&scheduler, "{}").unwrap();
    let changed = convert(&folder.path().join("third"));
    assert_eq!(changed.status.code(), Some(2));
    assert!(String::from_utf8(changed.stderr).unwrap().contains("scheduler_config.json"));
}
