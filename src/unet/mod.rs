//! The denoiser: diffusers' `UNet2DConditionModel` as Stable Diffusion 1.x and 2.x use it, read from `config.json`,
//! with the paper's multi-identity cross-attention (section 3.4).
//!
//! Field names are diffusers' parameter names, so checkpoints load without a remap.

mod adapter;
mod blocks;
mod config;
mod prepared;
mod resnet;
mod segment;
mod transformer;

pub use blocks::{DownBlock, MidBlock, UpBlock};
pub use config::{DownBlockType, MidBlockType, PerLevel, UNet2DConditionConfig, UpBlockType};
pub use prepared::PreparedCondition;
pub use resnet::{Downsample2D, ResnetBlock2D, Upsample2D};
pub use segment::{Extent, HiddenStates, Segment, Skip, TransformerExtent};
pub use transformer::{BasicTransformerBlock, FeedForward, GeGlu, Transformer2DModel};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use crate::condition::Condition;
use crate::error::Result;
use crate::nn::{Activation, Conv2d, GroupNorm, Linear, TimestepEmbedding};
use crate::weights::{Component, apply};

/// Predicts the noise (or velocity) in latents at a timestep, guided by a [`Condition`].
#[derive(Module, Debug)]
pub struct UNet2DConditionModel {
    /// `in_channels` → the first level's channels.
    pub conv_in: Conv2d,
    /// Timestep → embedding.
    pub time_embedding: TimestepEmbedding,
    /// What a condition adds to the timestep's embedding → embedding, where `class_embed_type` is `simple_projection`.
    pub class_embedding: Option<Linear>,
    /// From the finest level to the coarsest.
    pub down_blocks: Vec<DownBlock>,
    /// At the coarsest level.
    pub mid_block: Option<MidBlock>,
    /// From the coarsest level to the finest.
    pub up_blocks: Vec<UpBlock>,
    /// Before the last activation.
    pub conv_norm_out: GroupNorm,
    /// The first level's channels → `out_channels`.
    pub conv_out: Conv2d,
    center_input_sample: bool,
    #[module(skip)]
    act: Activation,
}

impl UNet2DConditionModel {
    /// Loads `config.json` and weights.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: UNet2DConditionConfig = component.json("config.json")?;
        apply(config.init(device)?, component.tensors()?.as_ref(), "")
    }

    /// `sample`: `[batch, in_channels, height, width]` latents of any size; `timestep`: `[batch]`, in training steps
    /// (0 to 999), fractions allowed; `condition`: tokens `[batch, tokens, cross_attention_dim]` per identity →
    /// `[batch, out_channels, height, width]`, in the sample's precision.
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

    /// As [`forward`](Self::forward), under a condition that was [prepared](Self::prepare) for latents of this size and
    /// precision: what a sampling loop uses, step after step.
    pub fn forward_prepared(
        &self,
        sample: Tensor<4>,
        timestep: Tensor<1>,
        condition: &PreparedCondition,
    ) -> Tensor<4> {
        let temb = self.embed(timestep, condition.added(), sample.dtype());
        let mut features = HiddenStates { x: sample, skips: Vec::new() };
        for (segment, contexts) in self.segments().iter().zip(condition.segments()) {
            features = segment.forward(features, &temb, contexts);
        }
        features.x
    }

    /// `[batch]` timesteps, and what is [added](Self::added) → `[batch, time_embed_dim]`, activated, in the precision of the latents.
    pub fn embed(&self, timestep: Tensor<1>, added: Option<&Tensor<2>>, dtype: DType) -> Tensor<2> {
        let embedding = self.time_embedding.forward(timestep);
        let embedding = match added {
            Some(added) => embedding + added.clone(),
            None => embedding,
        };
        // Each ResNet block begins its use of the embedding with the activation: once is enough.
        self.act.forward(embedding).cast(dtype)
    }
}
