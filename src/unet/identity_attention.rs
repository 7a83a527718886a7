//! Attention, its paper form for several identities, `F̂ = Σᵢ wᵢ · Attention(Q, Kⁱ, Vⁱ)` (section 3.4), and what adapters
//! add to it, `Σ scale · Σᵢ wᵢ · Attention(Q, K_ipⁱ, V_ipⁱ)` (IP-Adapter, arXiv 2308.06721, equation 5).

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::condition::{AdapterStream, Condition, LayerScale};
use crate::nn::{Linear, LinearConfig, attention, attention_by_regions, merge_heads, split_heads};

/// A [`Condition`] as one resolution level sees it: the identities that act there, with their weights at every
/// position. Shared by all of the level's layers.
#[derive(Debug, Clone)]
pub struct LevelCondition {
    parts: Vec<Part>,
    adapters: Vec<AdapterParts>,
}

/// One adapter's stream at a level.
#[derive(Debug, Clone)]
struct AdapterParts {
    adapter: usize,
    scale: LayerScale,
    interval: Range<f32>,
    parts: Vec<Part>,
}

/// Identities of equally many tokens.
#[derive(Debug, Clone)]
struct Part {
    /// `[batch, identities · tokens, channels]`.
    tokens: Tensor<3>,
    /// `[1 or batch, identities, height · width]`; `None` where one acts everywhere, alone.
    weights: Option<Tensor<3>>,
}

impl LevelCondition {
    /// Resizes the regions to a level of `[height, width]`; precision and device are `like`'s.
    ///
    /// Without regions, or with a single identity, that identity acts everywhere: plain cross-attention.
    /// An identity whose weight is zero at every position of the level is left out: it could not alter anything.
    pub fn new<const D: usize>(condition: &Condition, size: [usize; 2], like: &Tensor<D>) -> Self {
        let adapters =
            condition.adapters.iter().map(|stream| AdapterParts::new(stream, size, like)).collect();
        let alone = |tokens: &Tensor<3>| Part::alone(tokens, like);
        let regions = match &condition.regions {
            Some(regions) if condition.identities.len() > 1 => regions,
            _ => return Self { parts: condition.identities.iter().take(1).map(alone).collect(), adapters },
        };
        let weights = regions.resized(size[0], size[1]);
        if let Some(i) = weights.iter().position(|weight| weight.iter().all(|w| *w == 1.0)) {
            return Self { parts: vec![alone(&condition.identities[i])], adapters };
        }
        Self { parts: Part::acting(&condition.identities, &weights, size[0] * size[1], like), adapters }
    }
}

impl AdapterParts {
    fn new<const D: usize>(stream: &AdapterStream, [height, width]: [usize; 2], like: &Tensor<D>) -> Self {
        let parts = match &stream.places {
            Some(places) => {
                Part::acting(&stream.identities, &places.resized(height, width), height * width, like)
            }
            None => stream.identities.iter().take(1).map(|tokens| Part::alone(tokens, like)).collect(),
        };
        let AdapterStream { adapter, scale, interval, .. } = stream.clone();
        Self { adapter, scale, interval, parts }
    }
}

impl Part {
    /// One identity everywhere; precision and device are `like`'s.
    fn alone<const D: usize>(tokens: &Tensor<3>, like: &Tensor<D>) -> Self {
        Self { tokens: tokens.clone().cast(like.dtype()), weights: None }
    }

    /// The identities whose weight is not zero everywhere, with their `weights` (`[samples · positions]` of each).
    fn acting<const D: usize>(
        identities: &[Tensor<3>],
        weights: &[Vec<f32>],
        positions: usize,
        like: &Tensor<D>,
    ) -> Vec<Self> {
        let mut parts = BTreeMap::<usize, Vec<_>>::new();
        for (tokens, weights) in identities.iter().zip(weights) {
            if weights.iter().any(|w| *w != 0.0) {
                parts.entry(tokens.dims()[1]).or_default().push((tokens, weights.as_slice()));
            }
        }
        parts.into_values().map(|identities| Self::joined(&identities, positions, like)).collect()
    }

    fn joined<const D: usize>(
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
        Self { weights: Some(Tensor::cat(weights.collect(), 1)), tokens: Tensor::cat(tokens.collect(), 1) }
    }
}

/// What one layer's cross-attention attends to: keys and values of each identity, and of the adapters that act in the layer.
/// They depend on no latents, so they are the same at every sampling step.
#[derive(Debug, Clone)]
pub struct CrossContext {
    identities: Vec<Weighted>,
    adapters: Vec<AdapterContext>,
}

impl CrossContext {
    /// What of it acts after `progress` (0 to 1) of the sampling steps: adapters may act in a part of them only.
    pub(super) fn at(&self, progress: f32) -> Self {
        let mut now = self.clone();
        now.adapters.retain(|adapter| adapter.interval.contains(&progress));
        now
    }
}

#[derive(Debug, Clone)]
struct AdapterContext {
    interval: Range<f32>,
    identities: Vec<Weighted>,
}

/// Identities' keys and values, and where they act, as in [`Part`].
#[derive(Debug, Clone)]
struct Weighted {
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
    layer: usize,
}

impl AdapterAttention {
    /// For the cross-attention `attention`, the `layer`-th of its UNet.
    pub(super) fn new(attention: &Attention, layer: usize, device: &Device) -> Self {
        let [channels, context_channels] = attention.to_k.weight.val().dims();
        let linear = || LinearConfig::new(context_channels, channels).with_bias(false).init(device);
        Self { to_k_ip: linear(), to_v_ip: linear(), layer }
    }
}

/// Multi-head attention of latents to a context: to themselves, or to guidance tokens.
#[derive(Module, Debug)]
pub struct Attention {
    /// `channels` → `channels`, no bias.
    pub to_q: Linear,
    /// `context_channels` → `channels`, no bias.
    pub to_k: Linear,
    /// `context_channels` → `channels`, no bias.
    pub to_v: Linear,
    /// `channels` → `channels`; in diffusers a list with a dropout after it.
    pub to_out: [Linear; 1],
    /// Those of the UNet's adapters; none without.
    pub adapters: Vec<AdapterAttention>,
    pub(super) heads: usize,
    pub(super) upcast: bool,
}

impl Attention {
    /// `channels` must be a multiple of `heads`; `upcast` computes scores and softmax in f32 (diffusers'
    /// `upcast_attention`).
    pub fn new(
        channels: usize,
        context_channels: usize,
        heads: usize,
        upcast: bool,
        device: &Device,
    ) -> Self {
        let linear = |from, bias| LinearConfig::new(from, channels).with_bias(bias).init(device);
        Self {
            to_q: linear(channels, false),
            to_k: linear(context_channels, false),
            to_v: linear(context_channels, false),
            to_out: [linear(channels, true)],
            adapters: Vec::new(),
            heads,
            upcast,
        }
    }

    /// Self-attention of `x` added to `residual`, both `[batch, positions, channels]`.
    pub fn self_attention(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let key_value = self.key_value(x.clone(), &self.to_k, &self.to_v);
        let attended = self.attend(self.query(x), &key_value, None);
        self.to_out[0].forward_added(attended, residual)
    }

    /// What this layer's cross-attention attends to under a condition: made once, since no latents enter it.
    ///
    /// # Panics
    /// If the condition has a stream for an adapter that was not loaded.
    pub fn context(&self, condition: &LevelCondition) -> CrossContext {
        let stream = |parts: &[Part], to_k: &Linear, to_v: &Linear| {
            let weighted = |part: &Part| Weighted {
                key_value: self.key_value(part.tokens.clone(), to_k, to_v),
                weights: part.weights.clone(),
            };
            parts.iter().map(weighted).collect()
        };
        let adapters = condition.adapters.iter().filter_map(|parts| {
            let adapter = &self.adapters[parts.adapter];
            let scale = parts.scale.at(adapter.layer);
            (scale != 0.0).then(|| {
                let mut identities: Vec<Weighted> = stream(&parts.parts, &adapter.to_k_ip, &adapter.to_v_ip);
                // What is attended to is linear in the values: they are scaled once, and not each step's output.
                for Weighted { key_value, .. } in &mut identities {
                    key_value.value = key_value.value.clone() * scale;
                }
                AdapterContext { interval: parts.interval.clone(), identities }
            })
        });
        CrossContext {
            adapters: adapters.collect(),
            identities: stream(&condition.parts, &self.to_k, &self.to_v),
        }
    }

    /// Cross-attention to each identity apart, blended by the regions' weights, and what the adapters add; added to
    /// `residual`.
    ///
    /// `x` and `residual`: `[batch, height · width, channels]`, positions row-major at the size that `context` was made
    /// for → the same shape. A position where an identity's weight is zero gets exactly what it would get without it.
    pub fn cross_attention(&self, x: Tensor<3>, context: &CrossContext, residual: Tensor<3>) -> Tensor<3> {
        let query = self.query(x.clone());
        let adapters = context.adapters.iter().flat_map(|adapter| &adapter.identities);
        let sum = context
            .identities
            .iter()
            .chain(adapters)
            .map(|identities| self.attend(query.clone(), &identities.key_value, identities.weights.clone()))
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
