//! CLIP's modified ResNet (Radford et al. 2021, section 2.4): three stem convolutions, average pooling in place of
//! strides, and attention pooling in place of the global average. Names are those of OpenAI's and open_clip's
//! `visual` module.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor, activation::relu};
use serde::{Deserialize, Serialize};

use super::VisionOutput;
use crate::encoders::bottleneck::{BATCH_NORM_EPS, Bottleneck, EXPANSION, Shrinks, avg_pool, convolution};
use crate::encoders::{check_range, config_range};
use crate::error::Result;
use crate::nn::{BatchNorm, Conv2d, Linear, LinearConfig, attention, lazy, merge_heads, split_heads};

/// The stem halves the picture twice and the last three stages once each.
const STRIDE: usize = 32;
/// `config.json` of a CLIP ResNet (`"model_type": "clip_resnet"`); the values of RN101 are
/// `layers` [3, 4, 23, 3], `embed_dim` 512, `heads` 32, `image_size` 224, `width` 64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipResNetConfig {
    /// Bottlenecks in each of the four stages.
    pub layers: [usize; 4],
    /// Width of `image_embeds`.
    pub embed_dim: usize,
    /// Heads of the attention pooling.
    pub heads: usize,
    /// Side of the square picture in pixels, a multiple of 32.
    pub image_size: usize,
    /// Channels after the stem; the last stage has 32 times as many.
    pub width: usize,
}

impl ClipResNetConfig {
    /// Creates the encoder with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<ClipResNet> {
        for blocks in self.layers {
            check_range("layers", blocks, 1..=256)?;
        }
        check_range("embed_dim", self.embed_dim, 1..=16_384)?;
        check_range("heads", self.heads, 1..=1024)?;
        check_range("image_size", self.image_size, STRIDE..=4096)?;
        check_range("width", self.width, 2..=1024)?;
        let channels = self.width * 8 * EXPANSION;
        if !self.image_size.is_multiple_of(STRIDE) {
            return Err(config_range(format!(
                "image_size {} is not a multiple of {STRIDE}",
                self.image_size
            )));
        }
        if !self.width.is_multiple_of(2) || !channels.is_multiple_of(self.heads) {
            return Err(config_range(format!(
                "width {} is odd, or 32 times it is not a multiple of heads {}",
                self.width, self.heads
            )));
        }
        let (width, half) = (self.width, self.width / 2);
        let stage = |index: usize| {
            let planes = width << index;
            let channels_in = if index == 0 { width } else { planes / 2 * EXPANSION };
            let stride = if index == 0 { 1 } else { 2 };
            (0..self.layers[index])
                .map(|block| match block {
                    0 => Bottleneck::new(channels_in, planes * EXPANSION, stride, Shrinks::ByPooling, device),
                    _ => {
                        Bottleneck::new(planes * EXPANSION, planes * EXPANSION, 1, Shrinks::ByPooling, device)
                    }
                })
                .collect()
        };
        Ok(ClipResNet {
            conv1: convolution(3, half, 3, 2, device),
            bn1: batch_norm(half, device),
            conv2: convolution(half, half, 3, 1, device),
            bn2: batch_norm(half, device),
            conv3: convolution(half, width, 3, 1, device),
            bn3: batch_norm(width, device),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            attnpool: AttentionPool::new(
                self.image_size / STRIDE,
                channels,
                self.heads,
                self.embed_dim,
                device,
            ),
        })
    }
}

fn batch_norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNorm::new(channels, BATCH_NORM_EPS, device)
}

/// CLIP's modified ResNet with its attention pooling, which also projects.
#[derive(Module, Debug)]
pub struct ClipResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    layer1: Vec<Bottleneck>,
    layer2: Vec<Bottleneck>,
    layer3: Vec<Bottleneck>,
    layer4: Vec<Bottleneck>,
    attnpool: AttentionPool,
}

impl ClipResNet {
    /// `pixel_values`: `[n, 3, image_size, image_size]`, normalised → `image_embeds` `[n, embed_dim]`.
    ///
    /// # Panics
    /// On pictures of another size than the config's.
    pub fn forward(&self, pixel_values: Tensor<4>) -> VisionOutput {
        let x = relu(self.bn1.forward(self.conv1.forward(pixel_values)));
        let x = relu(self.bn2.forward(self.conv2.forward(x)));
        let x = relu(self.bn3.forward(self.conv3.forward(x)));
        let x = avg_pool(x, 2);
        let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let x = stages.into_iter().flatten().fold(x, |x, block| block.forward(x));
        let image_embeds = self.attnpool.forward(x);
        VisionOutput { image_embeds, last_hidden_state: None, penultimate_hidden_state: None }
    }
}

/// Attention whose only query is the mean over all positions.
#[derive(Module, Debug)]
struct AttentionPool {
    /// `[positions + 1, channels]`, the mean's first.
    positional_embedding: Param<Tensor<2>>,
    k_proj: Linear,
    q_proj: Linear,
    v_proj: Linear,
    c_proj: Linear,
    heads: usize,
}

impl AttentionPool {
    fn new(side: usize, channels: usize, heads: usize, embed_dim: usize, device: &Device) -> Self {
        let std = (channels as f64).powf(-0.5);
        let projection = |channels_out| LinearConfig::new(channels, channels_out).init(device);
        Self {
            positional_embedding: lazy([side * side + 1, channels], device, move |shape, device| {
                Tensor::random(shape, Distribution::Normal(0.0, std), device)
            }),
            k_proj: projection(channels),
            q_proj: projection(channels),
            v_proj: projection(channels),
            c_proj: projection(embed_dim),
            heads,
        }
    }

    /// `[n, channels, side, side]` → `[n, embed_dim]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let dtype = x.dtype();
        let x = x.flatten::<3>(2, 3).swap_dims(1, 2);
        let x = Tensor::cat(vec![x.clone().mean_dim(1), x], 1);
        let x = x + self.positional_embedding.val().cast(dtype).unsqueeze::<3>();
        let mean = x.clone().narrow(1, 0, 1);
        let heads = |layer: &Linear, x| split_heads(layer.forward(x), self.heads);
        let out = attention(
            heads(&self.q_proj, mean),
            heads(&self.k_proj, x.clone()),
            heads(&self.v_proj, x),
            None,
        );
        self.c_proj.forward(merge_heads(out).squeeze_dim(1))
    }
}
