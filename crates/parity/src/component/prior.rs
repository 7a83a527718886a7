//! The prior's denoiser.

use burn::tensor::Device;
use facestudio::Result;
use facestudio::guidance::prior::PriorTransformer;
use facestudio::weights::{Component, Tensors};

use super::Forward;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn load(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let prior = PriorTransformer::load(component, device)?;
    let axes = [Any("batch"), Exactly(prior.embedding_dim())];
    let hidden_states = inputs.tensor("hidden_states", axes, device)?;
    let batch = hidden_states.dims()[0];
    let timestep = inputs.timestep(batch, device)?;
    let proj_embedding =
        inputs.tensor("proj_embedding", [Exactly(batch), Any("embedding_proj_dim")], device)?;
    let tokens = Exactly(prior.num_embeddings());
    let axes = [Exactly(batch), tokens, Any("encoder_hid_dim")];
    let encoder_hidden_states = inputs.optional("encoder_hidden_states", axes, device)?;
    let attention_mask = inputs.optional("attention_mask", [Exactly(batch), tokens], device)?;
    Ok(Box::new(move || {
        let predicted = prior.forward(
            hidden_states.clone(),
            timestep.clone(),
            proj_embedding.clone(),
            encoder_hidden_states.clone(),
            attention_mask.clone(),
        )?;
        let mut outputs = Tensors::default();
        outputs.insert("predicted_image_embedding", predicted)?;
        Ok(outputs)
    }))
}
