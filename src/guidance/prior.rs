//! The prior: a text embedding to a vision embedding, by diffusion (the paper's text branch; Ramesh et al. 2022,
//! section 2.2). Names and defaults are those of diffusers' `PriorTransformer`.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::{
    Activation, LayerNorm, Linear, LinearConfig, attention, lazy, merge_heads, split_heads,
    timestep_embedding,
};
use crate::weights::{self, Component, check_range, config_range};

/// Added to the scores of tokens that must not be attended to (diffusers).
const MASKED: f64 = -10_000.0;
/// PyTorch's `LayerNorm` default.
const LAYER_NORM_EPS: f64 = 1e-5;

/// A norm in the config: `"layer"` or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormType {
    /// Layer normalisation.
    Layer,
}

/// A projection in the config: `"linear"` or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionType {
    /// A linear layer.
    Linear,
}

/// An added token in the config: `"prd"` or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddedEmbedding {
    /// A learned last token whose output is the prediction.
    Prd,
}

/// `config.json` of a prior; names and defaults are diffusers' `PriorTransformer`'s, but for `encoder_hid_dim`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PriorConfig {
    /// Heads of the self-attention.
    pub num_attention_heads: usize,
    /// Channels of one head; the transformer is `num_attention_heads · attention_head_dim` wide.
    pub attention_head_dim: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Width of the diffused embedding.
    pub embedding_dim: usize,
    /// Text tokens.
    pub num_embeddings: usize,
    /// Tokens after the text: projected embedding, timestep, diffused embedding and, where there is one, `prd`.
    pub additional_embeddings: usize,
    /// Activation of the timestep's embedding.
    pub time_embed_act_fn: Activation,
    /// A norm before the blocks.
    pub norm_in_type: Option<NormType>,
    /// A norm before `embedding_proj`.
    pub embedding_proj_norm_type: Option<NormType>,
    /// Whether text states are projected; null for a prior without text states.
    pub encoder_hid_proj_type: Option<ProjectionType>,
    /// Whether the prediction is read from a token of its own.
    pub added_emb_type: Option<AddedEmbedding>,
    /// Width inside the timestep's embedding; null is the transformer's.
    pub time_embed_dim: Option<usize>,
    /// Width of `proj_embedding`; null is `embedding_dim`.
    pub embedding_proj_dim: Option<usize>,
    /// Width of the prediction; null is `embedding_dim`.
    pub clip_embed_dim: Option<usize>,
    /// Width of `encoder_hidden_states`; null is `embedding_dim`, as in diffusers, which has no such key. Ours
    /// because the concatenated vision embedding is wider than the text encoder's states.
    pub encoder_hid_dim: Option<usize>,
}

impl Default for PriorConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 32,
            attention_head_dim: 64,
            num_layers: 20,
            embedding_dim: 768,
            num_embeddings: 77,
            additional_embeddings: 4,
            time_embed_act_fn: Activation::Silu,
            norm_in_type: None,
            embedding_proj_norm_type: None,
            encoder_hid_proj_type: Some(ProjectionType::Linear),
            added_emb_type: Some(AddedEmbedding::Prd),
            time_embed_dim: None,
            embedding_proj_dim: None,
            clip_embed_dim: None,
            encoder_hid_dim: None,
        }
    }
}

impl PriorConfig {
    fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The bounds are several times the largest published prior's (Karlo: 2048 wide, 20 layers).
    fn validate(&self) -> Result<()> {
        let or_embedding = |dim: Option<usize>| dim.unwrap_or(self.embedding_dim);
        for (name, value, most) in [
            ("num_attention_heads", self.num_attention_heads, 1024),
            ("attention_head_dim", self.attention_head_dim, 1024),
            ("num_layers", self.num_layers, 256),
            ("embedding_dim", self.embedding_dim, 16_384),
            ("num_embeddings", self.num_embeddings, 4096),
            ("additional_embeddings", self.additional_embeddings, 16),
            ("time_embed_dim", self.time_embed_dim.unwrap_or(1), 65_536),
            ("embedding_proj_dim", or_embedding(self.embedding_proj_dim), 16_384),
            ("clip_embed_dim", or_embedding(self.clip_embed_dim), 16_384),
            ("encoder_hid_dim", or_embedding(self.encoder_hid_dim), 16_384),
        ] {
            check_range(name, value, 1..=most)?;
        }
        if !(2..=16_384).contains(&self.inner_dim()) {
            return Err(config_range(format!(
                "num_attention_heads {} × attention_head_dim {} must lie in 2..=16384",
                self.num_attention_heads, self.attention_head_dim
            )));
        }
        let added = 3 + usize::from(self.added_emb_type.is_some());
        let text = if self.encoder_hid_proj_type.is_some() { self.num_embeddings } else { 0 };
        if self.num_embeddings + self.additional_embeddings != text + added {
            return Err(config_range(format!(
                "num_embeddings {} and additional_embeddings {} do not make {text} text tokens and {added} more",
                self.num_embeddings, self.additional_embeddings
            )));
        }
        Ok(())
    }

    /// Creates the prior with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<PriorTransformer> {
        self.validate()?;
        let inner = self.inner_dim();
        let time_dim = self.time_embed_dim.unwrap_or(inner);
        let proj_dim = self.embedding_proj_dim.unwrap_or(self.embedding_dim);
        let clip_dim = self.clip_embed_dim.unwrap_or(self.embedding_dim);
        let hid_dim = self.encoder_hid_dim.unwrap_or(self.embedding_dim);
        let norm = |dim| LayerNorm::new(dim, LAYER_NORM_EPS, device);
        let linear = |d_input, d_output| LinearConfig::new(d_input, d_output).init(device);
        let token = |count| {
            lazy([1, count, inner], device, |shape, device| {
                Tensor::random(shape, Distribution::Normal(0.0, 0.02), device)
            })
        };
        Ok(PriorTransformer {
            time_embedding: TimeEmbedding {
                linear_1: linear(inner, time_dim),
                linear_2: linear(time_dim, inner),
                activation: self.time_embed_act_fn,
            },
            proj_in: linear(self.embedding_dim, inner),
            embedding_proj_norm: self.embedding_proj_norm_type.map(|_| norm(proj_dim)),
            embedding_proj: linear(proj_dim, inner),
            encoder_hidden_states_proj: self.encoder_hid_proj_type.map(|_| linear(hid_dim, inner)),
            positional_embedding: token(self.num_embeddings + self.additional_embeddings),
            prd_embedding: self.added_emb_type.map(|_| token(1)),
            transformer_blocks: (0..self.num_layers)
                .map(|_| Block::new(inner, self.num_attention_heads, device))
                .collect(),
            norm_in: self.norm_in_type.map(|_| norm(inner)),
            norm_out: norm(inner),
            proj_to_clip_embeddings: linear(inner, clip_dim),
            clip_mean: lazy([1, clip_dim], device, |shape, device| Tensor::zeros(shape, device)),
            clip_std: lazy([1, clip_dim], device, |shape, device| Tensor::ones(shape, device)),
            embedding_dim: self.embedding_dim,
            embedding_proj_dim: proj_dim,
            encoder_hid_dim: hid_dim,
            num_embeddings: self.num_embeddings,
        })
    }
}

/// Predicts a vision embedding from a noised one, the text embedding and the text's states.
#[derive(Module, Debug)]
pub struct PriorTransformer {
    time_embedding: TimeEmbedding,
    proj_in: Linear,
    embedding_proj_norm: Option<LayerNorm>,
    embedding_proj: Linear,
    encoder_hidden_states_proj: Option<Linear>,
    positional_embedding: Param<Tensor<3>>,
    prd_embedding: Option<Param<Tensor<3>>>,
    transformer_blocks: Vec<Block>,
    norm_in: Option<LayerNorm>,
    norm_out: LayerNorm,
    proj_to_clip_embeddings: Linear,
    /// Mean of vision embeddings, `[1, clip_embed_dim]`; the diffusion runs on normalised ones.
    pub clip_mean: Param<Tensor<2>>,
    /// Their standard deviation, `[1, clip_embed_dim]`.
    pub clip_std: Param<Tensor<2>>,
    embedding_dim: usize,
    embedding_proj_dim: usize,
    encoder_hid_dim: usize,
    num_embeddings: usize,
}

impl PriorTransformer {
    /// Loads the prior of a component folder.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: PriorConfig = component.json("config.json")?;
        weights::apply(config.init(device)?, component.tensors()?.as_ref(), "")
    }

    /// Width of the diffused embedding.
    pub fn embedding_dim(&self) -> usize {
        self.embedding_dim
    }

    /// Whether it takes the text's states besides the pooled embedding.
    pub fn takes_text_states(&self) -> bool {
        self.encoder_hidden_states_proj.is_some()
    }

    /// Text tokens that it takes.
    pub fn num_embeddings(&self) -> usize {
        self.num_embeddings
    }

    /// The predicted embedding (the clean one, normalised: `sample` prediction), `[batch, clip_embed_dim]`.
    ///
    /// - `hidden_states`: the noised, normalised embedding, `[batch, embedding_dim]`
    /// - `timestep`: `[batch]`
    /// - `proj_embedding`: the pooled text embedding, `[batch, embedding_proj_dim]`
    /// - `encoder_hidden_states`: the text's states, `[batch, num_embeddings, encoder_hid_dim]`; none for a prior
    ///   without text states
    /// - `attention_mask`: 1 for text tokens and 0 for padding, `[batch, num_embeddings]`; turns on the causal mask,
    ///   as in diffusers. Without it every token attends to every other.
    ///
    /// Fails with `prior-input` on other shapes.
    pub fn forward(
        &self,
        hidden_states: Tensor<2>,
        timestep: Tensor<1>,
        proj_embedding: Tensor<2>,
        encoder_hidden_states: Option<Tensor<3>>,
        attention_mask: Option<Tensor<2>>,
    ) -> Result<Tensor<2>> {
        let [batch, _] = hidden_states.dims();
        let dtype = hidden_states.dtype();
        check("hidden_states", hidden_states.dims(), [batch, self.embedding_dim])?;
        check("timestep", timestep.dims(), [batch])?;
        check("proj_embedding", proj_embedding.dims(), [batch, self.embedding_proj_dim])?;

        let mut tokens = Vec::with_capacity(5);
        match (&self.encoder_hidden_states_proj, encoder_hidden_states) {
            (Some(proj), Some(states)) => {
                check(
                    "encoder_hidden_states",
                    states.dims(),
                    [batch, self.num_embeddings, self.encoder_hid_dim],
                )?;
                tokens.push(proj.forward(states.cast(dtype)));
            }
            (None, None) => {}
            (Some(_), None) => return Err(input_error("this prior needs encoder_hidden_states".into())),
            (None, Some(_)) => return Err(input_error("this prior takes no encoder_hidden_states".into())),
        }
        let proj_embedding = proj_embedding.cast(dtype);
        let proj_embedding = match &self.embedding_proj_norm {
            Some(norm) => norm.forward(proj_embedding),
            None => proj_embedding,
        };
        tokens.push(self.embedding_proj.forward(proj_embedding).unsqueeze_dim(1));
        tokens.push(self.time_embedding.forward(timestep).cast(dtype).unsqueeze_dim(1));
        tokens.push(self.proj_in.forward(hidden_states).unsqueeze_dim(1));
        if let Some(prd) = &self.prd_embedding {
            tokens.push(prd.val().cast(dtype).repeat_dim(0, batch));
        }
        let x = Tensor::cat(tokens, 1) + self.positional_embedding.val().cast(dtype);
        let [_, length, _] = x.dims();
        let bias = attention_mask.map(|mask| self.bias(mask, length)).transpose()?;
        let x = match &self.norm_in {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let x = self.transformer_blocks.iter().fold(x, |x, block| block.forward(x, bias.clone()));
        // The last token is `prd`, or the diffused embedding's where there is none.
        let x = self.norm_out.forward(x).narrow(1, length - 1, 1).squeeze_dim::<2>(1);
        Ok(self.proj_to_clip_embeddings.forward(x))
    }

    /// The causal mask plus the padding's, `[batch, 1, length, length]`, in f32. The two add, as in diffusers.
    fn bias(&self, mask: Tensor<2>, length: usize) -> Result<Tensor<4>> {
        let [batch, _] = mask.dims();
        if self.encoder_hidden_states_proj.is_none() {
            return Err(input_error("this prior has no text tokens to mask".into()));
        }
        check("attention_mask", mask.dims(), [batch, self.num_embeddings])?;
        let device = mask.device();
        let padding = (mask.cast(DType::F32) - 1.0) * -MASKED;
        let open = Tensor::zeros([batch, length - self.num_embeddings], &device);
        let padding = Tensor::cat(vec![padding, open], 1).reshape([batch, 1, 1, length]);
        let causal: Vec<f32> =
            (0..length * length).map(|p| if p % length > p / length { MASKED as f32 } else { 0.0 }).collect();
        let causal = Tensor::<1>::from_floats(causal.as_slice(), &device).reshape([1, 1, length, length]);
        Ok(padding + causal)
    }

    /// Normalised → a vision embedding, `[batch, clip_embed_dim]` both.
    pub fn post_process_latents(&self, prior_latents: Tensor<2>) -> Tensor<2> {
        let dtype = prior_latents.dtype();
        prior_latents * self.clip_std.val().cast(dtype) + self.clip_mean.val().cast(dtype)
    }

    /// A vision embedding → normalised: what [`PriorTransformer::post_process_latents`] undoes.
    pub fn pre_process_latents(&self, image_embeds: Tensor<2>) -> Tensor<2> {
        let dtype = image_embeds.dtype();
        (image_embeds - self.clip_mean.val().cast(dtype)) / self.clip_std.val().cast(dtype)
    }
}

/// 1 for a prompt's tokens up to its first end mark `end`, 0 for the padding after it: a row of `attention_mask`.
pub fn text_mask(ids: &[u32], end: u32) -> Vec<f32> {
    let last = ids.iter().position(|id| *id == end).unwrap_or(ids.len());
    (0..ids.len()).map(|i| if i <= last { 1.0 } else { 0.0 }).collect()
}

fn input_error(message: String) -> Error {
    Error::input("prior-input", message, "pass what the prior's config.json asks for")
}

fn check<const D: usize>(name: &str, dims: [usize; D], expected: [usize; D]) -> Result<()> {
    if dims == expected {
        return Ok(());
    }
    Err(input_error(format!("{name} has shape {dims:?}, the prior takes {expected:?}")))
}

#[derive(Module, Debug)]
struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl TimeEmbedding {
    /// `[batch]` → `[batch, inner]`, in f32.
    fn forward(&self, timestep: Tensor<1>) -> Tensor<2> {
        let [_, channels] = self.linear_1.weight.lazy_shape().dims();
        let x = timestep_embedding(timestep, channels, true, 0.0);
        self.linear_2.forward(self.activation.forward(self.linear_1.forward(x)))
    }
}

/// A pre-norm transformer block (diffusers' `BasicTransformerBlock` without cross-attention).
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl Block {
    fn new(inner: usize, heads: usize, device: &Device) -> Self {
        let projection = || LinearConfig::new(inner, inner).init(device);
        Self {
            norm1: LayerNorm::new(inner, LAYER_NORM_EPS, device),
            attn1: SelfAttention {
                to_q: projection(),
                to_k: projection(),
                to_v: projection(),
                to_out: vec![projection()],
                heads,
            },
            norm3: LayerNorm::new(inner, LAYER_NORM_EPS, device),
            ff: FeedForward::new(inner, device),
        }
    }

    fn forward(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let x = x.clone() + self.attn1.forward(self.norm1.forward(x), bias);
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}

#[derive(Module, Debug)]
struct SelfAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    /// One layer, named `to_out.0`.
    to_out: Vec<Linear>,
    heads: usize,
}

impl SelfAttention {
    fn forward(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let dtype = x.dtype();
        let heads = |layer: &Linear| split_heads(layer.forward(x.clone()), self.heads);
        let bias = bias.map(|bias| bias.cast(dtype).expand([batch, self.heads, length, length]));
        let out = attention(heads(&self.to_q), heads(&self.to_k), heads(&self.to_v), bias);
        self.to_out.iter().fold(merge_heads(out), |x, layer| layer.forward(x))
    }
}

/// Two linear layers, four times as wide inside, with GELU; `net.1` is upstream's dropout.
#[derive(Module, Debug)]
struct FeedForward {
    net: (Gelu, Dropout, Linear),
}

#[derive(Module, Debug)]
struct Gelu {
    proj: Linear,
}

/// Holds upstream's position in `net`; has no parameters and, at inference, no effect.
#[derive(Module, Debug)]
struct Dropout {}

impl FeedForward {
    fn new(inner: usize, device: &Device) -> Self {
        let proj = LinearConfig::new(inner, 4 * inner).init(device);
        Self { net: (Gelu { proj }, Dropout {}, LinearConfig::new(4 * inner, inner).init(device)) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.net.2.forward(Activation::Gelu.forward(self.net.0.proj.forward(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> PriorConfig {
        PriorConfig {
            num_attention_heads: 2,
            attention_head_dim: 4,
            num_layers: 2,
            embedding_dim: 6,
            num_embeddings: 5,
            embedding_proj_dim: Some(3),
            encoder_hid_dim: Some(7),
            ..PriorConfig::default()
        }
    }

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    #[test]
    fn a_masked_token_has_no_effect() {
        let prior = tiny().init(&Device::flex()).unwrap();
        let (x, t, pooled) = (random([1, 6]), random([1]), random([1, 3]));
        let mask = Tensor::<2>::from_floats([[1.0, 1.0, 1.0, 0.0, 0.0]], &Device::flex());
        let run = |states: Tensor<3>, mask: Option<Tensor<2>>| {
            let out = prior.forward(x.clone(), t.clone(), pooled.clone(), Some(states), mask).unwrap();
            out.try_into_vec_as::<f32>().unwrap()
        };
        let states = random([1, 5, 7]);
        let padding = states.clone().slice_assign([0..1, 3..5, 0..7], random([1, 2, 7]));
        assert_eq!(run(states.clone(), Some(mask.clone())), run(padding.clone(), Some(mask.clone())));
        assert_ne!(run(states.clone(), None), run(padding, None));
        let text = states.clone().slice_assign([0..1, 2..3, 0..7], random([1, 1, 7]));
        assert_ne!(run(states, Some(mask.clone())), run(text, Some(mask)));
    }

    #[test]
    fn normalising_is_undone() {
        let mut prior = tiny().init(&Device::flex()).unwrap();
        prior.clip_mean = Param::from_tensor(random([1, 6]));
        prior.clip_std = Param::from_tensor(random([1, 6]).abs() + 0.5);
        let embeds = random([4, 6]);
        let back = prior.post_process_latents(prior.pre_process_latents(embeds.clone()));
        let worst = (back - embeds).abs().max().into_scalar::<f32>();
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn unusable_inputs_are_errors() {
        let prior = tiny().init(&Device::flex()).unwrap();
        let states = Some(random([1, 4, 7]));
        let error = prior.forward(random([1, 6]), random([1]), random([1, 3]), states, None).unwrap_err();
        assert_eq!(error.code, "prior-input");
        let error = prior.forward(random([1, 6]), random([1]), random([1, 3]), None, None).unwrap_err();
        assert_eq!(error.code, "prior-input");
        for config in [
            PriorConfig { num_attention_heads: usize::MAX, ..tiny() },
            PriorConfig { num_layers: 0, ..tiny() },
            PriorConfig { additional_embeddings: 3, ..tiny() },
        ] {
            assert_eq!(config.init(&Device::flex()).unwrap_err().code, "config-range");
        }
    }
}
