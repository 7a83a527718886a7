//! `facestudio convert` of a FLUX.2 klein: diffusers' folder, and single files in the publisher's and ComfyUI's names.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use facestudio::Error;
use facestudio::encoders::qwen3::Qwen3Encoder;
use facestudio::pipeline::{FaceStudio, defaults};
use facestudio::transformer::{Flux2Transformer2DConfig, Flux2Transformer2DModel};
use facestudio::weights::{
    CheckedFolder, Component, Files, Folder, Manifest, Quantization, SafetensorsFile, TensorSource, Tensors,
    encode, sha256,
};
use facestudio_convert::{ComponentReport, Plan, Slot, convert};
use serde_json::{Value, json};

use crate::fixture;

fn parity(name: &str) -> PathBuf {
    fixture(name).0
}

fn run(plan: &Plan, out: &Path) -> Result<Vec<ComponentReport>, Error> {
    convert(plan, out, &AtomicBool::new(false), &|_, _| ())
}

/// Tensors as a file of bf16.
fn bf16(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(
            values.iter().flat_map(|value| (((value.to_bits() + 0x8000) >> 16) as u16).to_le_bytes()),
        );
        let offsets = [start, data.len()];
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": offsets }));
    }
    let header = Value::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// The weights of a component of the tiny klein in bf16, in two pieces with an index, as diffusers and transformers save
/// large ones; with a tensor of a language model that nothing here reads.
fn write_pieces(component: &str, stem: &str, folder: &Path) {
    let source =
        SafetensorsFile::new(std::fs::read(parity(&format!("klein/{component}/model.safetensors"))).unwrap());
    let source = source.unwrap();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = source
        .names()
        .into_iter()
        .map(|name| (name.clone(), source.shape(&name).unwrap(), source.read(&name).unwrap()))
        .collect();
    if component == "text_encoder" {
        tensors.push(("lm_head.weight".to_owned(), vec![2], vec![1.0; 2]));
        tensors.push(("model.layers.3.mlp.up_proj.weight".to_owned(), vec![2], vec![1.0; 2]));
    }
    std::fs::create_dir_all(folder).unwrap();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut index = serde_json::Map::new();
    for (i, piece) in [first, second].iter().enumerate() {
        let name = format!("{stem}-0000{}-of-00002.safetensors", i + 1);
        std::fs::write(folder.join(&name), bf16(piece)).unwrap();
        index.extend(piece.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
    }
    let index = json!({ "metadata": {}, "weight_map": index }).to_string();
    std::fs::write(folder.join(format!("{stem}.safetensors.index.json")), index).unwrap();
}

/// diffusers' folder of the tiny klein.
fn diffusers(folder: &Path) {
    for (component, stem) in [
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ] {
        write_pieces(component, stem, &folder.join(component));
        let config = std::fs::read(parity(&format!("klein/{component}/config.json"))).unwrap();
        std::fs::write(folder.join(component).join("config.json"), config).unwrap();
    }
    for (from, to) in [("klein/scheduler", "scheduler"), ("qwen2_tokenizer/json", "tokenizer")] {
        std::fs::create_dir_all(folder.join(to)).unwrap();
        for entry in std::fs::read_dir(parity(from)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), folder.join(to).join(entry.file_name())).unwrap();
        }
    }
    let index = json!({ "_class_name": "Flux2KleinPipeline", "_diffusers_version": "0.37.0", "is_distilled": true,
        "transformer": ["diffusers", "Flux2Transformer2DModel"] });
    std::fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
}

#[test]
fn a_folder_in_pieces_of_bf16_becomes_a_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("klein");
    diffusers(&base);
    let device = Device::flex();
    for (quantization, worst) in
        [(Quantization::F16, 1e-3), (Quantization::Q8, 0.02), (Quantization::Q4, 0.2)]
    {
        let out = folder.path().join(quantization.name());
        let plan = Plan { base: Some(base.clone()), quantization, ..Plan::default() };
        assert_eq!(plan.family(), "klein");
        let reports = run(&plan, &out).unwrap();
        let names: Vec<&str> = reports.iter().map(|report| report.component.as_str()).collect();
        assert_eq!(names, ["transformer", "vae", "text_encoder"]);
        for report in &reports {
            assert!(
                report.errors.values().all(|error| *error < worst),
                "{quantization:?} {:?}",
                report.errors
            );
        }
        // All that is opened is there, and nothing of the text encoder that is not read.
        let files = CheckedFolder::new(out.clone());
        Manifest::read(&files).unwrap().verify(&files).unwrap();
        let studio = FaceStudio::load(&files, &device).unwrap();
        assert_eq!(studio.defaults(), defaults(&files).unwrap());
        assert_eq!((studio.defaults().steps, studio.defaults().guidance_scale), (4, 1.0));
        for component in ["text_encoder", "transformer"] {
            studio.load_component(component, &files).unwrap();
        }
        let text = Component::new(&files, "text_encoder").tensors().unwrap().names();
        assert!(text.iter().any(|name| name == "model.layers.2.mlp.up_proj.weight"));
        assert!(!text.iter().any(|name| name.contains("lm_head") || name.contains("layers.3")), "{text:?}");
        assert!(files.list("tokenizer").unwrap().contains(&"chat_template.jinja".to_owned()));
    }
}

/// Name → [shape, SHA-256 of the f32 values], as the reference script writes it.
fn described(source: &dyn TensorSource) -> Value {
    let one = |name: String| {
        let bytes: Vec<u8> = source.read(&name).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.clone(), json!([source.shape(&name).unwrap(), sha256(&bytes)]))
    };
    source.names().into_iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_single_file_becomes_what_diffusers_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = parity("convert/flux2.safetensors");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(parity("convert/flux2.json")).unwrap()).unwrap();
    // As ComfyUI names them, beside another network.
    let file = SafetensorsFile::new(std::fs::read(&own).unwrap()).unwrap();
    let mut theirs = Tensors::default();
    for name in file.names() {
        let tensor = (file.shape(&name).unwrap(), file.read(&name).unwrap());
        theirs.0.insert(format!("model.diffusion_model.{name}"), tensor);
    }
    theirs.0.insert("vae.bn.running_mean".to_owned(), (vec![1], vec![0.0]));
    let comfy = folder.path().join("comfy.safetensors");
    std::fs::write(&comfy, encode(&theirs, Quantization::None, &Default::default()).unwrap()).unwrap();
    for (i, path) in [own.clone(), comfy].into_iter().enumerate() {
        let out = folder.path().join(format!("out{i}"));
        let parts = vec![(Slot::Transformer, path)];
        run(&Plan { parts, quantization: Quantization::None, ..Plan::default() }, &out).unwrap();
        let files = Folder(out);
        let component = Component::new(&files, "transformer");
        assert_eq!(described(component.tensors().unwrap().as_ref()), expected);
        let config: Flux2Transformer2DConfig = component.json("config.json").unwrap();
        assert_eq!(
            (config.width(), config.attention_head_dim, config.mlp_ratio, config.guidance_embeds),
            (16, 8, 3.0, false)
        );
        assert_eq!((config.rope_theta, &config.axes_dims_rope[..]), (2000.0, &[2; 4][..]));
        Flux2Transformer2DModel::load(&component, &Device::flex()).unwrap();
    }

    // In the place of a folder's transformer.
    let base = folder.path().join("klein");
    diffusers(&base);
    let plan = |file: &Path| Plan {
        base: Some(base.clone()),
        parts: vec![(Slot::Transformer, file.to_owned())],
        quantization: Quantization::None,
        ..Plan::default()
    };
    let out = folder.path().join("replaced");
    run(&plan(&own), &out).unwrap();
    let error = FaceStudio::load(&Folder(out.clone()), &Device::flex()).unwrap_err();
    assert_eq!(error.code, "model-mismatch", "its text is 12 wide, the text encoder's 48: {error}");
    let files = Folder(out);
    Qwen3Encoder::load(&Component::new(&files, "text_encoder"), &[1, 2, 3], &Device::flex()).unwrap();
}

#[test]
fn what_cannot_become_a_klein_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("klein");
    diffusers(&base);
    let refused = |plan: &Plan, code: &str, part: &str| {
        let out = folder.path().join("out");
        let error = run(plan, &out).unwrap_err();
        assert!(error.code == code && error.to_string().contains(part), "{code}, {part}: {error:?}");
        assert!(!out.exists());
    };
    let plan = || Plan { base: Some(base.clone()), ..Plan::default() };
    refused(&Plan { prediction_type: Some("epsilon"), ..plan() }, "convert-config", "no UNet is converted");
    refused(&Plan { loras: vec![(parity("lora/peft_unet"), 1.0)], ..plan() }, "lora-mismatch", "unet");
    // A tensor that no transformer has.
    let file = SafetensorsFile::new(std::fs::read(parity("convert/flux2.safetensors")).unwrap()).unwrap();
    let mut tensors = Tensors::default();
    for name in file.names() {
        tensors.0.insert(name.clone(), (file.shape(&name).unwrap(), file.read(&name).unwrap()));
    }
    tensors.0.insert("double_blocks.0.img_attn.extra.weight".to_owned(), (vec![1], vec![0.0]));
    let strange = folder.path().join("strange.safetensors");
    std::fs::write(&strange, encode(&tensors, Quantization::None, &Default::default()).unwrap()).unwrap();
    let parts = vec![(Slot::Transformer, strange)];
    refused(&Plan { parts, ..Plan::default() }, "checkpoint-layout", "extra");

    let index = base.join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("Flux2KleinPipeline", "Flux2KleinKVPipeline")).unwrap();
    refused(&plan(), "config-unsupported", "Flux2KleinKVPipeline");
    std::fs::remove_file(&index).unwrap();
    refused(&plan(), "io", "model_index.json");
}
