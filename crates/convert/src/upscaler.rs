//! Real-ESRGAN's networks, as their repository's `.pth` files hold them: the tensors have our names, and their shapes are the config.

use serde_json::{Value, json};

use super::layout::{Layout, side, unexpected};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// Whether a checkpoint is one of these networks.
pub fn is_upscaler(checkpoint: &dyn TensorSource) -> bool {
    is_rrdb(checkpoint) || is_compact(checkpoint)
}

fn is_rrdb(checkpoint: &dyn TensorSource) -> bool {
    ["conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"]
        .iter()
        .all(|name| checkpoint.shape(name).is_some())
}

/// A chain of convolutions with a slope for each channel between them.
fn is_compact(checkpoint: &dyn TensorSource) -> bool {
    let shape = |name: &str| checkpoint.shape(name).unwrap_or_default();
    let (first, slope) = (shape("body.0.weight"), shape("body.1.weight"));
    first.len() == 4 && first[1] == 3 && slope == first[..1]
}

/// The config of one of these networks, and its tensors.
pub fn upscaler(checkpoint: &dyn TensorSource) -> Result<(Value, Layout<'_>)> {
    let mut layout = Layout::new(checkpoint);
    for name in checkpoint.names() {
        layout.keep(&name, name.clone())?;
    }
    let config = match (is_rrdb(checkpoint), is_compact(checkpoint)) {
        (true, _) => rrdb(&layout)?,
        (_, true) => compact(&layout)?,
        _ => {
            return Err(Error::weights(
                "checkpoint-layout",
                "it is neither a SRVGGNetCompact nor a RRDBNet of Real-ESRGAN's repository",
                "docs/weights.md lists those that can be converted",
            ));
        }
    };
    Ok((config, layout))
}

/// How many there are of `prefix0.`, `prefix1.` and so on.
fn numbered(layout: &Layout, prefix: &str) -> usize {
    let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
    layout.names().iter().filter_map(number).max().map_or(0, |last| last.saturating_add(1))
}

fn rrdb(layout: &Layout) -> Result<Value> {
    let scale = match side(layout, "conv_first.weight", 1)? {
        3 => 4,
        12 => 2,
        _ => {
            let shape = layout.shape("conv_first.weight").unwrap_or_default();
            return Err(unexpected("conv_first.weight", &shape, "an upscaler of factor 2 or 4"));
        }
    };
    Ok(json!({
        "model_type": "rrdb_net",
        "scale": scale,
        "num_feat": side(layout, "conv_first.weight", 0)?,
        "num_block": numbered(layout, "body."),
        "num_grow_ch": side(layout, "body.0.rdb1.conv1.weight", 0)?,
    }))
}

fn compact(layout: &Layout) -> Result<Value> {
    // Convolutions and slopes take turns, and a convolution is the last.
    let layers = numbered(layout, "body.");
    let last = format!("body.{}.weight", layers.saturating_sub(1));
    let made = side(layout, &last, 0)?;
    let upscale = (1..=4).find(|factor| 3 * factor * factor == made);
    let upscale = upscale.filter(|_| layers >= 3 && layers % 2 == 1).ok_or_else(|| {
        unexpected(&last, &layout.shape(&last).unwrap_or_default(), "a SRVGGNetCompact's last convolution")
    })?;
    Ok(json!({
        "model_type": "srvgg_net_compact",
        "num_feat": side(layout, "body.0.weight", 0)?,
        "num_conv": (layers - 3) / 2,
        "upscale": upscale,
    }))
}
