//! `facestudio presets` on small files in the places of the published ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use facestudio::weights::{Folder, Manifest};
use facestudio_convert::presets::Preset;

fn presets(arguments: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio"));
    command.arg("presets").args(arguments);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    command.output().unwrap()
}

/// The recipe `sd15-plus-face` in a file, of files whose size and SHA-256 are not known.
fn recipe(folder: &Path, change: impl FnOnce(&mut Preset)) -> (String, Preset) {
    let mut preset = Preset::named("sd15-plus-face").unwrap();
    for file in preset.parts.iter_mut().flat_map(|part| &mut part.files) {
        (file.bytes, file.sha256) = (None, None);
    }
    change(&mut preset);
    let path = folder.join("mine.json");
    std::fs::write(&path, serde_json::to_vec(&preset).unwrap()).unwrap();
    (path.display().to_string(), preset)
}

/// Puts the fixtures where the recipe's files are looked for.
fn put(preset: &Preset, files: &Path) {
    // A fixture for each published file of `sd15-plus-face`.
    let stand_ins = std::fs::read(root().join("tests/stand-ins.json")).unwrap();
    let stand_ins: BTreeMap<String, String> = serde_json::from_slice(&stand_ins).unwrap();
    for (part, file) in preset.files() {
        let stand_in = &stand_ins[&file.path];
        let to = part.at(files, file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root().join("tests/parity").join(stand_in), to).unwrap();
    }
}

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).to_owned()
}

#[test]
fn every_recipe_is_listed_with_what_it_needs() {
    let list = String::from_utf8(presets(&[], &[]).stdout).unwrap();
    for preset in Preset::all().unwrap() {
        assert!(list.contains(&preset.name), "{list}");
        let told = String::from_utf8(presets(&[&preset.name], &[]).stdout).unwrap();
        for part in &preset.parts {
            for words in [&part.what, &part.license, &part.license_url] {
                assert!(told.contains(words), "{words}: {told}");
            }
            assert!(told.contains(part.host()), "{told}");
            let path = |path: &str| told.contains(&format!("{}/{path}", part.repository));
            assert!(part.files.iter().all(|file| path(&file.path)), "{told}");
        }
    }
    assert!(String::from_utf8(presets(&["sdxl"], &[]).stderr).unwrap().contains("[preset]"));
}

#[test]
fn a_recipe_becomes_a_model_in_one_command_and_remembers_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    let (name, preset) = recipe(folder.path(), |_| {});
    let convert = |out: &Path| {
        let paths: [(&str, &Path); 2] = [("--files", &files), ("--out", out)];
        presets(&[&name, "--dtype", "f32"], &paths)
    };
    let first = folder.path().join("first");
    let refused = convert(&first);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("[preset-file]"));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("missing"));

    put(&preset, &files);
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

    let list = std::fs::read_to_string(files.join("sd15-plus-face.sha256")).unwrap();
    assert_eq!(list.lines().count(), preset.files().count());
    assert!(convert(&folder.path().join("second")).status.success(), "the same files once more");
    let scheduler = files.join("stable-diffusion-v1-5/stable-diffusion-v1-5/scheduler/scheduler_config.json");
    std::fs::write(&scheduler, "{}").unwrap();
    let changed = convert(&folder.path().join("third"));
    assert_eq!(changed.status.code(), Some(2));
    assert!(String::from_utf8(changed.stderr).unwrap().contains("scheduler_config.json"));
}

#[test]
fn a_file_of_another_hash_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (files, out) = (folder.path().join("files"), folder.path().join("out"));
    let (name, preset) =
        recipe(folder.path(), |preset| preset.parts[0].files[1].sha256 = Some("0".repeat(64)));
    put(&preset, &files);
    let refused = presets(&[&name], &[("--files", &files), ("--out", &out)]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("[preset-file]") && said.contains(&preset.parts[0].files[1].path), "{said}");
    assert!(!out.exists());

    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{}").unwrap();
    let refused = presets(&[broken.to_str().unwrap()], &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("[preset-invalid]") && said.contains("broken.json"), "{said}");
}
