//! `facestudio convert` against diffusers' converters, and networks converted from OpenAI's layout against that layout's own
//! forward pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Device};
use facestudio::Error;
use facestudio::encoders::face::{FaceEncoder, FaceEncoderConfig};
use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::vision::VisionEncoder;
use facestudio::request::Defaults;
use facestudio::sampling::{Sampler, TimestepSpacing};
use facestudio::vae::Vae;
use facestudio::weights::{
    Component, Folder, Manifest, ModelCard, Quantization, SafetensorsFile, TensorSource, Tensors, sha256,
};
use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::scheduler::Sampling;
use facestudio_convert::{ComponentReport, Plan, Slot, convert};
use serde_json::{Value, json};

use crate::assert_close;

/// See `vision.rs`: sums in another order cost about 1e-6, a tensor in a wrong place everything.
const TOLERANCE: f32 = 1e-4;

fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity/convert").join(name)
}

fn plan(base: Option<&str>, parts: &[(Slot, PathBuf)]) -> Plan {
    Plan {
        base: base.map(path),
        parts: parts.to_vec(),
        quantization: Quantization::None,
        card: ModelCard { name: "converted".to_owned(), ..ModelCard::default() },
        ..Plan::default()
    }
}

fn run(plan: &Plan, out: &Path) -> Result<Vec<ComponentReport>, Error> {
    convert(plan, out, &AtomicBool::new(false), &|_, _| ())
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Name → [shape, SHA-256 of the f32 values], as the reference script writes it.
fn described(source: &dyn TensorSource) -> Value {
    let one = |name: String| {
        let bytes: Vec<u8> = source.read(&name).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = source.shape(&name).unwrap();
        (name, json!([shape, sha256(&bytes)]))
    };
    source.names().into_iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

/// Fails unless a converted folder holds the tensors that the reference says, by name, shape and value.
#[track_caller]
fn assert_described(files: &Folder, expected: &Value) {
    for component in ["unet", "vae", "text_encoder"] {
        let ours = described(Component::new(files, component).tensors().unwrap().as_ref());
        let (ours, theirs) = (ours.as_object().unwrap(), expected[component].as_object().unwrap());
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{component}");
        for (name, tensor) in theirs {
            assert_eq!(ours[name], *tensor, "{component}: {name}");
        }
    }
}

#[test]
fn a_stable_diffusion_2_becomes_what_diffusers_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sd2");
    let of_768 = Plan { prediction_type: Some("v_prediction"), ..plan(Some("sd2.safetensors"), &[]) };
    run(&of_768, &out).unwrap();
    assert_described(&Folder(out.clone()), &json_file(&path("sd2.json")));
    let unet = json_file(&out.join("unet/config.json"));
    // Heads of 64 channels, or one where there are fewer.
    assert_eq!((&unet["use_linear_projection"], &unet["attention_head_dim"]), (&json!(true), &json!([1, 1])));
    let text = json_file(&out.join("text_encoder/config.json"));
    assert_eq!((&text["num_hidden_layers"], &text["hidden_act"]), (&json!(23), &json!("gelu")));
    assert_eq!(json_file(&out.join("scheduler/scheduler_config.json"))["prediction_type"], "v_prediction");
}

#[test]
fn a_single_file_becomes_what_diffusers_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sd1");
    let reports = run(&plan(Some("sd1.ckpt"), &[]), &out).unwrap();
    let files = Folder(out.clone());
    assert_described(&files, &json_file(&path("sd1.json")));
    assert!(reports.iter().all(|report| report.errors.is_empty()), "f32 stores everything exactly");
    let text = TextEncoder::load(&Component::new(&files, "text_encoder"), &Device::flex()).unwrap();
    assert!(text.forward(&[vec![1, 2, 49]], DType::F32).unwrap().text_embeds.is_none());
    let unet = json_file(&out.join("unet/config.json"));
    assert_eq!(unet["block_out_channels"], json!([8, 16]));
    assert_eq!(unet["down_block_types"], json!(["CrossAttnDownBlock2D", "DownBlock2D"]));
    assert_eq!(unet["up_block_types"], json!(["UpBlock2D", "CrossAttnUpBlock2D"]));
    assert_eq!((&unet["cross_attention_dim"], &unet["attention_head_dim"]), (&json!(12), &json!(8)));
    let vae = json_file(&out.join("vae/config.json"));
    assert_eq!((&vae["latent_channels"], &vae["scaling_factor"]), (&json!(4), &json!(0.18215)));
    let manifest = Manifest::read(&files).unwrap();
    manifest.verify(&files).unwrap();
    assert_eq!(manifest.provenance["conversion"]["sources"]["unet"], "sd1.ckpt");
    assert_eq!(json_file(&out.join("scheduler/scheduler_config.json"))["prediction_type"], "epsilon");
}

#[test]
fn openais_clip_gives_the_same_embeddings_in_transformers_names() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("clip");
    let parts = [(Slot::TextEncoder, path("clip.pt")), (Slot::VisionEncoder, path("clip.pt"))];
    run(&plan(None, &parts), &out).unwrap();
    let io = SafetensorsFile::new(std::fs::read(path("clip.safetensors")).unwrap()).unwrap();
    let io: Tensors = io.into_tensors().unwrap();
    let (files, device) = (Folder(out), Device::flex());
    let vision = VisionEncoder::load(&Component::new(&files, "vision_encoder"), &device).unwrap();
    let output = vision.forward(io.tensor("pixel_values", &device).unwrap()).unwrap();
    assert_close(output.image_embeds, io.tensor("image_embeds", &device).unwrap(), TOLERANCE);
    let text = TextEncoder::load(&Component::new(&files, "text_encoder"), &device).unwrap();
    let (_, ids) = &io.0["input_ids"];
    let ids: Vec<Vec<u32>> = ids.chunks(12).map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    let output = text.forward(&ids, DType::F32).unwrap();
    assert_close(output.text_embeds.unwrap(), io.tensor("text_embeds", &device).unwrap(), TOLERANCE);
}

#[test]
fn insightfaces_checkpoint_keeps_its_names_and_tells_its_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("face");
    run(&plan(None, &[(Slot::FaceEncoder, path("iresnet.pt"))]), &out).unwrap();
    let files = Folder(out);
    let component = Component::new(&files, "face_encoder");
    assert_eq!(described(component.tensors().unwrap().as_ref()), json_file(&path("iresnet.json")));
    let config: FaceEncoderConfig = component.json("config.json").unwrap();
    assert_eq!((config.layers, config.channels), ([1, 2, 1, 1], [4, 4, 6, 8, 10]));
    assert_eq!((config.embedding_size, config.image_size), (12, 32));
}

#[test]
fn an_exported_recognition_network_gives_the_same_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("face");
    let network = path("../face/even/exported.onnx");
    run(&plan(None, &[(Slot::FaceEncoder, network.clone())]), &out).unwrap();
    let (files, device) = (Folder(out), Device::flex());
    let encoder = FaceEncoder::load(&Component::new(&files, "face_encoder"), &device).unwrap();
    let io = crate::io(&crate::fixture("face/even"));
    let embedding = encoder.forward(io.tensor("pixel_values", &device).unwrap()).unwrap();
    assert_close(embedding, io.tensor("embedding", &device).unwrap(), 1e-5);

    // Another network, and half of this one.
    let out = folder.path().join("other");
    let mut bytes = std::fs::read(&network).unwrap();
    let at = bytes.windows(5).rposition(|name| name == b"PRelu").unwrap();
    bytes[at..at + 5].copy_from_slice(b"Trelu");
    for (bytes, code) in [(&bytes[..], "checkpoint-layout"), (&bytes[..bytes.len() / 2], "onnx")] {
        let file = folder.path().join("other.onnx");
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(run(&plan(None, &[(Slot::FaceEncoder, file)]), &out).err().unwrap().code, code);
    }
}

#[test]
fn a_folder_of_pieces_with_an_index_is_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sd1");
    run(&plan(Some("sd1.ckpt"), &[]), &out).unwrap();
    // As transformers cuts a large model: here one tensor to each of many files.
    let files = Folder(out.clone());
    let tensors = Component::new(&files, "vae").tensors().unwrap().read_all().unwrap();
    let pieces = folder.path().join("vae");
    std::fs::create_dir(&pieces).unwrap();
    let mut weight_map = BTreeMap::new();
    for (i, (name, tensor)) in tensors.0.iter().enumerate() {
        let file = format!("diffusion_pytorch_model-{i:05}.safetensors");
        let one = Tensors([(name.clone(), tensor.clone())].into());
        let bytes = facestudio::weights::encode(&one, Quantization::None, &BTreeMap::new()).unwrap();
        std::fs::write(pieces.join(&file), bytes).unwrap();
        weight_map.insert(name, file);
    }
    let index = pieces.join("diffusion_pytorch_model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": weight_map }).to_string()).unwrap();
    assert_eq!(Checkpoint::open(&pieces).unwrap().read_all().unwrap(), tensors);

    std::fs::write(&index, json!({ "weight_map": { "a": "../sd1/vae/model.safetensors" } }).to_string())
        .unwrap();
    assert_eq!(Checkpoint::open(&pieces).err().unwrap().code, "weights-index");
}

#[test]
fn of_a_folder_the_usual_name_is_taken_and_a_choice_between_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: f32| {
        let one = Tensors([("a".to_owned(), (vec![1], vec![value]))].into());
        let bytes = facestudio::weights::encode(&one, Quantization::None, &BTreeMap::new()).unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    };
    write("decoder.safetensors", 1.0);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().read("a").unwrap(), [1.0]);
    write("encoder.safetensors", 2.0);
    assert_eq!(Checkpoint::open(folder.path()).err().unwrap().code, "weights-ambiguous");
    write("diffusion_pytorch_model.safetensors", 3.0);
    write("diffusion_pytorch_model.fp16.safetensors", 4.0);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().read("a").unwrap(), [3.0]);
}

#[test]
fn an_autoencoder_without_a_prefix_is_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Checkpoint::open(&path("sd1.ckpt")).unwrap().read_all().unwrap();
    let alone = whole
        .0
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("first_stage_model.")?.to_owned(), tensor)));
    let mut alone = Tensors(alone.collect());
    alone.0.insert("model_ema.decay".to_owned(), (vec![1], vec![0.5]));
    let file = folder.path().join("vae.safetensors");
    let bytes = facestudio::weights::encode(&alone, Quantization::None, &BTreeMap::new()).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let out = folder.path().join("out");
    run(&plan(None, &[(Slot::Vae, file)]), &out).unwrap();
    let files = Folder(out);
    let ours = described(Component::new(&files, "vae").tensors().unwrap().as_ref());
    assert!(ours == json_file(&path("sd1.json"))["vae"], "{} tensors", ours.as_object().unwrap().len());
}

#[test]
fn q8_reports_the_error_of_every_tensor_that_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { quantization: Quantization::Q8, ..plan(Some("sd1.ckpt"), &[]) };
    let reports = run(&plan, &folder.path().join("q8")).unwrap();
    let unet = reports.iter().find(|report| report.component == "unet").unwrap();
    let (name, error) = unet.errors.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    // Half a step of 127 at most, of normal values: about 0.6 % of their norm.
    assert!((0.002..0.02).contains(error), "{name}: {error}");
    assert!(unet.bytes < 2 * unet.parameters, "{} bytes, {} parameters", unet.bytes, unet.parameters);
}

#[test]
fn what_is_no_such_checkpoint_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let bad = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(path("sd1.ckpt")).unwrap();
    let cases = [
        (plan(None, &[]), "convert-nothing"),
        (plan(Some("clip.pt"), &[]), "checkpoint-layout"),
        (plan(None, &[(Slot::FaceEncoder, path("clip.pt"))]), "checkpoint-layout"),
        (plan(None, &[(Slot::VisionEncoder, path("iresnet.pt"))]), "checkpoint-layout"),
        (plan(None, &[(Slot::Prior, path("iresnet.pt"))]), "convert-config"),
        (plan(None, &[(Slot::Unet, bad("cut.ckpt", &whole[..whole.len() / 2]))]), "torch-archive"),
        (plan(None, &[(Slot::Unet, bad("old.ckpt", b"\x80\x02\x8a\x0al\xfc"))]), "pickle"),
        (plan(None, &[(Slot::Unet, bad("text.ckpt", b"this is no checkpoint"))]), "safetensors"),
        (Plan { loras: vec![(path("iresnet.pt"), 1.0)], ..plan(Some("sd1.ckpt"), &[]) }, "lora-mismatch"),
        (plan(None, &[(Slot::Unet, path("sd1.ckpt")), (Slot::Unet, path("sd1.ckpt"))]), "convert-twice"),
    ];
    for (plan, code) in cases {
        let error = run(&plan, &out).err().unwrap_or_else(|| panic!("{code} was expected"));
        assert_eq!(error.code, code, "{error}");
        assert!(!out.exists());
    }
    let stopped = convert(&plan(Some("sd1.ckpt"), &[]), &out, &AtomicBool::new(true), &|_, _| ());
    assert_eq!(stopped.err().unwrap().code, "cancelled");
    assert!(!out.exists());
    let left = std::fs::read_dir(folder.path()).unwrap();
    let left: Vec<_> =
        left.map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_distilled_model_says_how_it_is_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let sampling = Sampling {
        sampler: Some(Sampler::Ddim),
        timestep_spacing: Some(TimestepSpacing::Trailing),
        steps: Some(4),
        guidance_scale: Some(1.0),
    };
    let out = folder.path().join("hyper");
    let hyper = Plan { sampling, ..plan(Some("sd1.ckpt"), &[]) };
    run(&hyper, &out).unwrap();
    let scheduler = json_file(&out.join("scheduler/scheduler_config.json"));
    assert_eq!(
        [&scheduler["_class_name"], &scheduler["timestep_spacing"], &scheduler["beta_schedule"]],
        ["DDIMScheduler", "trailing", "scaled_linear"]
    );
    assert_eq!(scheduler["clip_sample"], json!(false), "latents are not clipped");
    assert_eq!(json_file(&out.join("defaults.json")), json!({ "steps": 4, "guidance_scale": 1.0 }));
    let files = Folder(out);
    let manifest = Manifest::read(&files).unwrap();
    assert!(manifest.files.iter().any(|file| file.path == "defaults.json"), "a page fetches what is listed");
    let defaults = facestudio::pipeline::defaults(&files).unwrap();
    assert_eq!(defaults, Defaults { sampler: Sampler::Ddim, steps: 4, guidance_scale: 1.0 });

    for (sampling, code) in [
        (Sampling { steps: Some(0), ..Sampling::default() }, "steps-range"),
        (Sampling { guidance_scale: Some(0.0), ..Sampling::default() }, "guidance-scale-range"),
    ] {
        let error = run(&Plan { sampling, ..hyper.clone() }, &folder.path().join("none")).unwrap_err();
        assert_eq!(error.code, code);
    }
    let alone = Plan { sampling, ..plan(None, &[(Slot::FaceEncoder, path("iresnet.pt"))]) };
    assert_eq!(run(&alone, &folder.path().join("none")).unwrap_err().code, "convert-config");
    assert!(!folder.path().join("none").exists());
}

#[test]
fn taesd_is_read_from_its_own_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny");
    run(&plan(None, &[(Slot::TinyVae, path("taesd"))]), &out).unwrap();
    let device = Device::flex();
    let vae = Vae::load(&Component::new(&Folder(out), "tiny_vae"), &device).unwrap();
    let io = SafetensorsFile::new(std::fs::read(path("taesd/io.safetensors")).unwrap()).unwrap();
    let io = io.into_tensors().unwrap();
    let tensor = |name: &str| io.tensor::<4>(name, &device).unwrap();
    assert_close(vae.encode_latents(tensor("images")).unwrap(), tensor("encoded"), TOLERANCE);
    assert_close(vae.decode_latents(tensor("latents")).unwrap(), tensor("decoded"), TOLERANCE);

    // One of them alone makes no autoencoder.
    let half = folder.path().join("half");
    std::fs::create_dir(&half).unwrap();
    std::fs::copy(path("taesd/taesd_decoder.safetensors"), half.join("taesd_decoder.safetensors")).unwrap();
    let error = run(&plan(None, &[(Slot::TinyVae, half)]), &folder.path().join("none")).unwrap_err();
    assert!(error.message.contains("config.json"), "{error}");
}
