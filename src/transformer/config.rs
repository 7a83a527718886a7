use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::blocks::Sizes;
use super::modulation::{AdaLayerNorm, Modulation, TimestepGuidanceEmbedding};
use super::positions::{AXES, Positions};
use super::{DoubleBlock, Flux2Transformer2DModel, SingleBlock};
use crate::error::{Error, Result};
use crate::nn::LinearConfig;

/// diffusers' class.
const CLASS: &str = "Flux2Transformer2DModel";
/// Bounds of what a hostile config can allocate: several times FLUX.2's largest.
const MAX_BLOCKS: usize = 128;
const MAX_WIDTH: usize = 1 << 14;
const MAX_CHANNELS: usize = 1 << 16;

/// diffusers' `transformer/config.json` of FLUX.2, with its names and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flux2Transformer2DConfig {
    /// The class in diffusers.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Each token becomes as many squared; 1.
    pub patch_size: usize,
    /// Channels of a picture's token.
    pub in_channels: usize,
    /// Channels of the prediction; `in_channels` if absent.
    pub out_channels: Option<usize>,
    /// Double-stream blocks.
    pub num_layers: usize,
    /// Single-stream blocks.
    pub num_single_layers: usize,
    /// Channels of a head.
    pub attention_head_dim: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Channels of a token of text.
    pub joint_attention_dim: usize,
    /// Sinusoids of the timestep's embedding.
    pub timestep_guidance_channels: usize,
    /// Width of the feed-forward layers over that of the tokens.
    pub mlp_ratio: f64,
    /// Channels of a head that each axis of a position turns.
    pub axes_dims_rope: Vec<usize>,
    /// Base of the positions' frequencies.
    pub rope_theta: f64,
    /// ε of every norm.
    pub eps: f64,
    /// Whether the model takes a guidance scale.
    pub guidance_embeds: bool,
}

impl Default for Flux2Transformer2DConfig {
    fn default() -> Self {
        Self {
            class_name: CLASS.to_owned(),
            patch_size: 1,
            in_channels: 128,
            out_channels: None,
            num_layers: 8,
            num_single_layers: 48,
            attention_head_dim: 128,
            num_attention_heads: 48,
            joint_attention_dim: 15_360,
            timestep_guidance_channels: 256,
            mlp_ratio: 3.0,
            axes_dims_rope: vec![32; AXES],
            rope_theta: 2000.0,
            eps: 1e-6,
            guidance_embeds: true,
        }
    }
}

impl Flux2Transformer2DConfig {
    /// Channels of a token inside.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Fails as [`init`](Self::init) does.
    pub fn check(&self) -> Result<()> {
        if self.class_name != CLASS {
            return Err(Error::weights(
                "config-unsupported",
                format!("transformer class '{}' is not supported", self.class_name),
                format!("use a {CLASS}"),
            ));
        }
        let ranges = [
            ("patch_size", self.patch_size, 1..=16),
            ("in_channels", self.in_channels, 1..=MAX_CHANNELS),
            ("out_channels", self.out_channels.unwrap_or(1), 1..=MAX_CHANNELS),
            ("num_layers", self.num_layers, 0..=MAX_BLOCKS),
            ("num_single_layers", self.num_single_layers, 0..=MAX_BLOCKS),
            ("attention_head_dim", self.attention_head_dim, 2..=1024),
            ("num_attention_heads", self.num_attention_heads, 1..=1024),
            ("heads by their channels", self.width(), 2..=MAX_WIDTH),
            ("joint_attention_dim", self.joint_attention_dim, 1..=MAX_CHANNELS),
            ("timestep_guidance_channels", self.timestep_guidance_channels, 2..=MAX_WIDTH),
        ];
        if let Some((name, value, bounds)) = ranges.iter().find(|(_, value, bounds)| !bounds.contains(value))
        {
            return Err(range(format!(
                "{name} is {value}; it must lie in {}..={}",
                bounds.start(),
                bounds.end()
            )));
        }
        let numbers = [
            ("mlp_ratio", self.mlp_ratio, 1.0 / self.width() as f64, 64.0),
            ("rope_theta", self.rope_theta, 1.0, 1e9),
            ("eps", self.eps, f64::MIN_POSITIVE, 1.0),
        ];
        if let Some((name, value, ..)) =
            numbers.iter().find(|(_, value, least, most)| !(*least..=*most).contains(value))
        {
            return Err(range(format!("{name} is {value}")));
        }
        let axes = &self.axes_dims_rope;
        let even = axes.iter().all(|dim| dim.is_multiple_of(2) && *dim <= self.attention_head_dim);
        if axes.len() != AXES || !even || axes.iter().sum::<usize>() != self.attention_head_dim {
            return Err(range(format!(
                "axes_dims_rope is {axes:?}; {AXES} even numbers that sum to attention_head_dim, {}, are needed",
                self.attention_head_dim
            )));
        }
        Ok(())
    }

    /// Creates the model with random weights. Fails with `config-unsupported` on another class, and with `config-range`,
    /// naming the value, where a size is impossible.
    pub fn init(&self, device: &Device) -> Result<Flux2Transformer2DModel> {
        self.check()?;
        let width = self.width();
        let sizes = Sizes {
            width,
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            // As Python's int().
            inner: (width as f64 * self.mlp_ratio) as usize,
            eps: self.eps,
        };
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        let out = self.patch_size.pow(2) * self.out_channels.unwrap_or(self.in_channels);
        Ok(Flux2Transformer2DModel {
            time_guidance_embed: TimestepGuidanceEmbedding::new(
                self.timestep_guidance_channels,
                width,
                self.guidance_embeds,
                device,
            ),
            double_stream_modulation_img: Modulation::new(width, 2, device),
            double_stream_modulation_txt: Modulation::new(width, 2, device),
            single_stream_modulation: Modulation::new(width, 1, device),
            x_embedder: linear(self.in_channels, width),
            context_embedder: linear(self.joint_attention_dim, width),
            transformer_blocks: (0..self.num_layers).map(|_| DoubleBlock::new(&sizes, device)).collect(),
            single_transformer_blocks: (0..self.num_single_layers)
                .map(|_| SingleBlock::new(&sizes, device))
                .collect(),
            norm_out: AdaLayerNorm::new(width, device),
            proj_out: linear(width, out),
            eps: self.eps,
            in_channels: self.in_channels,
            joint_attention_dim: self.joint_attention_dim,
            positions: Positions::new(&self.axes_dims_rope, self.rope_theta),
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

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    fn tiny() -> Flux2Transformer2DConfig {
        Flux2Transformer2DConfig {
            in_channels: 4,
            num_layers: 1,
            num_single_layers: 1,
            attention_head_dim: 8,
            num_attention_heads: 2,
            joint_attention_dim: 6,
            timestep_guidance_channels: 8,
            axes_dims_rope: vec![2; 4],
            ..Default::default()
        }
    }

    #[test]
    fn absurd_configs_are_errors_not_panics() {
        let absurd: [fn(&mut Flux2Transformer2DConfig); 22] = [
            |config| config.patch_size = 0,
            |config| config.patch_size = usize::MAX,
            |config| config.in_channels = 0,
            |config| config.out_channels = Some(0),
            |config| config.out_channels = Some(usize::MAX),
            |config| config.num_layers = usize::MAX,
            |config| config.num_single_layers = usize::MAX,
            |config| config.attention_head_dim = 0,
            |config| config.attention_head_dim = usize::MAX,
            |config| config.num_attention_heads = 0,
            |config| config.num_attention_heads = usize::MAX,
            |config| {
                config.num_attention_heads = 1024;
                config.attention_head_dim = 1024;
                config.axes_dims_rope = vec![256; 4];
            },
            |config| config.joint_attention_dim = 0,
            |config| config.timestep_guidance_channels = 1,
            |config| config.mlp_ratio = f64::NAN,
            |config| config.mlp_ratio = 0.0,
            |config| config.mlp_ratio = 1e9,
            |config| config.axes_dims_rope = vec![8],
            |config| config.axes_dims_rope = vec![3, 1, 2, 2],
            |config| config.axes_dims_rope = vec![usize::MAX - 1; 4],
            |config| config.rope_theta = 0.0,
            |config| config.eps = f64::NAN,
        ];
        for alter in absurd {
            let mut config = tiny();
            alter(&mut config);
            let error = config.init(&Device::flex()).unwrap_err();
            assert_eq!(error.code, "config-range", "{config:?}");
        }
        let other = Flux2Transformer2DConfig { class_name: "FluxTransformer2DModel".to_owned(), ..tiny() };
        assert_eq!(other.init(&Device::flex()).unwrap_err().code, "config-unsupported");
        tiny().init(&Device::flex()).unwrap();
    }
}
