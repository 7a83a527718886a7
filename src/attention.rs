//! Attention, and cross-attention to streams of tokens: `Σ scale · Σᵢ wᵢ · Attention(Q, Kⁱ, Vⁱ)`. The inner sum is the
//! paper's form for several identities (section 3.4), the outer one decoupled cross-attention (IP-Adapter, arXiv 2308.06721,
//! equation 5). What denoisers of every architecture share.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::condition::{Condition, LayerScale, Places, Projection, Stream};
use crate::error::{Error, Result};
use crate::nn::{Linear, LinearConfig, attention, attention_by_regions, merge_heads, split_heads};

/// A [`Condition`] as one resolution level sees it: the identities that act there, with their weights at every
/// position. Shared by all of the level's layers.
#[derive(Debug, Clone)]
pub struct LevelCondition {
    parts: Vec<TokenGroup>,
}

/// Identities of one stream, of equally many tokens.
#[derive(Debug, Clone)]
struct TokenGroup {
    projection: Projection,
    scale: LayerScale,
    interval: Range<f32>,
    /// `[batch, identities · tokens, channels]`.
    tokens: Tensor<3>,
    /// `[1 or batch, identities, height · width]`; `None` where one acts everywhere, alone.
    weights: Option<Tensor<3>>,
}

impl LevelCondition {
    /// Resizes the places to a level of `[height, width]`; precision and device are `like`'s.
    ///
    /// Without places, or where a single identity has all of the level, that identity acts everywhere: plain
    /// cross-attention. An identity whose weight is zero at every position of the level is left out: it could not alter
    /// anything.
    pub fn new<const D: usize>(condition: &Condition, size: [usize; 2], like: &Tensor<D>) -> Self {
        Self {
            parts: condition.streams.iter().flat_map(|stream| TokenGroup::of(stream, size, like)).collect(),
        }
    }
}

impl TokenGroup {
    fn of<const D: usize>(stream: &Stream, [height, width]: [usize; 2], like: &Tensor<D>) -> Vec<Self> {
        let alone = |tokens: &Tensor<3>| vec![Self::new(stream, tokens.clone().cast(like.dtype()), None)];
        let places = match (&stream.places, stream.tokens.as_slice()) {
            // Regions sum to 1: a single one is everywhere.
            (None | Some(Places::Regions(_)), [tokens]) => return alone(tokens),
            (Some(places), _) => places,
            (None, _) => return Vec::new(),
        };
        let weights = places.resized(height, width);
        let acting: Vec<(&Tensor<3>, &[f32])> = stream
            .tokens
            .iter()
            .zip(weights.iter().map(Vec::as_slice))
            .filter(|(_, weights)| weights.iter().any(|w| *w != 0.0))
            .collect();
        if let [(tokens, weights)] = acting.as_slice()
            && weights.iter().all(|w| *w == 1.0)
        {
            return alone(tokens);
        }
        let mut parts = BTreeMap::<usize, Vec<_>>::new();
        for identity in acting {
            parts.entry(identity.0.dims()[1]).or_default().push(identity);
        }
        let positions = height * width;
        parts.into_values().map(|identities| Self::joined(stream, &identities, positions, like)).collect()
    }

    fn new(stream: &Stream, tokens: Tensor<3>, weights: Option<Tensor<3>>) -> Self {
        let Stream { projection, scale, interval, .. } = stream;
        Self { projection: *projection, scale: scale.clone(), interval: interval.clone(), tokens, weights }
    }

    /// Identities with their weights (`[samples · positions]` of each); precision and device are `like`'s.
    fn joined<const D: usize>(
        stream: &Stream,
        identities: &[(&Tensor<3>, &[f32])],
        positions: usize,
        like: &Tensor<D>,
    ) -> Self {
        let (dtype, device) = (like.dtype(), like.device());
        let weights = identities.iter().map(|(_, weights)| {
            let shape = [weights.len() / positions, 1, positions];
            Tensor::<3>::from_data(TensorData::new(weights.to_vec(), shape), &device).cast(dtype)
        });
        let tokens = identities.iter().map(|(tokens, _)| (*tokens).clone().cast(dtype));
        Self::new(stream, Tensor::cat(tokens.collect(), 1), Some(Tensor::cat(weights.collect(), 1)))
    }
}

/// What one layer's cross-attention attends to: keys and values of each stream that acts in the layer. They depend on no
/// latents, so they are the same at every sampling step.
#[derive(Debug, Clone)]
pub struct CrossContext {
    attended: Vec<Attended>,
}

impl CrossContext {
    /// What of it acts after `progress` (0 to 1) of the sampling steps: streams may act in a part of them only.
    pub fn at(&self, progress: f32) -> Self {
        let mut now = self.clone();
        now.attended.retain(|attended| attended.interval.contains(&progress));
        now
    }
}

/// Identities' keys and values, and when and where they act, as in [`TokenGroup`].
#[derive(Debug, Clone)]
struct Attended {
    interval: Range<f32>,
    key_value: KeyValue,
    weights: Option<Tensor<3>>,
}

/// Keys and values, `[batch, heads, tokens, dim]`.
#[derive(Debug, Clone)]
struct KeyValue {
    key: Tensor<4>,
    value: Tensor<4>,
}

/// One adapter's keys and values at one cross-attention.
#[derive(Module, Debug)]
pub struct AdapterAttention {
    /// `context_channels` → `channels`, no bias.
    pub to_k_ip: Linear,
    /// `context_channels` → `channels`, no bias.
    pub to_v_ip: Linear,
}

impl AdapterAttention {
    /// For the cross-attention `attention`.
    pub fn new(attention: &Attention, device: &Device) -> Self {
        let [channels, context_channels] = attention.to_k.weight.val().dims();
        let linear = || LinearConfig::new(context_channels, channels).with_bias(false).init(device);
        Self { to_k_ip: linear(), to_v_ip: linear() }
    }
}

/// Sizes of an [`Attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Of what attends, a multiple of `heads`.
    pub channels: usize,
    /// Of what is attended to.
    pub context_channels: usize,
    /// Heads.
    pub heads: usize,
    /// Whether queries, keys and values have a bias.
    pub bias: bool,
    /// Whether scores and softmax are in f32 (diffusers' `upcast_attention`).
    pub upcast: bool,
}

/// Multi-head attention of latents to a context: to themselves, or to guidance tokens.
#[derive(Module, Debug)]
pub struct Attention {
    /// `channels` → `channels`.
    pub to_q: Linear,
    /// `context_channels` → `channels`.
    pub to_k: Linear,
    /// `context_channels` → `channels`.
    pub to_v: Linear,
    /// `channels` → `channels`; in diffusers a list with a dropout after it.
    pub to_out: [Linear; 1],
    /// Those of the denoiser's adapters; none without.
    pub adapters: Vec<AdapterAttention>,
    pub(crate) heads: usize,
    pub(crate) upcast: bool,
    /// Which of its denoiser's cross-attentions it is, in the order in which checkpoints number them: what a
    /// [`LayerScale`] counts. 0 in a layer by itself.
    pub(crate) layer: usize,
}

impl Attention {
    /// Random weights.
    pub fn new(config: AttentionConfig, device: &Device) -> Self {
        let AttentionConfig { channels, context_channels, heads, bias, upcast } = config;
        let linear = |from, bias| LinearConfig::new(from, channels).with_bias(bias).init(device);
        Self {
            to_q: linear(channels, bias),
            to_k: linear(context_channels, bias),
            to_v: linear(context_channels, bias),
            to_out: [linear(channels, true)],
            adapters: Vec::new(),
            heads,
            upcast,
            layer: 0,
        }
    }

    /// Self-attention of `x` added to `residual`, both `[batch, positions, channels]`.
    pub fn self_attention(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.to_out[0].forward_added(self.attended_to_itself(x), residual)
    }

    /// Self-attention of `x`, `[batch, positions, channels]`.
    pub fn attend_to_itself(&self, x: Tensor<3>) -> Tensor<3> {
        self.to_out[0].forward(self.attended_to_itself(x))
    }

    fn attended_to_itself(&self, x: Tensor<3>) -> Tensor<3> {
        let key_value = self.key_value(x.clone(), &self.to_k, &self.to_v);
        self.attend(self.query(x), &key_value, None)
    }

    /// What this layer's cross-attention attends to under a condition: made once, since no latents enter it.
    ///
    /// Fails with `adapter-missing` where the condition has a stream for an adapter that was not loaded.
    pub fn context(&self, condition: &LevelCondition) -> Result<CrossContext> {
        let mut attended = Vec::with_capacity(condition.parts.len());
        for TokenGroup { projection, scale, interval, tokens, weights } in &condition.parts {
            let (to_k, to_v) = self.projection(*projection)?;
            let scale = scale.at(self.layer);
            if scale == 0.0 {
                continue;
            }
            let mut key_value = self.key_value(tokens.clone(), to_k, to_v);
            if scale != 1.0 {
                // What is attended to is linear in the values: they are scaled once, and not each step's output.
                key_value.value = key_value.value * scale;
            }
            attended.push(Attended { interval: interval.clone(), key_value, weights: weights.clone() });
        }
        Ok(CrossContext { attended })
    }

    /// The layers that make keys and values.
    fn projection(&self, projection: Projection) -> Result<(&Linear, &Linear)> {
        match projection {
            Projection::Own => Ok((&self.to_k, &self.to_v)),
            Projection::Adapter(k) => {
                let adapter = self.adapters.get(k).ok_or_else(|| {
                    Error::input(
                        "adapter-missing",
                        format!("tokens are for adapter {k}, the unet has {}", self.adapters.len()),
                        "add the adapter to the unet first, or leave its stream out",
                    )
                })?;
                Ok((&adapter.to_k_ip, &adapter.to_v_ip))
            }
        }
    }

    /// Cross-attention to each stream's identities apart, blended by their places' weights; added to `residual`.
    ///
    /// `x` and `residual`: `[batch, height · width, channels]`, positions row-major at the size that `context` was made
    /// for → the same shape. A position where an identity's weight is zero gets exactly what it would get without it.
    pub fn cross_attention(&self, x: Tensor<3>, context: &CrossContext, residual: Tensor<3>) -> Tensor<3> {
        let query = self.query(x.clone());
        let sum = context
            .attended
            .iter()
            .map(|attended| self.attend(query.clone(), &attended.key_value, attended.weights.clone()))
            .reduce(|sum, attended| sum + attended)
            .unwrap_or_else(|| x.zeros_like());
        self.to_out[0].forward_added(sum, residual)
    }

    /// `[batch, tokens, context_channels]` → the context's keys and values by two layers.
    fn key_value(&self, context: Tensor<3>, to_k: &Linear, to_v: &Linear) -> KeyValue {
        KeyValue {
            key: split_heads(to_k.forward(context.clone()), self.heads),
            value: split_heads(to_v.forward(context), self.heads),
        }
    }

    /// `[batch, positions, channels]` → `[batch, heads, positions, dim]`.
    fn query(&self, x: Tensor<3>) -> Tensor<4> {
        split_heads(self.to_q.forward(x), self.heads)
    }

    /// `Attention(Q, K, V)`, or `Σᵢ wᵢ · Attention(Q, Kⁱ, Vⁱ)` with weights, `[batch, heads, positions, dim]` → `[batch,
    /// positions, channels]`.
    fn attend(&self, query: Tensor<4>, context: &KeyValue, weights: Option<Tensor<3>>) -> Tensor<3> {
        let KeyValue { key, value } = context.clone();
        let dtype = query.dtype();
        let cast = |x: Tensor<4>| if self.upcast { x.cast(DType::F32) } else { x };
        let [query, key, value] = [query, key, value].map(cast);
        let attended = match weights {
            Some(weights) => {
                let weights = weights.cast(query.dtype());
                attention_by_regions(query, key, value, weights)
            }
            None => attention(query, key, value, None),
        };
        merge_heads(attended.cast(dtype))
    }
}
