//! The autoencoder of latent diffusion (Rombach et al. 2022) in diffusers' `AutoencoderKL` layout: Stable Diffusion's VAE.

use burn::module::Module;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::strips::{self, Strips};
use super::{MAX_CHANNELS, MAX_LAYERS, MAX_LEVELS, Moments, conv3, range};
use crate::error::{Error, Result};
use crate::nn::{
    Activation, Conv2d, Conv2dConfig, GroupNorm, Linear, LinearConfig, attention, merge_heads, split_heads,
};
use crate::weights::{TensorSource, apply};

/// `config.json` of an `AutoencoderKL`; names and defaults are diffusers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// The class in diffusers, `AutoencoderKL`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Channels of the picture that is encoded.
    pub in_channels: usize,
    /// Channels of the picture that is decoded.
    pub out_channels: usize,
    /// `DownEncoderBlock2D` at every level.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D` at every level.
    pub up_block_types: Vec<String>,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Activation of the residual blocks.
    pub act_fn: Activation,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// Latents are multiplied by this for the denoiser.
    pub scaling_factor: f64,
    /// Subtracted from latents for the denoiser.
    pub shift_factor: Option<f64>,
    /// Mean of each latent channel, subtracted for the denoiser.
    pub latents_mean: Option<Vec<f64>>,
    /// Standard deviation of each latent channel, divided by for the denoiser.
    pub latents_std: Option<Vec<f64>>,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks attend.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            class_name: "AutoencoderKL".to_owned(),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".to_owned()],
            up_block_types: vec!["UpDecoderBlock2D".to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

/// diffusers' ε of every norm here.
const EPS: f64 = 1e-6;

impl AutoencoderKlConfig {
    /// Side of a picture over side of its latents.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(MAX_LEVELS)
    }

    pub(super) fn check(&self) -> Result<()> {
        let down = self.down_block_types.iter().find(|block| *block != "DownEncoderBlock2D");
        let up = self.up_block_types.iter().find(|block| *block != "UpDecoderBlock2D");
        if let Some(block) = down.or(up) {
            return Err(Error::weights(
                "config-unsupported",
                format!("AutoencoderKL config: block type '{block}' is not supported"),
                "use an autoencoder of DownEncoderBlock2D and UpDecoderBlock2D",
            ));
        }
        let levels = self.block_out_channels.len();
        let fail = |message| Err(range("AutoencoderKL", message));
        if !(1..=MAX_LEVELS).contains(&levels)
            || self.down_block_types.len() != levels
            || self.up_block_types.len() != levels
        {
            return fail(format!(
                "{levels} levels, {} down and {} up block types",
                self.down_block_types.len(),
                self.up_block_types.len()
            ));
        }
        if !(1..=MAX_LAYERS).contains(&self.layers_per_block) {
            return fail(format!("layers_per_block is {}", self.layers_per_block));
        }
        let groups = self.norm_num_groups;
        let divisible = |c: &usize| groups > 0 && c.is_multiple_of(groups);
        if !self.block_out_channels.iter().all(|c| (1..=MAX_CHANNELS).contains(c) && divisible(c)) {
            return fail(format!("block_out_channels {:?} in {groups} groups", self.block_out_channels));
        }
        for (name, channels) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
        ] {
            if !(1..=64).contains(&channels) {
                return fail(format!("{name} is {channels}"));
            }
        }
        Ok(())
    }

    /// Creates the autoencoder with random weights. Fails on sizes that are out of range or unsupported.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKl> {
        self.check()?;
        let z = self.latent_channels;
        let pointwise = |channels| Conv2dConfig::new(channels, channels, 1).init(device);
        Ok(AutoencoderKl {
            encoder: self.encoder(device),
            decoder: self.decoder(device),
            quant_conv: self.use_quant_conv.then(|| pointwise(2 * z)),
            post_quant_conv: self.use_post_quant_conv.then(|| pointwise(z)),
        })
    }

    pub(super) fn encoder(&self, device: &Device) -> Encoder {
        let channels = &self.block_out_channels;
        let last = channels[channels.len() - 1];
        let mut from = channels[0];
        let down_blocks = channels
            .iter()
            .enumerate()
            .map(|(i, &to)| {
                let resnets = self.resnets(from, to, self.layers_per_block, device);
                from = to;
                let halves = i + 1 < channels.len();
                let downsamplers = if halves {
                    vec![Sampler2d { conv: Conv2dConfig::new(to, to, 3).with_stride(2).init(device) }]
                } else {
                    Vec::new()
                };
                DownBlock { resnets, downsamplers }
            })
            .collect();
        Encoder {
            conv_in: conv3(self.in_channels, channels[0], 1).init(device),
            down_blocks,
            mid_block: self.mid_block(last, device),
            conv_norm_out: self.norm(last, device),
            conv_out: conv3(last, 2 * self.latent_channels, 1).init(device),
        }
    }

    pub(super) fn decoder(&self, device: &Device) -> Decoder {
        let channels = &self.block_out_channels;
        let last = channels[channels.len() - 1];
        let mut from = last;
        let up_blocks = channels
            .iter()
            .enumerate()
            .rev()
            .map(|(i, &to)| {
                let resnets = self.resnets(from, to, self.layers_per_block + 1, device);
                from = to;
                let upsamplers =
                    if i > 0 { vec![Sampler2d { conv: conv3(to, to, 1).init(device) }] } else { Vec::new() };
                UpBlock { resnets, upsamplers }
            })
            .collect();
        Decoder {
            conv_in: conv3(self.latent_channels, last, 1).init(device),
            mid_block: self.mid_block(last, device),
            up_blocks,
            conv_norm_out: self.norm(channels[0], device),
            conv_out: conv3(channels[0], self.out_channels, 1).init(device),
        }
    }

    fn norm(&self, channels: usize, device: &Device) -> GroupNorm {
        GroupNorm::new(self.norm_num_groups, channels, EPS, device)
    }

    fn resnets(&self, from: usize, to: usize, count: usize, device: &Device) -> Vec<ResnetBlock> {
        (0..count).map(|i| self.resnet(if i == 0 { from } else { to }, to, device)).collect()
    }

    fn resnet(&self, from: usize, to: usize, device: &Device) -> ResnetBlock {
        ResnetBlock {
            norm1: self.norm(from, device),
            conv1: conv3(from, to, 1).init(device),
            norm2: self.norm(to, device),
            conv2: conv3(to, to, 1).init(device),
            conv_shortcut: (from != to).then(|| Conv2dConfig::new(from, to, 1).init(device)),
            act: self.act_fn,
        }
    }

    fn mid_block(&self, channels: usize, device: &Device) -> MidBlock {
        let linear = || LinearConfig::new(channels, channels).init(device);
        let attention = || Attention {
            group_norm: self.norm(channels, device),
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: vec![linear()],
        };
        MidBlock {
            attentions: if self.mid_block_add_attention { vec![attention()] } else { Vec::new() },
            resnets: self.resnets(channels, channels, 2, device),
        }
    }
}

/// Stable Diffusion's VAE.
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
}

impl AutoencoderKl {
    /// Fills the parameters from `source`; attention may have the names of older checkpoints too.
    pub fn load(self, source: &dyn TensorSource) -> Result<Self> {
        apply(self, &AttentionNames(source), "")
    }

    /// Pictures `[n, in_channels, h, w]` in [-1, 1] → moments of the unscaled latents,
    /// `[n, latent_channels, h / f, w / f]` each.
    pub fn encode(&self, images: Tensor<4>) -> Moments {
        moments(self.encoder.forward(images), self.quant_conv.as_ref())
    }

    /// Unscaled latents → pictures `[n, out_channels, h, w]`.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.decode_in(latents, strips::MOST)
    }

    fn decode_in(&self, latents: Tensor<4>, most: usize) -> Tensor<4> {
        let latents = match &self.post_quant_conv {
            Some(conv) => conv.forward(latents),
            None => latents,
        };
        self.decoder.forward(latents, most)
    }
}

/// What an encoder's output says, after the convolution that follows it.
pub(super) fn moments(x: Tensor<4>, quant_conv: Option<&Conv2d>) -> Moments {
    let x = match quant_conv {
        Some(conv) => conv.forward(x),
        None => x,
    };
    let channels = x.dims()[1] / 2;
    // diffusers' bounds of the log-variance.
    let logvar = x.clone().narrow(1, channels, channels).clamp(-30.0, 20.0);
    Moments { mean: x.narrow(1, 0, channels), logvar: Some(logvar) }
}

/// Checkpoints from before diffusers 0.15 name attention's layers `query`, `key`, `value` and `proj_attn`.
struct AttentionNames<'a>(&'a dyn TensorSource);

impl AttentionNames<'_> {
    /// The name in the checkpoint.
    fn stored(&self, name: &str) -> String {
        const RENAMED: [(&str, &str); 4] = [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ];
        if self.0.shape(name).is_none() && name.contains(".attentions.") {
            for (new, old) in RENAMED {
                if name.contains(new) {
                    let renamed = name.replace(new, old);
                    // A tensor that is missing under both names is reported under the one of today.
                    return if self.0.shape(&renamed).is_some() { renamed } else { name.to_owned() };
                }
            }
        }
        name.to_owned()
    }
}

impl TensorSource for AttentionNames<'_> {
    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.shape(&self.stored(name))
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.0.read(&self.stored(name))
    }
}

#[derive(Module, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(images);
        for block in &self.down_blocks {
            x = block.resnets.iter().fold(x, |x, resnet| resnet.forward(x));
            for downsampler in &block.downsamplers {
                // One column and one row of zeros, right and below alone, as in latent diffusion.
                let padded = x.pad([(0, 1), (0, 1)], PadMode::Constant(0.0));
                x = downsampler.conv.forward(padded);
            }
        }
        let x = self.conv_norm_out.activated(self.mid_block.forward(x), Activation::Silu);
        self.conv_out.forward(x)
    }
}

#[derive(Module, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    /// In strips of at most so many elements where the picture is large.
    pub(super) fn forward(&self, latents: Tensor<4>, most: usize) -> Tensor<4> {
        let mut x = Strips::split(self.mid_block.forward(self.conv_in.forward(latents)), most);
        for block in &self.up_blocks {
            x = block.resnets.iter().fold(x, |x, resnet| resnet.strips(x));
            for upsampler in &block.upsamplers {
                x = x.conv(&upsampler.conv, 2);
            }
        }
        x.normalised(&self.conv_norm_out, Activation::Silu).conv(&self.conv_out, 1).join()
    }
}

#[derive(Module, Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock>,
    downsamplers: Vec<Sampler2d>,
}

#[derive(Module, Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsamplers: Vec<Sampler2d>,
}

/// The convolution of a `Downsample2D` or `Upsample2D`.
#[derive(Module, Debug)]
struct Sampler2d {
    conv: Conv2d,
}

#[derive(Module, Debug)]
struct MidBlock {
    attentions: Vec<Attention>,
    resnets: Vec<ResnetBlock>,
}

impl MidBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = x;
        for (i, resnet) in self.resnets.iter().enumerate() {
            // Attention sits between the two residual blocks.
            if i > 0 {
                x = self.attentions.iter().fold(x, |x, attention| attention.forward(x));
            }
            x = resnet.forward(x);
        }
        x
    }
}

#[derive(Module, Debug)]
struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    act: Activation,
}

impl ResnetBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.strips(Strips::split(x, usize::MAX)).join()
    }

    /// As `forward`, of a map that may be large.
    fn strips(&self, x: Strips) -> Strips {
        let h = x.normalised(&self.norm1, self.act).conv(&self.conv1, 1);
        let h = h.normalised(&self.norm2, self.act);
        let shortcut = match &self.conv_shortcut {
            Some(conv) => x.conv(conv, 1),
            None => x,
        };
        h.conv_added(&self.conv2, shortcut)
    }
}

/// Self-attention of one head over all positions, with a shortcut.
#[derive(Module, Debug)]
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Vec<Linear>,
}

impl Attention {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let tokens = self.group_norm.forward(x.clone()).reshape([n, c, h * w]).swap_dims(1, 2);
        let head = |linear: &Linear| split_heads(linear.forward(tokens.clone()), 1);
        let out = merge_heads(attention(head(&self.to_q), head(&self.to_k), head(&self.to_v), None));
        let out = self.to_out.iter().fold(out, |out, linear| linear.forward(out));
        x + out.swap_dims(1, 2).reshape([n, c, h, w])
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn a_picture_decoded_in_strips_is_the_whole_picture() {
        let device = Device::flex();
        let config = AutoencoderKlConfig {
            block_out_channels: vec![8, 16, 16],
            down_block_types: vec!["DownEncoderBlock2D".to_owned(); 3],
            up_block_types: vec!["UpDecoderBlock2D".to_owned(); 3],
            norm_num_groups: 4,
            ..AutoencoderKlConfig::default()
        };
        let vae = config.init(&device).unwrap();
        let shape = [1, config.latent_channels, 9, 6];
        let latents = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let whole = vae.decode(latents.clone());
        let range: f32 = whole.clone().abs().max().into_scalar();
        // The second level's strips are five rows, the last one's two.
        let strips = vae.decode_in(latents, 16 * 24 * 2);
        let off: f32 = (strips - whole).abs().max().into_scalar();
        assert!(off < 1e-5 * range.max(1.0), "{off} of {range}");
    }
}
