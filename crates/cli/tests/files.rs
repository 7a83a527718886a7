//! Files without a flag: told by their tensors, and taken for what they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity")).join(name)
}

fn facestudio(command: &str, paths: &[PathBuf], more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).arg(command).args(paths).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn convert_takes_files_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = |files: &[PathBuf], more: &[&str], out: &str| {
        let out = at(out).display().to_string();
        facestudio("convert", files, &[more, &["--dtype", "f32", "--out", &out]].concat())
    };
    let (base, detector) = (fixture("convert/sd1.ckpt"), fixture("yunet/plain/exported.onnx"));
    let told = run(&[base.clone(), detector.clone()], &[], "told");
    assert!(told.status.success(), "{}", text(&told.stderr));
    let words = text(&told.stdout);
    assert!(
        words.contains("sd1.ckpt: a whole Stable Diffusion 1") && words.contains("a face detector"),
        "{words}"
    );
    let flags = ["--base", &base.display().to_string(), "--detector", &detector.display().to_string()];
    assert!(run(&[], &flags, "flags").status.success());
    for component in ["unet", "vae", "text_encoder", "detector"] {
        let read = |model: &str| std::fs::read(at(model).join(component).join("model.safetensors")).unwrap();
        assert!(read("told") == read("flags"), "{component}");
    }

    let (unet, lora) = (fixture("prompt/model/unet"), fixture("lora/styles.comfy.safetensors"));
    let merged = run(&[unet, lora], &[], "merged");
    assert!(
        text(&merged.stdout).contains("LoRA updates"),
        "{}{}",
        text(&merged.stdout),
        text(&merged.stderr)
    );

    for (files, code) in [
        (vec![fixture("ip_adapter/plus/model.safetensors")], "[file-kind]"),
        (vec![base.clone(), fixture("convert/sd2.safetensors")], "[convert-twice]"),
    ] {
        let refused = run(&files, &[], "refused");
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(code), "{}", text(&refused.stderr));
        assert!(!at("refused").exists());
    }
}

#[test]
fn inspect_says_what_a_file_is() {
    for (file, kind, part) in [
        ("gguf/comfy.gguf", "gguf", "a UNet in the original code's layout"),
        ("convert/iresnet.pt", "pytorch", "a face recognition network"),
        ("yunet/plain/exported.onnx", "onnx", "a face detector (YuNet), for every model"),
        ("lora/styles.kohya.safetensors", "safetensors", "Merge it into a model with --lora"),
    ] {
        let said = facestudio("inspect", &[fixture(file)], &[]);
        assert!(said.status.success(), "{}", text(&said.stderr));
        let said = text(&said.stdout);
        assert!(said.starts_with(kind) && said.contains(part), "{said}");
        let json = facestudio("inspect", &[fixture(file)], &["--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["kind"], kind);
        assert!(json["recognized"]["what"].as_str().is_some_and(|what| !what.is_empty()));
        assert!(json["parameters"].as_u64().is_some_and(|count| count > 0));
    }
}
