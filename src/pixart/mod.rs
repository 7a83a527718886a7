//! A diffusion transformer that attends to its condition: diffusers' `PixArtTransformer2DModel` (PixArt-α, arXiv 2310.00426), read from
//! `config.json`.
//!
//! Patches of the latents are the tokens of one sequence. Every block attends to itself, to the condition, and is fed forward; what its
//! norms are scaled and shifted by comes from the timestep, once for all blocks, and from a table of the block's own (section 2.3,
//! "adaLN-single"). Several identities act each in its region, as in the UNet. Field names are diffusers' parameter names, so
//! checkpoints load without a remap.

mod blocks;
mod config;
mod positions;

pub use blocks::{FeedForward, GeluTanh, PixArtBlock};
pub use config::PixArtTransformer2DConfig;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

use self::blocks::{Modulation, modulated};
use self::positions::positions;
use crate::attention::{CrossContext, LevelCondition};
use crate::condition::Condition;
use crate::error::{Error, Result};
use crate::nn::{Activation, Conv2d, Linear, TimestepEmbedding};
use crate::weights::{Component, apply};

/// Sinusoids of the timestep's embedding: fixed in diffusers.
const TIMESTEP_CHANNELS: usize = 256;
/// Epsilon of the last norm: fixed in diffusers, unlike the blocks' `norm_eps`.
const NORM_OUT_EPS: f64 = 1e-6;

/// Predicts the noise (or velocity) in latents at a timestep, guided by a [`Condition`].
#[derive(Module, Debug)]
pub struct PixArtTransformer2DModel {
    /// Latents → tokens.
    pub pos_embed: PatchEmbed,
    /// Timestep → what norms are scaled and shifted by.
    pub adaln_single: AdaLayerNormSingle,
    /// Of the condition's tokens to the width of the blocks; without, they have it already.
    pub caption_projection: Option<TextProjection>,
    /// In order.
    pub transformer_blocks: Vec<PixArtBlock>,
    /// Added to the embedded timestep: shift and scale of the last norm, `[2, width]`.
    pub scale_shift_table: Param<Tensor<2>>,
    /// Width → a patch of the prediction.
    pub proj_out: Linear,
    patch_size: usize,
    base_size: usize,
    interpolation_scale: f64,
}

/// A convolution whose kernels lie side by side.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `in_channels` → width, of each patch.
    pub proj: Conv2d,
}

/// The embedded timestep, and from it six numbers for each channel of a block.
#[derive(Module, Debug)]
pub struct AdaLayerNormSingle {
    /// Timestep → embedding.
    pub emb: TimestepEmbedder,
    /// Width → six widths.
    pub linear: Linear,
}

/// A level of names in checkpoints.
#[derive(Module, Debug)]
pub struct TimestepEmbedder {
    /// Timestep → embedding.
    pub timestep_embedder: TimestepEmbedding,
}

/// Two linear layers.
#[derive(Module, Debug)]
pub struct TextProjection {
    /// `caption_channels` → width.
    pub linear_1: Linear,
    /// Width → width.
    pub linear_2: Linear,
}

impl TextProjection {
    fn forward(&self, tokens: Tensor<3>) -> Tensor<3> {
        self.linear_2.forward(Activation::GeluTanh.forward(self.linear_1.forward(tokens)))
    }
}

/// A [`Condition`] as keys and values of every block's cross-attention, with the identities' weights at every position of latents of one
/// size. Nothing in it depends on the latents or the timestep, so a sampling loop makes it once.
#[derive(Debug, Clone)]
pub struct PreparedPixArtCondition {
    contexts: Vec<CrossContext>,
}

impl PreparedPixArtCondition {
    /// What of it acts after `progress` (0 to 1) of the sampling steps: streams may act in a part of them only.
    pub fn at(&self, progress: f32) -> Self {
        Self { contexts: self.contexts.iter().map(|context| context.at(progress)).collect() }
    }
}

impl PixArtTransformer2DModel {
    /// Loads `config.json` and weights.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: PixArtTransformer2DConfig = component.json("config.json")?;
        apply(config.init(device)?, component.tensors()?.as_ref(), "")
    }

    /// Prepares `condition` for latents of the size, precision and device of `sample` (`[_, _, height, width]`); its tokens' batch is
    /// that of the [forward passes](Self::forward_prepared) to come.
    ///
    /// Fails with `condition-added` where it has anything to add to the timestep, which this network has no layer for, and with
    /// `adapter-missing` where it has a stream for an adapter.
    pub fn prepare(&self, condition: &Condition, sample: &Tensor<4>) -> Result<PreparedPixArtCondition> {
        if condition.added.is_some() {
            return Err(Error::internal(
                "condition-added",
                "the condition adds to the timestep; a PixArt transformer has no layer for it",
            ));
        }
        let [_, _, height, width] = sample.dims();
        let projected = |tokens: Tensor<3>| match &self.caption_projection {
            Some(projection) => projection.forward(tokens.cast(sample.dtype())),
            None => tokens,
        };
        let size = [height / self.patch_size, width / self.patch_size];
        let level = LevelCondition::new(&condition.clone().map_tokens(projected), size, sample);
        let contexts = self.transformer_blocks.iter().map(|block| block.attn2.context(&level));
        Ok(PreparedPixArtCondition { contexts: contexts.collect::<Result<_>>()? })
    }

    /// `sample`: `[batch, in_channels, height, width]` latents, whose sides are multiples of the patch's; `timestep`: `[batch]`, or
    /// `[1]` for all of them, in training steps (0 to 999), fractions allowed; `condition`: tokens `[batch, tokens, channels]` per
    /// identity → `[batch, in_channels, height, width]`, in the sample's precision.
    ///
    /// Computes in the sample's precision; timestep embeddings and norms are always f32.
    ///
    /// Fails as [`prepare`](Self::prepare) does.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timestep: Tensor<1>,
        condition: &Condition,
    ) -> Result<Tensor<4>> {
        let prepared = self.prepare(condition, &sample)?;
        Ok(self.forward_prepared(sample, timestep, &prepared))
    }

    /// As [`forward`](Self::forward), under a condition that was [prepared](Self::prepare) for latents of this size and precision.
    pub fn forward_prepared(
        &self,
        sample: Tensor<4>,
        timestep: Tensor<1>,
        condition: &PreparedPixArtCondition,
    ) -> Tensor<4> {
        let dtype = sample.dtype();
        let embedded = self.adaln_single.emb.timestep_embedder.forward(timestep);
        let shared = self.adaln_single.linear.forward(Activation::Silu.forward(embedded.clone()));
        let patches = self.pos_embed.proj.forward(sample);
        let [batch, channels, height, width] = patches.dims();
        let tokens = patches.reshape([batch, channels, height * width]).swap_dims(1, 2);
        let mut tokens = tokens + self.positions(channels, [height, width], &embedded.device()).cast(dtype);
        for (block, context) in self.transformer_blocks.iter().zip(&condition.contexts) {
            tokens = block.forward(tokens, &shared, context);
        }
        let table = self.scale_shift_table.val().unsqueeze_dim::<3>(0) + embedded.unsqueeze_dim::<3>(1);
        let last = Modulation { shift: table.clone().narrow(1, 0, 1), scale: table.narrow(1, 1, 1) };
        let patches = self.proj_out.forward(modulated(tokens, &last, NORM_OUT_EPS));
        // Each token is a patch of the prediction, its channels last.
        let p = self.patch_size;
        let [_, _, numbers] = patches.dims();
        let out = numbers / (p * p);
        patches.reshape([batch, height, width, p, p, out]).permute([0, 5, 1, 3, 2, 4]).reshape([
            batch,
            out,
            height * p,
            width * p,
        ])
    }

    fn positions(&self, channels: usize, size: [usize; 2], device: &Device) -> Tensor<3> {
        let base = self.base_size as f64 / self.interpolation_scale;
        let values = positions(channels, size, base);
        let data = burn::tensor::TensorData::new(values, [1, size[0] * size[1], channels]);
        Tensor::from_data(data, (device, DType::F32))
    }
}
