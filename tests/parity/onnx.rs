//! ONNX files of several exporters, converted, against onnxruntime; and those that are another network by an attribute.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use facestudio::Result;
use facestudio::encoders::detector::Detector;
use facestudio::encoders::face::FaceEncoder;
use facestudio::weights::{Component, Folder, Quantization, Tensors};
use facestudio_convert::{ComponentReport, Plan, Slot, convert};
use serde::Deserialize;

use crate::{assert_close, fixture, io};

/// f32 sums in another order; a wrong ε, stride or scale costs over 1e-2.
const TOLERANCE: f32 = 1e-5;
/// onnxruntime computes in f16 where the file says so: 11 bits, and a dozen roundings one after another.
const HALF: f32 = 2e-3;

fn file(name: &str) -> PathBuf {
    fixture("onnx").0.join(format!("{name}.onnx"))
}

fn run(slot: Slot, file: PathBuf, out: &Path) -> Result<Vec<ComponentReport>> {
    let plan = Plan { parts: vec![(slot, file)], quantization: Quantization::None, ..Plan::default() };
    convert(&plan, out, &AtomicBool::new(false), &|_, _| ())
}

fn tolerance(case: &str) -> f32 {
    if case.starts_with("half") { HALF } else { TOLERANCE }
}

/// What onnxruntime gave for a case, output after output, `[1, cells, numbers]` or `[1, numbers]`.
fn outputs<const D: usize>(io: &Tensors, case: &str, device: &Device) -> Vec<Tensor<D>> {
    let names = (0..).map(|i| format!("{case}.{i}")).take_while(|name| io.0.contains_key(name));
    names.map(|name| io.tensor::<D>(&name, device).unwrap()).collect()
}

#[test]
fn recognition_networks_of_every_exporter_give_onnxruntimes_embeddings() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let io = io(&fixture("onnx"));
    for case in [
        "plain",
        "unfolded",
        "dynamo",
        "dynamo_plain",
        "half",
        "half_in_parts",
        "gemm",
        "product",
        "epsilon",
        "constants",
        "integers",
    ] {
        println!("{case}");
        let out = folder.path().join(case);
        run(Slot::FaceEncoder, file(&format!("face_{case}")), &out).unwrap();
        let files = Folder(out);
        let encoder = FaceEncoder::load(&Component::new(&files, "face_encoder"), &device).unwrap();
        let embedding = encoder.forward(io.tensor("face.pixels", &device).unwrap()).unwrap();
        let reference = outputs::<2>(&io, &format!("face_{case}"), &device).pop().unwrap();
        assert_close(embedding, reference, tolerance(case));
    }
}

#[test]
fn detectors_of_every_exporter_give_onnxruntimes_outputs() {
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let io = io(&fixture("onnx"));
    for case in ["plain", "axes", "unfolded", "dynamo", "dynamo_plain", "half"] {
        println!("{case}");
        let out = folder.path().join(case);
        run(Slot::Detector, file(&format!("yunet_{case}")), &out).unwrap();
        let files = Folder(out);
        let detector = Detector::load(&Component::new(&files, "detector"), &device).unwrap();
        let Detector::YuNet(network) = detector else { panic!("{detector:?} is no YuNet") };
        let output = network.forward(io.tensor("yunet.pixels", &device).unwrap()).unwrap().swap_dims(1, 2);
        let reference = outputs::<3>(&io, &format!("yunet_{case}"), &device);
        assert_eq!(reference.len(), 12);
        let mut first = 0;
        let cells: Vec<usize> = reference[..3].iter().map(|level| level.dims()[1]).collect();
        for (level, cells) in cells.into_iter().enumerate() {
            let ours = output.clone().narrow(1, first, cells);
            let mut column = 0;
            for (head, width) in [1, 1, 4, 10].into_iter().enumerate() {
                let part = ours.clone().narrow(2, column, width);
                let part = if width == 1 { sigmoid(part) } else { part };
                assert_close(part, reference[head * 3 + level].clone(), tolerance(case));
                column += width;
            }
            first += cells;
        }
    }
}

#[derive(Deserialize)]
struct Refused {
    base: String,
    /// Where, how many bytes go, and which come, in hexadecimal digits.
    edits: Vec<(usize, usize, String)>,
    words: Vec<String>,
}

#[test]
fn another_network_is_refused_by_the_attribute_that_makes_it_one() {
    let folder = tempfile::tempdir().unwrap();
    let cases: Vec<Refused> =
        serde_json::from_slice(&std::fs::read(fixture("onnx").0.join("refused.json")).unwrap()).unwrap();
    assert!(cases.len() > 30, "{}", cases.len());
    let out = folder.path().join("out");
    for Refused { base, edits, words } in cases {
        let mut bytes = std::fs::read(file(&base)).unwrap();
        for (at, gone, put) in edits.into_iter().rev() {
            let digits = (0..put.len()).step_by(2);
            let put = digits.map(|i| u8::from_str_radix(&put[i..i + 2], 16).unwrap());
            bytes.splice(at..at + gone, put.collect::<Vec<_>>());
        }
        let changed = folder.path().join("changed.onnx");
        std::fs::write(&changed, bytes).unwrap();
        let slot = if base.starts_with("face") { Slot::FaceEncoder } else { Slot::Detector };
        let error = run(slot, changed, &out).err().unwrap_or_else(|| panic!("{base} {words:?} is taken"));
        assert_eq!(error.code, "checkpoint-layout", "{error}");
        assert!(words.iter().all(|word| error.message.contains(word)), "{words:?}: {error}");
        assert!(!out.exists());
    }
}
