//! CLIP text encoders against transformers.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use facestudio::encoders::text::{TextConfig, TextEncoder, TextOutput};
use facestudio::weights::{Component, Files, MemoryFiles, Quantization, SafetensorsFile, Tensors, encode};

use crate::{assert_close, fixture, io};

/// Sums are taken in another order than PyTorch takes them, which costs about 1e-6 of the largest value through two
/// layers; a wrong mask, ε, activation or position costs over 1e-3.
const TOLERANCE: f32 = 1e-4;

fn ids(io: &Tensors) -> Vec<Vec<u32>> {
    let (shape, values) = &io.0["input_ids"];
    values.chunks(shape[1]).map(|row| row.iter().map(|id| *id as u32).collect()).collect()
}

fn run(case: &str) -> (TextOutput, Tensors) {
    let (folder, device) = (fixture(case), Device::flex());
    let encoder = TextEncoder::load(&Component::new(&folder, ""), &device).unwrap();
    let io = io(&folder);
    (encoder.forward(&ids(&io), DType::F32).unwrap(), io)
}

fn assert_named<const D: usize>(ours: Tensor<D>, io: &Tensors, name: &str) {
    assert_close(ours, io.tensor(name, &Device::flex()).unwrap(), TOLERANCE);
}

#[test]
fn legacy_end_of_text_is_the_highest_id() {
    let (output, io) = run("text/legacy_eos");
    assert_named(output.last_hidden_state, &io, "last_hidden_state");
    assert_named(output.pooled, &io, "pooled");
    assert!(output.text_embeds.is_none());
}

#[test]
fn end_of_text_is_the_first_eos_token_and_is_projected() {
    let (output, io) = run("text/projection");
    assert_named(output.last_hidden_state, &io, "last_hidden_state");
    assert_named(output.text_embeds.unwrap(), &io, "text_embeds");
}

#[test]
fn the_text_half_of_a_whole_clip_loads() {
    let (output, io) = run("vision/clip");
    assert_named(output.text_embeds.unwrap(), &io, "text_embeds");
}

#[test]
fn names_without_text_model_load_too() {
    let (folder, device) = (fixture("text/legacy_eos"), Device::flex());
    let file = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
    let named = file.into_tensors().unwrap().0;
    let renamed = named.into_iter().map(|(name, value)| (name.replace("text_model.", ""), value)).collect();
    let weights = encode(&Tensors(renamed), Quantization::None, &BTreeMap::new()).unwrap();
    let config = folder.read("config.json").unwrap();
    let files = MemoryFiles(BTreeMap::from([
        ("text_encoder/config.json".to_owned(), config),
        ("text_encoder/model.safetensors".to_owned(), weights),
    ]));
    let encoder = TextEncoder::load(&Component::new(&files, "text_encoder"), &device).unwrap();
    let io = io(&folder);
    assert_named(encoder.forward(&ids(&io), DType::F32).unwrap().pooled, &io, "pooled");
}

#[test]
fn later_tokens_do_not_alter_earlier_ones() {
    let (folder, device) = (fixture("text/legacy_eos"), Device::flex());
    let encoder = TextEncoder::load(&Component::new(&folder, ""), &device).unwrap();
    let run = |ids: Vec<u32>| encoder.forward(&[ids], DType::F32).unwrap().last_hidden_state.narrow(1, 0, 3);
    assert_close(run(vec![58, 7, 9, 59, 59]), run(vec![58, 7, 9, 3, 12, 59]), 1e-6);
}

#[test]
fn ids_that_do_not_fit_are_an_error() {
    let encoder =
        TextEncoder::load(&Component::new(&fixture("text/projection"), ""), &Device::flex()).unwrap();
    let cases: [&[Vec<u32>]; 5] =
        [&[], &[vec![]], &[vec![50, 60, 40]], &[vec![50, 40], vec![50, 1, 40]], &[vec![50, 1, 2]]];
    for ids in cases.into_iter().chain([[vec![40; 13]].as_slice()]) {
        assert_eq!(encoder.forward(ids, DType::F32).unwrap_err().code, "token-ids", "{ids:?}");
    }
}

#[test]
fn absurd_configs_are_an_error() {
    let absurd: [fn(&mut TextConfig); 7] = [
        |config| config.hidden_size = 0,
        |config| config.num_attention_heads = 0,
        |config| config.num_attention_heads = 7,
        |config| config.num_hidden_layers = usize::MAX,
        |config| config.vocab_size = usize::MAX,
        |config| config.max_position_embeddings = 0,
        |config| config.layer_norm_eps = f64::NAN,
    ];
    for alter in absurd {
        let mut config = TextConfig::default();
        alter(&mut config);
        assert_eq!(config.init(&Device::flex()).unwrap_err().code, "config-range", "{config:?}");
    }
}

#[test]
fn half_precision_stays_close() {
    let (folder, device) = (fixture("text/projection"), Device::flex());
    let encoder = TextEncoder::load(&Component::new(&folder, ""), &device).unwrap();
    let io = io(&folder);
    for dtype in [DType::F16, DType::BF16] {
        let output = encoder.forward(&ids(&io), dtype).unwrap();
        assert_eq!(output.last_hidden_state.dtype(), dtype);
        // bf16 keeps 8 bits: 0.4 % a rounding, and a dozen roundings follow one another.
        let embeds = output.text_embeds.unwrap().cast(DType::F32);
        assert_close(embeds, io.tensor("text_embeds", &device).unwrap(), 0.05);
    }
}
