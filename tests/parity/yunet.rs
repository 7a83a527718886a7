//! YuNet against a PyTorch network with the names of libfacedetection.train, and its decoding against numpy.

use burn::tensor::{DType, Device, Tensor};
use facestudio::encoders::detector::yunet::{DecodeOptions, YuNet, YuNetConfig, decode};
use facestudio::weights::{Component, apply};

use crate::{assert_close, fixture, io};

/// Sums are taken in another order than PyTorch takes them; a wrong layer, stride or order of outputs costs over 1e-2.
const TOLERANCE: f32 = 1e-4;

/// Fails unless the network gives what a case's `io.safetensors` holds, decoded and not.
fn assert_finds(network: &YuNet, case: &str) {
    let (io, device) = (io(&fixture(case)), Device::flex());
    let pixels = io.tensor::<4>("pixel_values", &device).unwrap();
    let [_, _, height, width] = pixels.dims();
    let output = network.forward(pixels.clone()).unwrap();
    let mut first = 0;
    for stride in [8, 16, 32] {
        let cells = (height / stride) * (width / stride);
        let ours = output.clone().narrow(2, first, cells).swap_dims(1, 2);
        let logit = |scores: Tensor<3>| (scores.clone() / scores.neg().add_scalar(1.0)).log();
        let theirs = |name: &str| io.tensor::<3>(&format!("{name}_{stride}"), &device).unwrap();
        assert_close(ours.clone().narrow(2, 0, 1), logit(theirs("cls")), TOLERANCE);
        assert_close(ours.clone().narrow(2, 1, 1), logit(theirs("obj")), TOLERANCE);
        assert_close(ours.clone().narrow(2, 2, 4), theirs("bbox"), TOLERANCE);
        assert_close(ours.narrow(2, 6, 10), theirs("kps"), TOLERANCE);
        first += cells;
    }
    let options = DecodeOptions { min_score: 0.6, max_overlap: 0.3, max_faces: 1000 };
    let values: Vec<f32> = output.try_into_vec_as().unwrap();
    let found = decode(&values, [height, width], &options);
    let ours: Vec<f32> = found
        .iter()
        .flat_map(|face| [&face.face_box, face.landmarks.as_flattened(), &[face.score]].concat())
        .collect();
    let faces = io.tensor::<2>("faces", &device).unwrap();
    assert!(found.len() > 3, "{} faces", found.len());
    assert_eq!(found.len(), faces.dims()[0]);
    let theirs: Vec<f32> = faces.try_into_vec_as().unwrap();
    // Pixels, in a picture 96 of them wide.
    let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-2, "off by {worst}");
    let strict = DecodeOptions { max_faces: 2, ..options };
    assert_eq!(decode(&values, [height, width], &strict), found[..2]);
}

#[test]
fn faces_of_both_of_the_published_layouts() {
    for case in ["yunet/plain", "yunet/shared"] {
        let (folder, device) = (fixture(case), Device::flex());
        let component = Component::new(&folder, "");
        let config: YuNetConfig = component.json("config.json").unwrap();
        let network =
            apply(config.init(&device).unwrap(), component.tensors().unwrap().as_ref(), "").unwrap();
        assert_finds(&network, case);
        // bf16 keeps 8 bits: 0.4 % a rounding, and dozens of roundings follow one another.
        let pixels = io(&folder).tensor::<4>("pixel_values", &device).unwrap();
        let half = network.forward(pixels.clone().cast(DType::BF16)).unwrap();
        assert_close(half, network.forward(pixels).unwrap(), 0.1);
    }
}

#[test]
fn an_exported_detector_finds_the_same_faces() {
    use std::path::PathBuf;
    use std::sync::atomic::AtomicBool;

    use facestudio::encoders::detector::Detector;
    use facestudio::weights::{Folder, ModelCard, Quantization};
    use facestudio_convert::scheduler::Sampling;
    use facestudio_convert::{Plan, Slot, convert};

    let run = |file: PathBuf, out: &std::path::Path| {
        let plan = Plan {
            base: None,
            parts: vec![(Slot::Detector, file)],
            adapters: Vec::new(),
            face_id_plus: None,
            arc2face: false,
            tokenizer: None,
            loras: Vec::new(),
            clip_act: "quick_gelu".to_owned(),
            prediction_type: None,
            quantization: Quantization::None,
            sampling: Sampling::default(),
            card: ModelCard { name: "converted".to_owned(), ..ModelCard::default() },
        };
        convert(&plan, out, &AtomicBool::new(false), &|_, _| ())
    };
    let folder = tempfile::tempdir().unwrap();
    for case in ["plain", "shared"] {
        let case = format!("yunet/{case}");
        let out = folder.path().join(&case);
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        run(fixture(&case).0.join("exported.onnx"), &out).unwrap();
        let files = Folder(out);
        let detector = Detector::load(&Component::new(&files, "detector"), &Device::flex()).unwrap();
        let Detector::YuNet(network) = detector else { panic!("{detector:?} is no YuNet") };
        assert_finds(&network, &case);
    }
    // A network of another kind.
    let other = folder.path().join("other");
    let recognition = fixture("face/even").0.join("exported.onnx");
    assert_eq!(run(recognition, &other).err().unwrap().code, "checkpoint-layout");
    // Layers may have other names: how they are joined says which they are.
    let mut bytes = std::fs::read(fixture("yunet/plain").0.join("exported.onnx")).unwrap();
    while let Some(at) = bytes.windows(4).position(|name| name == b"neck") {
        bytes[at..at + 4].copy_from_slice(b"nick");
    }
    // What it is says the content, whatever the file is called.
    for name in ["renamed.ONNX", "renamed"] {
        let renamed = folder.path().join(name);
        std::fs::write(&renamed, &bytes).unwrap();
        let out = folder.path().join(format!("{name} out"));
        run(renamed, &out).unwrap();
        let files = Folder(out);
        let detector = Detector::load(&Component::new(&files, "detector"), &Device::flex()).unwrap();
        let Detector::YuNet(network) = detector else { panic!("{detector:?} is no YuNet") };
        assert_finds(&network, "yunet/plain");
    }
}
