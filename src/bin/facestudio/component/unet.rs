//! The denoiser.

use burn::tensor::Device;
use facestudio::Result;
use facestudio::condition::Condition;
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{Component, Tensors};

use super::Forward;
use super::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn load(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let config: UNet2DConditionConfig = component.json("config.json")?;
    let unet = UNet2DConditionModel::load(component, device)?;
    let axes = [Any("batch"), Exactly(config.in_channels), Any("height"), Any("width")];
    let sample = inputs.tensor("sample", axes, device)?;
    let batch = sample.dims()[0];
    let axes = [Exactly(batch), Any("tokens"), Exactly(config.cross_attention_dim)];
    let condition = Condition::single(inputs.tensor("encoder_hidden_states", axes, device)?);
    let timestep = inputs.timestep(batch, device)?;
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("sample", unet.forward(sample.clone(), timestep.clone(), &condition))?;
        Ok(outputs)
    }))
}
