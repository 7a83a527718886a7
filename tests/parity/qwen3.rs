//! Qwen3 as a text encoder against transformers.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use facestudio::encoders::qwen3::{Qwen3Config, Qwen3Encoder};
use facestudio::weights::{Component, Files, MemoryFiles, SafetensorsFile, Tensors};

use crate::{assert_close, fixture, io};

/// f32 sums in another order; a wrong mask, ε or position costs over 1e-3.
const TOLERANCE: f32 = 2e-5;

fn rows(io: &Tensors) -> (Vec<Vec<u32>>, Vec<usize>, Vec<usize>) {
    let (shape, values) = &io.0["input_ids"];
    let ids = values.chunks(shape[1]).map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    let whole = |name: &str| io.0[name].1.iter().map(|value| *value as usize).collect();
    (ids, whole("real"), whole("layers"))
}

fn load(case: &str) -> (Qwen3Encoder, Tensors) {
    let folder = fixture(case);
    let io = io(&folder);
    let (_, _, layers) = rows(&io);
    (Qwen3Encoder::load(&Component::new(&folder, ""), &layers, &Device::flex()).unwrap(), io)
}

#[test]
fn prompts_states_are_the_pipelines() {
    for case in ["qwen3/klein", "qwen3/rare"] {
        let (encoder, io) = load(case);
        let (ids, real, _) = rows(&io);
        let states = encoder.forward(&ids, &real, DType::F32).unwrap();
        assert_close(states, io.tensor::<3>("states", &Device::flex()).unwrap(), TOLERANCE);
    }
}

#[test]
fn layers_that_are_not_read_are_not_needed() {
    let folder = fixture("qwen3/klein");
    let file = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
    let mut tensors = file.into_tensors().unwrap();
    tensors.0.retain(|name, _| !name.contains("layers.3.") && name != "model.norm.weight");
    let weights =
        facestudio::weights::encode(&tensors, facestudio::weights::Quantization::None, &BTreeMap::new())
            .unwrap();
    let files = MemoryFiles(BTreeMap::from([
        ("config.json".to_owned(), folder.read("config.json").unwrap()),
        ("model.safetensors".to_owned(), weights),
    ]));
    let load = |layers: &[usize]| Qwen3Encoder::load(&Component::new(&files, ""), layers, &Device::flex());
    let io = io(&folder);
    let (ids, real, layers) = rows(&io);
    let states = load(&layers).unwrap().forward(&ids, &real, DType::F32).unwrap();
    assert_close(states, io.tensor::<3>("states", &Device::flex()).unwrap(), TOLERANCE);
    assert_eq!(load(&[4]).unwrap_err().code, "weights-mismatch");
    for layers in [&[][..], &[0], &[5], &[1, 5]] {
        assert_eq!(load(layers).unwrap_err().code, "config-range", "{layers:?}");
    }
}

#[test]
fn padding_is_not_seen() {
    let (encoder, _) = load("qwen3/klein");
    let run = |ids: Vec<u32>, real| encoder.forward(&[ids], &[real], DType::F32).unwrap();
    let padded = run(vec![7, 8, 9, 0, 0], 3);
    let other = run(vec![7, 8, 9, 31, 4], 3);
    let text = |x: &Tensor<3>| x.clone().narrow(1, 0, 3);
    assert_close(text(&padded), text(&other), 1e-6);
    assert_close(text(&padded), run(vec![7, 8, 9], 3), 1e-5);
}

#[test]
fn ids_that_do_not_fit_are_an_error() {
    let (encoder, _) = load("qwen3/klein");
    let cases: [(&[Vec<u32>], &[usize]); 8] = [
        (&[], &[]),
        (&[vec![]], &[0]),
        (&[vec![50, 1]], &[2]),
        (&[vec![1, 2], vec![1, 2, 3]], &[2, 2]),
        (&[vec![1; 17]], &[17]),
        (&[vec![1, 2]], &[0]),
        (&[vec![1, 2]], &[3]),
        (&[vec![1, 2]], &[1, 1]),
    ];
    for (ids, real) in cases {
        assert_eq!(encoder.forward(ids, real, DType::F32).unwrap_err().code, "token-ids", "{ids:?} {real:?}");
    }
}

#[test]
fn absurd_configs_are_an_error() {
    let json = |text: &str| serde_json::from_str::<Qwen3Config>(text).unwrap();
    for text in [
        r#"{"vocab_size": 0}"#,
        r#"{"hidden_size": 0}"#,
        r#"{"intermediate_size": 18446744073709551615}"#,
        r#"{"num_hidden_layers": 9999999}"#,
        r#"{"num_attention_heads": 0}"#,
        r#"{"num_key_value_heads": 0}"#,
        r#"{"num_key_value_heads": 5}"#,
        r#"{"head_dim": 7}"#,
        r#"{"head_dim": 0}"#,
        r#"{"max_position_embeddings": 0}"#,
        r#"{"rms_norm_eps": 0}"#,
        r#"{"rope_theta": 0.1}"#,
        r#"{"rope_parameters": {"rope_theta": -1}}"#,
    ] {
        let error = json(text).check().unwrap_err();
        assert_eq!(error.code, "config-range", "{text}");
    }
    for text in [
        r#"{"model_type": "qwen2"}"#,
        r#"{"use_sliding_window": true}"#,
        r#"{"layer_types": ["full_attention", "sliding_attention"]}"#,
        r#"{"rope_scaling": {"rope_type": "yarn"}}"#,
        r#"{"rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn"}}"#,
    ] {
        let error = json(text).check().unwrap_err();
        assert_eq!(error.code, "config-unsupported", "{text}");
    }
}

#[test]
fn half_precision_stays_close() {
    let (encoder, io) = load("qwen3/klein");
    let (ids, real, _) = rows(&io);
    let states = encoder.forward(&ids, &real, DType::F16).unwrap();
    assert_eq!(states.dtype(), DType::F16);
    assert_close(states.cast(DType::F32), io.tensor::<3>("states", &Device::flex()).unwrap(), 0.02);
}
