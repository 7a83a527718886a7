//! Reference pictures as a denoiser sees them: latents.

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};

use crate::error::Result;
use crate::image::preprocess::signed_tensor;
use crate::image::reference::fitted;
use crate::vae::Vae;

/// Makes latents of reference pictures.
#[derive(Debug, Clone, Copy)]
pub struct ReferenceReader<'a> {
    /// The model's autoencoder.
    pub vae: &'a Vae,
    /// Most pixels of a picture: as many as are drawn.
    pub area: usize,
}

impl ReferenceReader<'_> {
    /// `[1, channels, height, width]` of a picture, brought to a size that the model takes.
    pub fn latents(&self, picture: &RgbImage, device: &Device) -> Result<Tensor<4>> {
        let picture = fitted(picture, self.area, self.vae.downsampling())?;
        self.vae.encode_latents(signed_tensor(&[&picture], device)?)
    }
}
