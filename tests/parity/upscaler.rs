//! Upscalers against their published definitions in PyTorch, converted from BasicSR's files.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use facestudio::upscaler::Upscaler;
use facestudio::weights::{Component, Folder, Quantization};
use facestudio_convert::kind::{Kind, recognize};
use facestudio_convert::{Plan, Slot, convert};

use crate::{assert_close, fixture, io};

/// f32 sums in another order; a wrong layer or name costs over 1e-2.
const TOLERANCE: f32 = 1e-4;

fn converted(file: &Path, out: &Path) -> Folder {
    let parts = vec![(Slot::Upscaler, file.to_owned())];
    let plan = Plan { parts, quantization: Quantization::None, ..Plan::default() };
    convert(&plan, out, &AtomicBool::new(false), &|_, _| ()).unwrap();
    Folder(out.to_owned())
}

#[test]
fn larger_pictures_are_pytorchs() {
    let device = Device::flex();
    for (case, factor) in [("compact_x4", 4), ("compact_x2", 2), ("blocks_x4", 4), ("blocks_x2", 2)] {
        let folder = fixture(&format!("upscaler/{case}"));
        let file = folder.0.join("network.pth");
        let recognized = recognize(&file).unwrap();
        assert_eq!((recognized.kind, recognized.flag), (Kind::Upscaler, Some("--upscaler")), "{case}");
        let out = tempfile::tempdir().unwrap();
        let files = converted(&file, &out.path().join("model"));
        let upscaler = Upscaler::load(&Component::new(&files, "upscaler"), &device).unwrap();
        assert_eq!(upscaler.factor(), factor);
        let io = io(&folder);
        let made = upscaler.forward(io.tensor("images", &device).unwrap()).unwrap();
        assert_close(made, io.tensor::<4>("larger", &device).unwrap(), TOLERANCE);
    }
}

/// What looks like one of them and is none is refused when it is converted.
#[test]
fn other_networks_are_refused() {
    use facestudio::weights::{Tensors, encode};
    let chain = |last: Vec<usize>| {
        let zeros = |shape: Vec<usize>| (shape.clone(), vec![0.0; shape.iter().product()]);
        let names =
            [("body.0.weight", vec![4, 3, 3, 3]), ("body.1.weight", vec![4]), ("body.2.weight", last)];
        Tensors(names.map(|(name, shape)| (name.to_owned(), zeros(shape))).into())
    };
    let folder = tempfile::tempdir().unwrap();
    let code = |tensors: &Tensors| {
        let file = folder.path().join("network.safetensors");
        std::fs::write(&file, encode(tensors, Quantization::None, &Default::default()).unwrap()).unwrap();
        let plan = Plan { parts: vec![(Slot::Upscaler, file)], ..Plan::default() };
        convert(&plan, &folder.path().join("out"), &AtomicBool::new(false), &|_, _| ()).unwrap_err().code
    };
    assert_eq!(code(&chain(vec![13, 4, 3, 3])), "checkpoint-layout");
    let mut other = chain(vec![12, 4, 3, 3]);
    other.0.remove("body.1.weight");
    assert_eq!(code(&other), "checkpoint-layout");
}
