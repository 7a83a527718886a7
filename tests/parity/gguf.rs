//! GGUF files against the package `gguf`, and checkpoints in them against the same checkpoints in their usual files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use facestudio::weights::{
    Component, Folder, MAX_SHARD, Quantization, SafetensorsFile, TensorSource, Tensors, write_shards,
};
use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::{ComponentReport, Plan, Slot, convert};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity").join(name)
}

fn safetensors(name: &str) -> Tensors {
    SafetensorsFile::new(std::fs::read(path(name)).unwrap()).unwrap().into_tensors().unwrap()
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn converted(plan: &Plan, out: &Path) -> Vec<ComponentReport> {
    convert(plan, out, &AtomicBool::new(false), &|_, _| ()).unwrap()
}

fn tensors(out: &Path, component: &str) -> Tensors {
    Component::new(&Folder(out.to_owned()), component).tensors().unwrap().read_all().unwrap()
}

#[test]
fn every_type_is_read_as_the_package_reads_it() {
    let ours = Checkpoint::open(&path("gguf/types.gguf")).unwrap().read_all().unwrap();
    let theirs = safetensors("gguf/types.safetensors");
    assert_eq!(ours.0.len(), 11);
    assert_eq!(ours.names(), theirs.names());
    for (name, (shape, values)) in &theirs.0 {
        let (our_shape, ours) = &ours.0[name];
        assert_eq!(our_shape, shape, "{name}");
        // The same products; with an offset, rounded once less or more.
        let exact = !["Q4_1", "Q5_1", "Q4_K", "Q5_K"].contains(&name.as_str());
        let most = values.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        let bound = if exact { 0.0 } else { most * 2f32.powi(-22) };
        let far = ours.iter().zip(values).position(|(a, b)| (a - b).abs() > bound);
        assert_eq!(far, None, "{name}: {:?}", far.map(|i| (ours[i], values[i])));
    }
}

/// What is written of `types.gguf`: how each tensor is stored, and its numbers.
fn stored(quantization: Quantization) -> BTreeMap<String, (String, Vec<f32>)> {
    let source = Checkpoint::open(&path("gguf/types.gguf")).unwrap();
    let mut found = BTreeMap::new();
    write_shards(&source, quantization, &BTreeMap::new(), MAX_SHARD, |_, bytes| {
        let file = SafetensorsFile::new(bytes.to_vec())?;
        for name in file.names() {
            found.insert(name.clone(), (file.header().dtype(&name).unwrap(), file.read(&name)?));
        }
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn blocks_that_are_ours_too_are_stored_without_loss() {
    let theirs = safetensors("gguf/types.safetensors");
    for (quantization, kept) in [
        (Quantization::Q8, [("Q8_0", "q8"), ("Q4_0", "q8")].as_slice()),
        (Quantization::Q4, &[("Q4_0", "q4")]),
        (Quantization::None, &[("Q8_0", "f32"), ("Q4_0", "f32"), ("Q6_K", "f32"), ("BF16", "f32")]),
        (Quantization::F16, &[("F16", "f16")]),
    ] {
        let stored = stored(quantization);
        for (name, dtype) in kept {
            let (how, values) = &stored[*name];
            assert_eq!(how, dtype, "{quantization:?} {name}");
            assert!(*values == theirs.0[*name].1, "{quantization:?} {name}");
        }
    }
    // What has other blocks is quantised again.
    assert!(stored(Quantization::Q8)["Q5_0"].1 != theirs.0["Q5_0"].1);
}

#[test]
fn stable_diffusion_cpps_files_are_the_checkpoints_that_they_were_made_of() {
    for (gguf, original) in
        [("gguf/sd1.gguf", "convert/sd1.ckpt"), ("gguf/sd2.gguf", "convert/sd2.safetensors")]
    {
        let folder = tempfile::tempdir().unwrap();
        let run = |file: &str, name: &str| {
            let out = folder.path().join(name);
            let prediction_type = Some("epsilon");
            let base = Some(path(file));
            let plan = Plan { base, prediction_type, quantization: Quantization::None, ..Plan::default() };
            converted(&plan, &out);
            out
        };
        let (ours, theirs) = (run(gguf, "ours"), run(original, "theirs"));
        for component in ["unet", "vae", "text_encoder"] {
            assert_eq!(tensors(&ours, component), tensors(&theirs, component), "{gguf}: {component}");
            let config = |out: &Path| json_file(&out.join(component).join("config.json"));
            assert_eq!(config(&ours), config(&theirs), "{gguf}: {component}");
        }
    }
}

#[test]
fn comfyuis_unet_has_its_shapes_back() {
    let folder = tempfile::tempdir().unwrap();
    let run = |file: &str, quantization, name: &str| {
        let out = folder.path().join(name);
        let parts = vec![(Slot::Unet, path(file))];
        let reports = converted(&Plan { parts, quantization, ..Plan::default() }, &out);
        (tensors(&out, "unet"), reports)
    };
    let (ours, _) = run("gguf/comfy.gguf", Quantization::None, "ours");
    let (original, _) = run("convert/sd1.ckpt", Quantization::None, "original");
    assert_eq!(ours.names(), original.names());
    let quantised = safetensors("gguf/comfy.safetensors");
    let mut changed = 0;
    for (name, (shape, values)) in &original.0 {
        let (our_shape, ours) = &ours.0[name];
        assert_eq!(our_shape, shape, "{name}");
        if ours != values {
            let all: Vec<_> = quantised.0.values().filter(|(_, theirs)| theirs == ours).collect();
            assert_eq!(all.len(), 1, "{name} is neither what it was nor what the package made of it");
            changed += 1;
        }
    }
    assert_eq!(changed, quantised.0.len());

    // Rows of 32 · 9 numbers are whole blocks, those of 8 · 9 are not.
    let (_, reports) = run("gguf/comfy.gguf", Quantization::Q8, "q8");
    let errors = &reports[0].errors;
    assert!(!errors.contains_key("up_blocks.0.resnets.0.conv1.weight"), "{errors:?}");
    assert!(errors.contains_key("down_blocks.1.resnets.0.conv1.weight"), "{errors:?}");
}

/// A weight in eight-bit floats with scales beside it, in a file with what ComfyUI writes there besides.
#[test]
fn scaled_eight_bit_floats_are_multiplied() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scaled.safetensors");
    let entries: [(&str, &str, &[usize], &[u8]); 7] = [
        // 1, 1.125, −2, 448 in e4m3fn; the same without a scale; 1, −1.25 in e5m2.
        ("a.weight", "F8_E4M3", &[2, 2], &[0x38, 0x39, 0xc0, 0x7e]),
        ("a.scale_weight", "F32", &[], &0.5f32.to_le_bytes()),
        ("a.scale_input", "F32", &[], &3f32.to_le_bytes()),
        ("b.weight", "F8_E4M3", &[2, 2], &[0x38, 0x39, 0xc0, 0x7e]),
        ("c.weight", "F8_E5M2", &[2, 1], &[0x3c, 0xbd]),
        // 2 and 4 in bf16.
        ("c.weight_scale", "BF16", &[2, 1], &[0x00, 0x40, 0x80, 0x40]),
        ("scaled_fp8", "F8_E4M3", &[0], &[]),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in entries {
        let start = data.len();
        data.extend_from_slice(bytes);
        let place =
            serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.to_owned(), place);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    std::fs::write(&file, bytes).unwrap();
    let all = Checkpoint::open(&file).unwrap().read_all().unwrap();
    let expected = [
        ("a.weight", vec![0.5, 0.5625, -1.0, 224.0]),
        ("b.weight", vec![1.0, 1.125, -2.0, 448.0]),
        ("c.weight", vec![2.0, -5.0]),
    ];
    assert_eq!(all.0.len(), expected.len());
    for (name, values) in expected {
        assert_eq!(all.0[name].1, values, "{name}");
    }
}
