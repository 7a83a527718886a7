//! The pretrained encoders.

use burn::tensor::{DType, Device};
use facestudio::encoders::detector::Detector;
use facestudio::encoders::face::FaceEncoder;
use facestudio::encoders::segmenter::Segmenter;
use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::vision::VisionEncoder;
use facestudio::weights::{Component, Tensors};
use facestudio::{Error, Result};

use super::Forward;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs, shape_error};

pub fn text(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let encoder = TextEncoder::load(component, device)?;
    let ids = token_ids(inputs)?;
    Ok(Box::new(move || {
        let output = encoder.forward(&ids, DType::F32)?;
        let mut outputs = Tensors::default();
        outputs.insert("last_hidden_state", output.last_hidden_state)?;
        if let Some(text_embeds) = output.text_embeds {
            outputs.insert("text_embeds", text_embeds)?;
        }
        Ok(outputs)
    }))
}

/// `input_ids`, one sequence a row.
pub(super) fn token_ids(inputs: &Inputs) -> Result<Vec<Vec<u32>>> {
    let (shape, values) = inputs.values("input_ids")?;
    let &[batch, tokens] = shape else {
        return Err(shape_error("input_ids", shape, "[batch, tokens]"));
    };
    if batch == 0 || tokens == 0 {
        return Err(shape_error("input_ids", shape, "[batch, tokens]"));
    }
    values.chunks(tokens).map(|row| row.iter().map(|id| token_id(*id)).collect()).collect()
}

fn token_id(value: f32) -> Result<u32> {
    let id = value as u32;
    if id as f32 == value {
        return Ok(id);
    }
    Err(Error::input(
        "input-range",
        format!("input 'input_ids' holds {value}"),
        "ids are whole numbers from 0 on",
    ))
}

pub fn vision(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let encoder = VisionEncoder::load(component, device)?;
    let size = Exactly(encoder.preprocessing().size);
    let pixel_values = inputs.tensor("pixel_values", [Any("batch"), Exactly(3), size, size], device)?;
    Ok(Box::new(move || {
        let output = encoder.forward(pixel_values.clone())?;
        let mut outputs = Tensors::default();
        outputs.insert("image_embeds", output.image_embeds)?;
        if let Some(last_hidden_state) = output.last_hidden_state {
            outputs.insert("last_hidden_state", last_hidden_state)?;
        }
        Ok(outputs)
    }))
}

pub fn face(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let encoder = FaceEncoder::load(component, device)?;
    let size = Exactly(encoder.image_size());
    let pixel_values = inputs.tensor("pixel_values", [Any("batch"), Exactly(3), size, size], device)?;
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        outputs.insert("embedding", encoder.forward(pixel_values.clone())?)?;
        Ok(outputs)
    }))
}

pub fn detector(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let detector = Detector::load(component, device)?;
    let sides = [Any("batch"), Exactly(3), Any("height"), Any("width")];
    let pixel_values = inputs.tensor("pixel_values", sides, device)?;
    Ok(Box::new(move || {
        let mut outputs = Tensors::default();
        match &detector {
            Detector::FaceStudio(network) => {
                let output = network.forward(pixel_values.clone())?;
                outputs.insert("heatmap", output.heatmap)?;
                outputs.insert("boxes", output.boxes)?;
                outputs.insert("landmarks", output.landmarks)?;
                outputs.insert("mask", output.mask)?;
                outputs.insert("offsets", output.offsets)?;
            }
            Detector::YuNet(network) => {
                outputs.insert("detections", network.forward(pixel_values.clone())?)?
            }
        }
        Ok(outputs)
    }))
}

pub fn segmenter(component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    let segmenter = Segmenter::load(component, device)?;
    let sides = [Exactly(1), Exactly(3), Any("height"), Any("width")];
    let pixel_values = inputs.tensor("pixel_values", sides, device)?;
    Ok(Box::new(move || {
        let seen = segmenter.network().look(pixel_values.clone())?;
        let queries: Vec<usize> = (0..seen.logits.dims()[0]).collect();
        let mut outputs = Tensors::default();
        outputs.insert("pred_masks", segmenter.network().masks(&seen, &queries)?)?;
        outputs.insert("logits", seen.logits)?;
        Ok(outputs)
    }))
}
