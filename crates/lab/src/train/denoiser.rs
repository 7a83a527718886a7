//! The denoisers that can be trained, whichever architecture a model folder has.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use facestudio::condition::Condition;
use facestudio::error::{Error, Result};
use facestudio::pixart::{PixArtTransformer2DConfig, PixArtTransformer2DModel};
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{Files, TensorSource, Tensors, apply, collect};

use super::export::Export;

/// Weights' file of a component, as diffusers names it.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// A denoiser's config.
#[derive(Debug, Clone)]
pub enum DenoiserConfig {
    /// Of the folder `unet`.
    UNet(UNet2DConditionConfig),
    /// Of the folder `transformer`.
    PixArt(PixArtTransformer2DConfig),
}

impl DenoiserConfig {
    /// The folder that a model keeps its denoiser in.
    pub fn folder_of(model: &dyn Files) -> Result<&'static str> {
        let transformer = model.folders("")?.iter().any(|folder| folder == "transformer");
        Ok(if transformer { "transformer" } else { "unet" })
    }

    /// Of a component's `config.json`.
    pub fn read(folder: &str, json: &Value) -> Result<Self> {
        let wrong = |e: serde_json::Error| {
            Error::weights(
                "config",
                format!("{folder}/config.json: {e}"),
                "use the config of a supported model",
            )
        };
        Ok(if folder == "transformer" {
            Self::PixArt(serde_json::from_value(json.clone()).map_err(wrong)?)
        } else {
            Self::UNet(serde_json::from_value(json.clone()).map_err(wrong)?)
        })
    }

    /// With random weights.
    pub fn init(&self, device: &Device) -> Result<Denoiser> {
        Ok(match self {
            Self::UNet(config) => Denoiser::UNet(config.init(device)?),
            Self::PixArt(config) => Denoiser::PixArt(config.init(device)?),
        })
    }

    /// Channels of the latents.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.in_channels,
            Self::PixArt(config) => config.in_channels,
        }
    }

    /// Channels of a token of the condition.
    pub fn token_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.cross_attention_dim,
            Self::PixArt(config) => config.token_channels(),
        }
    }

    /// Width at the finest positions.
    pub fn width(&self) -> usize {
        match self {
            Self::UNet(config) => config.block_out_channels.first().copied().unwrap_or(1),
            Self::PixArt(config) => config.width(),
        }
    }

    /// Sides of the latents that it was made for, if it says them.
    pub fn sample_sides(&self) -> Option<[usize; 2]> {
        match self {
            Self::UNet(config) => config.sample_sides(),
            Self::PixArt(config) => Some([config.sample_size; 2]),
        }
    }
}

/// A denoiser.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "one of a run")]
pub enum Denoiser {
    /// Stable Diffusion's.
    UNet(UNet2DConditionModel),
    /// `mini`'s.
    PixArt(PixArtTransformer2DModel),
}

impl Denoiser {
    /// With the weights of a component.
    pub fn with(self, tensors: &dyn TensorSource) -> Result<Self> {
        Ok(match self {
            Self::UNet(unet) => Self::UNet(apply(unet, tensors, "")?),
            Self::PixArt(transformer) => Self::PixArt(apply(transformer, tensors, "")?),
        })
    }

    /// As [`UNet2DConditionModel::forward`].
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timestep: Tensor<1>,
        condition: &Condition,
    ) -> Result<Tensor<4>> {
        match self {
            Self::UNet(unet) => unet.forward(sample, timestep, condition),
            Self::PixArt(transformer) => transformer.forward(sample, timestep, condition),
        }
    }

    /// Whether it takes the style beside the timestep as well.
    pub fn adds_style(&self) -> bool {
        matches!(self, Self::UNet(unet) if unet.class_embedding.is_some())
    }

    /// Its weights by their names in checkpoints.
    pub fn collect(&self) -> Result<Tensors> {
        match self {
            Self::UNet(unet) => collect(unet, ""),
            Self::PixArt(transformer) => collect(transformer, ""),
        }
    }

    /// Writes it into its folder, `json` being its config.
    pub(super) fn export(&self, export: &mut Export, json: &Value) -> Result<()> {
        let folder = match self {
            Self::UNet(_) => "unet",
            Self::PixArt(_) => "transformer",
        };
        export.json(&format!("{folder}/config.json"), json)?;
        let weights = format!("{folder}/{WEIGHTS}");
        match self {
            Self::UNet(unet) => export.weights(&weights, unet),
            Self::PixArt(transformer) => export.weights(&weights, transformer),
        }
    }
}
