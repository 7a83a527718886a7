use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::UNet2DConditionConfig;
use crate::nn::{Activation, Conv2d, Conv2dConfig, GroupNorm, Linear, LinearConfig};

/// Two normalised 3×3 convolutions with the timestep embedding added between them, and a shortcut.
#[derive(Module, Debug)]
pub struct ResnetBlock2D {
    /// Before the first convolution.
    pub norm1: GroupNorm,
    /// `channels_in` → `channels_out`.
    pub conv1: Conv2d,
    /// `time_embed_dim` → `channels_out`.
    pub time_emb_proj: Linear,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// `channels_out` → `channels_out`.
    pub conv2: Conv2d,
    /// 1×1, only where the numbers of channels differ.
    pub conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    act: Activation,
}

impl ResnetBlock2D {
    pub(super) fn new(
        config: &UNet2DConditionConfig,
        channels_in: usize,
        channels_out: usize,
        device: &Device,
    ) -> Self {
        let conv = |channels_in| Conv2dConfig::new(channels_in, channels_out, 3).with_padding(1).init(device);
        let norm = |channels| GroupNorm::new(config.norm_num_groups, channels, config.norm_eps, device);
        Self {
            norm1: norm(channels_in),
            conv1: conv(channels_in),
            time_emb_proj: LinearConfig::new(config.time_embed_dim(), channels_out).init(device),
            norm2: norm(channels_out),
            conv2: conv(channels_out),
            conv_shortcut: (channels_in != channels_out)
                .then(|| Conv2dConfig::new(channels_in, channels_out, 1).init(device)),
            act: config.act_fn,
        }
    }

    /// `x`: `[batch, channels_in, h, w]`; `temb`: `[batch, time_embed_dim]`, activated →
    /// `[batch, channels_out, h, w]`.
    pub fn forward(&self, x: Tensor<4>, temb: &Tensor<2>) -> Tensor<4> {
        let shift = self.time_emb_proj.forward(temb.clone());
        let [batch, channels] = shift.dims();
        let hidden = self.norm1.activated(x.clone(), self.act);
        let hidden = self.conv1.forward_added(hidden, shift.reshape([batch, channels, 1, 1]));
        let hidden = self.norm2.activated(hidden, self.act);
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        self.conv2.forward_added(hidden, shortcut)
    }
}

/// Halves height and width, rounding up, with a 3×3 convolution of stride 2.
#[derive(Module, Debug)]
pub struct Downsample2D {
    /// 3×3, stride 2, padding 1.
    pub conv: Conv2d,
}

impl Downsample2D {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self { conv: Conv2dConfig::new(channels, channels, 3).with_stride(2).with_padding(1).init(device) }
    }

    /// `[batch, channels, h, w]` → `[batch, channels, ⌈h/2⌉, ⌈w/2⌉]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }
}

/// Doubles height and width (nearest neighbour), then a 3×3 convolution.
#[derive(Module, Debug)]
pub struct Upsample2D {
    /// 3×3, padding 1.
    pub conv: Conv2d,
}

impl Upsample2D {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self { conv: Conv2dConfig::new(channels, channels, 3).with_padding(1).init(device) }
    }

    /// `[batch, channels, h, w]` → `[batch, channels, height, width]`, where `h = ⌈height/2⌉` and `w = ⌈width/2⌉`.
    ///
    /// For an odd target diffusers interpolates to that size, pixel `i` from `⌊i·h/(2h−1)⌋ = ⌊i/2⌋`: doubling and
    /// dropping the last row is the same.
    pub fn forward(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        self.conv.forward_upsampled(x, size)
    }
}
