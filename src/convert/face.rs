//! InsightFace's `iresnet` checkpoints (`arcface_torch`), whose names are ours already.

use serde_json::{Value, json};

use super::layout::{Layout, count, side};
use crate::error::Result;
use crate::weights::TensorSource;

/// The identity encoder's config and tensors.
pub fn iresnet(source: &dyn TensorSource) -> Result<(Value, Layout<'_>)> {
    let mut layout = Layout::new(source);
    for name in source.names() {
        // Trained on several GPUs.
        let to = name.strip_prefix("module.").unwrap_or(&name);
        if !to.ends_with("num_batches_tracked") {
            layout.keep(&name, to)?;
        }
    }
    let of = |name: &str, axis| side(&layout, name, axis);
    let stage = |stage: usize| count(&layout, |i| format!("layer{stage}.{i}.conv1.weight"));
    let channels = [
        of("conv1.weight", 0)?,
        of("layer1.0.conv2.weight", 0)?,
        of("layer2.0.conv2.weight", 0)?,
        of("layer3.0.conv2.weight", 0)?,
        of("layer4.0.conv2.weight", 0)?,
    ];
    // Four halvings, each rounded up: of the sizes that end at one grid the largest is even, and 112 is such a one.
    let grid = (of("fc.weight", 1)? / channels[4].max(1)).isqrt();
    let layers = [1, 2, 3, 4].map(stage);
    let config = json!({
        "model_type": "ir_resnet", "layers": layers, "channels": channels,
        "embedding_size": of("fc.weight", 0)?, "image_size": grid * 16,
    });
    Ok((config, layout))
}
