use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::UNet2DConditionConfig;
use crate::nn::{Activation, Linear, LinearConfig, timestep_embedding};

/// Timesteps → embeddings: sinusoids (which have no parameters) and two linear layers, in f32 whatever the
/// precision of the latents.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    /// Sinusoids → `time_embed_dim`.
    pub linear_1: Linear,
    /// `time_embed_dim` → `time_embed_dim`.
    pub linear_2: Linear,
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    #[module(skip)]
    act: Activation,
}

impl TimestepEmbedding {
    /// Sinusoids have as many channels as the first level, as in diffusers.
    pub(super) fn new(config: &UNet2DConditionConfig, device: &Device) -> Self {
        let channels = config.block_out_channels[0];
        let width = config.time_embed_dim();
        Self {
            linear_1: LinearConfig::new(channels, width).init(device),
            linear_2: LinearConfig::new(width, width).init(device),
            channels,
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
            act: config.act_fn,
        }
    }

    /// `[batch]` → `[batch, time_embed_dim]`, f32.
    pub fn forward(&self, timestep: Tensor<1>) -> Tensor<2> {
        let x = timestep_embedding(
            timestep.cast(DType::F32),
            self.channels,
            self.flip_sin_to_cos,
            self.freq_shift,
        );
        self.linear_2.forward(self.act.forward(self.linear_1.forward(x)))
    }
}
