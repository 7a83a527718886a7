//! FLUX.2's autoencoder, diffusers' `AutoencoderKLFlux2`: encoder and decoder of an `AutoencoderKL`, whose latents the denoiser
//! sees as patches of 2×2, normalised by running statistics that lie among the weights.

use burn::module::{Module, RunningState};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::kl::{AutoencoderKlConfig, Decoder, Encoder, moments};
use super::strips;
use super::{Moments, range};
use crate::error::{Error, Result};
use crate::nn::{Activation, Conv2d, Conv2dConfig};

/// Side of a patch.
pub(super) const PATCH: usize = 2;

/// `config.json` of an `AutoencoderKLFlux2`; names and defaults are diffusers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlFlux2Config {
    /// The class in diffusers, `AutoencoderKLFlux2`.
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
    /// Channels of each of the decoder's levels, where they are others.
    pub decoder_block_out_channels: Option<Vec<usize>>,
    /// Residual blocks of each encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Activation of the residual blocks.
    pub act_fn: Activation,
    /// Channels of the latents, before they are put together in patches.
    pub latent_channels: usize,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks attend.
    pub mid_block_add_attention: bool,
    /// Added to the running variance.
    pub batch_norm_eps: f64,
    /// Height and width of a patch; 2 each.
    pub patch_size: [usize; 2],
}

impl Default for AutoencoderKlFlux2Config {
    fn default() -> Self {
        Self {
            class_name: "AutoencoderKLFlux2".to_owned(),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".to_owned(); 4],
            up_block_types: vec!["UpDecoderBlock2D".to_owned(); 4],
            block_out_channels: vec![128, 256, 512, 512],
            decoder_block_out_channels: None,
            layers_per_block: 2,
            act_fn: Activation::Silu,
            latent_channels: 32,
            norm_num_groups: 32,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            batch_norm_eps: 1e-4,
            patch_size: [PATCH; 2],
        }
    }
}

impl AutoencoderKlFlux2Config {
    /// Side of a picture over side of its patches.
    pub fn downsampling(&self) -> usize {
        self.encoder().downsampling() * PATCH
    }

    /// Channels of a patch.
    pub fn patch_channels(&self) -> usize {
        self.latent_channels.saturating_mul(PATCH * PATCH)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.patch_size != [PATCH; 2] {
            return Err(Error::weights(
                "config-unsupported",
                format!("AutoencoderKLFlux2 config: patch_size is {:?}", self.patch_size),
                "use an autoencoder with patches of 2×2",
            ));
        }
        let eps = self.batch_norm_eps;
        if !(eps.is_finite() && eps > 0.0) {
            return Err(range("AutoencoderKLFlux2", format!("batch_norm_eps is {eps}")));
        }
        self.encoder().check()?;
        self.decoder().check()
    }

    /// Creates the autoencoder with random weights. Fails on sizes that are out of range or unsupported.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKlFlux2> {
        self.check()?;
        let z = self.latent_channels;
        let pointwise = |channels| Conv2dConfig::new(channels, channels, 1).init(device);
        let channels = self.patch_channels();
        Ok(AutoencoderKlFlux2 {
            encoder: self.encoder().encoder(device),
            decoder: self.decoder().decoder(device),
            quant_conv: self.use_quant_conv.then(|| pointwise(2 * z)),
            post_quant_conv: self.use_post_quant_conv.then(|| pointwise(z)),
            bn: Statistics {
                running_mean: RunningState::new(Tensor::zeros([channels], device)),
                running_var: RunningState::new(Tensor::ones([channels], device)),
                eps: self.batch_norm_eps,
            },
        })
    }

    /// An `AutoencoderKL` with the same encoder.
    fn encoder(&self) -> AutoencoderKlConfig {
        AutoencoderKlConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            down_block_types: self.down_block_types.clone(),
            up_block_types: self.up_block_types.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block,
            act_fn: self.act_fn,
            latent_channels: self.latent_channels,
            norm_num_groups: self.norm_num_groups,
            use_quant_conv: self.use_quant_conv,
            use_post_quant_conv: self.use_post_quant_conv,
            mid_block_add_attention: self.mid_block_add_attention,
            ..AutoencoderKlConfig::default()
        }
    }

    /// An `AutoencoderKL` with the same decoder.
    fn decoder(&self) -> AutoencoderKlConfig {
        let channels = self.decoder_block_out_channels.as_ref().unwrap_or(&self.block_out_channels);
        AutoencoderKlConfig { block_out_channels: channels.clone(), ..self.encoder() }
    }
}

/// FLUX.2's autoencoder.
#[derive(Module, Debug)]
pub struct AutoencoderKlFlux2 {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    bn: Statistics,
}

/// Mean and variance of each channel of a patch.
#[derive(Module, Debug)]
struct Statistics {
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
    eps: f64,
}

impl Statistics {
    /// Mean and deviation, `[1, channels, 1, 1]` each, in the latents' precision.
    fn of(&self, like: &Tensor<4>) -> [Tensor<4>; 2] {
        let deviation = (self.running_var.value() + self.eps).sqrt();
        [self.running_mean.value(), deviation].map(|x| {
            let [channels] = x.dims();
            x.reshape([1, channels, 1, 1]).cast(like.dtype())
        })
    }
}

impl AutoencoderKlFlux2 {
    /// Pictures `[n, in_channels, h, w]` in [-1, 1] → moments of the unscaled latents, `[n, latent_channels, h / f, w / f]`
    /// each.
    pub fn encode(&self, images: Tensor<4>) -> Moments {
        moments(self.encoder.forward(images), self.quant_conv.as_ref())
    }

    /// Unscaled latents → pictures `[n, out_channels, h, w]`.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let latents = match &self.post_quant_conv {
            Some(conv) => conv.forward(latents),
            None => latents,
        };
        self.decoder.forward(latents, strips::MOST)
    }

    /// Unscaled latents `[n, c, h, w]` of even sides → the denoiser's, `[n, 4 c, h / 2, w / 2]`.
    pub fn normalise(&self, latents: Tensor<4>) -> Tensor<4> {
        let [mean, deviation] = self.bn.of(&latents);
        (patches(latents) - mean) / deviation
    }

    /// The denoiser's latents → unscaled ones.
    pub fn restore(&self, latents: Tensor<4>) -> Tensor<4> {
        let [mean, deviation] = self.bn.of(&latents);
        pixels(latents * deviation + mean)
    }
}

/// Patches as channels: a latent channel's four values side by side, row by row.
fn patches(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let (rows, columns) = (h / PATCH, w / PATCH);
    let x = x.reshape([n, c, rows, PATCH, columns, PATCH]).permute([0, 1, 3, 5, 2, 4]);
    x.reshape([n, c * PATCH * PATCH, rows, columns])
}

/// What [`patches`] were made of.
fn pixels(x: Tensor<4>) -> Tensor<4> {
    let [n, channels, rows, columns] = x.dims();
    let c = channels / (PATCH * PATCH);
    let x = x.reshape([n, c, PATCH, PATCH, rows, columns]).permute([0, 1, 4, 2, 5, 3]);
    x.reshape([n, c, rows * PATCH, columns * PATCH])
}
