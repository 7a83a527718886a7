//! YuNet, as its ONNX files are distributed: PyTorch's exporter has folded normalisations into the convolutions before
//! them, whose weights have lost their names thereby.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::layout::{Layout, count, side, unknown};
use super::onnx::Graph;
use crate::error::{Error, Result};

/// What a layer's name begins with.
const PARTS: [&str; 7] = [
    "backbone.model",
    "neck.lateral_convs.",
    "bbox_head.multi_level_share_convs.",
    "bbox_head.multi_level_cls.",
    "bbox_head.multi_level_obj.",
    "bbox_head.multi_level_bbox.",
    "bbox_head.multi_level_kps.",
];

/// A YuNet's config and tensors.
pub fn yunet<'a>(checkpoint: &'a Checkpoint, graph: &Graph) -> Result<(Value, Layout<'a>)> {
    let mut layout = Layout::new(checkpoint);
    // The layer that computes a value.
    let mut layers: BTreeMap<&str, String> = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| node.op == "Conv") {
        let ([input, weight, bias], Some(output)) = (&node.inputs[..], node.outputs.first()) else {
            return Err(Error::weights(
                "checkpoint-layout",
                "a convolution without a bias belongs to no YuNet",
                "use a YuNet of libfacedetection.train, or OpenCV's face_detection_yunet_2023mar.onnx",
            ));
        };
        let layer = match (weight.strip_suffix(".weight"), layers.get(input.as_str())) {
            (Some(name), _) => name.to_owned(),
            // A folded convolution of each channel follows one across channels, which keeps its name.
            (None, Some(before)) => match before.strip_suffix("conv1") {
                Some(unit) => format!("{unit}conv2"),
                None => return Err(unknown(weight, "YuNet")),
            },
            (None, None) => "backbone.model0.conv1".to_owned(),
        };
        if !PARTS.iter().any(|part| layer.starts_with(part)) {
            return Err(unknown(&layer, "YuNet"));
        }
        layout.keep(weight, format!("{layer}.weight"))?;
        layout.keep(bias, format!("{layer}.bias"))?;
        layers.insert(output, layer);
    }
    let mut channels = vec![side(&layout, "backbone.model0.conv1.weight", 0)?];
    for stage in 0..=5 {
        channels.push(side(&layout, &format!("backbone.model{stage}.conv2.conv2.bias"), 0)?);
    }
    let shared = count(&layout, |i| format!("bbox_head.multi_level_share_convs.0.{i}.conv1.weight"));
    Ok((json!({ "model_type": "yunet", "channels": channels, "shared_convs": shared }), layout))
}
