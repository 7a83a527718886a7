//! The contrastive stage: one text encoder and the three vision encoders of the style ensemble, together.
//!
//! The text encoder's projection is as wide as the ensemble: slice `k` of `text_embeds` is trained against vision
//! encoder `k` by CLIP's symmetric cross-entropy (Radford et al. 2021, section 2.3). So one text tower speaks to all
//! three encoders, and text and image embeddings have one layout, which is what the prior maps between.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, activation};

use crate::encoders::text::{TextConfig, TextEncoder};
use crate::encoders::vision::{VisionConfig, VisionNetwork};
use crate::error::Result;

/// CLIP's initial logit scale, `ln(1 / 0.07)`.
const INITIAL_LOG_SCALE: f32 = 2.659_26;
/// CLIP's bound on the scale.
const MAX_SCALE: f32 = 100.0;

/// Everything that the contrastive stage trains.
#[derive(Module, Debug)]
pub struct ClipTrainee {
    /// The text tower.
    pub text: TextEncoder,
    /// The vision towers, in the ensemble's order.
    pub vision: Vec<VisionNetwork>,
    /// ln of each pair's logit scale.
    pub log_scales: Param<Tensor<1>>,
}

impl ClipTrainee {
    /// Random towers.
    pub fn init(text: &TextConfig, vision: &[VisionConfig], device: &Device) -> Result<Self> {
        Ok(Self {
            text: text.init(device)?,
            vision: vision.iter().map(|config| config.init(device)).collect::<Result<_>>()?,
            log_scales: Param::from_tensor(Tensor::full([vision.len()], INITIAL_LOG_SCALE, device)),
        })
    }

    /// Mean contrastive loss over the pairs. `pixel_values`: one `[n, 3, s_k, s_k]` a vision tower; `input_ids`: `n` rows.
    pub fn loss(&self, pixel_values: Vec<Tensor<4>>, input_ids: &[Vec<u32>]) -> Result<Tensor<1>> {
        let dtype = pixel_values.first().map_or(DType::F32, Tensor::dtype);
        let output = self.text.forward(input_ids, dtype)?;
        let text = output.text_embeds.unwrap_or(output.pooled).cast(DType::F32);
        let n = text.dims()[0];
        let targets = Tensor::<1, Int>::arange(0..n as i64, &text.device()).reshape([n, 1]);
        let scales = self.log_scales.val().exp().clamp_max(MAX_SCALE);
        let mut start = 0;
        let mut losses = Vec::with_capacity(self.vision.len());
        for (k, (tower, pixels)) in self.vision.iter().zip(pixel_values).enumerate() {
            let image = unit(tower.forward(pixels).image_embeds.cast(DType::F32));
            let width = image.dims()[1];
            let slice = unit(text.clone().narrow(1, start, width));
            start += width;
            let logits = image.matmul(slice.transpose()) * scales.clone().narrow(0, k, 1).reshape([1, 1]);
            let rows = -activation::log_softmax(logits.clone(), 1).gather(1, targets.clone()).mean();
            let columns = -activation::log_softmax(logits.transpose(), 1).gather(1, targets.clone()).mean();
            losses.push((rows + columns) * 0.5);
        }
        Ok(Tensor::cat(losses, 0).mean())
    }
}

/// Unit rows.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
    x / norm
}
