//! The levels of the UNet. A block with attentions is diffusers' `CrossAttn…Block2D`, one without `…Block2D`. What they
//! compute is in `segment.rs`.

use burn::module::Module;
use burn::tensor::Device;

use super::config::{DownBlockType, MidBlockType, UpBlockType};
use super::{Downsample2D, ResnetBlock2D, Transformer2DModel, UNet2DConditionConfig, Upsample2D};

/// `DownBlock2D` or `CrossAttnDownBlock2D`.
#[derive(Module, Debug)]
pub struct DownBlock {
    /// In order.
    pub resnets: Vec<ResnetBlock2D>,
    /// One after each ResNet block, or none.
    pub attentions: Vec<Transformer2DModel>,
    /// One, except at the coarsest level.
    pub downsamplers: Vec<Downsample2D>,
}

impl DownBlock {
    pub(super) fn new(config: &UNet2DConditionConfig, level: usize, device: &Device) -> Self {
        let channels = config.block_out_channels[level];
        let channels_in = config.block_out_channels[level.saturating_sub(1)];
        let layers = config.layers(level);
        let attentions = match config.down_block_types[level] {
            DownBlockType::DownBlock2D => 0,
            DownBlockType::CrossAttnDownBlock2D => layers,
        };
        let resnet = |i| {
            let channels_in = if i == 0 { channels_in } else { channels };
            ResnetBlock2D::new(config, channels_in, channels, device)
        };
        let coarsest = level + 1 == config.levels();
        Self {
            resnets: (0..layers).map(resnet).collect(),
            attentions: (0..attentions).map(|_| Transformer2DModel::new(config, level, device)).collect(),
            downsamplers: (!coarsest).then(|| Downsample2D::new(channels, device)).into_iter().collect(),
        }
    }
}

/// `UNetMidBlock2DCrossAttn`, or `UNetMidBlock2D` (which is a single ResNet block where a UNet uses it).
#[derive(Module, Debug)]
pub struct MidBlock {
    /// One more than attentions.
    pub resnets: Vec<ResnetBlock2D>,
    /// Between the ResNet blocks.
    pub attentions: Vec<Transformer2DModel>,
}

impl MidBlock {
    pub(super) fn new(config: &UNet2DConditionConfig, block_type: MidBlockType, device: &Device) -> Self {
        let level = config.levels() - 1;
        let channels = config.block_out_channels[level];
        let attentions = match block_type {
            MidBlockType::UNetMidBlock2D => 0,
            MidBlockType::UNetMidBlock2DCrossAttn => 1,
        };
        Self {
            resnets: (0..=attentions)
                .map(|_| ResnetBlock2D::new(config, channels, channels, device))
                .collect(),
            attentions: (0..attentions).map(|_| Transformer2DModel::new(config, level, device)).collect(),
        }
    }
}

/// `UpBlock2D` or `CrossAttnUpBlock2D`.
#[derive(Module, Debug)]
pub struct UpBlock {
    /// In order; each takes one skip connection.
    pub resnets: Vec<ResnetBlock2D>,
    /// One after each ResNet block, or none.
    pub attentions: Vec<Transformer2DModel>,
    /// One, except at the finest level.
    pub upsamplers: Vec<Upsample2D>,
}

impl UpBlock {
    /// The block of `level`, counted from the finest: `up_blocks` run the other way.
    pub(super) fn new(config: &UNet2DConditionConfig, level: usize, device: &Device) -> Self {
        let coarsest = config.levels() - 1;
        let channels = config.block_out_channels[level];
        let channels_in = config.block_out_channels[(level + 1).min(coarsest)];
        let last_skip = config.block_out_channels[level.saturating_sub(1)];
        // One skip more than the down block has layers: its downsampled input, or `conv_in`'s output.
        let layers = config.layers(level) + 1;
        let attentions = match config.up_block_types[coarsest - level] {
            UpBlockType::UpBlock2D => 0,
            UpBlockType::CrossAttnUpBlock2D => layers,
        };
        let resnet = |i| {
            let channels_in = if i == 0 { channels_in } else { channels };
            let skip = if i + 1 == layers { last_skip } else { channels };
            ResnetBlock2D::new(config, channels_in + skip, channels, device)
        };
        Self {
            resnets: (0..layers).map(resnet).collect(),
            attentions: (0..attentions).map(|_| Transformer2DModel::new(config, level, device)).collect(),
            upsamplers: (level > 0).then(|| Upsample2D::new(channels, device)).into_iter().collect(),
        }
    }
}
