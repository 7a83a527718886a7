//! How far a picture is: what is told after every step, and how it is cancelled.

use std::ops::ControlFlow;

use ::image::RgbImage;

use crate::error::{Error, Result};
use crate::request::GenerateRequest;

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

/// Tells progress, and stops where the watcher wants to.
pub struct Watcher<W> {
    /// Hears of every step; `Break` cancels.
    pub watch: W,
    /// Index of the picture being made.
    pub picture: usize,
}

impl<W: AsyncFnMut(Progress) -> ControlFlow<()>> Watcher<W> {
    /// Tells of a step; fails with `cancelled`.
    pub async fn report(
        &mut self,
        phase: Phase,
        step: usize,
        steps: usize,
        preview: Option<RgbImage>,
    ) -> Result<()> {
        match (self.watch)(Progress { phase, step, steps, picture: self.picture, preview }).await {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::cancelled()),
        }
    }

    /// The encoding of a request: a step for each photo, the style image if it is `styled`, and each of its `texts`.
    pub fn encoding(&mut self, request: &GenerateRequest, styled: bool, texts: usize) -> Encoding<'_, W> {
        let identities = request.people.iter().flat_map(|person| &person.identities);
        let photos: usize = identities.map(|identity| identity.photos.len()).sum();
        Encoding { watcher: self, step: 0, steps: photos + usize::from(styled) + texts }
    }
}

/// Counts the steps of [`Phase::Encode`].
pub struct Encoding<'a, W> {
    watcher: &'a mut Watcher<W>,
    step: usize,
    steps: usize,
}

impl<W: AsyncFnMut(Progress) -> ControlFlow<()>> Encoding<'_, W> {
    /// One step is done.
    pub async fn advance(&mut self) -> Result<()> {
        self.step += 1;
        self.watcher.report(Phase::Encode, self.step, self.steps, None).await
    }
}
