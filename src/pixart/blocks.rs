use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::PixArtTransformer2DConfig;
use crate::attention::{Attention, AttentionConfig, CrossContext};
use crate::nn::{Activation, Linear, LinearConfig, layer_norm, lazy};

/// Width of the feed-forward layer in multiples of the channels.
const FEED_FORWARD_MULTIPLE: usize = 4;
/// What a block makes of the timestep: shift, scale and gate of its attention, and of its feed-forward layer.
const SETS: usize = 6;

/// Self-attention, cross-attention to the condition, feed-forward; each added. The first and the last are normalised, modulated and gated
/// by the timestep; cross-attention is neither.
#[derive(Module, Debug)]
pub struct PixArtBlock {
    /// Added to what all blocks share of the timestep, `[6, width]`.
    pub scale_shift_table: Param<Tensor<2>>,
    /// Self-attention.
    pub attn1: Attention,
    /// Cross-attention.
    pub attn2: Attention,
    /// Feed-forward.
    pub ff: FeedForward,
    eps: f64,
}

impl PixArtBlock {
    /// The `number`-th block, counted from 0. At first it ignores the condition, as PixArt's training has it (diffusers sets no start):
    /// what it attends to is let in as it learns.
    pub(super) fn new(config: &PixArtTransformer2DConfig, number: usize, device: &Device) -> Self {
        let channels = config.width();
        let attention = |context_channels| {
            let (heads, bias) = (config.num_attention_heads, config.attention_bias);
            let upcast = config.upcast_attention;
            Attention::new(AttentionConfig { channels, context_channels, heads, bias, upcast }, device)
        };
        let mut attn2 = attention(config.context_channels());
        attn2.layer = number;
        attn2.to_out = [LinearConfig::new(channels, channels).init_zero(device)];
        Self {
            scale_shift_table: table(SETS, channels, device),
            attn1: attention(channels),
            attn2,
            ff: FeedForward::new(channels, device),
            eps: config.norm_eps,
        }
    }

    /// `x`: `[batch, positions, width]`; `shared`: `[batch or 1, 6 · width]`, f32 → the shape of `x`.
    pub fn forward(&self, x: Tensor<3>, shared: &Tensor<2>, context: &CrossContext) -> Tensor<3> {
        let [batch, numbers] = shared.dims();
        let all = shared.clone().reshape([batch, SETS, numbers / SETS])
            + self.scale_shift_table.val().unsqueeze_dim::<3>(0);
        let part = |i| all.clone().narrow(1, i, 1);
        let [attention, feed] =
            [0, 3].map(|first| (Modulation { shift: part(first), scale: part(first + 1) }, part(first + 2)));
        let gated = |x: Tensor<3>, gate: Tensor<3>| {
            let dtype = x.dtype();
            x * gate.cast(dtype)
        };
        let hidden = modulated(x.clone(), &attention.0, self.eps);
        let x = x + gated(self.attn1.attend_to_itself(hidden), attention.1);
        let x = self.attn2.cross_attention(x.clone(), context, x);
        let hidden = modulated(x.clone(), &feed.0, self.eps);
        x + gated(self.ff.forward(hidden), feed.1)
    }
}

/// Values that a block or the last norm adds to the timestep's: `1/√width` of a standard normal, as in diffusers.
pub(super) fn table(rows: usize, width: usize, device: &Device) -> Param<Tensor<2>> {
    let deviation = (width as f64).sqrt().recip();
    lazy([rows, width], device, move |shape, device| {
        Tensor::random(shape, burn::tensor::Distribution::Normal(0.0, deviation), device)
    })
}

/// What a norm is scaled and shifted by, `[batch or 1, 1, width]` both, f32.
pub(super) struct Modulation {
    pub shift: Tensor<3>,
    pub scale: Tensor<3>,
}

/// `LayerNorm(x) · (1 + scale) + shift`, the norm without parameters; `x`: `[batch, tokens, width]`.
pub(super) fn modulated(x: Tensor<3>, Modulation { shift, scale }: &Modulation, eps: f64) -> Tensor<3> {
    let [_, _, width] = x.dims();
    if shift.dims()[0] == 1 {
        // One set for the whole batch: a layer norm's own weight and bias.
        let flat = |x: Tensor<3>| x.reshape([width]);
        return layer_norm(x, flat(scale.clone() + 1.0), flat(shift.clone()), eps);
    }
    let (device, dtype) = (x.device(), x.dtype());
    let normed = layer_norm(x, Tensor::ones([width], &device), Tensor::zeros([width], &device), eps);
    normed * (scale.clone() + 1.0).cast(dtype) + shift.clone().cast(dtype)
}

/// Two linear layers with an activation between them.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Numbered as in checkpoints: the dropout between the two layers, which inference has no use for, holds 1.
    pub net: (GeluTanh, Option<Linear>, Linear),
}

/// A linear layer and GELU's approximation by a tanh.
#[derive(Module, Debug)]
pub struct GeluTanh {
    /// Width → the inner width.
    pub proj: Linear,
}

impl FeedForward {
    fn new(channels: usize, device: &Device) -> Self {
        let inner = channels * FEED_FORWARD_MULTIPLE;
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Self { net: (GeluTanh { proj: linear(channels, inner) }, None, linear(inner, channels)) }
    }

    /// `[batch, positions, width]` → the same shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.net.2.forward(Activation::GeluTanh.forward(self.net.0.proj.forward(x)))
    }
}
