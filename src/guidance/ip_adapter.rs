//! IP-Adapter's projections: what an image or identity encoder says, as tokens for decoupled cross-attention
//! (arXiv 2308.06721), in the tensor names of the published checkpoints (`image_proj.…`).

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::{Activation, LayerNorm, Linear, LinearConfig, attention, lazy, merge_heads, split_heads};
use crate::weights::{Component, TensorSource, apply, config_range};

/// ε of every LayerNorm, PyTorch's default.
const NORM_EPS: f64 = 1e-5;
/// Channels of a resampler's attention head: fixed upstream (`dim_head`), the number of heads follows from it.
const HEAD_DIM: usize = 64;
/// Where a checkpoint keeps the projection.
const PREFIX: &str = "image_proj";
/// Largest accepted value of any size: bounds what a hostile config can allocate.
const MAX_SIZE: usize = 1 << 16;

/// Whose picture an adapter reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The style image.
    Style,
    /// Each person's face.
    Identity,
}

/// `config.json` of an `ip_adapter` folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpAdapterConfig {
    /// Whose picture it reads.
    pub role: Role,
    /// How tokens are made.
    #[serde(flatten)]
    pub projection: ProjectionConfig,
    /// How much it adds at every layer.
    #[serde(default = "one")]
    pub scale: f32,
    /// Multiplies `scale` by block and transformer, 0 in blocks that are not named; absent, every layer counts in full.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub block_scales: BTreeMap<String, Vec<f32>>,
    /// The part of the sampling steps in which it acts, from 0 to 1, its end excluded.
    #[serde(default = "whole")]
    pub interval: [f32; 2],
}

fn one() -> f32 {
    1.0
}

fn whole() -> [f32; 2] {
    [0.0, 1.0]
}

/// The published projections, by what they read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "projection", rename_all = "snake_case")]
pub enum ProjectionConfig {
    /// IP-Adapter (`ImageProjModel`): a Linear on CLIP's pooled embedding.
    Image {
        /// Width of the embedding.
        image_embed_dim: usize,
        /// Tokens, 4 as published.
        num_tokens: usize,
        /// Channels of a token.
        cross_attention_dim: usize,
    },
    /// IP-Adapter Plus and Plus-Face (`Resampler`): learned queries attend to CLIP's penultimate states.
    Plus {
        /// Learned queries, which become the tokens; 16 as published.
        num_tokens: usize,
        /// The attention layers.
        #[serde(flatten)]
        perceiver: PerceiverConfig,
    },
    /// IP-Adapter Full-Face (`MLPProjModel`): every one of CLIP's penultimate states becomes a token.
    FullFace {
        /// Width of a state.
        hidden_size: usize,
        /// Channels of a token.
        cross_attention_dim: usize,
    },
    /// IP-Adapter FaceID (`MLPProjModel` on an ArcFace embedding).
    FaceId {
        /// Width of the identity embedding.
        id_embed_dim: usize,
        /// Width between the two layers.
        intermediate_size: usize,
        /// Tokens, 4 as published.
        num_tokens: usize,
        /// Channels of a token.
        cross_attention_dim: usize,
    },
    /// IP-Adapter FaceID-Plus (`ProjPlusModel`): FaceID's tokens attend to CLIP's penultimate states.
    FaceIdPlus {
        /// Width of the identity embedding.
        id_embed_dim: usize,
        /// Width between the two layers on the identity embedding.
        intermediate_size: usize,
        /// Tokens, 4 as published.
        num_tokens: usize,
        /// The attention layers; as wide as a token.
        #[serde(flatten)]
        perceiver: PerceiverConfig,
        /// V2 adds what the attention finds to FaceID's tokens; its weights do not tell the versions apart.
        shortcut: bool,
        /// V2's weight of what the attention finds.
        #[serde(default = "one")]
        shortcut_scale: f32,
    },
}

/// Sizes of a perceiver resampler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerceiverConfig {
    /// Width of the states that are read; 1280 for CLIP ViT-H.
    pub hidden_size: usize,
    /// Width of the queries.
    pub width: usize,
    /// Layers; 4 as published.
    pub depth: usize,
    /// Attention heads of 64 channels each.
    pub heads: usize,
    /// Width inside the feed-forward layers.
    pub feed_forward_size: usize,
    /// Channels of a token.
    pub cross_attention_dim: usize,
}

/// What encoders say about one picture or person; a projection reads what it [needs](Projection::needs).
#[derive(Debug, Clone, Default)]
pub struct ImagePromptEmbeds {
    /// CLIP's pooled and projected embedding, `[batch, dim]`.
    pub image_embeds: Option<Tensor<2>>,
    /// CLIP's penultimate states, `[batch, tokens, hidden]`.
    pub hidden_states: Option<Tensor<3>>,
    /// The identity encoder's embedding, unit length, `[batch, dim]`.
    pub id_embeds: Option<Tensor<2>>,
}

/// Which [`ImagePromptEmbeds`] a projection reads, with their widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Width of `image_embeds`.
    pub image_embeds: Option<usize>,
    /// Width of `hidden_states`.
    pub hidden_states: Option<usize>,
    /// Width of `id_embeds`.
    pub id_embeds: Option<usize>,
}

impl IpAdapterConfig {
    /// Reads `config.json`. Fails with `config-range` on a scale that is not finite or an interval outside 0 to 1.
    pub fn read(component: &Component) -> Result<Self> {
        let config: Self = component.json("config.json")?;
        let [start, end] = config.interval;
        let finite =
            config.scale.is_finite() && config.block_scales.values().flatten().all(|scale| scale.is_finite());
        if !(finite && 0.0 <= start && start < end && end <= 1.0) {
            return Err(config_range(format!(
                "the adapter's scales are not all finite, or its interval {:?} not within 0 to 1",
                config.interval
            )));
        }
        Ok(config)
    }
}

impl ProjectionConfig {
    /// Channels of a token.
    pub fn cross_attention_dim(&self) -> usize {
        match self {
            Self::Image { cross_attention_dim, .. }
            | Self::FullFace { cross_attention_dim, .. }
            | Self::FaceId { cross_attention_dim, .. } => *cross_attention_dim,
            Self::Plus { perceiver, .. } | Self::FaceIdPlus { perceiver, .. } => {
                perceiver.cross_attention_dim
            }
        }
    }

    /// What it reads.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Image { image_embed_dim, .. } => {
                Needs { image_embeds: Some(*image_embed_dim), ..Needs::default() }
            }
            Self::Plus { perceiver, .. } => {
                Needs { hidden_states: Some(perceiver.hidden_size), ..Needs::default() }
            }
            Self::FullFace { hidden_size, .. } => {
                Needs { hidden_states: Some(*hidden_size), ..Needs::default() }
            }
            Self::FaceId { id_embed_dim, .. } => Needs { id_embeds: Some(*id_embed_dim), ..Needs::default() },
            Self::FaceIdPlus { id_embed_dim, perceiver, .. } => Needs {
                id_embeds: Some(*id_embed_dim),
                hidden_states: Some(perceiver.hidden_size),
                ..Needs::default()
            },
        }
    }

    fn sizes(&self) -> Vec<usize> {
        let perceiver = |p: &PerceiverConfig| {
            vec![
                p.hidden_size,
                p.width,
                p.depth,
                p.heads * HEAD_DIM,
                p.feed_forward_size,
                p.cross_attention_dim,
            ]
        };
        match self {
            Self::Image { image_embed_dim, num_tokens, cross_attention_dim } => {
                vec![*image_embed_dim, *num_tokens, *cross_attention_dim]
            }
            Self::Plus { num_tokens, perceiver: p } => [perceiver(p), vec![*num_tokens]].concat(),
            Self::FullFace { hidden_size, cross_attention_dim } => vec![*hidden_size, *cross_attention_dim],
            Self::FaceId { id_embed_dim, intermediate_size, num_tokens, cross_attention_dim } => {
                vec![*id_embed_dim, *intermediate_size, *num_tokens, *cross_attention_dim]
            }
            Self::FaceIdPlus { id_embed_dim, intermediate_size, num_tokens, perceiver: p, .. } => {
                [perceiver(p), vec![*id_embed_dim, *intermediate_size, *num_tokens]].concat()
            }
        }
    }

    /// Reads the projection from an adapter's checkpoint. Fails with `config-range` on impossible sizes.
    pub fn load(&self, source: &dyn TensorSource, device: &Device) -> Result<Projection> {
        if self.sizes().iter().any(|size| !(1..=MAX_SIZE).contains(size)) {
            return Err(config_range(format!("the adapter's config has impossible sizes: {self:?}")));
        }
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let norm = |width| LayerNorm::new(width, NORM_EPS, device);
        let network = match self {
            Self::Image { image_embed_dim, num_tokens, cross_attention_dim: dim } => {
                let network =
                    ImageProjection { proj: linear(*image_embed_dim, num_tokens * dim), norm: norm(*dim) };
                Network::Image(apply(network, source, PREFIX)?)
            }
            Self::Plus { num_tokens, perceiver } => {
                let shape = [1, *num_tokens, perceiver.width];
                let latents = lazy(shape, device, |shape, device| {
                    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
                });
                Network::Plus(
                    apply(Queries { latents }, source, PREFIX)?,
                    apply(Perceiver::new(perceiver, device), source, PREFIX)?,
                )
            }
            Self::FullFace { hidden_size, cross_attention_dim: dim } => {
                let proj = (linear(*hidden_size, *hidden_size), None, linear(*hidden_size, *dim), norm(*dim));
                Network::FullFace(apply(FullFaceProjection { proj }, source, PREFIX)?)
            }
            Self::FaceId { id_embed_dim, intermediate_size, num_tokens, cross_attention_dim: dim } => {
                let proj = (
                    linear(*id_embed_dim, *intermediate_size),
                    None,
                    linear(*intermediate_size, num_tokens * dim),
                );
                Network::FaceId(apply(FaceIdProjection { proj, norm: norm(*dim) }, source, PREFIX)?)
            }
            Self::FaceIdPlus {
                id_embed_dim,
                intermediate_size,
                num_tokens,
                perceiver,
                shortcut,
                shortcut_scale,
            } => {
                let width = perceiver.width;
                let proj = (
                    linear(*id_embed_dim, *intermediate_size),
                    None,
                    linear(*intermediate_size, num_tokens * width),
                );
                Network::FaceIdPlus {
                    id: apply(FaceIdProjection { proj, norm: norm(width) }, source, PREFIX)?,
                    perceiver: apply(
                        Perceiver::new(perceiver, device),
                        source,
                        &format!("{PREFIX}.perceiver_resampler"),
                    )?,
                    shortcut: shortcut.then_some(*shortcut_scale),
                }
            }
        };
        Ok(Projection { network, needs: self.needs() })
    }
}

/// A loaded projection.
#[derive(Debug)]
pub struct Projection {
    network: Network,
    needs: Needs,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds a handful of adapters")]
enum Network {
    Image(ImageProjection),
    Plus(Queries, Perceiver),
    FullFace(FullFaceProjection),
    FaceId(FaceIdProjection),
    FaceIdPlus { id: FaceIdProjection, perceiver: Perceiver, shortcut: Option<f32> },
}

impl Projection {
    /// Loads `config.json` and the projection of an `ip_adapter` folder.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        IpAdapterConfig::read(component)?.projection.load(component.tensors()?.as_ref(), device)
    }

    /// Which embeddings it reads.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Embeddings to tokens, `[batch, num_tokens, cross_attention_dim]`. Of several pictures of one person the states may be
    /// joined along their tokens.
    ///
    /// Fails with `projection-input` where one that it needs is missing or of another width.
    pub fn forward(&self, embeds: &ImagePromptEmbeds) -> Result<Tensor<3>> {
        let image_embeds = || checked("image_embeds", &embeds.image_embeds, self.needs.image_embeds);
        let hidden_states = || checked("hidden_states", &embeds.hidden_states, self.needs.hidden_states);
        let id_embeds = || checked("id_embeds", &embeds.id_embeds, self.needs.id_embeds);
        Ok(match &self.network {
            Network::Image(network) => {
                network.norm.forward(tokens(network.proj.forward(image_embeds()?), &network.norm))
            }
            Network::Plus(queries, perceiver) => {
                let states = hidden_states()?;
                let latents = queries.latents.val();
                let [_, count, width] = latents.dims();
                let latents = latents.expand([states.dims()[0], count, width]);
                perceiver.forward(latents, states)
            }
            Network::FullFace(FullFaceProjection { proj: (first, _, second, norm) }) => {
                let inner = Activation::Gelu.forward(first.forward(hidden_states()?));
                norm.forward(second.forward(inner))
            }
            Network::FaceId(network) => network.forward(id_embeds()?),
            Network::FaceIdPlus { id, perceiver, shortcut } => {
                let latents = id.forward(id_embeds()?);
                let found = perceiver.forward(latents.clone(), hidden_states()?);
                match shortcut {
                    Some(scale) => latents + found * *scale,
                    None => found,
                }
            }
        })
    }
}

/// What a projection needs, checked.
fn checked<const D: usize>(
    name: &str,
    embeds: &Option<Tensor<D>>,
    width: Option<usize>,
) -> Result<Tensor<D>> {
    let fail =
        |message| Error::input("projection-input", message, "give what the adapter's projection reads");
    let embeds = embeds.clone().ok_or_else(|| fail(format!("the adapter's projection needs {name}")))?;
    match (embeds.dims()[D - 1], width) {
        (given, Some(needed)) if given != needed => {
            Err(fail(format!("{name} is {given} wide, the adapter's projection takes {needed}")))
        }
        _ => Ok(embeds),
    }
}

/// `[batch, tokens · dim]` → `[batch, tokens, dim]`, as wide as `norm`.
fn tokens(x: Tensor<2>, norm: &LayerNorm) -> Tensor<3> {
    let ([batch, width], [dim]) = (x.dims(), norm.weight.val().dims());
    x.reshape([batch, width / dim, dim])
}

#[derive(Module, Debug)]
struct ImageProjection {
    proj: Linear,
    norm: LayerNorm,
}

/// Numbered as in checkpoints: the activation between the layers, which has no parameters, holds 1.
#[derive(Module, Debug)]
struct FullFaceProjection {
    proj: (Linear, Option<Linear>, Linear, LayerNorm),
}

/// Numbered as [`FullFaceProjection`].
#[derive(Module, Debug)]
struct FaceIdProjection {
    proj: (Linear, Option<Linear>, Linear),
    norm: LayerNorm,
}

impl FaceIdProjection {
    /// `[batch, id_embed_dim]` → `[batch, num_tokens, dim]`.
    fn forward(&self, id_embeds: Tensor<2>) -> Tensor<3> {
        let inner = Activation::Gelu.forward(self.proj.0.forward(id_embeds));
        self.norm.forward(tokens(self.proj.2.forward(inner), &self.norm))
    }
}

#[derive(Module, Debug)]
struct Queries {
    /// `[1, num_tokens, width]`.
    latents: Param<Tensor<3>>,
}

/// Queries attend to states and to themselves, layer by layer (Flamingo's resampler, arXiv 2204.14198).
#[derive(Module, Debug)]
struct Perceiver {
    proj_in: Linear,
    /// Numbered as in checkpoints: attention, then its feed-forward layer.
    layers: Vec<(PerceiverAttention, PerceiverFeedForward)>,
    proj_out: Linear,
    norm_out: LayerNorm,
}

/// Norm, layer, activation (which has no parameters), layer.
type PerceiverFeedForward = (LayerNorm, Linear, Option<Linear>, Linear);

impl Perceiver {
    fn new(config: &PerceiverConfig, device: &Device) -> Self {
        let PerceiverConfig { hidden_size, width, depth, heads, feed_forward_size, cross_attention_dim } =
            *config;
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let plain = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let norm = |width| LayerNorm::new(width, NORM_EPS, device);
        let inner = heads * HEAD_DIM;
        let layer = |_| {
            let attention = PerceiverAttention {
                norm1: norm(width),
                norm2: norm(width),
                to_q: plain(width, inner),
                to_kv: plain(width, 2 * inner),
                to_out: plain(inner, width),
                heads,
            };
            let feed_forward =
                (norm(width), plain(width, feed_forward_size), None, plain(feed_forward_size, width));
            (attention, feed_forward)
        };
        Self {
            proj_in: linear(hidden_size, width),
            layers: (0..depth).map(layer).collect(),
            proj_out: linear(width, cross_attention_dim),
            norm_out: norm(cross_attention_dim),
        }
    }

    /// `latents`: `[batch, queries, width]`; `states`: `[batch, tokens, hidden_size]` →
    /// `[batch, queries, cross_attention_dim]`.
    fn forward(&self, latents: Tensor<3>, states: Tensor<3>) -> Tensor<3> {
        let states = self.proj_in.forward(states);
        let latents = self.layers.iter().fold(latents, |x, (attention, (norm, first, _, second))| {
            let x = attention.forward(states.clone(), x.clone()) + x;
            second.forward(Activation::Gelu.forward(first.forward(norm.forward(x.clone())))) + x
        });
        self.norm_out.forward(self.proj_out.forward(latents))
    }
}

#[derive(Module, Debug)]
struct PerceiverAttention {
    /// Over the states.
    norm1: LayerNorm,
    /// Over the queries.
    norm2: LayerNorm,
    to_q: Linear,
    /// Keys, then values.
    to_kv: Linear,
    to_out: Linear,
    heads: usize,
}

impl PerceiverAttention {
    /// `states`: `[batch, tokens, width]`; `latents`: `[batch, queries, width]` → the shape of `latents`.
    fn forward(&self, states: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let (states, latents) = (self.norm1.forward(states), self.norm2.forward(latents));
        let query = split_heads(self.to_q.forward(latents.clone()), self.heads);
        let key_value = self.to_kv.forward(Tensor::cat(vec![states, latents], 1));
        let inner = key_value.dims()[2] / 2;
        let part = |start| split_heads(key_value.clone().narrow(2, start, inner), self.heads);
        self.to_out.forward(merge_heads(attention(query, part(0), part(inner), None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_config_leaves_out_acts_in_full() {
        let json = json!({
            "role": "identity", "projection": "face_id_plus", "id_embed_dim": 3, "intermediate_size": 4, "num_tokens": 2,
            "hidden_size": 5, "width": 64, "depth": 1, "heads": 1, "feed_forward_size": 6, "cross_attention_dim": 64,
            "shortcut": true,
        });
        let config: IpAdapterConfig = serde_json::from_value(json).unwrap();
        assert_eq!((config.scale, config.interval, config.block_scales.len()), (1.0, [0.0, 1.0], 0));
        let ProjectionConfig::FaceIdPlus { shortcut_scale, .. } = config.projection else {
            panic!("{config:?}")
        };
        assert_eq!(shortcut_scale, 1.0);
    }
}
