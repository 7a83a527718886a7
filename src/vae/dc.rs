//! Deep-compression autoencoder (Chen et al. 2024, DC-AE) in diffusers' `AutoencoderDC` layout, with residual blocks
//! only: `mini`'s VAE.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{MAX_CHANNELS, MAX_LAYERS, MAX_LEVELS, conv3};
use crate::error::{Error, Result};
use crate::nn::{Activation, BatchNorm, Conv2d, RmsNorm};

/// One value for every level, or one a level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same at every level.
    All(String),
    /// Level by level.
    Each(Vec<String>),
}

impl PerLevel {
    fn at(&self, level: usize) -> &str {
        match self {
            Self::All(value) => value,
            Self::Each(values) => values.get(level).map_or("", String::as_str),
        }
    }
}

/// `config.json` of an `AutoencoderDC`; names and defaults are diffusers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderDcConfig {
    /// The class in diffusers, `AutoencoderDC`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Channels of the picture.
    pub in_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// `ResBlock` at every level; `EfficientViTBlock` is not supported.
    pub encoder_block_types: PerLevel,
    /// As [`AutoencoderDcConfig::encoder_block_types`].
    pub decoder_block_types: PerLevel,
    /// Channels of each encoder level.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each decoder level.
    pub decoder_block_out_channels: Vec<usize>,
    /// Blocks of each encoder level; 0 at the first level alone folds it into the stem.
    pub encoder_layers_per_block: Vec<usize>,
    /// Blocks of each decoder level; 0 at the first level alone folds it into the head.
    pub decoder_layers_per_block: Vec<usize>,
    /// `pixel_unshuffle` or `Conv`.
    pub downsample_block_type: String,
    /// `pixel_shuffle` or `interpolate`.
    pub upsample_block_type: String,
    /// `rms_norm` or `batch_norm`.
    pub decoder_norm_types: PerLevel,
    /// `silu`, `relu`, …
    pub decoder_act_fns: PerLevel,
    /// Whether the last level's channel averages are added to the latents.
    pub encoder_out_shortcut: bool,
    /// Whether the repeated latents are added to the decoder's first level.
    pub decoder_in_shortcut: bool,
    /// Activation before the last convolution of the decoder.
    pub decoder_conv_act_fn: Activation,
    /// Latents are multiplied by this for the denoiser.
    pub scaling_factor: f64,
    /// Mean of each latent channel, subtracted for the denoiser.
    pub latents_mean: Option<Vec<f64>>,
    /// Standard deviation of each latent channel, divided by for the denoiser.
    pub latents_std: Option<Vec<f64>>,
}

impl Default for AutoencoderDcConfig {
    fn default() -> Self {
        Self {
            class_name: "AutoencoderDC".to_owned(),
            in_channels: 3,
            latent_channels: 32,
            encoder_block_types: PerLevel::All("ResBlock".to_owned()),
            decoder_block_types: PerLevel::All("ResBlock".to_owned()),
            encoder_block_out_channels: vec![128, 256, 512, 512, 1024, 1024],
            decoder_block_out_channels: vec![128, 256, 512, 512, 1024, 1024],
            encoder_layers_per_block: vec![2, 2, 2, 3, 3, 3],
            decoder_layers_per_block: vec![3, 3, 3, 3, 3, 3],
            downsample_block_type: "pixel_unshuffle".to_owned(),
            upsample_block_type: "pixel_shuffle".to_owned(),
            decoder_norm_types: PerLevel::All("rms_norm".to_owned()),
            decoder_act_fns: PerLevel::All("silu".to_owned()),
            encoder_out_shortcut: true,
            decoder_in_shortcut: true,
            decoder_conv_act_fn: Activation::Relu,
            scaling_factor: 1.0,
            latents_mean: None,
            latents_std: None,
        }
    }
}

/// diffusers' ε of every norm here.
const EPS: f64 = 1e-5;

impl AutoencoderDcConfig {
    /// Side of a picture over side of its latents.
    pub fn downsampling(&self) -> usize {
        1 << halvings(&self.encoder_layers_per_block).min(MAX_LEVELS)
    }

    pub(super) fn check(&self) -> Result<()> {
        for (channels, layers, types, other) in [
            (
                &self.encoder_block_out_channels,
                &self.encoder_layers_per_block,
                &self.encoder_block_types,
                "encoder",
            ),
            (
                &self.decoder_block_out_channels,
                &self.decoder_layers_per_block,
                &self.decoder_block_types,
                "decoder",
            ),
        ] {
            let levels = channels.len();
            if !(2..=MAX_LEVELS).contains(&levels) || layers.len() != levels {
                return Err(range(format!("{other} has {levels} levels and {} layer counts", layers.len())));
            }
            if channels.iter().any(|c| !(1..=MAX_CHANNELS).contains(c))
                || layers.iter().any(|l| *l > MAX_LAYERS)
            {
                return Err(range(format!("{other} channels {channels:?}, layers {layers:?}")));
            }
            if let Some(level) = (0..levels).find(|level| types.at(*level) != "ResBlock") {
                return Err(Error::weights(
                    "config-unsupported",
                    format!("{other} block type '{}' is not supported", types.at(level)),
                    "use an autoencoder of ResBlocks, or an AutoencoderKL",
                ));
            }
            let last = channels[levels - 1];
            if self.latent_channels == 0 || !last.is_multiple_of(self.latent_channels) {
                return Err(range(format!(
                    "{last} channels are no multiple of {} latents",
                    self.latent_channels
                )));
            }
        }
        let (channels, layers) = (&self.encoder_block_out_channels, &self.encoder_layers_per_block);
        let mut width = channels[usize::from(layers[0] == 0)];
        for (i, _) in layers.iter().enumerate().filter(|(_, count)| **count > 0) {
            if width != channels[i] {
                return Err(range(format!("encoder level {i} has {} channels, not {width}", channels[i])));
            }
            width = *channels.get(i + 1).unwrap_or(&width);
        }
        if width != channels[channels.len() - 1] {
            return Err(range(format!("the encoder ends with {width} channels: {channels:?}, {layers:?}")));
        }
        let (channels, layers) = (&self.decoder_block_out_channels, &self.decoder_layers_per_block);
        let mut width = channels[channels.len() - 1];
        for (i, _) in layers.iter().enumerate().rev().filter(|(_, count)| **count > 0) {
            if channels.get(i + 1).is_some_and(|below| width != *below) {
                return Err(range(format!("decoder level {i} is given {width} channels: {channels:?}")));
            }
            width = channels[i];
        }
        if width != channels[usize::from(layers[0] == 0)] {
            return Err(range(format!("the decoder ends with {width} channels: {channels:?}, {layers:?}")));
        }
        if halvings(&self.encoder_layers_per_block) != halvings(&self.decoder_layers_per_block) {
            return Err(range("the decoder does not undo the encoder's halvings".to_owned()));
        }
        for (name, value, known) in [
            ("downsample_block_type", &self.downsample_block_type, ["pixel_unshuffle", "conv"]),
            ("upsample_block_type", &self.upsample_block_type, ["pixel_shuffle", "interpolate"]),
        ] {
            // Any other name means convolution in diffusers; here a misspelling is an error.
            if !known.contains(&value.to_lowercase().as_str()) {
                return Err(range(format!("{name} is '{value}'")));
            }
        }
        if !(1..=64).contains(&self.in_channels) {
            return Err(range(format!("in_channels {}", self.in_channels)));
        }
        Ok(())
    }

    /// Creates the autoencoder with random weights.
    pub fn init(&self, device: &Device) -> Result<AutoencoderDc> {
        self.check()?;
        Ok(AutoencoderDc { encoder: self.encoder(device)?, decoder: self.decoder(device)? })
    }

    fn encoder(&self, device: &Device) -> Result<Encoder> {
        let (channels, layers) = (&self.encoder_block_out_channels, &self.encoder_layers_per_block);
        let unshuffle = self.downsample_block_type == "pixel_unshuffle";
        let conv_in = if layers[0] > 0 {
            Stage::Conv(conv3(self.in_channels, channels[0], 1).init(device))
        } else {
            Stage::Down(DownBlock::new(self.in_channels, channels[1], unshuffle, false, device)?)
        };
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (i, (&out, &count)) in channels.iter().zip(layers).enumerate() {
            let mut level = (0..count)
                .map(|_| Ok(Stage::Res(ResBlock::new(out, "rms_norm", Activation::Silu, device)?)))
                .collect::<Result<Vec<_>>>()?;
            if i + 1 < channels.len() && count > 0 {
                level.push(Stage::Down(DownBlock::new(out, channels[i + 1], unshuffle, true, device)?));
            }
            down_blocks.push(level);
        }
        let last = channels[channels.len() - 1];
        Ok(Encoder {
            conv_in,
            down_blocks,
            conv_out: conv3(last, self.latent_channels, 1).init(device),
            shortcut: self.encoder_out_shortcut,
        })
    }

    fn decoder(&self, device: &Device) -> Result<Decoder> {
        let (channels, layers) = (&self.decoder_block_out_channels, &self.decoder_layers_per_block);
        let interpolate = self.upsample_block_type == "interpolate";
        let mut up_blocks = Vec::with_capacity(channels.len());
        for (i, (&out, &count)) in channels.iter().zip(layers).enumerate() {
            let act: Activation = serde_json::from_value(self.decoder_act_fns.at(i).into())
                .map_err(|_| range(format!("decoder activation '{}'", self.decoder_act_fns.at(i))))?;
            let mut level = Vec::with_capacity(count + 1);
            if i + 1 < channels.len() && count > 0 {
                level.push(Stage::Up(UpBlock::new(channels[i + 1], out, interpolate, true, device)?));
            }
            for _ in 0..count {
                level.push(Stage::Res(ResBlock::new(out, self.decoder_norm_types.at(i), act, device)?));
            }
            up_blocks.push(level);
        }
        let first = if layers[0] > 0 { channels[0] } else { channels[1] };
        let conv_out = if layers[0] > 0 {
            Stage::Conv(conv3(first, self.in_channels, 1).init(device))
        } else {
            Stage::Up(UpBlock::new(first, self.in_channels, interpolate, false, device)?)
        };
        Ok(Decoder {
            conv_in: conv3(self.latent_channels, channels[channels.len() - 1], 1).init(device),
            up_blocks,
            norm_out: RmsNorm::new(first, EPS, device),
            conv_out,
            shortcut: self.decoder_in_shortcut,
            act: self.decoder_conv_act_fn,
        })
    }
}

/// How often an encoder of these layer counts halves the picture: after every level with blocks but the last, and in
/// the stem if that stands for the first level.
fn halvings(layers: &[usize]) -> usize {
    let levels = layers.iter().rev().skip(1).filter(|count| **count > 0).count();
    levels + usize::from(layers.first() == Some(&0))
}

fn range(message: String) -> Error {
    super::range("AutoencoderDC", message)
}

/// DC-AE: a deterministic encoder and a decoder.
#[derive(Module, Debug)]
pub struct AutoencoderDc {
    encoder: Encoder,
    decoder: Decoder,
}

impl AutoencoderDc {
    /// Pictures `[n, 3, h, w]` in [-1, 1] → unscaled latents `[n, latent_channels, h / f, w / f]`.
    pub fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        self.encoder.forward(images)
    }

    /// Unscaled latents → pictures.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.decoder.forward(latents)
    }

    /// The same, of which only the decoder learns from now on.
    pub fn freeze_encoder(self) -> Self {
        Self { encoder: self.encoder.no_grad(), ..self }
    }
}

#[derive(Module, Debug)]
struct Encoder {
    conv_in: Stage,
    down_blocks: Vec<Vec<Stage>>,
    conv_out: Conv2d,
    shortcut: bool,
}

impl Encoder {
    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(images);
        for stage in self.down_blocks.iter().flatten() {
            x = stage.forward(x);
        }
        let latents = self.conv_out.forward(x.clone());
        if !self.shortcut {
            return latents;
        }
        let [n, latent_channels, h, w] = latents.dims();
        let group = x.dims()[1] / latent_channels;
        latents + x.reshape([n, latent_channels, group, h, w]).mean_dim(2).squeeze_dim::<4>(2)
    }
}

#[derive(Module, Debug)]
struct Decoder {
    conv_in: Conv2d,
    up_blocks: Vec<Vec<Stage>>,
    norm_out: RmsNorm,
    conv_out: Stage,
    shortcut: bool,
    #[module(skip)]
    act: Activation,
}

impl Decoder {
    fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(latents.clone());
        if self.shortcut {
            let repeats = x.dims()[1] / latents.dims()[1];
            x = x + repeat_interleave(latents, repeats);
        }
        for stage in self.up_blocks.iter().rev().flatten() {
            x = stage.forward(x);
        }
        self.conv_out.forward(self.act.forward(self.norm_out.forward(x)))
    }
}

/// One entry of a level; in checkpoints they are numbered alike.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a few dozen in all, each holding its layer's tensors elsewhere"
)]
enum Stage {
    Conv(Conv2d),
    Res(ResBlock),
    Down(DownBlock),
    Up(UpBlock),
}

impl Stage {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Res(block) => block.forward(x),
            Self::Down(block) => block.forward(x),
            Self::Up(block) => block.forward(x),
        }
    }
}

#[derive(Module, Debug)]
enum Norm {
    Rms(RmsNorm),
    Batch(BatchNorm),
}

#[derive(Module, Debug)]
struct ResBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    norm: Norm,
    #[module(skip)]
    act: Activation,
}

impl ResBlock {
    fn new(channels: usize, norm: &str, act: Activation, device: &Device) -> Result<Self> {
        Ok(Self {
            conv1: conv3(channels, channels, 1).init(device),
            conv2: conv3(channels, channels, 1).with_bias(false).init(device),
            norm: match norm {
                "rms_norm" => Norm::Rms(RmsNorm::new(channels, EPS, device)),
                "batch_norm" => Norm::Batch(BatchNorm::new(channels, EPS, device)),
                other => return Err(range(format!("norm type '{other}'"))),
            },
            act,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv2.forward(self.act.forward(self.conv1.forward(x.clone())));
        let h = match &self.norm {
            Norm::Rms(norm) => norm.forward(h),
            Norm::Batch(norm) => norm.forward(h),
        };
        x + h
    }
}

/// Halves the picture; the shortcut averages the unshuffled input's channels.
#[derive(Module, Debug)]
struct DownBlock {
    conv: Conv2d,
    unshuffle: bool,
    shortcut: bool,
    channels_out: usize,
}

impl DownBlock {
    fn new(
        channels_in: usize,
        channels_out: usize,
        unshuffle: bool,
        shortcut: bool,
        device: &Device,
    ) -> Result<Self> {
        if unshuffle && !channels_out.is_multiple_of(4)
            || shortcut && !(4 * channels_in).is_multiple_of(channels_out)
        {
            return Err(range(format!("cannot halve from {channels_in} to {channels_out} channels")));
        }
        let conv = if unshuffle {
            conv3(channels_in, channels_out / 4, 1)
        } else {
            conv3(channels_in, channels_out, 2)
        };
        Ok(Self { conv: conv.init(device), unshuffle, shortcut, channels_out })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut h = self.conv.forward(x.clone());
        if self.unshuffle {
            h = pixel_unshuffle(h);
        }
        if !self.shortcut {
            return h;
        }
        let y = pixel_unshuffle(x);
        let [n, channels, height, width] = y.dims();
        let group = channels / self.channels_out;
        h + y.reshape([n, self.channels_out, group, height, width]).mean_dim(2).squeeze_dim::<4>(2)
    }
}

/// Doubles the picture; the shortcut repeats the input's channels and shuffles them into pixels.
#[derive(Module, Debug)]
struct UpBlock {
    conv: Conv2d,
    interpolate: bool,
    shortcut: bool,
    repeats: usize,
}

impl UpBlock {
    fn new(
        channels_in: usize,
        channels_out: usize,
        interpolate: bool,
        shortcut: bool,
        device: &Device,
    ) -> Result<Self> {
        if shortcut && !(4 * channels_out).is_multiple_of(channels_in) {
            return Err(range(format!("cannot double from {channels_in} to {channels_out} channels")));
        }
        let out = if interpolate { channels_out } else { channels_out * 4 };
        Ok(Self {
            conv: conv3(channels_in, out, 1).init(device),
            interpolate,
            shortcut,
            repeats: channels_out * 4 / channels_in,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = if self.interpolate {
            let [_, _, height, width] = x.dims();
            self.conv.forward_upsampled(x.clone(), [2 * height, 2 * width])
        } else {
            pixel_shuffle(self.conv.forward(x.clone()))
        };
        if !self.shortcut {
            return h;
        }
        h + pixel_shuffle(repeat_interleave(x, self.repeats))
    }
}

/// `[n, c, h, w]` → `[n, c · repeats, h, w]`, each channel repeated in place.
fn repeat_interleave(x: Tensor<4>, repeats: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, 1, h, w]).expand([n, c, repeats, h, w]).reshape([n, c * repeats, h, w])
}

/// `[n, 4c, h, w]` → `[n, c, 2h, 2w]` (Shi et al. 2016).
fn pixel_shuffle(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c / 4, 2, 2, h, w]).permute([0, 1, 4, 2, 5, 3]).reshape([n, c / 4, h * 2, w * 2])
}

/// `[n, c, 2h, 2w]` → `[n, 4c, h, w]`: the inverse of [`pixel_shuffle`].
fn pixel_unshuffle(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h / 2, 2, w / 2, 2]).permute([0, 1, 3, 5, 2, 4]).reshape([n, c * 4, h / 2, w / 2])
}
