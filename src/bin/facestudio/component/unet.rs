//! The denoiser.

use burn::tensor::Device;
use facestudio::Result;
use facestudio::condition::Condition;
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{Component, Tensors};

use super::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn run(component: &Component, inputs: &Inputs, device: &Device) -> Result<Tensors> {
    let config: UNet2DConditionConfig = component.json("config.json")?;
    let unet = UNet2DConditionModel::load(component, device)?;
    let axes = [Any("batch"), Exactly(config.in_channels), Any("height"), Any("width")];
    let sample = inputs.tensor("sample", axes, device)?;
    let batch = sample.dims()[0];
    let axes = [Exactly(batch), Any("tokens"), Exactly(config.cross_attention_dim)];
    let tokens = inputs.tensor("encoder_hidden_states", axes, device)?;
    let timestep = inputs.timestep(batch, device)?;
    let mut outputs = Tensors::default();
    outputs.insert("sample", unet.forward(sample, timestep, &Condition::single(tokens)))?;
    Ok(outputs)
}
