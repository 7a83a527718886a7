//! Tiny autoencoder (Bohan, TAESD) in diffusers' `AutoencoderTiny` layout: previews while a picture is made.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{MAX_CHANNELS, MAX_LAYERS, MAX_LEVELS, conv3, range};
use crate::error::{Error, Result};
use crate::nn::{Activation, Conv2d, upsample_nearest};

/// `config.json` of an `AutoencoderTiny`; names and defaults are diffusers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    /// The class in diffusers, `AutoencoderTiny`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Channels of the picture that is encoded.
    pub in_channels: usize,
    /// Channels of the picture that is decoded.
    pub out_channels: usize,
    /// Channels of each encoder level; all the same.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each decoder level; all the same.
    pub decoder_block_out_channels: Vec<usize>,
    /// Activation, but for that of a block's sum, which is ReLU.
    pub act_fn: Activation,
    /// `nearest`.
    pub upsample_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Factor of each decoder level.
    pub upsampling_scaling_factor: usize,
    /// Blocks of each encoder level.
    pub num_encoder_blocks: Vec<usize>,
    /// Blocks of each decoder level.
    pub num_decoder_blocks: Vec<usize>,
    /// Latents are multiplied by this for the denoiser.
    pub scaling_factor: f64,
    /// Subtracted from latents for the denoiser.
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            class_name: "AutoencoderTiny".to_owned(),
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: Activation::Relu,
            upsample_fn: "nearest".to_owned(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

impl AutoencoderTinyConfig {
    /// Side of a picture over side of its latents.
    pub fn downsampling(&self) -> usize {
        1 << self.num_encoder_blocks.len().saturating_sub(1).min(MAX_LEVELS)
    }

    pub(super) fn check(&self) -> Result<()> {
        for (name, channels, blocks) in [
            ("encoder", &self.encoder_block_out_channels, &self.num_encoder_blocks),
            ("decoder", &self.decoder_block_out_channels, &self.num_decoder_blocks),
        ] {
            if !(1..=MAX_LEVELS).contains(&channels.len())
                || blocks.len() != channels.len()
                || blocks.iter().any(|count| *count > MAX_LAYERS)
                || !(1..=MAX_CHANNELS).contains(&channels[0])
                || channels.iter().any(|count| *count != channels[0])
            {
                return Err(range(
                    "AutoencoderTiny",
                    format!("{name} channels {channels:?}, blocks {blocks:?}"),
                ));
            }
        }
        for (name, channels) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
        ] {
            if !(1..=64).contains(&channels) {
                return Err(range("AutoencoderTiny", format!("{name} is {channels}")));
            }
        }
        let levels = self.num_decoder_blocks.len() as u32 - 1;
        if self.upsampling_scaling_factor.checked_pow(levels) != Some(self.downsampling()) {
            return Err(range(
                "AutoencoderTiny",
                "the decoder does not undo the encoder's halvings".to_owned(),
            ));
        }
        if self.upsample_fn != "nearest" {
            return Err(Error::weights(
                "config-unsupported",
                format!("AutoencoderTiny config: upsample_fn '{}' is not supported", self.upsample_fn),
                "use an autoencoder with upsample_fn 'nearest'",
            ));
        }
        Ok(())
    }

    /// Creates the autoencoder with random weights. Fails on sizes that are out of range or unsupported.
    pub fn init(&self, device: &Device) -> Result<AutoencoderTiny> {
        self.check()?;
        let (act, conv) = (self.act_fn, |from, to| conv3(from, to, 1));
        let width = self.encoder_block_out_channels[0];
        let mut encoder = Vec::new();
        for (i, &count) in self.num_encoder_blocks.iter().enumerate() {
            encoder.push(Stage::Conv(match i {
                0 => conv(self.in_channels, width).init(device),
                _ => conv3(width, width, 2).with_bias(false).init(device),
            }));
            encoder.extend((0..count).map(|_| Stage::Block(Block::new(width, act, device))));
        }
        encoder.push(Stage::Conv(conv(width, self.latent_channels).init(device)));

        let width = self.decoder_block_out_channels[0];
        let mut decoder =
            vec![Stage::Conv(conv(self.latent_channels, width).init(device)), Stage::Act(Act { act })];
        for (i, &count) in self.num_decoder_blocks.iter().enumerate() {
            decoder.extend((0..count).map(|_| Stage::Block(Block::new(width, act, device))));
            if i + 1 < self.num_decoder_blocks.len() {
                decoder.push(Stage::Upsample(Upsample { factor: self.upsampling_scaling_factor }));
                decoder.push(Stage::Conv(conv(width, width).with_bias(false).init(device)));
            } else {
                decoder.push(Stage::Conv(conv(width, self.out_channels).init(device)));
            }
        }
        Ok(AutoencoderTiny { encoder: Layers { layers: encoder }, decoder: Layers { layers: decoder } })
    }
}

/// TAESD: a deterministic encoder and a decoder, fast and approximate.
#[derive(Module, Debug)]
pub struct AutoencoderTiny {
    encoder: Layers,
    decoder: Layers,
}

impl AutoencoderTiny {
    /// Pictures `[n, in_channels, h, w]` in [-1, 1] → latents `[n, latent_channels, h / f, w / f]`.
    pub fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        // The network's own pictures are in [0, 1].
        self.encoder.forward((images + 1.0) / 2.0)
    }

    /// Latents → pictures in about [-1, 1].
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        // Soft clamp to ±3, upstream's bound.
        self.decoder.forward((latents / 3.0).tanh() * 3.0) * 2.0 - 1.0
    }
}

#[derive(Module, Debug)]
struct Layers {
    layers: Vec<Stage>,
}

impl Layers {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(x, |x, stage| stage.forward(x))
    }
}

/// An entry of a `Sequential`: those without weights count in the names too.
#[derive(Module, Debug)]
enum Stage {
    Conv(Conv2d),
    Block(Block),
    Act(Act),
    Upsample(Upsample),
}

impl Stage {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Block(block) => block.forward(x),
            Self::Act(act) => act.act.forward(x),
            Self::Upsample(upsample) => upsample_nearest(x, upsample.factor),
        }
    }
}

#[derive(Module, Debug)]
struct Act {
    #[module(skip)]
    act: Activation,
}

#[derive(Module, Debug)]
struct Upsample {
    factor: usize,
}

/// Three convolutions with a shortcut; the sum goes through ReLU, whatever is between them.
#[derive(Module, Debug)]
struct Block {
    conv: Vec<ConvOrAct>,
}

#[derive(Module, Debug)]
enum ConvOrAct {
    Conv(Conv2d),
    Act(Act),
}

impl Block {
    fn new(channels: usize, act: Activation, device: &Device) -> Self {
        let conv = || ConvOrAct::Conv(conv3(channels, channels, 1).init(device));
        let between = || ConvOrAct::Act(Act { act });
        Self { conv: vec![conv(), between(), conv(), between(), conv()] }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv.iter().fold(x.clone(), |h, layer| match layer {
            ConvOrAct::Conv(conv) => conv.forward(h),
            ConvOrAct::Act(act) => act.act.forward(h),
        });
        Activation::Relu.forward(h + x)
    }
}
