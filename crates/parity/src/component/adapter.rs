//! An adapter's projection.

use burn::tensor::Device;
use facestudio::Result;
use facestudio::guidance::ip_adapter::{ImagePromptEmbeds, Projection};
use facestudio::weights::{Component, Tensors};

use super::Forward;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs};

pub fn load(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let projection = Projection::load(component, device)?;
    let needs = projection.needs();
    let embeds = |name: &str, width: Option<usize>| {
        width.map(|width| inputs.tensor(name, [Any("batch"), Exactly(width)], device)).transpose()
    };
    let states =
        |width| inputs.tensor("hidden_states", [Any("batch"), Any("tokens"), Exactly(width)], device);
    let embeds = ImagePromptEmbeds {
        image_embeds: embeds("image_embeds", needs.image_embeds)?,
        hidden_states: needs.hidden_states.map(states).transpose()?,
        id_embeds: embeds("id_embeds", needs.id_embeds)?,
    };
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("tokens", projection.forward(&embeds)?)?;
        Ok(outputs)
    }))
}
