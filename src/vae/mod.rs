//! Pictures to latents and back.

mod dc;

pub use dc::{AutoencoderDc, AutoencoderDcConfig, PerLevel};

use burn::tensor::{Device, Tensor};

use crate::error::{Error, Result};
use crate::weights::{Component, apply};

/// A loaded autoencoder of any family. Its config, not its caller, knows how latents are scaled for the denoiser.
#[derive(Debug, Clone)]
pub struct Vae {
    network: AutoencoderDc,
    config: AutoencoderDcConfig,
}

impl Vae {
    /// Loads `config.json` and weights; the config's `_class_name` says which family it is.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: AutoencoderDcConfig = component.json("config.json")?;
        if config.class_name != "AutoencoderDC" {
            return Err(Error::weights(
                "config-unsupported",
                format!("VAE class '{}' is not supported", config.class_name),
                "use an AutoencoderDC",
            ));
        }
        let network = apply(config.init(device)?, component.tensors()?.as_ref(), "")?;
        Ok(Self { network, config })
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// Side of a picture over side of its latents.
    pub fn downsampling(&self) -> usize {
        self.config.downsampling()
    }

    /// Pictures `[n, 3, h, w]` in [-1, 1] → latents as the denoiser knows them: per channel of mean 0 and variance 1,
    /// or times the scaling factor.
    pub fn encode_latents(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        let latents = self.network.encode(images);
        let (mean, std) = self.statistics(&latents)?;
        Ok((latents - mean) / std * self.config.scaling_factor)
    }

    /// The denoiser's latents → pictures in about [-1, 1].
    pub fn decode_latents(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        let (mean, std) = self.statistics(&latents)?;
        Ok(self.network.decode(latents / self.config.scaling_factor * std + mean))
    }

    fn statistics(&self, like: &Tensor<4>) -> Result<(Tensor<4>, Tensor<4>)> {
        let channels = self.config.latent_channels;
        let tensor = |values: &Option<Vec<f64>>, default: f32| {
            let values: Vec<f32> = match values {
                Some(values) if values.len() == channels => values.iter().map(|v| *v as f32).collect(),
                Some(values) => {
                    return Err(Error::weights(
                        "config-range",
                        format!("{} latent statistics for {channels} channels", values.len()),
                        "use the config that belongs to the weights",
                    ));
                }
                None => vec![default; channels],
            };
            let tensor = Tensor::<1>::from_floats(values.as_slice(), &like.device());
            Ok(tensor.reshape([1, channels, 1, 1]).cast(like.dtype()))
        };
        Ok((tensor(&self.config.latents_mean, 0.0)?, tensor(&self.config.latents_std, 1.0)?))
    }
}
