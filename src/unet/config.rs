use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DownBlock, MidBlock, UNet2DConditionModel, UpBlock};
use crate::error::{Error, Result};
use crate::nn::{Activation, Conv2dConfig, GroupNorm, LinearConfig, TimestepEmbedding};
use crate::weights::{check_range, config_range};

/// A block of `down_block_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// ResNet blocks.
    DownBlock2D,
    /// ResNet blocks, each with a transformer.
    CrossAttnDownBlock2D,
}

/// `mid_block_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlockType {
    /// One ResNet block.
    UNetMidBlock2D,
    /// A transformer between two ResNet blocks.
    UNetMidBlock2DCrossAttn,
}

/// A block of `up_block_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// ResNet blocks.
    UpBlock2D,
    /// ResNet blocks, each with a transformer.
    CrossAttnUpBlock2D,
}

/// A value for all levels, or one per level from the finest to the coarsest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// For all levels.
    All(usize),
    /// One per level.
    Each(Vec<usize>),
}

impl PerLevel {
    /// The value at `level`; 0, which no size may be, where the list is too short.
    fn at(&self, level: usize) -> usize {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values.get(level).copied().unwrap_or(0),
        }
    }

    fn fits(&self, levels: usize) -> bool {
        match self {
            Self::All(_) => true,
            Self::Each(values) => values.len() == levels,
        }
    }
}

/// diffusers' `unet/config.json`, with its names and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    /// Height and width of the latents it was trained on: one number, or `[height, width]`. Not a limit.
    pub sample_size: Option<Value>,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Maps the input from [0, 1] to [−1, 1].
    pub center_input_sample: bool,
    /// Cosines before sines in the timestep embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the timestep embedding's lowest frequency.
    pub freq_shift: f64,
    /// Finest level first.
    pub down_block_types: Vec<DownBlockType>,
    /// `null` for none.
    pub mid_block_type: Option<MidBlockType>,
    /// Coarsest level first.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// ResNet blocks of each level on the way down; there is one more on the way up.
    pub layers_per_block: PerLevel,
    /// Padding of the downsampling convolutions; 1.
    pub downsample_padding: usize,
    /// Activation of ResNet blocks and timestep embedding.
    pub act_fn: Activation,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// Epsilon of the ResNet blocks' GroupNorms.
    pub norm_eps: f64,
    /// Channels of the guidance tokens.
    pub cross_attention_dim: usize,
    /// Transformer blocks in each transformer.
    pub transformer_layers_per_block: PerLevel,
    /// The **number** of attention heads: diffusers keeps this historical misnomer for old configs' sake.
    pub attention_head_dim: PerLevel,
    /// The number of attention heads; stands before `attention_head_dim` where it is given.
    pub num_attention_heads: Option<PerLevel>,
    /// Whether checkpoints hold the transformers' projections as `[out, in]` rather than as 1×1 convolutions. Both load;
    /// this crate saves `[out, in]`, so save `true`.
    pub use_linear_projection: bool,
    /// Computes attention scores in f32.
    pub upcast_attention: bool,
    /// What is added to the timestep's embedding: nothing, or `simple_projection`, a linear layer of `class_labels`.
    pub class_embed_type: Option<String>,
    /// Numbers of a picture's `class_labels`.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Channels of the timestep embedding; 4 × the first level's if absent.
    pub time_embedding_dim: Option<usize>,
    /// Kernel of the first convolution.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution.
    pub conv_out_kernel: usize,
    /// Everything else in the file; checked, because some of it changes the architecture.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        let (down, up) = (DownBlockType::CrossAttnDownBlock2D, UpBlockType::CrossAttnUpBlock2D);
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![down, down, down, DownBlockType::DownBlock2D],
            mid_block_type: Some(MidBlockType::UNetMidBlock2DCrossAttn),
            up_block_types: vec![UpBlockType::UpBlock2D, up, up, up],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::All(2),
            downsample_padding: 1,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: PerLevel::All(1),
            attention_head_dim: PerLevel::All(8),
            num_attention_heads: None,
            use_linear_projection: false,
            upcast_attention: false,
            class_embed_type: None,
            projection_class_embeddings_input_dim: None,
            time_embedding_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            other: BTreeMap::new(),
        }
    }
}

/// Largest accepted number of channels: several times any published model's, and bounds what a config can allocate.
const MAX_CHANNELS: usize = 1 << 13;
/// Largest accepted number of levels, of layers in a level, and of blocks in a transformer.
const MAX_DEPTH: usize = 16;

impl UNet2DConditionConfig {
    /// `[height, width]` of the latents that the UNet was trained on, where the config says: one number or two.
    pub fn sample_sides(&self) -> Option<[usize; 2]> {
        let value = self.sample_size.as_ref()?;
        let side = |value: &serde_json::Value| Some(value.as_u64()? as usize);
        match value.as_array().map(Vec::as_slice) {
            Some([height, width]) => Some([side(height)?, side(width)?]),
            Some(_) => None,
            // As diffusers' pipelines: the first files of Stable Diffusion state less than they were trained on.
            None => {
                side(value).map(|side| if self.is_old() { side.max(64) } else { side }).map(|side| [side; 2])
            }
        }
    }

    /// Creates the model. Fails, naming the value, where a size is impossible or the config asks for something that
    /// Stable Diffusion 1.x and 2.x do not use.
    pub fn init(&self, device: &Device) -> Result<UNet2DConditionModel> {
        self.check()?;
        let levels = self.levels();
        let (first, kernel_in, kernel_out) =
            (self.block_out_channels[0], self.conv_in_kernel, self.conv_out_kernel);
        let mut unet = UNet2DConditionModel {
            conv_in: Conv2dConfig::new(self.in_channels, first, kernel_in)
                .with_padding(kernel_in / 2)
                .init(device),
            time_embedding: TimestepEmbedding::new(
                // Sinusoids have as many channels as the first level, as in diffusers.
                [self.block_out_channels[0], self.time_embed_dim()],
                self.flip_sin_to_cos,
                self.freq_shift,
                self.act_fn,
                device,
            ),
            class_embedding: self
                .class_labels()
                .map(|width| LinearConfig::new(width, self.time_embed_dim()).init(device)),
            down_blocks: (0..levels).map(|level| DownBlock::new(self, level, device)).collect(),
            mid_block: self.mid_block_type.map(|block_type| MidBlock::new(self, block_type, device)),
            up_blocks: (0..levels).rev().map(|level| UpBlock::new(self, level, device)).collect(),
            conv_norm_out: GroupNorm::new(self.norm_num_groups, first, self.norm_eps, device),
            conv_out: Conv2dConfig::new(first, self.out_channels, kernel_out)
                .with_padding(kernel_out / 2)
                .init(device),
            center_input_sample: self.center_input_sample,
            act: self.act_fn,
        };
        for (layer, attention) in unet.cross_attentions().into_iter().enumerate() {
            attention.layer = layer;
        }
        Ok(unet)
    }

    /// Whether a diffusers before 0.9 wrote it.
    fn is_old(&self) -> bool {
        let version = self.other.get("_diffusers_version").and_then(Value::as_str).unwrap_or_default();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        matches!((parts.next(), parts.next()), (Some(Some(0)), Some(Some(minor))) if minor < 9)
    }

    /// Number of resolutions.
    pub(super) fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// ResNet blocks on the way down at `level`.
    pub(super) fn layers(&self, level: usize) -> usize {
        self.layers_per_block.at(level)
    }

    /// Transformer blocks in each transformer of `level`.
    pub(super) fn transformer_layers(&self, level: usize) -> usize {
        self.transformer_layers_per_block.at(level)
    }

    /// Attention heads at `level`.
    pub(super) fn heads(&self, level: usize) -> usize {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(level)
    }

    /// Channels of the timestep embedding.
    pub(super) fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    /// Numbers of a picture's class labels, where the UNet takes any.
    pub fn class_labels(&self) -> Option<usize> {
        self.projection_class_embeddings_input_dim.filter(|_| self.class_embed_type.is_some())
    }

    /// Fails as [`init`](Self::init) does.
    pub fn check(&self) -> Result<()> {
        self.check_unsupported()?;
        let levels = self.levels();
        in_range("number of block_out_channels", levels, MAX_DEPTH)?;
        let counts = [
            ("down_block_types", self.down_block_types.len() == levels),
            ("up_block_types", self.up_block_types.len() == levels),
            ("layers_per_block", self.layers_per_block.fits(levels)),
            ("transformer_layers_per_block", self.transformer_layers_per_block.fits(levels)),
            ("attention_head_dim", self.attention_head_dim.fits(levels)),
            ("num_attention_heads", self.num_attention_heads.as_ref().is_none_or(|heads| heads.fits(levels))),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, fits)| !fits) {
            return Err(range(format!(
                "{name} does not have one value for each of {levels} block_out_channels"
            )));
        }
        in_range("in_channels", self.in_channels, MAX_CHANNELS)?;
        in_range("out_channels", self.out_channels, MAX_CHANNELS)?;
        in_range("cross_attention_dim", self.cross_attention_dim, MAX_CHANNELS)?;
        in_range("norm_num_groups", self.norm_num_groups, MAX_CHANNELS)?;
        for level in 0..levels {
            let channels = self.block_out_channels[level];
            in_range("block_out_channels", channels, MAX_CHANNELS)?;
            in_range("layers_per_block", self.layers(level), MAX_DEPTH)?;
            in_range("transformer_layers_per_block", self.transformer_layers(level), MAX_DEPTH)?;
            in_range("attention_head_dim (the number of heads)", self.heads(level), channels)?;
            if !channels.is_multiple_of(self.heads(level)) {
                return Err(range(format!(
                    "{channels} channels cannot be split into {} heads",
                    self.heads(level)
                )));
            }
            if !channels.is_multiple_of(self.norm_num_groups) {
                return Err(range(format!(
                    "{channels} channels cannot be split into norm_num_groups = {}",
                    self.norm_num_groups
                )));
            }
        }
        if self.class_embed_type.is_some() {
            let width = self.projection_class_embeddings_input_dim.unwrap_or(0);
            in_range("projection_class_embeddings_input_dim", width, MAX_CHANNELS)?;
        }
        in_range("time_embedding_dim", self.time_embed_dim(), 4 * MAX_CHANNELS)?;
        for (name, kernel) in
            [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)]
        {
            in_range(name, kernel, 15)?;
            if kernel % 2 == 0 {
                return Err(range(format!("{name} = {kernel} is even: it would change the latents' size")));
            }
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(range(format!("norm_eps = {} is not between 0 and 1", self.norm_eps)));
        }
        // The embedding divides by `half the channels − freq_shift`.
        if !(self.freq_shift >= 0.0 && self.freq_shift < (self.block_out_channels[0] / 2) as f64) {
            return Err(range(format!("freq_shift = {} is out of range", self.freq_shift)));
        }
        Ok(())
    }

    fn check_unsupported(&self) -> Result<()> {
        let only = [
            ("_class_name", json!("UNet2DConditionModel")),
            ("addition_embed_type", Value::Null),
            ("attention_type", json!("default")),
            ("class_embeddings_concat", json!(false)),
            ("cross_attention_norm", Value::Null),
            ("dual_cross_attention", json!(false)),
            ("encoder_hid_dim", Value::Null),
            ("encoder_hid_dim_type", Value::Null),
            ("mid_block_only_cross_attention", json!(false)),
            ("mid_block_scale_factor", json!(1)),
            ("num_class_embeds", Value::Null),
            ("only_cross_attention", json!(false)),
            ("resnet_out_scale_factor", json!(1)),
            ("resnet_skip_time_act", json!(false)),
            ("resnet_time_scale_shift", json!("default")),
            ("reverse_transformer_layers_per_block", Value::Null),
            ("time_cond_proj_dim", Value::Null),
            ("time_embedding_act_fn", Value::Null),
            ("time_embedding_type", json!("positional")),
            ("timestep_post_act", Value::Null),
        ];
        for (name, supported) in &only {
            if let Some(value) = self.other.get(*name).filter(|value| !is_default_or_equal(value, supported))
            {
                return Err(unsupported(format!("{name} = {value}; only {supported} is supported")));
            }
        }
        if let Some(class_embed_type) =
            self.class_embed_type.as_ref().filter(|kind| *kind != "simple_projection")
        {
            return Err(unsupported(format!(
                "class_embed_type = {class_embed_type}; only simple_projection is supported"
            )));
        }
        if self.downsample_padding != 1 {
            return Err(unsupported(format!(
                "downsample_padding = {}; only 1 is supported",
                self.downsample_padding
            )));
        }
        Ok(())
    }
}

/// Whether a config's value means the same as `supported`: `null` means the default, and a list may repeat a value
/// for each level.
fn is_default_or_equal(value: &Value, supported: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().all(|value| is_default_or_equal(value, supported)),
        Value::Number(number) => number.as_f64() == supported.as_f64(),
        _ => value == supported,
    }
}

fn in_range(name: &str, value: usize, max: usize) -> Result<()> {
    check_range(&format!("UNet config: {name}"), value, 1..=max)
}

fn range(message: String) -> Error {
    config_range(format!("UNet config: {message}"))
}

fn unsupported(message: String) -> Error {
    Error::weights(
        "config-unsupported",
        format!("UNet config: {message}"),
        "use a Stable Diffusion 1.x or 2.x UNet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: Value) -> serde_json::Result<UNet2DConditionConfig> {
        serde_json::from_value(config)
    }

    #[test]
    fn a_sample_size_is_one_side_or_two() {
        let sides = |sample_size: Option<Value>| {
            UNet2DConditionConfig { sample_size, ..UNet2DConditionConfig::default() }.sample_sides()
        };
        assert_eq!(sides(Some(64.into())), Some([64, 64]));
        assert_eq!(sides(Some(serde_json::json!([64, 32]))), Some([64, 32]));
        assert_eq!(sides(Some(serde_json::json!([64]))), None);
        assert_eq!(sides(Some("64".into())), None);
        let written_by = |version: &str, sample_size: Value| {
            parse(json!({ "sample_size": sample_size, "_diffusers_version": version }))
                .unwrap()
                .sample_sides()
        };
        assert_eq!(written_by("0.6.0", json!(32)), Some([64, 64]));
        assert_eq!(written_by("0.6.0", json!(96)), Some([96, 96]));
        assert_eq!(written_by("0.6.0", json!([32, 48])), Some([32, 48]));
        assert_eq!(written_by("0.9.0", json!(32)), Some([32, 32]));
        assert_eq!(sides(None), None);
    }

    fn code_of(config: Value) -> (&'static str, String) {
        let error = parse(config).unwrap().init(&Device::flex()).unwrap_err();
        (error.code, error.message)
    }

    #[test]
    fn stable_diffusion_sizes_are_built_without_allocating_them() {
        for (config, params) in [
            // The published models' numbers of parameters.
            (json!({"cross_attention_dim": 768}), 859_520_964),
            (
                json!({"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
                       "use_linear_projection": true, "dual_cross_attention": false}),
                865_910_724,
            ),
        ] {
            let unet = parse(config).unwrap().init(&Device::flex()).unwrap();
            assert_eq!(burn::module::Module::num_params(&unet), params);
        }
    }

    #[test]
    fn impossible_sizes_are_named() {
        let huge = u64::MAX / 4;
        for (config, name) in [
            (json!({"block_out_channels": []}), "block_out_channels"),
            (json!({"block_out_channels": [320, 640]}), "down_block_types"),
            (json!({"block_out_channels": [320, 640, 1280, 0]}), "block_out_channels"),
            (json!({"block_out_channels": [320, 640, 1280, huge]}), "block_out_channels"),
            (json!({"block_out_channels": [320, 640, 1280, 1281]}), "heads"),
            (json!({"in_channels": 0}), "in_channels"),
            (json!({"out_channels": huge}), "out_channels"),
            (json!({"cross_attention_dim": 0}), "cross_attention_dim"),
            (json!({"layers_per_block": 0}), "layers_per_block"),
            (json!({"layers_per_block": [2, 2, 2]}), "layers_per_block"),
            (json!({"layers_per_block": huge}), "layers_per_block"),
            (json!({"transformer_layers_per_block": [1, 1, 1, 0]}), "transformer_layers_per_block"),
            (json!({"attention_head_dim": 0}), "heads"),
            (json!({"num_attention_heads": [8]}), "num_attention_heads"),
            (json!({"norm_num_groups": 0}), "norm_num_groups"),
            (json!({"norm_num_groups": 24}), "norm_num_groups"),
            (json!({"norm_eps": 0}), "norm_eps"),
            (json!({"conv_in_kernel": 4}), "conv_in_kernel"),
            (json!({"freq_shift": 160}), "freq_shift"),
            (json!({"time_embedding_dim": huge}), "time_embedding_dim"),
        ] {
            let (code, message) = code_of(config.clone());
            assert_eq!(code, "config-range", "{config}");
            assert!(message.contains(name), "{config}: {message}");
        }
    }

    #[test]
    fn another_architecture_is_refused_and_its_key_named() {
        for (name, value) in [
            ("addition_embed_type", json!("text_time")),
            ("class_embed_type", json!("projection")),
            ("downsample_padding", json!(0)),
            ("encoder_hid_dim", json!(4096)),
            ("only_cross_attention", json!([true, true, true, false])),
            ("resnet_time_scale_shift", json!("scale_shift")),
            ("time_embedding_type", json!("fourier")),
            ("_class_name", json!("FluxTransformer2DModel")),
        ] {
            let (code, message) = code_of(json!({ name: value }));
            assert_eq!(code, "config-unsupported", "{name}");
            assert!(message.contains(name), "{message}");
        }
        assert!(parse(json!({"down_block_types": ["AttnDownBlock2D"]})).is_err());
        assert!(parse(json!({"layers_per_block": -1})).is_err());
    }

    #[test]
    fn a_config_survives_being_written_and_read() {
        let config = parse(json!({"sample_size": [8, 9], "mid_block_type": null, "norm_eps": 1e-4})).unwrap();
        assert_eq!(parse(serde_json::to_value(&config).unwrap()).unwrap(), config);
        assert_eq!(config.mid_block_type, None);
    }
}
