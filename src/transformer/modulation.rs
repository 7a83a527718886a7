use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use crate::nn::{Activation, Linear, LinearConfig, layer_norm, timestep_embedding};

/// Two linear layers; all of FLUX.2's are without bias.
#[derive(Module, Debug)]
pub struct Embedder {
    /// Sinusoids → width.
    pub linear_1: Linear,
    /// Width → width.
    pub linear_2: Linear,
}

impl Embedder {
    fn new(channels: usize, width: usize, device: &Device) -> Self {
        let linear = |from| LinearConfig::new(from, width).with_bias(false).init(device);
        Self { linear_1: linear(channels), linear_2: linear(width) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(Activation::Silu.forward(self.linear_1.forward(x)))
    }
}

/// Timestep and guidance scale → one embedding, in f32.
#[derive(Module, Debug)]
pub struct TimestepGuidanceEmbedding {
    /// Of the timestep.
    pub timestep_embedder: Embedder,
    /// Of the guidance scale, where the model takes one.
    pub guidance_embedder: Option<Embedder>,
    channels: usize,
}

/// Guidance scales count as timesteps of a thousandth.
const GUIDANCE_FACTOR: f64 = 1000.0;

impl TimestepGuidanceEmbedding {
    pub(super) fn new(channels: usize, width: usize, guidance: bool, device: &Device) -> Self {
        let embedder = || Embedder::new(channels, width, device);
        Self { timestep_embedder: embedder(), guidance_embedder: guidance.then(embedder), channels }
    }

    /// Whether the model takes a guidance scale.
    pub fn takes_guidance(&self) -> bool {
        self.guidance_embedder.is_some()
    }

    /// `[batch]` both → `[batch, width]`.
    pub fn forward(&self, timestep: Tensor<1>, guidance: Option<Tensor<1>>) -> Tensor<2> {
        let sinusoids = |x: Tensor<1>| timestep_embedding(x.cast(DType::F32), self.channels, true, 0.0);
        let embedding = self.timestep_embedder.forward(sinusoids(timestep));
        match (&self.guidance_embedder, guidance) {
            (Some(embedder), Some(guidance)) => {
                embedding + embedder.forward(sinusoids(guidance.cast(DType::F32) * GUIDANCE_FACTOR))
            }
            _ => embedding,
        }
    }
}

/// From the embedding what blocks scale and shift their normed tokens by, and weigh what they add: one set for each of a
/// block's parts.
#[derive(Module, Debug)]
pub struct Modulation {
    /// Width → three widths for each set.
    pub linear: Linear,
    sets: usize,
}

impl Modulation {
    pub(super) fn new(width: usize, sets: usize, device: &Device) -> Self {
        Self { linear: LinearConfig::new(width, 3 * sets * width).with_bias(false).init(device), sets }
    }

    /// `[batch, width]` → all sets.
    pub(super) fn forward(&self, embedding: Tensor<2>) -> Modulations {
        let all = self.linear.forward(Activation::Silu.forward(embedding)).unsqueeze_dim::<3>(1);
        let chunks: Vec<Tensor<3>> = all.chunk(3 * self.sets, 2);
        let set = |chunks: &[Tensor<3>]| Set {
            shift: chunks[0].clone(),
            scale: chunks[1].clone(),
            gate: chunks[2].clone(),
        };
        Modulations { sets: chunks.chunks_exact(3).map(set).collect() }
    }
}

/// Shift, scale and gate, `[batch, 1, width]` each, or `[batch, tokens, width]`; f32.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub shift: Tensor<3>,
    pub scale: Tensor<3>,
    pub gate: Tensor<3>,
}

impl Set {
    /// `x`, normed, scaled and shifted.
    pub fn norm(&self, x: Tensor<3>, eps: f64) -> Tensor<3> {
        modulated(x, &self.shift, &self.scale, eps)
    }

    /// `x + gate · added`.
    pub fn add(&self, x: Tensor<3>, added: Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        x + added * self.gate.clone().cast(dtype)
    }
}

/// The sets of a kind of block.
#[derive(Debug, Clone)]
pub(super) struct Modulations {
    pub sets: Vec<Set>,
}

impl Modulations {
    /// These, and `other`'s for `count` of `tokens` tokens from `first` on.
    pub fn blended(&self, other: Self, first: usize, count: usize, tokens: usize) -> Self {
        let blend = |own: &Tensor<3>, other: &Tensor<3>| {
            let [batch, _, width] = own.dims();
            let of = |x: &Tensor<3>, count| x.clone().expand([batch, count, width]);
            let parts = [(own, first), (other, count), (own, tokens - first - count)];
            let parts = parts.into_iter().filter(|(_, count)| *count > 0);
            Tensor::cat(parts.map(|(x, count)| of(x, count)).collect(), 1)
        };
        let sets = self.sets.iter().zip(&other.sets).map(|(own, other)| Set {
            shift: blend(&own.shift, &other.shift),
            scale: blend(&own.scale, &other.scale),
            gate: blend(&own.gate, &other.gate),
        });
        Self { sets: sets.collect() }
    }
}

/// `LayerNorm(x) · (1 + scale) + shift`, the norm without parameters; `x`: `[batch, tokens, width]`.
pub(super) fn modulated(x: Tensor<3>, shift: &Tensor<3>, scale: &Tensor<3>, eps: f64) -> Tensor<3> {
    let [_, _, width] = x.dims();
    let flat = |x: Tensor<3>| x.reshape([width]);
    if scale.dims() == [1, 1, width] {
        // One set for every token: a layer norm's own weight and bias.
        return layer_norm(x, flat(scale.clone() + 1.0), flat(shift.clone()), eps);
    }
    let device = x.device();
    let dtype = x.dtype();
    let normed = layer_norm(x, Tensor::ones([width], &device), Tensor::zeros([width], &device), eps);
    normed * (scale.clone() + 1.0).cast(dtype) + shift.clone().cast(dtype)
}

/// What the last norm is scaled and shifted by.
#[derive(Module, Debug)]
pub struct AdaLayerNorm {
    /// Width → scale and shift.
    pub linear: Linear,
}

impl AdaLayerNorm {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        Self { linear: LinearConfig::new(width, 2 * width).with_bias(false).init(device) }
    }

    /// `[batch, width]` → scale and shift, `[batch, 1, width]` each.
    pub(super) fn forward(&self, embedding: Tensor<2>) -> [Tensor<3>; 2] {
        let both = self.linear.forward(Activation::Silu.forward(embedding)).unsqueeze_dim::<3>(1);
        let width = both.dims()[2] / 2;
        [both.clone().narrow(2, 0, width), both.narrow(2, width, width)]
    }
}
