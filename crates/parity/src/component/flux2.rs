//! FLUX.2's denoiser and its text encoder.

use burn::tensor::{DType, Device, Tensor};
use facestudio::encoders::qwen3::{Qwen3Config, Qwen3Encoder};
use facestudio::transformer::{Flux2Input, Flux2Transformer2DConfig, Flux2Transformer2DModel, TokenId};
use facestudio::weights::{Component, Tensors};
use facestudio::{Error, Result};

use super::Forward;
use super::encoders::token_ids;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn transformer(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let config: Flux2Transformer2DConfig = component.json("config.json")?;
    let model = Flux2Transformer2DModel::load(component, device)?;
    let axes = [Any("batch"), Any("tokens"), Exactly(config.in_channels)];
    let hidden_states: Tensor<3> = inputs.tensor("hidden_states", axes, device)?;
    let [batch, tokens, _] = hidden_states.dims();
    let axes = [Exactly(batch), Any("text tokens"), Exactly(config.joint_attention_dim)];
    let encoder_hidden_states: Tensor<3> = inputs.tensor("encoder_hidden_states", axes, device)?;
    let [_, text, _] = encoder_hidden_states.dims();
    let input = Flux2Input {
        hidden_states,
        encoder_hidden_states,
        timestep: inputs.timestep(batch, device)?,
        guidance: inputs.optional("guidance", [Exactly(batch)], device)?,
        image_ids: positions(inputs, "image_ids", tokens)?,
        text_ids: positions(inputs, "text_ids", text)?,
        sight: None,
    };
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("sample", model.forward(&input)?)?;
        Ok(outputs)
    }))
}

/// One id of four numbers for each token.
fn positions(inputs: &Inputs, name: &str, tokens: usize) -> Result<Vec<TokenId>> {
    inputs.shape(name, [Exactly(tokens), Exactly(4)])?;
    let (_, values) = inputs.values(name)?;
    let whole = values.iter().map(|value| whole(name, *value).map(|value| value as u32));
    let whole = whole.collect::<Result<Vec<u32>>>()?;
    Ok(whole.chunks(4).map(|id| [id[0], id[1], id[2], id[3]]).collect())
}

pub fn qwen3(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let ids = token_ids(inputs)?;
    let list = |name: &str, count| -> Result<Vec<usize>> {
        inputs.shape(name, [count])?;
        inputs.values(name)?.1.iter().map(|value| whole(name, *value)).collect()
    };
    let (real, layers) = (list("real", Exactly(ids.len()))?, list("layers", Any("layers"))?);
    let config: Qwen3Config = component.json("config.json")?;
    if let Some(layer) = layers.iter().find(|layer| !(1..=config.num_hidden_layers).contains(*layer)) {
        return Err(Error::input(
            "input-range",
            format!("input 'layers' holds {layer}"),
            format!("layers are 1 to {}", config.num_hidden_layers),
        ));
    }
    let encoder = Qwen3Encoder::load(component, &layers, device)?;
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("states", encoder.forward(&ids, &real, DType::F32)?)?;
        Ok(outputs)
    }))
}

fn whole(name: &str, value: f32) -> Result<usize> {
    let whole = value as usize;
    if whole as f32 == value && value < 16_777_216.0 {
        return Ok(whole);
    }
    Err(Error::input("input-range", format!("input '{name}' holds {value}"), "give whole numbers from 0 on"))
}
