//! `Flux2Transformer2DModel` against diffusers.

use burn::tensor::{DType, Device, Tensor};
use facestudio::transformer::{
    Flux2Input, Flux2Transformer2DConfig, Flux2Transformer2DModel, Sight, TokenId, image_ids, reference_ids,
    text_ids,
};
use facestudio::weights::{Component, Files, SafetensorsFile, TensorSource, Tensors, collect};

use crate::{assert_close, fixture, io};

/// f32 sums in another order; measured: at most 2e-6.
const TOLERANCE: f32 = 1e-5;

fn load(case: &str, device: &Device) -> (Flux2Transformer2DModel, Tensors) {
    let folder = fixture(case);
    (Flux2Transformer2DModel::load(&Component::new(&folder, ""), device).unwrap(), io(&folder))
}

fn ids(io: &Tensors, name: &str) -> Vec<TokenId> {
    let (_, values) = &io.0[name];
    values.chunks(4).map(|id| [0, 1, 2, 3].map(|i| id[i] as u32)).collect()
}

/// Ids of the fixture's two reference pictures.
fn both_references() -> Vec<TokenId> {
    let mut ids = reference_ids(1, 2, 3);
    ids.extend(reference_ids(2, 3, 2));
    ids
}

/// The picture alone.
fn input(io: &Tensors, device: &Device) -> Flux2Input {
    let tensor = |name: &str| io.tensor(name, device).unwrap();
    Flux2Input {
        hidden_states: tensor("hidden_states"),
        encoder_hidden_states: tensor("encoder_hidden_states"),
        timestep: io.tensor("timestep", device).unwrap(),
        guidance: io.0.contains_key("guidance").then(|| io.tensor("guidance", device).unwrap()),
        image_ids: image_ids(3, 4),
        text_ids: text_ids(5),
        sight: None,
    }
}

#[test]
fn ids_are_the_pipelines() {
    let io = io(&fixture("flux2/klein"));
    assert_eq!(ids(&io, "text_ids"), text_ids(5));
    assert_eq!(ids(&io, "image_ids"), image_ids(3, 4));
    assert_eq!(ids(&io, "reference_ids"), both_references());
}

#[test]
fn velocities_are_those_of_diffusers() {
    let device = Device::flex();
    for case in ["klein", "dev", "one"] {
        let (model, io) = load(&format!("flux2/{case}"), &device);
        let velocity = model.forward(&input(&io, &device)).unwrap();
        assert_close(velocity, io.tensor("sample", &device).unwrap(), TOLERANCE);
    }
}

#[test]
fn reference_pictures_are_seen_behind_the_picture() {
    let device = Device::flex();
    let (model, io) = load("flux2/klein", &device);
    let plain = input(&io, &device);
    let references: Tensor<3> = io.tensor("references", &device).unwrap();
    let [_, tokens, _] = plain.hidden_states.dims();
    let mut image_ids = plain.image_ids.clone();
    image_ids.extend(both_references());
    let hidden_states = Tensor::cat(vec![plain.hidden_states.clone(), references], 1);
    let velocity = model.forward(&Flux2Input { hidden_states, image_ids, ..plain }).unwrap();
    assert_close(velocity.narrow(1, 0, tokens), io.tensor("with_references", &device).unwrap(), TOLERANCE);
}

#[test]
fn keys_and_values_of_references_are_kept() {
    let device = Device::flex();
    let (model, io) = load("flux2/klein", &device);
    let plain = input(&io, &device);
    let references: Tensor<3> = io.tensor("references", &device).unwrap();
    let [_, count, _] = references.dims();
    let mut image_ids = both_references();
    image_ids.extend(&plain.image_ids);
    let hidden_states = Tensor::cat(vec![references, plain.hidden_states.clone()], 1);
    let first = Flux2Input { hidden_states, image_ids, ..plain.clone() };
    let (velocity, cache) = model.forward_keeping(&first, count).unwrap();
    assert_eq!(cache.tokens(), count);
    assert_close(velocity, io.tensor("first_step", &device).unwrap(), TOLERANCE);
    let later = Flux2Input {
        hidden_states: plain.hidden_states.clone() * 0.8,
        timestep: io.tensor("later_timestep", &device).unwrap(),
        ..plain.clone()
    };
    let velocity = model.forward_with(&later, &cache).unwrap();
    assert_close(velocity, io.tensor("later_step", &device).unwrap(), TOLERANCE);

    // Caches of other models are refused, and counts that leave no picture.
    let (other, other_io) = load("flux2/dev", &device);
    let error = other.forward_with(&Flux2Input { guidance: None, ..input(&other_io, &device) }, &cache);
    assert_eq!(error.unwrap_err().code, "condition-shape");
    for count in [0, count + 12] {
        assert_eq!(model.forward_keeping(&first, count).unwrap_err().code, "condition-shape");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = Device::flex();
    let (model, io) = load("flux2/klein", &device);
    let alter: [fn(&mut Flux2Input); 8] = [
        |input| input.hidden_states = input.hidden_states.clone().narrow(2, 0, 7),
        |input| input.hidden_states = input.hidden_states.clone().narrow(1, 0, 11),
        |input| input.encoder_hidden_states = input.encoder_hidden_states.clone().narrow(2, 0, 11),
        |input| input.encoder_hidden_states = input.encoder_hidden_states.clone().narrow(0, 0, 1),
        |input| input.timestep = input.timestep.clone().narrow(0, 0, 1),
        |input| input.image_ids.truncate(11),
        |input| input.text_ids.push([0; 4]),
        |input| {
            let factor = |tokens| Tensor::zeros([tokens, 1], &Device::flex());
            input.sight = Some(Sight::new(factor(16), factor(17)));
        },
    ];
    for (i, alter) in alter.iter().enumerate() {
        let mut input = input(&io, &device);
        alter(&mut input);
        assert_eq!(model.forward(&input).unwrap_err().code, "condition-shape", "{i}");
    }
    let mut guided = input(&io, &device);
    guided.guidance = Some(guided.timestep.clone());
    assert_eq!(model.forward(&guided).unwrap_err().code, "condition-added");
}

#[test]
fn half_precision_stays_close() {
    let device = Device::flex();
    let (model, io) = load("flux2/klein", &device);
    let plain = input(&io, &device);
    let hidden_states = plain.hidden_states.clone().cast(DType::F16);
    let velocity = model.forward(&Flux2Input { hidden_states, ..plain }).unwrap();
    assert_eq!(velocity.dtype(), DType::F16);
    assert_close(velocity.cast(DType::F32), io.tensor("sample", &device).unwrap(), 0.01);
}

#[test]
fn names_are_those_of_the_checkpoint() {
    let device = Device::flex();
    for case in ["flux2/klein", "flux2/dev"] {
        let folder = fixture(case);
        let config: Flux2Transformer2DConfig = Component::new(&folder, "").json("config.json").unwrap();
        let names: Vec<String> = collect(&config.init(&device).unwrap(), "").unwrap().0.into_keys().collect();
        let checkpoint = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
        assert_eq!(names, checkpoint.names());
    }
}
