//! Attention, and its paper form for several identities: `F̂ = Σᵢ wᵢ · Attention(Q, Kⁱ, Vⁱ)` (section 3.4).

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::condition::Condition;
use crate::nn::{Linear, LinearConfig, attention, merge_heads, split_heads};

/// A [`Condition`] as one resolution level sees it: the identities that act there, with their weights at every
/// position. Made once per forward pass and level, then shared by all of the level's layers.
#[derive(Debug, Clone)]
pub struct LevelCondition {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    /// `[batch, tokens, channels]`.
    tokens: Tensor<3>,
    /// `[1, height · width, 1]`; `None` where the identity acts everywhere, alone.
    weight: Option<Tensor<3>>,
}

impl LevelCondition {
    /// Resizes the regions to a level of `[height, width]`; precision and device are `like`'s.
    ///
    /// Without regions, or with a single identity, that identity acts everywhere: plain cross-attention.
    /// An identity whose weight is zero at every position of the level is left out: it could not alter anything.
    pub fn new<const D: usize>(condition: &Condition, [height, width]: [usize; 2], like: &Tensor<D>) -> Self {
        let (dtype, device) = (like.dtype(), like.device());
        let alone = |tokens: &Tensor<3>| Part { tokens: tokens.clone().cast(dtype), weight: None };
        let regions = match &condition.regions {
            Some(regions) if condition.identities.len() > 1 => regions,
            _ => return Self { parts: condition.identities.iter().take(1).map(alone).collect() },
        };
        let weights = regions.resized(height, width);
        if let Some(i) = weights.iter().position(|weight| weight.iter().all(|w| *w == 1.0)) {
            return Self { parts: vec![alone(&condition.identities[i])] };
        }
        let acting = condition.identities.iter().zip(weights).filter(|(_, w)| w.iter().any(|w| *w > 0.0));
        let parts = acting.map(|(tokens, weight)| {
            let weight = TensorData::new(weight, [1, height * width, 1]);
            Part {
                weight: Some(Tensor::<3>::from_data(weight, &device).cast(dtype)),
                tokens: tokens.clone().cast(dtype),
            }
        });
        Self { parts: parts.collect() }
    }
}

/// Keys and values of one context, `[batch, heads, tokens, dim]`. Those of guidance tokens depend on no latents,
/// so they are the same at every sampling step.
#[derive(Debug, Clone)]
pub struct KeyValue {
    key: Tensor<4>,
    value: Tensor<4>,
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
    heads: usize,
    upcast: bool,
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
            heads,
            upcast,
        }
    }

    /// Self-attention, `[batch, positions, channels]` → the same shape.
    pub fn self_attention(&self, x: Tensor<3>) -> Tensor<3> {
        let key_value = self.key_value(x.clone());
        let attended = self.attend(self.query(x), &key_value);
        self.to_out[0].forward(attended)
    }

    /// Cross-attention to each identity apart, blended by the regions' weights.
    ///
    /// `x`: `[batch, height · width, channels]`, positions row-major at the size that `condition` was made for →
    /// the same shape. A position where an identity's weight is zero gets exactly what it would get without it.
    pub fn cross_attention(&self, x: Tensor<3>, condition: &LevelCondition) -> Tensor<3> {
        let query = self.query(x.clone());
        let attended = condition.parts.iter().map(|part| {
            let attended = self.attend(query.clone(), &self.key_value(part.tokens.clone()));
            match &part.weight {
                Some(weight) => attended * weight.clone(),
                None => attended,
            }
        });
        let blended = attended.reduce(|sum, attended| sum + attended);
        self.to_out[0].forward(blended.unwrap_or_else(|| x.zeros_like()))
    }

    /// `[batch, tokens, context_channels]` → the context's keys and values.
    pub fn key_value(&self, context: Tensor<3>) -> KeyValue {
        KeyValue {
            key: split_heads(self.to_k.forward(context.clone()), self.heads),
            value: split_heads(self.to_v.forward(context), self.heads),
        }
    }

    /// `[batch, positions, channels]` → `[batch, heads, positions, dim]`.
    fn query(&self, x: Tensor<3>) -> Tensor<4> {
        split_heads(self.to_q.forward(x), self.heads)
    }

    /// `Attention(Q, K, V)`, `[batch, heads, positions, dim]` → `[batch, positions, channels]`.
    fn attend(&self, query: Tensor<4>, context: &KeyValue) -> Tensor<3> {
        let KeyValue { key, value } = context.clone();
        if !self.upcast {
            return merge_heads(attention(query, key, value, None));
        }
        let dtype = query.dtype();
        let [query, key, value] = [query, key, value].map(|x| x.cast(DType::F32));
        merge_heads(attention(query, key, value, None).cast(dtype))
    }
}
