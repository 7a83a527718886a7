//! Model folders that are not what they say, and programs that end before they are done.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use facestudio::error::Fault;
use facestudio::pipeline::FaceStudio;
use facestudio::weights::{Folder, Manifest, Quantization, SafetensorsFile, Tensors, encode};

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The program must fail with this status and code, and name `culprit`.
#[track_caller]
fn assert_fails(arguments: &[&str], status: i32, code: &str, culprit: &str) {
    let run = facestudio(arguments);
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(said.contains(&format!("[{code}]")) && said.contains(culprit), "{arguments:?}: {said}");
    assert!(said.contains("help: "), "{said}");
}

/// A folder to work in, with a whole model with a manifest, and a photo that it finds a face in.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        case.lay("model", &tiny_model::files().0);
        let spot = |x: u32, y: u32| {
            if x.abs_diff(32).max(y.abs_diff(32)) < 9 { [255, 210, 180] } else { [10, 12, 20] }
        };
        image::RgbImage::from_fn(64, 64, |x, y| image::Rgb(spot(x, y))).save(case.at("ann.png")).unwrap();
        case
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lay(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) {
        for (path, bytes) in files {
            let path = self.at(name).join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// Overwrites a file of the model, and gives what was there.
    fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let path = self.at("model").join(path);
        let before = std::fs::read(&path).unwrap();
        let mut bytes = before.clone();
        edit(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        before
    }

    /// Puts one value into the first tensor of a component's weights whose name ends so.
    fn poison(&self, file: &str, ending: &str, value: f32) -> String {
        let path = self.at("model").join(file);
        let mut tensors =
            SafetensorsFile::new(std::fs::read(&path).unwrap()).unwrap().into_tensors().unwrap();
        let (name, (_, values)) = tensors.0.iter_mut().find(|(name, _)| name.ends_with(ending)).unwrap();
        let name = name.clone();
        values[1] = value;
        std::fs::write(&path, encode(&tensors, Quantization::None, &Default::default()).unwrap()).unwrap();
        name
    }

    fn generate(&self) -> Vec<String> {
        let flags = ["generate", "--prompt", "a man", "--steps", "1", "--backend", "cpu", "--model"];
        let paths = [self.at("model"), self.at("out.png"), self.at("ann.png")].map(|p| text(&p).to_owned());
        let [model, out, face] = paths;
        let more = [model, "--out".to_owned(), out, "--face".to_owned(), face];
        flags.into_iter().map(str::to_owned).chain(more).collect()
    }
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_file_that_a_picture_needs_is_held_against_the_manifest() {
    let case = Case::new();
    let load = || FaceStudio::load(&Folder(case.at("model")), &Device::flex());
    assert!(load().is_ok());
    let manifest = Manifest::read(&Folder(case.at("model"))).unwrap();
    for file in manifest.files() {
        let flipped = |bytes: &mut Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        };
        let longer = |bytes: &mut Vec<u8>| bytes.push(b' ');
        let shorter = |bytes: &mut Vec<u8>| bytes.truncate(1);
        for edit in [flipped as fn(&mut Vec<u8>), longer, shorter] {
            let before = case.edit(&file.path, edit);
            let error = load().unwrap_err();
            assert_eq!((error.code, error.fault), ("file-corrupt", Fault::Weights), "{}: {error}", file.path);
            assert!(error.message.contains(&file.path), "{error}");
            case.edit(&file.path, |bytes| *bytes = before);
        }
        let path = case.at("model").join(&file.path);
        std::fs::rename(&path, case.at("aside")).unwrap();
        let error = load().unwrap_err();
        assert_eq!(error.code, "file-missing", "{}: {error}", file.path);
        assert!(error.message.contains(&file.path), "{error}");
        std::fs::rename(case.at("aside"), &path).unwrap();
    }
    // What is there and not listed would be read as well.
    for (unlisted, copied) in
        [("unet/more.safetensors", "vae/model.safetensors"), ("defaults.json", "unet/config.json")]
    {
        let path = case.at("model").join(unlisted);
        std::fs::copy(case.at("model").join(copied), &path).unwrap();
        let error = load().unwrap_err();
        assert_eq!(error.code, "file-unlisted", "{error}");
        std::fs::remove_file(path).unwrap();
    }
    std::fs::write(case.at("model/unet/README.md"), "for people").unwrap();
    std::fs::remove_dir_all(case.at("model/prior")).unwrap();
    assert_eq!(load().unwrap_err().code, "file-missing");
    // A folder without a manifest is taken as it is.
    std::fs::remove_file(case.at("model/manifest.json")).unwrap();
    load().unwrap();
}

/// The reported case: another picture, and exit 0.
#[test]
fn overwritten_weights_make_no_picture() {
    let case = Case::new();
    assert!(facestudio(&strs(&case.generate())).status.success());
    std::fs::remove_file(case.at("out.png")).unwrap();
    let bytes = case.edit("unet/model.safetensors", |bytes| {
        let end = bytes.len() - 100;
        bytes[end - 400..end].fill(0x11);
    });
    assert_fails(&strs(&case.generate()), 3, "file-corrupt", "unet/model.safetensors");
    assert!(!case.at("out.png").exists());
    case.edit("unet/model.safetensors", |damaged| *damaged = bytes);
    assert!(facestudio(&strs(&case.generate())).status.success());
}

#[test]
fn every_command_that_opens_a_model_holds_it_against_its_manifest() {
    let case = Case::new();
    let (model, out, photo) = (case.at("model"), case.at("out"), case.at("ann.png"));
    let (model, out, photo) = (text(&model), text(&out), text(&photo));
    let input = case.at("in.safetensors");
    let tensor = |shape: &[usize]| (shape.to_vec(), vec![0.5; shape.iter().product::<usize>()]);
    let tensors = [
        ("sample", tensor(&[1, 4, 8, 8])),
        ("latents", tensor(&[1, 4, 8, 8])),
        ("noise", tensor(&[25, 1, 4, 8, 8])),
        ("timestep", tensor(&[1])),
        ("encoder_hidden_states", tensor(&[1, 4, 8])),
    ];
    let tensors = Tensors(tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect());
    std::fs::write(&input, encode(&tensors, Quantization::None, &Default::default()).unwrap()).unwrap();
    let input = text(&input);
    let part = |name: &str| format!("{model}/{name}");
    let (unet, face, text_encoder) = (part("unet"), part("face_encoder"), part("text_encoder"));
    let unet_file = part("unet/model.safetensors");
    let runs = case.at("runs");
    let base = ["--base", model, "--out", out, "--steps", "1", "--runs", text(&runs), "--pictures", "4"];
    let both = &["model.safetensors", "config.json"][..];
    let commands: [(&str, &[&str], Vec<&str>); 9] = [
        ("face_encoder", both, vec!["faces", "--model", model, photo]),
        ("unet", both, vec!["component", "unet", "--model", &unet, "--inputs", input, "--output", out]),
        ("unet", both, vec!["denoise", "--model", model, "--inputs", input, "--output", out]),
        ("prior", both, vec!["eval", "--model", model, "--encoder", &face, "--out", out, "--trials", "2"]),
        ("vae", both, vec!["quantize", "--model", model, "--out", out, "--dtype", "f16"]),
        ("unet", both, vec!["convert", "--unet", &unet, "--out", out]),
        ("unet", &both[..1], vec!["convert", "--unet", &unet_file, "--out", out]),
        ("text_encoder", both, vec!["convert", "--text-encoder", &text_encoder, "--out", out]),
        ("vae", both, [&["train", "vae"][..], &base].concat()),
    ];
    for (component, files, arguments) in commands {
        for file in files {
            let path = format!("{component}/{file}");
            let before = case.edit(&path, |bytes| {
                let at = bytes.len() - 2;
                bytes[at] ^= 1;
            });
            assert_fails(&arguments, 3, "file-corrupt", &path);
            case.edit(&path, |bytes| *bytes = before);
        }
        assert!(!case.at("out/manifest.json").exists() && !case.at("out").is_file());
    }
}

#[test]
fn weights_that_are_not_finite_are_the_models_fault() {
    for value in [f32::NAN, f32::INFINITY] {
        for component in
            ["unet", "vae", "face_encoder", "prior", "guidance", "vision_encoder", "text_encoder"]
        {
            let case = Case::new();
            std::fs::remove_file(case.at("model/manifest.json")).unwrap();
            let tensor = case.poison(&format!("{component}/model.safetensors"), "weight", value);
            let error = FaceStudio::load(&Folder(case.at("model")), &Device::flex()).unwrap_err();
            assert_eq!((error.code, error.fault), ("not-finite", Fault::Weights), "{component}: {error}");
            assert!(error.message.contains(&tensor) && error.message.contains(component), "{error}");
            if component == "unet" {
                assert_fails(&strs(&case.generate()), 3, "not-finite", &tensor);
                assert!(!case.at("out.png").exists());
                let (model, out) = (case.at("model"), case.at("f16"));
                let quantize = ["quantize", "--model", text(&model), "--out", text(&out), "--dtype", "f16"];
                assert_fails(&quantize, 3, "not-finite", &tensor);
            }
        }
    }
}

/// Weights so large that what is computed with them overflows, though each is a number.
#[test]
fn a_picture_that_is_not_finite_is_an_error() {
    let case = Case::new();
    std::fs::remove_file(case.at("model/manifest.json")).unwrap();
    case.poison("unet/model.safetensors", "conv_out.bias", f32::MAX);
    case.poison("unet/model.safetensors", "conv_out.weight", f32::MAX);
    assert_fails(&strs(&case.generate()), 4, "computed-not-finite", "latents");
    assert!(!case.at("out.png").exists());
}

#[cfg(unix)]
#[test]
fn quantising_carries_nothing_from_outside_of_the_folder() {
    use std::os::unix::fs::symlink;

    let secret = "secret.json";
    for link in ["unet/extra.json", "extra.txt", "vae/model.safetensors", "scheduler"] {
        let case = Case::new();
        std::fs::remove_file(case.at("model/manifest.json")).unwrap();
        let (place, outside) = (case.at("model").join(link), case.at(secret));
        if place.exists() {
            std::fs::rename(&place, &outside).unwrap();
        } else {
            std::fs::write(&outside, "secret").unwrap();
        }
        symlink(&outside, &place).unwrap();
        // One that stays inside is the model's own affair.
        symlink(case.at("model/unet/config.json"), case.at("model/unet/same.json")).unwrap();
        let (model, out) = (case.at("model"), case.at("out"));
        let quantize = ["quantize", "--model", text(&model), "--out", text(&out), "--dtype", "q8"];
        assert_fails(&quantize, 3, "link-outside", link.split('/').next_back().unwrap());
        assert!(!out.exists());
        std::fs::remove_file(&place).unwrap();
        if outside.is_dir() || link.ends_with("safetensors") {
            std::fs::rename(&outside, &place).unwrap();
        }
        assert!(facestudio(&quantize).status.success());
        assert!(out.join("unet/same.json").exists());
    }
}

#[cfg(unix)]
mod interrupted {
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn mini() -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini")
    }

    fn signal(child: &Child, signal: &str) {
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    }

    /// Starts a command that writes the folder `out`, and waits until it is `deep` files into it.
    fn started(arguments: &[&str], out: &Path, deep: usize) -> Child {
        let child = Command::new(env!("CARGO_BIN_EXE_facestudio"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let hidden = format!(".{}.partial-{}-", out.file_name().unwrap().to_string_lossy(), child.id());
        let start = Instant::now();
        let is_deep = || {
            let parent = out.parent().unwrap();
            let partial = names(parent).into_iter().find(|name| name.starts_with(&hidden))?;
            let folders = std::fs::read_dir(parent.join(partial)).ok()?;
            Some(folders.count() >= deep)
        };
        while is_deep() != Some(true) && !out.exists() {
            assert!(start.elapsed() < Duration::from_secs(120), "{arguments:?} writes nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    /// Of several tries most come before the end; those that come after it leave a whole folder.
    fn leaves_nothing(command: impl Fn(&Path) -> Vec<String>) {
        let mut cancelled = 0;
        for (deep, how) in [(0, "-INT"), (1, "-INT"), (2, "-TERM"), (3, "-INT"), (4, "-TERM")] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let arguments = command(&out);
            let mut child = started(&strs(&arguments), &out, deep);
            signal(&child, how);
            let status = child.wait().unwrap();
            if out.exists() {
                assert!(status.success() && out.join("manifest.json").exists(), "{status}");
                assert_eq!(names(folder.path()), ["out"]);
                assert!(!out.join(".lock").exists());
            } else {
                assert_eq!(status.code(), Some(130), "{how} at {deep}");
                assert_eq!(names(folder.path()), Vec::<String>::new(), "{how} at {deep}");
                cancelled += 1;
            }
        }
        assert!(cancelled >= 3, "{cancelled} of 5 were cancelled");
    }

    fn quantize(out: &Path) -> Vec<String> {
        let model = mini();
        let words = ["quantize", "--model", text(&model), "--dtype", "q4", "--out", text(out)];
        words.map(str::to_owned).to_vec()
    }

    fn convert(out: &Path) -> Vec<String> {
        let part = |name: &str| mini().join(name).to_str().unwrap().to_owned();
        let mut words: Vec<String> =
            ["convert", "--dtype", "q4", "--out", text(out)].map(str::to_owned).to_vec();
        for (flag, name) in
            [("--unet", "unet"), ("--vae", "vae"), ("--prior", "prior"), ("--detector", "detector")]
        {
            words.extend([flag.to_owned(), part(name)]);
        }
        words
    }

    #[test]
    fn an_interrupted_quantisation_leaves_nothing() {
        leaves_nothing(quantize);
    }

    #[test]
    fn an_interrupted_conversion_leaves_nothing() {
        leaves_nothing(convert);
    }

    #[test]
    fn what_a_killed_quantisation_left_goes_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let arguments = quantize(&out);
        let mut child = started(&strs(&arguments), &out, 1);
        signal(&child, "-KILL");
        child.wait().unwrap();
        assert!(!out.exists() && names(folder.path()).len() == 1, "{:?}", names(folder.path()));
        let run = facestudio(&strs(&arguments));
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(names(folder.path()), ["out"]);
    }

    /// Commands without a last step of their own end at once.
    #[test]
    fn a_command_that_only_draws_ends_with_the_same_status() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("set");
        let mut child = Command::new(env!("CARGO_BIN_EXE_facestudio"))
            .args(["synth", "--count", "100000", "--size", "64", "--out", text(&out)])
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !out.join("0000000.png").exists() {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, "-INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let hidden: Vec<_> = names(&out).into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
        for name in names(&out).into_iter().filter(|name| name.ends_with(".png")) {
            assert!(image::open(out.join(&name)).is_ok(), "{name} is half a picture");
        }
    }
}
