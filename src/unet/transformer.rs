use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{TransformerExtent, UNet2DConditionConfig};
use crate::attention::{Attention, AttentionConfig, CrossContext, LevelCondition};
use crate::error::Result;
use crate::nn::{Activation, GroupNorm, LayerNorm, Linear, LinearConfig};

/// Epsilon of the GroupNorm before the transformer: fixed in diffusers, unlike the ResNet blocks' `norm_eps`.
const NORM_EPS: f64 = 1e-6;
/// Epsilon of the transformer blocks' LayerNorms, PyTorch's default.
const LAYER_NORM_EPS: f64 = 1e-5;
/// Width of the feed-forward layer in multiples of the channels.
const FEED_FORWARD_MULTIPLE: usize = 4;

/// Transformer blocks over the positions of a feature map, with a residual around them.
#[derive(Module, Debug)]
pub struct Transformer2DModel {
    /// Over the feature map.
    pub norm: GroupNorm,
    /// Before the blocks. Checkpoints without `use_linear_projection` hold it as a 1×1 convolution, which is the
    /// same numbers and the same result.
    pub proj_in: Linear,
    /// In order.
    pub transformer_blocks: Vec<BasicTransformerBlock>,
    /// After the blocks; as `proj_in`.
    pub proj_out: Linear,
}

impl Transformer2DModel {
    /// Over the features of `level`, counted from the finest.
    pub(super) fn new(config: &UNet2DConditionConfig, level: usize, device: &Device) -> Self {
        let channels = config.block_out_channels[level];
        let block = |_| BasicTransformerBlock::new(config, level, device);
        Self {
            norm: GroupNorm::new(config.norm_num_groups, channels, NORM_EPS, device),
            proj_in: LinearConfig::new(channels, channels).init(device),
            transformer_blocks: (0..config.transformer_layers(level)).map(block).collect(),
            proj_out: LinearConfig::new(channels, channels).init(device),
        }
    }

    pub(super) fn extent(&self) -> TransformerExtent {
        let attention = self.transformer_blocks.first().map(|block| &block.attn1);
        TransformerExtent {
            blocks: self.transformer_blocks.len(),
            heads: attention.map_or(0, |attention| attention.heads),
            upcast: attention.is_some_and(|attention| attention.upcast),
            parameters: self.num_params(),
        }
    }

    /// What the cross-attention of each block attends to; fails with `adapter-missing` where the condition has a stream for an
    /// adapter that was not loaded.
    pub fn contexts(&self, condition: &LevelCondition) -> Result<Vec<CrossContext>> {
        self.transformer_blocks.iter().map(|block| block.attn2.context(condition)).collect()
    }

    /// `[batch, channels, h, w]` → the same shape; `contexts`: one per block.
    pub fn forward(&self, x: Tensor<4>, contexts: &[CrossContext]) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let positions = height * width;
        let hidden = self.norm.forward(x.clone()).reshape([batch, channels, positions]).swap_dims(1, 2);
        let mut hidden = self.proj_in.forward(hidden);
        for (block, context) in self.transformer_blocks.iter().zip(contexts) {
            hidden = block.forward(hidden, context);
        }
        self.proj_out.forward_to_images(hidden, x)
    }
}

/// Self-attention, cross-attention to the guidance tokens, feed-forward; each normalised first and added.
#[derive(Module, Debug)]
pub struct BasicTransformerBlock {
    /// Before `attn1`.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn1: Attention,
    /// Before `attn2`.
    pub norm2: LayerNorm,
    /// Cross-attention.
    pub attn2: Attention,
    /// Before `ff`.
    pub norm3: LayerNorm,
    /// Feed-forward.
    pub ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(config: &UNet2DConditionConfig, level: usize, device: &Device) -> Self {
        let channels = config.block_out_channels[level];
        let heads = config.heads(level);
        let norm = || LayerNorm::new(channels, LAYER_NORM_EPS, device);
        let attention = |context_channels| {
            let upcast = config.upcast_attention;
            Attention::new(AttentionConfig { channels, context_channels, heads, bias: false, upcast }, device)
        };
        Self {
            norm1: norm(),
            attn1: attention(channels),
            norm2: norm(),
            attn2: attention(config.cross_attention_dim),
            norm3: norm(),
            ff: FeedForward::new(channels, device),
        }
    }

    /// `[batch, positions, channels]` → the same shape.
    pub fn forward(&self, x: Tensor<3>, context: &CrossContext) -> Tensor<3> {
        let x = self.attn1.self_attention(self.norm1.forward(x.clone()), x);
        let x = self.attn2.cross_attention(self.norm2.forward(x.clone()), context, x);
        self.ff.forward(self.norm3.forward(x.clone()), x)
    }
}

/// GEGLU and a linear layer.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Numbered as in checkpoints: the dropout between the two layers, which inference has no use for, holds 1.
    pub net: (GeGlu, Option<Linear>, Linear),
}

impl FeedForward {
    fn new(channels: usize, device: &Device) -> Self {
        let inner = channels * FEED_FORWARD_MULTIPLE;
        Self {
            net: (
                GeGlu { proj: LinearConfig::new(channels, 2 * inner).init(device) },
                None,
                LinearConfig::new(inner, channels).init(device),
            ),
        }
    }

    /// Of `x`, added to `residual`, both `[batch, positions, channels]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.net.2.forward_added(self.net.0.forward(x), residual)
    }
}

/// Gated linear unit with an exact GELU gate (arXiv 2002.05202): `a · GELU(g)`, where `[a, g] = proj(x)`.
#[derive(Module, Debug)]
pub struct GeGlu {
    /// `channels` → twice the inner width.
    pub proj: Linear,
}

impl GeGlu {
    /// `[batch, positions, channels]` → `[batch, positions, inner]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let projected = self.proj.forward(x);
        if let Some(out) = crate::kernels::geglu(&projected) {
            return out;
        }
        let inner = projected.dims()[2] / 2;
        let value = projected.clone().narrow(2, 0, inner);
        value * Activation::Gelu.forward(projected.narrow(2, inner, inner))
    }
}
