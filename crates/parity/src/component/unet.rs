//! The denoiser, with adapters or without.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use facestudio::Result;
use facestudio::condition::{Added, Condition, LayerScale, Projection, Stream};
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{CheckedFolder, Component, Tensors};

use super::Forward;
use crate::given::places;
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
    let mut streams = vec![Stream::everywhere(Projection::Own, tokens)];
    for (n, adapter) in adapters.iter().enumerate() {
        let folder = CheckedFolder::new(adapter.clone());
        let source = Component::new(&folder, "");
        unet.add_adapter(source.tensors()?.as_ref(), device).map_err(|e| e.context(adapter.display()))?;
        let axes = [Exactly(batch), Any("images"), Any("tokens"), Exactly(config.cross_attention_dim)];
        let tokens: Tensor<4> = inputs.tensor(&format!("ip_tokens.{n}"), axes, device)?;
        let [_, images, count, channels] = tokens.dims();
        let places = places(inputs, n, images)?;
        let tokens = match places {
            Some(_) => (0..images).map(|i| tokens.clone().narrow(1, i, 1).squeeze_dim::<3>(1)).collect(),
            None => vec![tokens.reshape([batch, images * count, channels])],
        };
        let stream = Stream::new(Projection::Adapter(n), tokens, places)?;
        let scale = LayerScale::All(scale_of(scales, n, adapters.len())?.unwrap_or(1.0));
        streams.push(Stream { scale, ..stream });
    }
    let labels = config
        .class_labels()
        .map(|width| inputs.tensor("class_labels", [Exactly(batch), Exactly(width)], device))
        .transpose()?;
    let condition = Condition::new(streams).adding(labels.map(Added::ClassLabels));
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("sample", unet.forward(sample.clone(), timestep.clone(), &condition)?)?;
        Ok(outputs)
    }))
}
