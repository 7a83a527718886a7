//! Layers that two rooms or more need, with the parameter names and layouts of PyTorch checkpoints.
//!
//! Parameters keep their checkpoint names (`weight`, `bias`, `running_mean`) and shapes (`Linear.weight` is
//! `[out, in]`), so loading maps names one to one. Weights are kept in their own precision and cast to the
//! input's on use: an f32 master copy trains and runs in bf16 by feeding bf16 activations. Norms compute their
//! statistics in f32 whatever the input's precision.

mod attention;
mod conv;
mod lazy;
mod linear;
mod norm;
mod read_back;
mod rotary;
mod timestep;

pub use attention::{attention, attention_by_regions, merge_heads, split_heads};
pub use conv::{Conv2d, Conv2dConfig};
pub(crate) use lazy::lazy;
pub use linear::{Embedding, Linear, LinearConfig};
pub use norm::{BatchNorm, GroupNorm, LayerNorm, RmsNorm, TokenRmsNorm, layer_norm};
pub use read_back::{read_back, read_finite};
pub use rotary::{Pairs, Rotary};
pub use timestep::TimestepEmbedding;

use burn::tensor::{DType, Device, Distribution, Tensor, activation};

use crate::kernels;

/// Uniform initialisation in ±1/√fan_in, PyTorch's default for linear and convolution layers.
pub(crate) fn uniform_fan_in<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    device: &Device,
) -> burn::module::Param<Tensor<D>> {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    lazy(shape, device, move |shape, device| {
        Tensor::random(shape, Distribution::Uniform(-bound, bound), device)
    })
}

/// Element-wise activations by their names in diffusers and transformers configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · σ(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// Exact (erf) GELU.
    Gelu,
    /// GELU's approximation by a tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2).
    #[serde(alias = "gelu-approximate")]
    GeluTanh,
    /// `x · σ(1.702 x)`, OpenAI CLIP's approximation.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// Applies the activation element-wise.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if let Some(out) = match self {
            Self::Silu => kernels::silu(&x),
            Self::Gelu => kernels::gelu(&x),
            Self::GeluTanh => None,
            Self::QuickGelu => kernels::quick_gelu(&x),
            Self::Relu => kernels::relu(&x),
        } {
            return out;
        }
        match self {
            Self::Silu => activation::silu(x),
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => {
                let inner =
                    (x.clone() + x.clone().powi_scalar(3) * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
                x * 0.5 * (inner.tanh() + 1.0)
            }
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Relu => activation::relu(x),
        }
    }
}

/// SwiGLU (Shazeer 2020, arXiv 2002.05202): `SiLU(g) · a` of `x = [g, a]` along the last dimension, which is halved.
pub fn swiglu(x: Tensor<3>) -> Tensor<3> {
    let inner = x.dims()[2] / 2;
    Activation::Silu.forward(x.clone().narrow(2, 0, inner)) * x.narrow(2, inner, inner)
}

/// Sinusoidal timestep embedding (DDPM; diffusers `get_timestep_embedding`).
///
/// `timesteps`: `[batch]`, any real number → `[batch, channels]`, cosines first if `flip_sin_to_cos`.
pub fn timestep_embedding(
    timesteps: Tensor<1>,
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
) -> Tensor<2> {
    let half = channels / 2;
    let device = timesteps.device();
    // 10000 is the transformer's maximum period, as in diffusers.
    let frequencies: Vec<f32> =
        (0..half).map(|i| (-(10000f64.ln()) * i as f64 / (half as f64 - freq_shift)).exp() as f32).collect();
    let frequencies = Tensor::<1>::from_floats(frequencies.as_slice(), &device).unsqueeze_dim::<2>(0);
    let angles = timesteps.cast(DType::F32).unsqueeze_dim::<2>(1) * frequencies;
    let (sin, cos) = (angles.clone().sin(), angles.cos());
    let embedding = Tensor::cat(if flip_sin_to_cos { vec![cos, sin] } else { vec![sin, cos] }, 1);
    if channels % 2 == 1 {
        let zero = Tensor::zeros([embedding.dims()[0], 1], &device);
        return Tensor::cat(vec![embedding, zero], 1);
    }
    embedding
}

/// Nearest-neighbour upsampling by an integer factor, `[n, c, h, w]` → `[n, c, h·f, w·f]`.
pub fn upsample_nearest(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, factor, w, factor]).reshape([n, c, h * factor, w * factor])
}

pub(crate) mod internal {
    pub use super::attention::MOST_SCORES;
    pub use super::lazy::lazy;
}
