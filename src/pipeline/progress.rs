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

/// Hears how far a picture is, and brings what it needs.
pub trait Host {
    /// Says which picture of the request is being made.
    fn turn_to(&mut self, picture: usize);

    /// Tells of a finished step of a phase; fails with `cancelled`.
    async fn report(
        &mut self,
        phase: Phase,
        step: usize,
        steps: usize,
        preview: Option<RgbImage>,
    ) -> Result<()>;

    /// Has a component that was let go of read again.
    async fn bring(&mut self, component: &str) -> Result<()>;
}

/// The host of one request, made of two functions.
pub struct Watcher<W, B> {
    /// Hears of every step; `Break` cancels.
    pub watch: W,
    /// Reads a component again.
    pub bring: B,
    /// Index of the picture being made.
    pub picture: usize,
}

impl<W, B> Host for Watcher<W, B>
where
    W: AsyncFnMut(Progress) -> ControlFlow<()>,
    B: AsyncFnMut(&str) -> Result<()>,
{
    fn turn_to(&mut self, picture: usize) {
        self.picture = picture;
    }

    async fn report(
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

    async fn bring(&mut self, component: &str) -> Result<()> {
        (self.bring)(component).await
    }
}

/// The host of one of several faces of a picture, each of which is drawn as a picture is: the steps of all count as one phase's.
pub struct OneFace<'a, H> {
    host: &'a mut H,
    index: usize,
    count: usize,
}

impl<'a, H: Host> OneFace<'a, H> {
    /// Of face `index` of `count`.
    pub fn new(host: &'a mut H, index: usize, count: usize) -> Self {
        Self { host, index, count }
    }
}

impl<H: Host> Host for OneFace<'_, H> {
    /// A face is no picture of the request's.
    fn turn_to(&mut self, _: usize) {}

    async fn report(
        &mut self,
        phase: Phase,
        step: usize,
        steps: usize,
        preview: Option<RgbImage>,
    ) -> Result<()> {
        self.host.report(phase, self.index * steps + step, self.count * steps, preview).await
    }

    async fn bring(&mut self, component: &str) -> Result<()> {
        self.host.bring(component).await
    }
}

/// Counts the steps of [`Phase::Encode`].
pub struct Encoding<'a, H> {
    /// Who hears of them.
    pub host: &'a mut H,
    step: usize,
    steps: usize,
}

impl<'a, H: Host> Encoding<'a, H> {
    /// The encoding of a request: a step for each photo, the style image if it is `styled`, and each of its `texts`.
    pub fn new(host: &'a mut H, request: &GenerateRequest, styled: bool, texts: usize) -> Self {
        let identities = request.people.iter().flat_map(|person| &person.identities);
        let photos: usize = identities.map(|identity| identity.photos.len()).sum();
        Self { host, step: 0, steps: photos + usize::from(styled) + texts }
    }

    /// One step is done.
    pub async fn advance(&mut self) -> Result<()> {
        self.step += 1;
        self.host.report(Phase::Encode, self.step, self.steps, None).await
    }
}
