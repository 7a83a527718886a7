//! [`FaceStudio::generate`]: the whole flow on one screen, and the only loop.

use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::Device;

use crate::error::{Error, Result};
use crate::request::GenerateRequest;
use crate::weights::Files;

/// Where a generation stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Finished steps of this phase.
    pub step: usize,
    /// Steps of this phase.
    pub steps: usize,
    /// Index of the picture being made.
    pub picture: usize,
    /// A small preview of the picture so far, where one was asked for.
    pub preview: Option<RgbImage>,
}

/// The phases of a generation, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Faces, style image and prompt are turned into embeddings.
    Encode,
    /// The denoising loop.
    Denoise,
    /// Latents are decoded to pixels.
    Decode,
}

/// One finished picture.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The pixels.
    pub image: RgbImage,
    /// The seed that makes this picture alone again.
    pub seed: u64,
}

/// A loaded model.
pub struct FaceStudio {
    device: Device,
}

impl FaceStudio {
    /// Loads every component of a model folder onto `device`.
    pub fn load(_files: &dyn Files, device: &Device) -> Result<Self> {
        Ok(Self { device: device.clone() })
    }

    /// Makes the pictures of a request.
    ///
    /// `watch` is called after every step; `Break` cancels. Its answer is awaited before the next step starts, so
    /// that in a browser the event loop turns between steps and a cancel can arrive.
    pub async fn generate(
        &self,
        request: &GenerateRequest,
        _watch: impl AsyncFnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        request.validate()?;
        let _ = &self.device;
        Err(Error::internal("not-wired", "the pipeline's rooms are not joined yet"))
    }
}
