//! The denoiser, with adapters or without.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use facestudio::Result;
use facestudio::condition::{AdapterStream, Condition, LayerScale};
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{CheckedFolder, Component, Tensors};

use super::Forward;
use crate::denoise::places;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs, scale_of};

pub fn load(
    component: &Component,
    inputs: &Inputs,
    adapters: &[PathBuf],
    scales: &[f32],
    device: &Device,
) -> Result<Forward> {
    let config: UNet2DConditionConfig = component.json("config.json")?;
    let mut unet = UNet2DConditionModel::load(component, device)?;
    let axes = [Any("batch"), Exactly(config.in_channels), Any("height"), Any("width")];
    let sample = inputs.tensor("sample", axes, device)?;
    let batch = sample.dims()[0];
    let axes = [Exactly(batch), Any("tokens"), Exactly(config.cross_attention_dim)];
    let tokens = inputs.tensor("encoder_hidden_states", axes, device)?;
    let timestep = inputs.timestep(batch, device)?;
    let mut streams = Vec::new();
    for (n, adapter) in adapters.iter().enumerate() {
        let folder = CheckedFolder::new(adapter.clone());
        let source = Component::new(&folder, "");
        unet.add_adapter(source.tensors()?.as_ref(), device).map_err(|e| e.context(adapter.display()))?;
        let axes = [Exactly(batch), Any("images"), Any("tokens"), Exactly(config.cross_attention_dim)];
        let tokens: Tensor<4> = inputs.tensor(&format!("ip_tokens.{n}"), axes, device)?;
        let [_, images, count, channels] = tokens.dims();
        let stream = match places(inputs, n, images)? {
            Some(places) => {
                let each = (0..images).map(|i| tokens.clone().narrow(1, i, 1).squeeze_dim::<3>(1));
                AdapterStream::with_places(n, each.collect(), places)?
            }
            None => AdapterStream::new(n, tokens.reshape([batch, images * count, channels])),
        };
        let scale = LayerScale::All(scale_of(scales, n, adapters.len())?.unwrap_or(1.0));
        streams.push(AdapterStream { scale, ..stream });
    }
    let condition = Condition::text(tokens, streams);
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("sample", unet.forward(sample.clone(), timestep.clone(), &condition))?;
        Ok(outputs)
    }))
}
