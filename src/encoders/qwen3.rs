//! Qwen3 as a text encoder: transformers' `Qwen3Model`, or the one inside of a `Qwen3ForCausalLM`, as far as the layers whose
//! states are read.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::table::TokenTable;
use super::token_ids;
use super::{MASKED, check_range, config_range, refuse_others};
use crate::error::{Error, Result};
use crate::nn::{
    Activation, Linear, LinearConfig, Pairs, Rotary, TokenRmsNorm, attention, merge_heads, split_heads,
};
use crate::weights::{self, Component};

/// The layers whose states FLUX.2 klein reads, counted from 1: those after a quarter, half and three quarters of a Qwen3. Of the 36
/// layers of its publisher's they are 9, 18 and 27 (diffusers' `Flux2KleinPipeline`).
pub fn klein_layers(num_hidden_layers: usize) -> [usize; 3] {
    [1, 2, 3].map(|quarters| quarters * num_hidden_layers / 4)
}

/// Base of the positions' frequencies where a config has none (transformers' default).
const ROPE_THETA: f64 = 10_000.0;

/// `config.json` of a Qwen3; names and defaults are transformers' `Qwen3Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Qwen3Config {
    /// `qwen3`.
    pub model_type: Option<String>,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Width inside its MLPs.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values, each of which several heads of queries share; as many as those if absent.
    pub num_key_value_heads: Option<usize>,
    /// Channels of a head.
    pub head_dim: usize,
    /// Activation of the MLPs' gates.
    pub hidden_act: Activation,
    /// Largest number of tokens.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// Whether attention's layers have biases.
    pub attention_bias: bool,
    /// Base of the positions' frequencies, as transformers before 5 wrote it.
    pub rope_theta: Option<f64>,
    /// How positions are scaled, as transformers before 5 wrote it; not supported.
    pub rope_scaling: Option<serde_json::Value>,
    /// Both, as transformers 5 writes them.
    pub rope_parameters: Option<RopeParameters>,
    /// Not supported when true.
    pub use_sliding_window: bool,
    /// `full_attention` each.
    pub layer_types: Option<Vec<String>>,
}

/// How positions turn heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeParameters {
    /// Base of the frequencies.
    pub rope_theta: Option<f64>,
    /// `default`.
    pub rope_type: Option<String>,
}

impl Default for Qwen3Config {
    fn default() -> Self {
        Self {
            model_type: None,
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22_016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: Some(32),
            head_dim: 128,
            hidden_act: Activation::Silu,
            max_position_embeddings: 32_768,
            rms_norm_eps: 1e-6,
            attention_bias: false,
            rope_theta: None,
            rope_scaling: None,
            rope_parameters: None,
            use_sliding_window: false,
            layer_types: None,
        }
    }
}

impl Qwen3Config {
    fn key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Fails with `config-range` on sizes that make no network, and with `config-unsupported` on what is not built in.
    pub fn check(&self) -> Result<()> {
        refuse_others(self.model_type.as_deref(), &["qwen3"])?;
        let rope = self.rope_parameters.as_ref();
        let unsupported = [
            ("use_sliding_window", self.use_sliding_window),
            ("layer_types", self.layer_types.iter().flatten().any(|layer| layer != "full_attention")),
            ("rope_scaling", self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null())),
            ("rope_type", rope.and_then(|rope| rope.rope_type.as_deref()).is_some_and(|of| of != "default")),
        ];
        if let Some((name, _)) = unsupported.iter().find(|(_, is)| *is) {
            return Err(Error::weights(
                "config-unsupported",
                format!("config.json: its {name} is not supported"),
                "use a Qwen3 with full attention and plain rotary positions",
            ));
        }
        check_range("vocab_size", self.vocab_size, 1..=4_000_000)?;
        check_range("hidden_size", self.hidden_size, 1..=16_384)?;
        check_range("intermediate_size", self.intermediate_size, 1..=131_072)?;
        check_range("num_hidden_layers", self.num_hidden_layers, 1..=256)?;
        check_range("num_attention_heads", self.num_attention_heads, 1..=256)?;
        check_range("head_dim", self.head_dim, 2..=1024)?;
        check_range("max_position_embeddings", self.max_position_embeddings, 1..=1 << 24)?;
        let shared = self.key_value_heads();
        if !self.head_dim.is_multiple_of(2) || shared == 0 || !self.num_attention_heads.is_multiple_of(shared)
        {
            return Err(config_range(format!(
                "{} heads of {} channels share {shared} heads of keys",
                self.num_attention_heads, self.head_dim
            )));
        }
        let theta = self.theta();
        for (name, value, bounds) in
            [("rms_norm_eps", self.rms_norm_eps, f64::MIN_POSITIVE..=1.0), ("rope_theta", theta, 1.0..=1e12)]
        {
            if !bounds.contains(&value) {
                return Err(config_range(format!("{name} is {value}")));
            }
        }
        Ok(())
    }

    fn theta(&self) -> f64 {
        let theta = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        theta.or(self.rope_theta).unwrap_or(ROPE_THETA)
    }

    /// The layers that the states after `layers` need, counted from 1, with random weights.
    fn init(&self, layers: &[usize], device: &Device) -> Result<Layers> {
        self.check()?;
        let deepest = layers.iter().copied().max().unwrap_or(0);
        if layers.contains(&0) || deepest == 0 || deepest > self.num_hidden_layers {
            return Err(config_range(format!(
                "the states after the layers {layers:?} are asked for; num_hidden_layers is {}",
                self.num_hidden_layers
            )));
        }
        // transformers norms what leaves the last layer, and nothing before.
        let ends = deepest == self.num_hidden_layers;
        Ok(Layers {
            layers: (0..deepest).map(|_| self.layer(device)).collect(),
            norm: ends.then(|| TokenRmsNorm::new(self.hidden_size, self.rms_norm_eps, device)),
        })
    }

    fn layer(&self, device: &Device) -> DecoderLayer {
        let (hidden, inner, dim) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (heads, shared) = (self.num_attention_heads, self.key_value_heads());
        let norm = |dim| TokenRmsNorm::new(dim, self.rms_norm_eps, device);
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let attend = |from, to| LinearConfig::new(from, to).with_bias(self.attention_bias).init(device);
        DecoderLayer {
            self_attn: SelfAttention {
                q_proj: attend(hidden, heads * dim),
                k_proj: attend(hidden, shared * dim),
                v_proj: attend(hidden, shared * dim),
                o_proj: attend(heads * dim, hidden),
                q_norm: norm(dim),
                k_norm: norm(dim),
                heads,
                shared,
            },
            mlp: Mlp {
                gate_proj: linear(hidden, inner),
                up_proj: linear(hidden, inner),
                down_proj: linear(inner, hidden),
                act: self.hidden_act,
            },
            input_layernorm: norm(hidden),
            post_attention_layernorm: norm(hidden),
        }
    }
}

/// Qwen3 up to the deepest layer whose states are read.
#[derive(Debug, Clone)]
pub struct Qwen3Encoder {
    table: TokenTable,
    network: Layers,
    read: Vec<usize>,
    vocab_size: usize,
    context_length: usize,
    head_dim: usize,
    theta: f64,
    device: Device,
}

/// All that is on the device.
#[derive(Module, Debug)]
struct Layers {
    layers: Vec<DecoderLayer>,
    norm: Option<TokenRmsNorm>,
}

#[derive(Module, Debug)]
struct DecoderLayer {
    self_attn: SelfAttention,
    mlp: Mlp,
    input_layernorm: TokenRmsNorm,
    post_attention_layernorm: TokenRmsNorm,
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: TokenRmsNorm,
    k_norm: TokenRmsNorm,
    heads: usize,
    shared: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    act: Activation,
}

impl Qwen3Encoder {
    /// Loads `config.json` and the weights of the layers that are needed for the states after `layers`, counted from 1. Names
    /// may begin with `model.`, as in a `Qwen3ForCausalLM`.
    ///
    /// The tokens' table stays with the processor, as it is stored.
    ///
    /// Fails as [`Qwen3Config::check`] does, with `config-range` where there are not so many layers, and with
    /// `weights-mismatch` where tensors are missing or of another shape.
    pub fn load(component: &Component, layers: &[usize], device: &Device) -> Result<Self> {
        let config: Qwen3Config = component.json("config.json")?;
        let network = config.init(layers, device)?;
        let source = component.tensors()?;
        let prefix = if source.shape("embed_tokens.weight").is_some() { "" } else { "model." };
        let name = format!("{prefix}embed_tokens.weight");
        let table = TokenTable::load(source.as_ref(), &name, [config.vocab_size, config.hidden_size])?;
        Ok(Self {
            table,
            network: weights::apply(network, source.as_ref(), prefix)?,
            read: layers.to_vec(),
            vocab_size: config.vocab_size,
            context_length: config.max_position_embeddings,
            head_dim: config.head_dim,
            theta: config.theta(),
            device: device.clone(),
        })
    }

    /// Largest number of tokens.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The states after the layers that are read, side by side, `[batch, tokens, layers · hidden]`: what FLUX.2 klein's denoiser
    /// takes.
    ///
    /// `input_ids`: one sequence a row, all of one length; of row `i` the first `real[i]` are a text's, which no token behind
    /// them is seen by. Layers run in `dtype`. Fails with `token-ids` where the ids do not fit.
    pub fn forward(&self, input_ids: &[Vec<u32>], real: &[usize], dtype: DType) -> Result<Tensor<3>> {
        let tokens = self.check(input_ids, real)?;
        let device = &self.device;
        let mut x = self.table.forward(input_ids, tokens, device).cast(dtype);
        let rotary = self.rotary(tokens, device);
        let bias = bias(tokens, real, device);
        let Layers { layers, norm } = &self.network;
        let mut states = Vec::with_capacity(layers.len());
        for layer in layers {
            x = layer.forward(x, &rotary, &bias);
            states.push(x.clone());
        }
        if let (Some(norm), Some(last)) = (norm, states.last_mut()) {
            *last = norm.forward(last.clone());
        }
        Ok(Tensor::cat(self.read.iter().map(|layer| states[layer - 1].clone()).collect(), 2))
    }

    /// The `i`-th pair of a head's channels is turned by `θ^(−2i / dim)` a token, in f32 as transformers has it.
    fn rotary(&self, tokens: usize, device: &Device) -> Rotary {
        let (half, dim) = (self.head_dim / 2, self.head_dim as f64);
        let frequencies: Vec<f32> =
            (0..half).map(|i| self.theta.powf(-((2 * i) as f64) / dim) as f32).collect();
        let angles: Vec<f64> = (0..tokens)
            .flat_map(|token| frequencies.iter().map(move |frequency| f64::from(token as f32 * frequency)))
            .collect();
        Rotary::new(&angles, tokens, Pairs::Halves, device)
    }

    fn check(&self, input_ids: &[Vec<u32>], real: &[usize]) -> Result<usize> {
        let tokens = token_ids::check(input_ids, self.context_length, self.vocab_size)?;
        if real.len() != input_ids.len() || real.iter().any(|real| !(1..=tokens).contains(real)) {
            return Err(token_ids::refuse(format!(
                "{real:?} tokens of text in {} sequences of {tokens}; each needs one at least",
                input_ids.len()
            )));
        }
        Ok(tokens)
    }
}

impl DecoderLayer {
    /// `[batch, tokens, hidden]` → the same shape.
    fn forward(&self, x: Tensor<3>, rotary: &Rotary, bias: &Tensor<4>) -> Tensor<3> {
        let x = self.self_attn.forward(self.input_layernorm.forward(x.clone()), x, rotary, bias);
        self.mlp.forward(self.post_attention_layernorm.forward(x.clone()), x)
    }
}

impl SelfAttention {
    /// Of `x`, added to `residual`, `[batch, tokens, hidden]` both.
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>, rotary: &Rotary, bias: &Tensor<4>) -> Tensor<3> {
        let head = |linear: &Linear, heads| split_heads(linear.forward(x.clone()), heads);
        let query = rotary.forward(self.q_norm.forward(head(&self.q_proj, self.heads)));
        let key = rotary.forward(self.k_norm.forward(head(&self.k_proj, self.shared)));
        let value = head(&self.v_proj, self.shared);
        let [batch, heads, tokens, _] = query.dims();
        let bias = bias.clone().cast(query.dtype()).expand([batch, heads, tokens, tokens]);
        let out = attention(query, self.shared_out(key), self.shared_out(value), Some(bias));
        self.o_proj.forward_added(merge_heads(out), residual)
    }

    /// Each head of keys or values for all heads of queries that share it, one beside the other.
    fn shared_out(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, shared, tokens, dim] = x.dims();
        let each = self.heads / shared;
        x.unsqueeze_dim::<5>(2)
            .expand([batch, shared, each, tokens, dim])
            .reshape([batch, self.heads, tokens, dim])
    }
}

impl Mlp {
    /// Of `x`, added to `residual`, `[batch, tokens, hidden]` both.
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let gate = self.act.forward(self.gate_proj.forward(x.clone()));
        self.down_proj.forward_added(gate * self.up_proj.forward(x), residual)
    }
}

/// 0 where a query may look (itself and before, within the text), [`MASKED`] elsewhere; `[batch, 1, tokens, tokens]`.
fn bias(tokens: usize, real: &[usize], device: &Device) -> Tensor<4> {
    let rows = real.iter().flat_map(|real| (0..tokens).map(move |query| (*real, query)));
    let bias: Vec<f32> = rows
        .flat_map(|(real, query)| {
            (0..tokens).map(move |key| if key > query || key >= real { MASKED } else { 0.0 })
        })
        .collect();
    Tensor::from_data(TensorData::new(bias, [real.len(), 1, tokens, tokens]), device)
}
