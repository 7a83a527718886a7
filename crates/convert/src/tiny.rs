//! TAESD, as its own repository holds it: two `Sequential`s in two files, whose layers are known by their number.

use serde_json::{Value, json};

use super::layout::{Layout, side, unknown};
use facestudio::error::Result;
use facestudio::weights::TensorSource;

/// What each file is called without its ending, and what its tensors are called by.
pub const PARTS: [(&str, &str); 2] = [("taesd_encoder", "encoder."), ("taesd_decoder", "decoder.")];

/// TAESD's config and tensors, given both files' tensors after their [`PARTS`].
pub fn taesd(checkpoint: &dyn TensorSource) -> Result<(Value, Layout<'_>)> {
    let mut layout = Layout::new(checkpoint);
    let mut last = (0, String::new());
    for name in checkpoint.names() {
        let mut parts = name.splitn(3, '.');
        let (part, number, rest) = (parts.next(), parts.next(), parts.next());
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let (Some(part), Some(number), Some(rest)) = (part, number, rest) else {
            return Err(unknown(&name, "TAESD"));
        };
        // Upstream's decoder begins with a layer that bounds its input; diffusers' bounds it before its layers.
        let bounded = usize::from(part == "decoder");
        let number = number.checked_sub(bounded).ok_or_else(|| unknown(&name, "TAESD"))?;
        layout.keep(&name, format!("{part}.layers.{number}.{rest}"))?;
        if part == "encoder" && number >= last.0 {
            last = (number, name);
        }
    }
    let widths = vec![side(&layout, "encoder.layers.0.weight", 0)?; 4];
    let config = json!({
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        "latent_channels": side(checkpoint, &last.1, 0)?,
    });
    Ok((config, layout))
}
