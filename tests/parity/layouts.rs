//! Checkpoints that other programs read, in layouts and files of several kinds, become what they are in the usual one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Device};
use facestudio::Error;
use facestudio::encoders::text::TextEncoder;
use facestudio::weights::{Component, Folder, Quantization, TensorSource, Tensors, encode};
use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::{Plan, Slot, convert};
use serde_json::{Value, json};

use crate::{assert_close, fixture, io};

fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity").join(name)
}

fn run(parts: &[(Slot, PathBuf)], out: &Path) -> Result<(), Error> {
    let plan = Plan { parts: parts.to_vec(), quantization: Quantization::None, ..Plan::default() };
    convert(&plan, out, &AtomicBool::new(false), &|_, _| ()).map(|_| ())
}

fn write(path: &Path, tensors: &Tensors) {
    std::fs::write(path, encode(tensors, Quantization::None, &BTreeMap::new()).unwrap()).unwrap();
}

fn tensors(path: &Path) -> Tensors {
    Checkpoint::open(path).unwrap().read_all().unwrap()
}

/// The same tensors under other names.
fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Tensors {
    Tensors(tensors.0.iter().map(|(old, tensor)| (name(old), tensor.clone())).collect())
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

#[test]
fn a_text_encoder_of_transformers_5_gives_its_states() {
    let folder = tempfile::tempdir().unwrap();
    let here = path("convert/transformers5/text");
    // Its folder, its file there, and the file alone, whose tensors tell the config.
    let alone = folder.path().join("clip_l.safetensors");
    std::fs::copy(here.join("model.safetensors"), &alone).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{ "model_type": "bert", "hidden_size": 7 }"#)
        .unwrap();
    let device = Device::flex();
    let io = io(&fixture("convert/transformers5/text"));
    let (_, ids) = &io.0["input_ids"];
    let ids: Vec<Vec<u32>> = ids.chunks(6).map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    for (i, source) in [here.clone(), here.join("model.safetensors"), alone].into_iter().enumerate() {
        let out = folder.path().join(format!("out{i}"));
        run(&[(Slot::TextEncoder, source)], &out).unwrap();
        let encoder = TextEncoder::load(&Component::new(&Folder(out), "text_encoder"), &device).unwrap();
        let output = encoder.forward(&ids, DType::F32).unwrap();
        assert_close(output.last_hidden_state, io.tensor("last_hidden_state", &device).unwrap(), 1e-4);
        assert_close(output.pooled, io.tensor("pooled", &device).unwrap(), 1e-4);
        assert!(output.text_embeds.is_none());
    }
}

/// transformers 5 leaves out `text_model.` and `vision_model.` where it saves a tower without its projection; with it, and in
/// `CLIPModel`, names are as ever.
#[test]
fn a_towers_name_may_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let vit = path("vision/vit");
    let usual = folder.path().join("usual");
    run(&[(Slot::VisionEncoder, vit.clone())], &usual).unwrap();
    let flat = folder.path().join("flat");
    std::fs::create_dir(&flat).unwrap();
    std::fs::copy(vit.join("config.json"), flat.join("config.json")).unwrap();
    let all = renamed(&tensors(&vit), |name| name.replace("vision_model.", ""));
    write(&flat.join("model.safetensors"), &all);
    let out = folder.path().join("out");
    run(&[(Slot::VisionEncoder, flat.clone())], &out).unwrap();
    assert_eq!(tensors(&out.join("vision_encoder")), tensors(&usual.join("vision_encoder")));

    // Without what makes its embeddings it is of no use, and says so before anything is written.
    let mut alone = all;
    alone.0.remove("visual_projection.weight");
    write(&flat.join("model.safetensors"), &alone);
    let error = run(&[(Slot::VisionEncoder, flat)], &folder.path().join("none")).unwrap_err();
    assert!(error.code == "checkpoint-layout" && error.message.contains("visual_projection"), "{error}");

    // A text encoder of both towers, whose config says nothing of a class: its tensors say that it projects.
    let both = path("vision/clip");
    let out = folder.path().join("both");
    run(&[(Slot::TextEncoder, both)], &out).unwrap();
    assert_eq!(config(&out.join("text_encoder"))["architectures"], json!(["CLIPTextModelWithProjection"]));
}

#[test]
fn a_clip_is_told_by_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let clip = path("convert/clip.pt");
    let usual = folder.path().join("usual");
    run(&[(Slot::TextEncoder, clip.clone()), (Slot::VisionEncoder, clip.clone())], &usual).unwrap();
    let openai = tensors(&clip);
    let text_under = |prefix: &str| {
        renamed(&openai, |name| match name.starts_with("visual.") || name == "logit_scale" {
            true => name.to_owned(),
            false => format!("{prefix}{name}"),
        })
    };
    let files = [
        // As open_clip trains on several GPUs, as torch.compile wraps it, and its `CustomTextCLIP`.
        ("module.pt", renamed(&openai, |name| format!("module.{name}"))),
        ("compiled.bin", renamed(&openai, |name| format!("_orig_mod.module.{name}"))),
        ("custom.SAFETENSORS", text_under("text.")),
    ];
    for (name, tensors) in files {
        write(&folder.path().join(name), &tensors);
    }
    // What was converted, as single files without configs.
    let of = |component: &str| usual.join(component).join("model.safetensors");
    std::fs::copy(of("text_encoder"), folder.path().join("text.bin")).unwrap();
    std::fs::copy(of("vision_encoder"), folder.path().join("vision.safetensors")).unwrap();
    // open_clip's own folder, without a config of transformers.
    std::fs::create_dir(folder.path().join("open_clip")).unwrap();
    write(&folder.path().join("open_clip/open_clip_model.safetensors"), &openai);
    for (i, (text, vision)) in [
        ("module.pt", "module.pt"),
        ("compiled.bin", "compiled.bin"),
        ("custom.SAFETENSORS", "custom.SAFETENSORS"),
        ("text.bin", "vision.safetensors"),
        ("open_clip", "open_clip"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(format!("out{i}"));
        let at = |name: &str| folder.path().join(name);
        run(&[(Slot::TextEncoder, at(text)), (Slot::VisionEncoder, at(vision))], &out)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        for component in ["text_encoder", "vision_encoder"] {
            let (ours, theirs) = (out.join(component), usual.join(component));
            assert_eq!(tensors(&ours), tensors(&theirs), "{text}: {component}");
            assert_eq!(config(&ours), config(&theirs), "{text}: {component}");
        }
    }
}

#[test]
fn a_unet_is_told_by_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = tensors(&path("convert/sd1.ckpt"));
    run(&[(Slot::Unet, path("convert/sd1.ckpt"))], &at("usual")).unwrap();
    let only = whole.0.iter().filter(|(name, _)| name.starts_with("model.diffusion_model."));
    let only = Tensors(only.map(|(name, tensor)| (name.clone(), tensor.clone())).collect());
    write(&at("short.safetensors"), &renamed(&only, |name| name.replacen("model.", "", 1)));
    write(&at("bare.safetensors"), &renamed(&only, |name| name.replacen("model.diffusion_model.", "", 1)));
    // A file of diffusers' folder, with the config beside it.
    let diffusers = at("usual").join("unet/model.safetensors");
    for (i, source) in [at("short.safetensors"), at("bare.safetensors"), diffusers].into_iter().enumerate() {
        let out = at(&format!("out{i}"));
        run(&[(Slot::Unet, source)], &out).unwrap();
        assert_eq!(tensors(&out.join("unet")), tensors(&at("usual").join("unet")));
        assert_eq!(config(&out.join("unet")), config(&at("usual").join("unet")));
    }
    std::fs::copy(at("usual").join("unet/model.safetensors"), at("alone.safetensors")).unwrap();
    let error = run(&[(Slot::Unet, at("alone.safetensors"))], &at("none")).unwrap_err();
    assert_eq!(error.code, "convert-config", "{error}");
}

/// The pieces of a variant, under the names of both versions of diffusers, as they come from `save_pretrained(variant="fp16")`.
#[test]
fn the_pieces_of_a_variant_are_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let unet = path("prompt/model/unet");
    let whole = tensors(&unet);
    for (i, (index, piece)) in [
        (
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model-0000N-of-00002.fp16.safetensors",
        ),
        (
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            "diffusion_pytorch_model.fp16-0000N-of-00002.safetensors",
        ),
        ("diffusion_pytorch_model.bin.index.fp16.json", "diffusion_pytorch_model.fp16-0000N-of-00002.bin"),
    ]
    .into_iter()
    .enumerate()
    {
        let here = folder.path().join(format!("unet{i}"));
        std::fs::create_dir(&here).unwrap();
        std::fs::copy(unet.join("config.json"), here.join("config.json")).unwrap();
        let mut weight_map = BTreeMap::new();
        for number in 0..2 {
            let part = whole.0.iter().enumerate().filter(|(i, _)| i % 2 == number);
            let part = Tensors(part.map(|(_, (name, tensor))| (name.clone(), tensor.clone())).collect());
            let file = piece.replace('N', &(number + 1).to_string());
            write(&here.join(&file), &part);
            weight_map.extend(part.names().into_iter().map(|name| (name, file.clone())));
        }
        std::fs::write(here.join(index), json!({ "weight_map": weight_map }).to_string()).unwrap();
        let out = folder.path().join(format!("out{i}"));
        run(&[(Slot::Unet, here)], &out).unwrap();
        assert_eq!(tensors(&out.join("unet")), whole, "{index}");
    }
}

#[test]
fn a_file_is_told_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    // The first two bytes of a pickle, as those of an archive are elsewhere, are a length too.
    for length in [640usize, 640 + (1 << 16), 896] {
        let mut header =
            br#"{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_vec();
        header.resize(length, b' ');
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(2f32.to_le_bytes());
        let file = folder.path().join("weights.pt");
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(Checkpoint::open(&file).unwrap().read("a").unwrap(), [2.0], "{length}");
    }
    for (start, code, part) in [
        (&b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02"[..], "pickle", "before version 1.6"),
        (b"\x80\x04\x95\x10\0\0\0\0\0\0\0", "pickle", "pickle"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "gguf", "ends in its header"),
        (b"version https://git-lfs.github.com/spec/v1\n", "checkpoint-layout", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "checkpoint-layout", "web page"),
        (b"", "safetensors", "no header"),
        (b"abc", "safetensors", "no header"),
    ] {
        let file = folder.path().join("other.safetensors");
        std::fs::write(&file, start).unwrap();
        let error = Checkpoint::open(&file).err().unwrap();
        assert!(error.code == code && error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn another_programs_quantisation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let unet = path("prompt/model/unet");
    let mut said = config(&unet);
    said["quantization_config"] = json!({ "quant_method": "bitsandbytes" });
    std::fs::write(folder.path().join("config.json"), said.to_string()).unwrap();
    std::fs::copy(unet.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let parts = [(Slot::Unet, folder.path().to_owned())];
    let error = run(&parts, &folder.path().join("out")).unwrap_err();
    assert!(error.code == "quantization-scheme" && error.message.contains("bitsandbytes"), "{error}");
}
