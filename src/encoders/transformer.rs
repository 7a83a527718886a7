//! The pre-norm transformer that CLIP's text and vision encoders share (transformers' `CLIPEncoder`).

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{check_range, config_range};
use crate::error::Result;
use crate::nn::{Activation, LayerNorm, Linear, LinearConfig, attention, merge_heads, split_heads};

/// Sizes of an [`Encoder`].
#[derive(Debug, Clone, Copy)]
pub(super) struct EncoderConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
}

impl EncoderConfig {
    /// The bounds are several times the largest CLIP's (ViT-bigG: 1664 wide, 48 layers).
    pub fn validate(&self) -> Result<()> {
        check_range("hidden_size", self.hidden_size, 1..=16_384)?;
        check_range("intermediate_size", self.intermediate_size, 1..=65_536)?;
        check_range("num_hidden_layers", self.num_hidden_layers, 1..=256)?;
        check_range("num_attention_heads", self.num_attention_heads, 1..=1024)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(config_range(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            )));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps <= 1.0) {
            return Err(config_range(format!(
                "layer_norm_eps is {}; it must lie in (0, 1]",
                self.layer_norm_eps
            )));
        }
        Ok(())
    }

    /// Call [`EncoderConfig::validate`] first.
    pub fn init(&self, device: &Device) -> Encoder {
        Encoder { layers: (0..self.num_hidden_layers).map(|_| EncoderLayer::new(self, device)).collect() }
    }
}

/// A stack of transformer layers.
#[derive(Module, Debug)]
pub struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// `[batch, tokens, hidden]` → the same shape, by all layers but the last `left_out`. `bias` is added to the attention scores,
    /// `[batch, heads, tokens, tokens]`.
    pub(super) fn forward_without(
        &self,
        left_out: usize,
        hidden_states: Tensor<3>,
        bias: Option<Tensor<4>>,
    ) -> Tensor<3> {
        let count = self.layers.len().saturating_sub(left_out);
        self.layers[..count].iter().fold(hidden_states, |x, layer| layer.forward(x, bias.clone()))
    }

    /// Number of layers.
    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The states before the last layer, and after it.
    pub(super) fn last_two(
        &self,
        hidden_states: Tensor<3>,
        bias: Option<Tensor<4>>,
    ) -> (Tensor<3>, Tensor<3>) {
        let first = (hidden_states.clone(), hidden_states);
        self.layers.iter().fold(first, |(_, x), layer| (x.clone(), layer.forward(x, bias.clone())))
    }
}

#[derive(Module, Debug)]
struct EncoderLayer {
    self_attn: SelfAttention,
    layer_norm1: LayerNorm,
    mlp: Mlp,
    layer_norm2: LayerNorm,
}

impl EncoderLayer {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let projection = || LinearConfig::new(hidden, hidden).init(device);
        Self {
            self_attn: SelfAttention {
                q_proj: projection(),
                k_proj: projection(),
                v_proj: projection(),
                out_proj: projection(),
                heads: config.num_attention_heads,
            },
            layer_norm1: LayerNorm::new(hidden, config.layer_norm_eps, device),
            mlp: Mlp {
                fc1: LinearConfig::new(hidden, config.intermediate_size).init(device),
                fc2: LinearConfig::new(config.intermediate_size, hidden).init(device),
                activation: config.hidden_act,
            },
            layer_norm2: LayerNorm::new(hidden, config.layer_norm_eps, device),
        }
    }

    fn forward(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let x = x.clone() + self.self_attn.forward(self.layer_norm1.forward(x), bias);
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl SelfAttention {
    fn forward(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let heads = |projection: &Linear| split_heads(projection.forward(x.clone()), self.heads);
        let out = attention(heads(&self.q_proj), heads(&self.k_proj), heads(&self.v_proj), bias);
        self.out_proj.forward(merge_heads(out))
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(self.activation.forward(self.fc1.forward(x)))
    }
}
