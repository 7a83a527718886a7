use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::blocks::table;
use super::{
    AdaLayerNormSingle, PatchEmbed, PixArtBlock, PixArtTransformer2DModel, TIMESTEP_CHANNELS, TextProjection,
    TimestepEmbedder,
};
use crate::error::{Error, Result};
use crate::nn::{Activation, Conv2dConfig, LinearConfig, TimestepEmbedding};

/// diffusers' class.
const CLASS: &str = "PixArtTransformer2DModel";
/// Bounds of what a hostile config can allocate: several times PixArt's.
const MAX_BLOCKS: usize = 128;
const MAX_WIDTH: usize = 1 << 13;
const MAX_CHANNELS: usize = 1 << 13;
const MAX_SIDE: usize = 1 << 12;

/// diffusers' `transformer/config.json` of PixArt, with its names and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PixArtTransformer2DConfig {
    /// The class in diffusers.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Heads.
    pub num_attention_heads: usize,
    /// Channels of a head.
    pub attention_head_dim: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction; `in_channels` if absent.
    pub out_channels: Option<usize>,
    /// Blocks.
    pub num_layers: usize,
    /// Channels of a token of the condition, as the blocks see it.
    pub cross_attention_dim: Option<usize>,
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Side of the latents that the positions are made for.
    pub sample_size: usize,
    /// Side of a token in latents.
    pub patch_size: usize,
    /// Of the feed-forward layers: `gelu-approximate`.
    pub activation_fn: String,
    /// Whether scores and softmax are in f32.
    pub upcast_attention: bool,
    /// How norms are modulated: `ada_norm_single`.
    pub norm_type: String,
    /// Whether norms have weights of their own: no.
    pub norm_elementwise_affine: bool,
    /// ε of the blocks' norms.
    pub norm_eps: f64,
    /// What positions are divided by; `sample_size / 64`, at least 1, if absent.
    pub interpolation_scale: Option<f64>,
    /// Whether the timestep's embedding takes sizes: no. If absent, yes where `sample_size` is 128.
    pub use_additional_conditions: Option<bool>,
    /// Channels of a token of the condition, where it is projected first.
    pub caption_channels: Option<usize>,
    /// `default`.
    pub attention_type: String,
}

impl Default for PixArtTransformer2DConfig {
    fn default() -> Self {
        Self {
            class_name: CLASS.to_owned(),
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            cross_attention_dim: Some(1152),
            attention_bias: true,
            sample_size: 128,
            patch_size: 2,
            activation_fn: "gelu-approximate".to_owned(),
            upcast_attention: false,
            norm_type: "ada_norm_single".to_owned(),
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: None,
            attention_type: "default".to_owned(),
        }
    }
}

impl PixArtTransformer2DConfig {
    /// Channels of a token inside.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of a token that cross-attention takes.
    pub(super) fn context_channels(&self) -> usize {
        self.cross_attention_dim.unwrap_or_else(|| self.width())
    }

    /// Channels of a token of the [condition](crate::condition::Condition).
    pub fn token_channels(&self) -> usize {
        self.caption_channels.unwrap_or_else(|| self.context_channels())
    }

    /// Fails as [`init`](Self::init) does.
    pub fn check(&self) -> Result<()> {
        let conditions = self.use_additional_conditions.unwrap_or(self.sample_size == 128);
        let supported = [
            ("_class_name", self.class_name == CLASS, self.class_name.clone()),
            ("norm_type", self.norm_type == "ada_norm_single", self.norm_type.clone()),
            ("activation_fn", self.activation_fn == "gelu-approximate", self.activation_fn.clone()),
            ("attention_type", self.attention_type == "default", self.attention_type.clone()),
            ("norm_elementwise_affine", !self.norm_elementwise_affine, "true".to_owned()),
            (
                "use_additional_conditions",
                !conditions,
                "true (or absent, with a sample_size of 128)".to_owned(),
            ),
            (
                "out_channels",
                self.out_channels.is_none_or(|out| out == self.in_channels),
                format!("{:?} of {} in_channels", self.out_channels, self.in_channels),
            ),
        ];
        if let Some((name, _, value)) = supported.iter().find(|(_, fits, _)| !fits) {
            return Err(Error::weights(
                "config-unsupported",
                format!("transformer config: {name} is {value}, which is not supported"),
                format!(
                    "use a {CLASS} with `ada_norm_single`, without sizes among its conditions, that predicts what it takes"
                ),
            ));
        }
        let ranges = [
            ("num_attention_heads", self.num_attention_heads, 1..=1024),
            ("attention_head_dim", self.attention_head_dim, 1..=1024),
            ("heads by their channels", self.width(), 4..=MAX_WIDTH),
            ("in_channels", self.in_channels, 1..=MAX_CHANNELS),
            ("num_layers", self.num_layers, 0..=MAX_BLOCKS),
            ("cross_attention_dim", self.context_channels(), 1..=MAX_CHANNELS),
            ("caption_channels", self.token_channels(), 1..=MAX_CHANNELS),
            ("patch_size", self.patch_size, 1..=16),
            ("sample_size", self.sample_size, self.patch_size..=MAX_SIDE),
        ];
        if let Some((name, value, bounds)) = ranges.iter().find(|(_, value, bounds)| !bounds.contains(value))
        {
            let message = format!("{name} is {value}; it must lie in {}..={}", bounds.start(), bounds.end());
            return Err(range(message));
        }
        if !self.width().is_multiple_of(4) {
            return Err(range(format!(
                "{} channels have no sinusoids of two axes; take a multiple of 4",
                self.width()
            )));
        }
        if self.caption_channels.is_some() && self.context_channels() != self.width() {
            return Err(range(format!(
                "caption_channels are projected to {} channels; cross_attention_dim is {}",
                self.width(),
                self.context_channels()
            )));
        }
        let numbers = [
            ("norm_eps", self.norm_eps, f64::MIN_POSITIVE, 1.0),
            ("interpolation_scale", self.interpolation_scale(), 1e-3, 1e3),
        ];
        match numbers.iter().find(|(_, value, least, most)| !(*least..=*most).contains(value)) {
            Some((name, value, ..)) => Err(range(format!("{name} is {value}"))),
            None => Ok(()),
        }
    }

    fn interpolation_scale(&self) -> f64 {
        self.interpolation_scale.unwrap_or((self.sample_size / 64).max(1) as f64)
    }

    /// Creates the model with random weights; at first it predicts 0, whatever the condition. Fails with `config-unsupported` on
    /// what would be another architecture, and with `config-range`, naming the value, where a size is impossible.
    pub fn init(&self, device: &Device) -> Result<PixArtTransformer2DModel> {
        self.check()?;
        let width = self.width();
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Ok(PixArtTransformer2DModel {
            pos_embed: PatchEmbed {
                proj: Conv2dConfig::new(self.in_channels, width, self.patch_size)
                    .with_stride(self.patch_size)
                    .init(device),
            },
            adaln_single: AdaLayerNormSingle {
                emb: TimestepEmbedder {
                    timestep_embedder: TimestepEmbedding::new(
                        [TIMESTEP_CHANNELS, width],
                        true,
                        0.0,
                        Activation::Silu,
                        device,
                    ),
                },
                linear: LinearConfig::new(width, 6 * width).init_zero(device),
            },
            caption_projection: self.caption_channels.map(|channels| TextProjection {
                linear_1: linear(channels, width),
                linear_2: linear(width, width),
            }),
            transformer_blocks: (0..self.num_layers).map(|i| PixArtBlock::new(self, i, device)).collect(),
            scale_shift_table: table(2, width, device),
            proj_out: LinearConfig::new(width, self.patch_size.pow(2) * self.in_channels).init_zero(device),
            patch_size: self.patch_size,
            base_size: self.sample_size / self.patch_size,
            interpolation_scale: self.interpolation_scale(),
        })
    }
}

fn range(message: String) -> Error {
    Error::weights(
        "config-range",
        format!("transformer config: {message}"),
        "use the config.json that belongs to the weights",
    )
}
