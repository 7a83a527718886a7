//! The autoencoder's two halves, in unscaled latents.

use burn::tensor::Device;
use facestudio::Result;
use facestudio::vae::Vae;
use facestudio::weights::{Component, Tensors};

use super::Forward;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn encode(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let vae = Vae::load(component, device)?;
    let axes = [Any("batch"), Any("channels"), Any("height"), Any("width")];
    let sample = inputs.tensor("sample", axes, device)?;
    Ok(Box::new(move || {
        let moments = vae.encode(sample.clone())?;
        let mut outputs = Tensors::default();
        outputs.insert("mean", moments.mean)?;
        if let Some(logvar) = moments.logvar {
            outputs.insert("logvar", logvar)?;
        }
        Ok(outputs)
    }))
}

pub fn decode(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let vae = Vae::load(component, device)?;
    let axes = [Any("batch"), Exactly(vae.unscaled_channels()), Any("height"), Any("width")];
    let latents = inputs.tensor("latents", axes, device)?;
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("sample", vae.decode(latents.clone())?)?;
        Ok(outputs)
    }))
}
