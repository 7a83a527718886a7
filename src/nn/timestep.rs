use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::{Activation, Linear, LinearConfig, timestep_embedding};

/// Timesteps → embeddings: sinusoids (which have no parameters) and two linear layers, in f32 whatever the
/// precision of the latents.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    /// Sinusoids → width.
    pub linear_1: Linear,
    /// Width → width.
    pub linear_2: Linear,
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    #[module(skip)]
    act: Activation,
}

impl TimestepEmbedding {
    /// `channels` sinusoids, cosines first if `flip_sin_to_cos`, and their phase shift `freq_shift` (diffusers' names).
    pub fn new(
        [channels, width]: [usize; 2],
        flip_sin_to_cos: bool,
        freq_shift: f64,
        act: Activation,
        device: &Device,
    ) -> Self {
        Self {
            linear_1: LinearConfig::new(channels, width).init(device),
            linear_2: LinearConfig::new(width, width).init(device),
            channels,
            flip_sin_to_cos,
            freq_shift,
            act,
        }
    }

    /// `[batch]` → `[batch, width]`, f32.
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
