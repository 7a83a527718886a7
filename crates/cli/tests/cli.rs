//! The built program from outside: what it computes, and how it fails.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use facestudio::weights::{Quantization, SafetensorsFile, TensorSource, Tensors, encode};
use serde_json::json;

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

fn parity(case: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity").join(case)
}

fn read(path: &Path) -> Tensors {
    SafetensorsFile::new(std::fs::read(path).unwrap()).unwrap().into_tensors().unwrap()
}

fn write(path: &Path, tensors: &Tensors) {
    std::fs::write(path, encode(tensors, Quantization::None, &Default::default()).unwrap()).unwrap();
}

/// Some tensors of a fixture under the program's input names.
fn inputs(case: &str, names: &[(&str, &str)]) -> Tensors {
    let io = read(&parity(case).join("io.safetensors"));
    Tensors(names.iter().map(|(from, to)| ((*to).to_owned(), io.0[*from].clone())).collect())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a component of the fixture `case` and gives its outputs.
#[track_caller]
fn component(kind: &str, model: &Path, inputs: &Tensors) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    write(&input, inputs);
    let run = facestudio(&[
        "component",
        kind,
        "--model",
        text(model),
        "--inputs",
        text(&input),
        "--output",
        text(&output),
    ]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    read(&output)
}

#[track_caller]
fn assert_close(ours: &Tensors, name: &str, reference: &(Vec<usize>, Vec<f32>), tolerance: f32) {
    let (shape, values) = &ours.0[name];
    assert_eq!(shape, &reference.0);
    let most = reference.1.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    for (x, y) in values.iter().zip(&reference.1) {
        assert!((x - y).abs() <= tolerance * most, "{x} is not {y} (of {most})");
    }
}

/// The program must fail with this status and code, say so like every error, and leave `output` unwritten.
#[track_caller]
fn assert_fails(arguments: &[&str], status: i32, code: &str, output: &Path) -> String {
    let run = facestudio(arguments);
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(status), "{said}");
    assert!(said.starts_with("error: "), "{said}");
    assert!(said.contains(&format!("[{code}]")), "{said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    assert!(!output.exists(), "a failed run left {}", output.display());
    let folder = output.parent().unwrap();
    let left = std::fs::read_dir(folder).unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    let left: Vec<String> = left.filter(|name| name.contains("partial")).collect();
    assert!(left.is_empty(), "a failed run left {left:?}");
    said
}

const UNET: &[(&str, &str)] =
    &[("sample", "sample"), ("timestep", "timestep"), ("condition.4", "encoder_hidden_states")];

#[test]
fn the_unet_equals_its_reference() {
    let reference = read(&parity("unet/sd1").join("io.safetensors"));
    let ours = component("unet", &parity("unet/sd1"), &inputs("unet/sd1", UNET));
    assert_eq!(ours.names(), ["sample"]);
    assert_close(&ours, "sample", &reference.0["output.4"], 1e-4);
}

/// These fixtures name their inputs and outputs as the program does.
#[test]
fn encoders_and_prior_equal_their_references() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("text-encoder", "text/legacy_eos", &["last_hidden_state"]),
        ("text-encoder", "text/projection", &["last_hidden_state", "text_embeds"]),
        ("vision-encoder", "vision/vit", &["image_embeds", "last_hidden_state"]),
        ("vision-encoder", "vision/resnet", &["image_embeds"]),
        ("face-encoder", "face/odd", &["embedding"]),
        ("prior", "prior/karlo", &["predicted_image_embedding"]),
        ("prior", "prior/bare", &["predicted_image_embedding"]),
    ];
    for (kind, case, names) in cases {
        let io = read(&parity(case).join("io.safetensors"));
        let ours = component(kind, &parity(case), &io);
        assert_eq!(ours.names(), *names, "{case}");
        for name in *names {
            assert_close(&ours, name, &io.0[*name], 1e-4);
        }
    }
}

/// A folder with a scheduler's config, and inputs of three steps in which the denoiser finds no noise.
fn scheduler(class: &str) -> (tempfile::TempDir, Tensors) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{{\"_class_name\": \"{class}\", \"num_train_timesteps\": 1000}}");
    std::fs::write(folder.path().join("scheduler_config.json"), config).unwrap();
    let sample = (vec![1, 2, 2, 2], (0..8).map(|v| v as f32 - 3.5).collect());
    let outputs = (vec![3, 1, 2, 2, 2], vec![0.0; 24]);
    (folder, Tensors([("sample".to_owned(), sample), ("model_outputs".to_owned(), outputs)].into()))
}

#[test]
fn without_predicted_noise_euler_keeps_the_sample() {
    let (folder, inputs) = scheduler("EulerDiscreteScheduler");
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    write(&input, &inputs);
    let (model, input) = (text(folder.path()), text(&input));
    let run = |steps| {
        let out = text(&output);
        let paths = ["--model", model, "--inputs", input, "--output", out, "--steps", steps];
        facestudio(&[&["component", "scheduler"][..], &paths].concat())
    };
    let told = run("3");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let ours = read(&output);
    assert_eq!(ours.names(), ["sample", "scaled_inputs", "timesteps"]);
    assert_eq!(ours.0["timesteps"].0, [3]);
    assert!(ours.0["timesteps"].1.is_sorted_by(|a, b| a > b));
    assert_eq!(ours.0["scaled_inputs"].0, [3, 1, 2, 2, 2]);
    // x₀ + σ·0 at every level is the first sample, which is the input times a σ far above 1.
    let factor = ours.0["sample"].1[0] / inputs.0["sample"].1[0];
    assert!(factor > 10.0, "{factor}");
    let scaled: Vec<f32> = inputs.0["sample"].1.iter().map(|v| v * factor).collect();
    assert_close(&ours, "sample", &(vec![1, 2, 2, 2], scaled), 1e-5);
    std::fs::remove_file(&output).unwrap();
    assert_eq!(run("4").status.code(), Some(2), "three outputs are not enough for four steps");
    assert!(!output.exists());
}

#[test]
fn an_ancestral_scheduler_asks_for_its_noise() {
    let (folder, inputs) = scheduler("EulerAncestralDiscreteScheduler");
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    write(&input, &inputs);
    let paths = ["--model", text(folder.path()), "--inputs", text(&input), "--output", text(&output)];
    let arguments = [&["component", "scheduler", "--steps", "3"][..], &paths].concat();
    let said = assert_fails(&arguments, 2, "input-missing", &output);
    assert!(said.contains("'noise'"), "{said}");
}

#[test]
fn a_timestep_may_be_a_scalar_one_or_one_each() {
    let mut tensors = inputs("unet/sd1", UNET);
    let batch = tensors.0["sample"].0[0];
    let mut run = |shape: Vec<usize>| {
        let values = vec![321.0; shape.iter().product()];
        tensors.0.insert("timestep".to_owned(), (shape, values));
        component("unet", &parity("unet/sd1"), &tensors)
    };
    let scalar = run(vec![]);
    assert_eq!(run(vec![1]), scalar);
    assert_eq!(run(vec![batch]), scalar);
}

/// A folder to write to, with the arguments of a UNet run on `inputs` there.
struct Case {
    folder: tempfile::TempDir,
    input: PathBuf,
    output: PathBuf,
}

impl Case {
    fn new(inputs: &Tensors) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.safetensors");
        write(&input, inputs);
        let output = folder.path().join("out.safetensors");
        Self { folder, input, output }
    }

    #[track_caller]
    fn fails(&self, model: &Path, status: i32, code: &str) -> String {
        let (input, output) = (text(&self.input), text(&self.output));
        let arguments = ["component", "unet", "--model", text(model), "--inputs", input, "--output", output];
        assert_fails(&arguments, status, code, &self.output)
    }

    /// A copy of the fixture `unet/sd1` without its inputs and outputs.
    fn model(&self) -> PathBuf {
        let model = self.folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(parity("unet/sd1").join(name), model.join(name)).unwrap();
        }
        model
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let good = inputs("unet/sd1", UNET);
    let shape = |name: &str, shape: &[usize]| {
        let mut bad = good.clone();
        bad.0.insert(name.to_owned(), (shape.to_vec(), vec![0.5; shape.iter().product()]));
        bad
    };
    let tokens = good.0["encoder_hidden_states"].0.clone();
    let batch = tokens[0];
    let bad = [
        shape("sample", &[batch, 3, 8, 8]),
        shape("sample", &[batch, 4, 64]),
        shape("sample", &[0, 4, 8, 8]),
        shape("sample", &[batch, 4, 0, 8]),
        shape("sample", &[batch + 1, 4, 8, 8]),
        shape("encoder_hidden_states", &[batch, 4, tokens[2] + 1]),
        shape("encoder_hidden_states", &[batch, 0, tokens[2]]),
        shape("timestep", &[batch + 1]),
        shape("timestep", &[batch, 1]),
    ];
    for bad in bad {
        let said = Case::new(&bad).fails(&parity("unet/sd1"), 2, "input-shape");
        assert!(said.contains('\'') && said.contains("help:"), "{said}");
    }
    let mut missing = good.clone();
    missing.0.remove("timestep");
    let said = Case::new(&missing).fails(&parity("unet/sd1"), 2, "input-missing");
    assert!(said.contains("timestep"));
    let mut endless = good;
    endless.0.insert("timestep".to_owned(), (vec![], vec![f32::NAN]));
    Case::new(&endless).fails(&parity("unet/sd1"), 2, "input-range");
}

#[test]
fn damaged_inputs_are_the_requests_fault() {
    let case = Case::new(&inputs("unet/sd1", UNET));
    let whole = std::fs::read(&case.input).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
        std::fs::write(&case.input, bytes).unwrap();
        let said = case.fails(&parity("unet/sd1"), 2, "safetensors");
        assert!(said.contains(text(&case.input)));
    }
    std::fs::remove_file(&case.input).unwrap();
    case.fails(&parity("unet/sd1"), 5, "io");
}

#[test]
fn damaged_models_are_told_from_bad_requests() {
    let case = Case::new(&inputs("unet/sd1", UNET));
    case.fails(&case.folder.path().join("nowhere"), 5, "io");
    let model = case.model();
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let set = |key: &str, value: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(&config).unwrap();
        json[key] = value;
        std::fs::write(model.join("config.json"), json.to_string()).unwrap();
    };
    set("cross_attention_dim", 1_000_000_000.into());
    case.fails(&model, 3, "config-range");
    set("norm_num_groups", 0.into());
    case.fails(&model, 3, "config-range");
    set("in_channels", (-4).into());
    case.fails(&model, 3, "config");
    set("in_channels", 5.into());
    let said = case.fails(&model, 3, "weights-mismatch");
    assert!(said.contains("conv_in.weight"), "{said}");
    std::fs::write(model.join("config.json"), "{").unwrap();
    case.fails(&model, 3, "config");
    std::fs::write(model.join("config.json"), &config).unwrap();
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() - 1]).unwrap();
    case.fails(&model, 3, "safetensors");
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    case.fails(&model, 3, "weights-missing");
}

#[test]
fn an_output_that_cannot_be_written_leaves_nothing() {
    let case = Case::new(&inputs("unet/sd1", UNET));
    let output = case.folder.path().join("no/such/folder/out.safetensors");
    let run = facestudio(&[
        "component",
        "unet",
        "--model",
        text(&parity("unet/sd1")),
        "--inputs",
        text(&case.input),
        "--output",
        text(&output),
    ]);
    assert_eq!(run.status.code(), Some(5));
    assert!(!case.folder.path().join("no").exists());
}

#[cfg(not(feature = "gpu"))]
#[test]
fn a_backend_that_is_not_built_in_is_named() {
    let case = Case::new(&inputs("unet/sd1", UNET));
    let (model, input, output) = (parity("unet/sd1"), text(&case.input), text(&case.output));
    let model = text(&model);
    let arguments =
        ["component", "unet", "--model", model, "--inputs", input, "--output", output, "--backend", "gpu"];
    let said = assert_fails(&arguments, 4, "backend-missing", &case.output);
    assert!(said.contains("'gpu' feature"), "{said}");
}

#[test]
fn wrong_flags_are_the_requests_fault() {
    for arguments in [&["component", "nothing"][..], &["component", "unet"], &["frobnicate"], &["inspect"]] {
        assert_eq!(facestudio(arguments).status.code(), Some(2));
    }
}

/// A model folder with one UNet component and a scheduler's config.
fn model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    std::fs::create_dir_all(model.join("unet")).unwrap();
    std::fs::create_dir_all(model.join("scheduler")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(parity("unet/sd1").join(name), model.join("unet").join(name)).unwrap();
    }
    std::fs::write(model.join("scheduler/scheduler_config.json"), "{\"_class_name\":\"DDIMScheduler\"}")
        .unwrap();
    model
}

#[test]
fn a_quantised_model_is_smaller_listed_and_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let size = |model: &Path| std::fs::metadata(model.join("unet/model.safetensors")).unwrap().len() as f32;
    let reference = &read(&parity("unet/sd1").join("io.safetensors")).0["output.4"];
    // The fixture is stored in f16 already, and many of its tensors are too small for blocks.
    for (dtype, largest, tolerance) in [("q8", 0.8, 0.05), ("q4", 0.7, 0.5), ("f16", 1.0, 0.005)] {
        let out = folder.path().join(dtype);
        let run = facestudio(&["quantize", "--model", text(&model), "--out", text(&out), "--dtype", dtype]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let ratio = size(&out) / size(&model);
        assert!(ratio <= largest, "{dtype}: {ratio} of the size");
        let ours = component("unet", &out.join("unet"), &inputs("unet/sd1", UNET));
        assert_close(&ours, "sample", reference, tolerance);

        let run = facestudio(&["inspect", "--json", text(&out)]);
        assert!(run.status.success());
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(report["kind"], "model");
        assert_eq!(report["manifest"]["name"], "model");
        let states =
            report["components"].as_array().unwrap().iter().flat_map(|c| c["files"].as_array().unwrap());
        assert!(states.map(|file| &file["state"]).all(|state| state == "verified"), "{report}");
    }
    let again = folder.path().join("again");
    facestudio(&["quantize", "--model", text(&model), "--out", text(&again), "--dtype", "q8"]);
    let bytes = |out: &Path| std::fs::read(out.join("manifest.json")).unwrap();
    assert_eq!(bytes(&again), bytes(&folder.path().join("q8")), "quantising twice gave different bytes");
}

#[test]
fn a_damaged_model_is_reported_and_not_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("q8");
    facestudio(&["quantize", "--model", text(&model(folder.path())), "--out", text(&out), "--dtype", "q8"]);
    let path = out.join("unet/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let run = facestudio(&["inspect", text(&out)]);
    assert_eq!(run.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&run.stdout).contains("1 damaged"));
    assert!(String::from_utf8_lossy(&run.stderr).contains("unet/model.safetensors"));
    let next = folder.path().join("next");
    let arguments = ["quantize", "--model", text(&out), "--out", text(&next), "--dtype", "f16"];
    let said = assert_fails(&arguments, 3, "file-corrupt", &next);
    assert!(said.contains("unet/model.safetensors"));
}

#[test]
fn quantising_never_overwrites_and_needs_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let run = facestudio(&["quantize", "--model", text(&model), "--out", text(&model), "--dtype", "q8"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("[output-exists]"));
    assert!(model.join("unet/model.safetensors").exists());
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let out = folder.path().join("out");
    let arguments = ["quantize", "--model", text(&empty), "--out", text(&out), "--dtype", "q8"];
    assert_fails(&arguments, 3, "weights-missing", &out);
    assert_eq!(facestudio(&["inspect", text(&empty)]).status.code(), Some(3));
}

#[test]
fn a_generated_picture_says_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    let picture = image::RgbImage::new(4, 4);
    let png = facestudio::image::codec::encode_png(&picture, &[("seed", "7")]).unwrap();
    std::fs::write(&path, png).unwrap();
    let run = facestudio(&["inspect", "--json", text(&path)]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(
        (&report["kind"], &report["components"][0]["metadata"]["seed"]),
        (&"picture".into(), &"7".into())
    );
}

#[test]
fn a_file_a_component_and_a_model_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let said = |path: &Path| {
        let run = facestudio(&["inspect", text(path)]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    };
    assert!(said(&model.join("unet/model.safetensors")).contains("conv_in.weight ["));
    assert!(said(&model.join("unet")).contains("cross_attention_dim: "));
    let whole = said(&model);
    assert!(
        whole.contains("DDIMScheduler") && whole.contains("unlisted") && whole.contains("total"),
        "{whole}"
    );
}

#[test]
fn pictures_are_generated_from_photos_and_never_left_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    // The model takes a bright spot for a face.
    for (name, face) in [("ann.png", [255, 210, 180]), ("nobody.png", [10, 12, 20])] {
        let colour =
            |x: u32, y: u32| if x.abs_diff(32).max(y.abs_diff(32)) < 9 { face } else { [10, 12, 20] };
        image::RgbImage::from_fn(64, 64, |x, y| image::Rgb(colour(x, y))).save(at(name)).unwrap();
    }
    let (model, ann, nobody, out) = (at("model"), at("ann.png"), at("nobody.png"), at("out.png"));
    let base = ["generate", "--model", &model, "--prompt", "a man", "--steps", "2", "--out", &out];
    let with = |more: &[&str]| -> Vec<String> {
        base.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    };
    let fails = |more: &[&str], status, code| {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_fails(&arguments, status, code, Path::new(&out));
    };
    fails(&["--face", &nobody], 2, "face-not-found");
    fails(&["--face", &ann, "--size", "30x32"], 2, "size-multiple");
    fails(&["--face", &ann, "--size", "30"], 2, "size-format");
    fails(&["--face", &ann, "--background", "0"], 2, "background-format");
    fails(&["--person", &ann, "--person", &ann, "--layout", "0,0,1,1", "--layout", &ann], 2, "layout-mixed");
    fails(&["--face", &at("missing.png")], 5, "io");

    let pair = format!("{ann}:0.5,{ann}+{ann}");
    let arguments =
        with(&["--person", &ann, "--person", &pair, "--layout", "0,0,.5,1", "--layout", ".5,0,.5,1"]);
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).chain(["--count", "2", "--seed", "9"]).collect();
    let run = facestudio(&arguments);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let written = String::from_utf8(run.stdout).unwrap();
    assert_eq!(written.lines().collect::<Vec<_>>(), [at("out-000.png"), at("out-001.png")]);
    for (name, seed) in [("out-000.png", 9), ("out-001.png", 10)] {
        let png = std::fs::read(at(name)).unwrap();
        assert_eq!(facestudio::image::codec::decode(&png).unwrap().dimensions(), (32, 32));
        let texts = facestudio::image::codec::read_png_texts(&png).unwrap();
        let (_, settings) = texts.iter().find(|(keyword, _)| keyword == "facestudio").unwrap();
        let settings: serde_json::Value = serde_json::from_str(settings).unwrap();
        assert_eq!((&settings["seed"], &settings["steps"]), (&seed.into(), &2.into()));
        assert_eq!(settings["watermark"], true);
        let (_, xmp) = texts.iter().find(|(keyword, _)| keyword == "XML:com.adobe.xmp").unwrap();
        assert!(xmp.contains("digitalsourcetype/trainedAlgorithmicMedia"), "{xmp}");
        assert!(!settings.to_string().contains("ann.png"), "a photo's name is nobody's business");
    }

    // Many at once: two machines share a file, one line of which cannot be made; what is there is left alone.
    let jobs = at("jobs.jsonl");
    let line = |out: &str, face: &str| {
        json!({ "face": [face], "prompt": "a man", "steps": 1, "out": at(out) }).to_string()
    };
    let lines = [line("0.png", &ann), line("1.png", &nobody), line("2.png", &ann), line("3.png", &ann)];
    std::fs::write(&jobs, lines.join("\n")).unwrap();
    std::fs::copy(&ann, at("2.png")).unwrap();
    let share = |shard| facestudio(&["generate", "--model", &model, "--jobs", &jobs, "--shard", shard]);
    let even = share("0/2");
    assert!(even.status.success(), "{}", String::from_utf8_lossy(&even.stderr));
    assert_eq!(String::from_utf8(even.stdout).unwrap(), format!("{}\n", at("0.png")));
    assert_eq!(std::fs::read(at("2.png")).unwrap(), std::fs::read(&ann).unwrap());
    let odd = share("1/2");
    let said = String::from_utf8(odd.stderr).unwrap();
    assert_eq!(odd.status.code(), Some(2), "{said}");
    assert!(said.contains("jobs.jsonl, line 2") && said.contains("1 of 2 jobs failed"), "{said}");
    assert!(Path::new(&at("3.png")).exists() && !Path::new(&at("1.png")).exists());
    assert_eq!(share("2/2").status.code(), Some(2));
    for (bad, about) in [
        ("{}", "no \"out\""),
        ("[1]", "line 1"),
        (r#"{"out": "a.png", "sharpness": 3}"#, "--sharpness"),
        (r#"{"out": "a.png", "steps": "many"}"#, "many"),
        ("{\"out\": \"a.png\"}\n{\"out\": \"a.png\"}", "line 1"),
    ] {
        std::fs::write(&jobs, bad).unwrap();
        let said =
            assert_fails(&["generate", "--model", &model, "--jobs", &jobs], 2, "job-format", Path::new(&out));
        assert!(said.contains(about), "{said}");
    }

    let arguments = with(&["--face", &ann, "--no-watermark"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(facestudio(&arguments).status.success());
    let plain = std::fs::read(&out).unwrap();
    let texts = facestudio::image::codec::read_png_texts(&plain).unwrap();
    assert!(texts.iter().any(|(_, text)| text.contains("\"watermark\":false")), "{texts:?}");
}

#[test]
fn the_watermark_is_found_where_it_is_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (plain, marked, tiny) = (at("plain.png"), at("marked.png"), at("tiny.png"));
    let scene = facestudio_synth::Scene::random(3, 1, &Default::default());
    facestudio_synth::render(&scene, 128).image.save(&plain).unwrap();
    image::RgbImage::new(20, 64).save(&tiny).unwrap();

    assert!(facestudio(&["watermark", "embed", &plain, "--out", &marked]).status.success());
    let run = facestudio(&["watermark", "detect", &plain, &marked]);
    let said = String::from_utf8(run.stdout).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert!(said[0].starts_with(&format!("{plain}: no watermark found")), "{said:?}");
    assert!(said[1].starts_with(&format!("{marked}: generated")), "{said:?}");

    let run = facestudio(&["watermark", "detect", "--json", &marked]);
    let found: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&found["found"], &found["scale"]), (&true.into(), &1.0.into()));
    assert!(found["score"].as_f64().unwrap() > 4.0, "{found}");

    let said = assert_fails(&["watermark", "detect", &tiny], 2, "watermark-size", Path::new(&at("none")));
    assert!(said.contains("tiny.png") && said.contains("20×64"), "{said}");
}
