//! [`Enlarger`]: a model folder with `upscaler/`, which makes finished pictures larger.

use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::Device;

use super::folder::{ModelFolder, model_id};
use crate::error::Result;
use crate::request::{EnlargeRecipe, ModelId, PixelHash};
use crate::upscaler::Upscaler;
use crate::weights::Files;

/// A loaded upscaler.
#[derive(Debug)]
pub struct Enlarger {
    upscaler: Upscaler,
    id: ModelId,
    device: Device,
}

impl Enlarger {
    /// Loads `upscaler/` of a model folder onto `device`; files on disk are held against its manifest.
    ///
    /// Fails with `component-missing` without one.
    pub fn load(files: &dyn Files, device: &Device) -> Result<Self> {
        let checked = files.checked();
        let files = checked.as_ref().map_or(files, |checked| checked);
        let folder = ModelFolder::new(files)?;
        let upscaler = folder.load("upscaler", |component| Upscaler::load(component, device))?;
        Ok(Self { upscaler, id: model_id(files, &folder.loaded())?, device: device.clone() })
    }

    /// The picture, larger, and how it was made so. `watch` hears of every tile, of how many; `Break` cancels.
    ///
    /// Fails as [`Upscaler::enlarge`].
    pub async fn enlarge(
        &self,
        picture: &RgbImage,
        watch: impl AsyncFnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(RgbImage, EnlargeRecipe)> {
        let larger = self.upscaler.enlarge(picture, &self.device, watch).await?;
        let recipe = EnlargeRecipe {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.id.clone(),
            factor: self.upscaler.factor(),
            source: PixelHash::of(picture),
        };
        Ok((larger, recipe))
    }
}
