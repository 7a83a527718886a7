//! [`FaceStudio::generate`]: the whole flow on one screen, and the only loop.

mod embed;
mod models;
pub mod prompt;
mod regions;

use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};

use crate::condition::{Condition, Regions};
use crate::error::{Error, Result};
use crate::guidance::classifier_free::guide;
use crate::guidance::fusion::hybrid;
use crate::guidance::mixing;
use crate::image::preprocess::{read_pictures, resize_to_cover, signed_tensor};
use crate::image::watermark;
use crate::request::{GenerateRequest, Person};
use crate::sampling::{NoiseSource, Scheduler};
use crate::weights::Files;
pub use embed::Found;
use models::Models;
use regions::Canvas;

/// Streams of a picture's [`NoiseSource`]: the noise that it starts from, which held latents keep.
const START: u64 = 0;
/// The noise of step `i` is stream `STEPS + i`.
const STEPS: u64 = 1 << 32;
/// The prior's noise. The negative prompt's is the same: a prompt against itself then changes nothing.
const PRIOR: u64 = 2 << 32;

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

/// The picture sizes that a model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Width and height in pixels that it was trained on, where its config says.
    pub own: Option<[usize; 2]>,
    /// Sides are multiples of this.
    pub multiple: usize,
}

/// A loaded model.
#[derive(Debug)]
pub struct FaceStudio {
    models: Models,
    device: Device,
}

impl FaceStudio {
    /// Loads every component of a model folder onto `device`.
    ///
    /// The folder has diffusers' layout: `tokenizer`, `text_encoder`, `vision_encoder`, `vision_encoder_2` and so on,
    /// `face_encoder`, `detector`, `prior` (with its own `scheduler_config.json`), `guidance`, `unet`, `vae`,
    /// `scheduler`, and perhaps `tiny_vae` for cheaper previews. Without a `prior`, only style images can be drawn from.
    pub fn load(files: &dyn Files, device: &Device) -> Result<Self> {
        Ok(Self { models: Models::load(files, device)?, device: device.clone() })
    }

    /// The faces of a picture, as the pipeline finds them, without person masks.
    pub async fn faces(&self, picture: &RgbImage) -> Result<Vec<Found>> {
        embed::detect(&self.models.detector, picture, false, &self.device).await
    }

    /// How alike the people of a picture and a person are: the cosine of the identity encoder's embeddings, −1 to 1.
    ///
    /// Of several faces in the picture the one most like the person counts. Fails with `face-not-found` where the
    /// picture, or a photo of the person, shows none.
    pub async fn similarity(&self, picture: &RgbImage, person: &Person) -> Result<f32> {
        let mut embeddings = Vec::new();
        for photo in person.identities.iter().flat_map(|identity| &identity.photos) {
            let name = format!("photo {}", embeddings.len() + 1);
            embeddings.push(embed::identity(&self.models, photo, &name, &self.device).await?);
        }
        let reference = embed::mix(person, &mut embeddings.into_iter());
        let mut best = None;
        for face in self.faces(picture).await? {
            let embedding = embed::face(&self.models, picture, &face, "the picture", &self.device).await?;
            let cosine = mixing::cosine(&reference, &embedding);
            best = Some(best.map_or(cosine, |best: f32| best.max(cosine)));
        }
        best.ok_or_else(|| embed::not_found("the picture"))
    }

    /// The picture sizes that this model makes.
    pub fn sizes(&self) -> Sizes {
        let factor = self.models.vae.downsampling();
        Sizes {
            own: self.models.sample_size.map(|[height, width]| [width * factor, height * factor]),
            multiple: factor,
        }
    }

    /// Whether the model has a prior, which prompts need.
    pub fn reads_words(&self) -> bool {
        self.models.text.is_some()
    }

    /// Makes the pictures of a request.
    ///
    /// `watch` is called after every step; `Break` cancels. Its answer is awaited before the next step starts, so
    /// that in a browser the event loop turns between steps and a cancel can arrive.
    pub async fn generate(
        &self,
        request: &GenerateRequest,
        watch: impl AsyncFnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        request.validate()?;
        let canvas = self.canvas(request)?;
        let mut watcher = Watcher { watch, picture: 0 };
        let embeds = self.encode(request, &mut watcher).await?;
        let masks = regions::masks(request, &canvas, &self.models.detector, &self.device).await?;
        let regions = regions::regions(&masks, request.background, &canvas)?;
        let changing = regions::changing(request, &masks, &canvas)?;
        let init = self.init_latents(request, &canvas)?;
        let held =
            init.as_ref().zip(changing).map(|(init, mask)| Held::new(init, mask.into_values(), &canvas));
        let strength = request.init.as_ref().map(|init| init.strength);
        let schedule = self.models.scheduler.schedule(request.sampler, request.steps, strength)?;

        let mut pictures = Vec::with_capacity(request.count);
        for (picture, prompts) in embeds.prompts.iter().enumerate() {
            watcher.picture = picture;
            let seed = request.seed.wrapping_add(picture as u64);
            let noise = NoiseSource::new(seed);
            let denoiser = self.denoiser(request, &embeds, prompts, regions.clone())?;
            let mut scheduler = Scheduler::new(schedule.clone());
            let start = self.noise(&noise, START, &canvas);
            let mut latents = match &init {
                Some(init) if strength.is_some_and(|strength| strength < 1.0) => {
                    scheduler.add_noise(0, init.clone(), start.clone())?
                }
                _ => start.clone() * schedule.init_noise_sigma(),
            };
            for (i, timestep) in schedule.timesteps().into_iter().enumerate() {
                let input = scheduler.scale_model_input(i, latents.clone())?;
                let noise_pred = denoiser.predict(input, timestep);
                let fresh = scheduler.needs_noise(i).then(|| self.noise(&noise, STEPS + i as u64, &canvas));
                let output = scheduler.step(i, noise_pred, latents, fresh)?;
                latents = match &held {
                    Some(held) => held.put_back(output.sample, i + 1, &scheduler, &start)?,
                    None => output.sample,
                };
                settle(&latents).await?;
                let preview = self.preview(request, i + 1, output.pred_original).await?;
                watcher.report(Phase::Denoise, i + 1, schedule.len(), preview).await?;
            }
            let mut image = self.decode(latents).await?;
            if request.watermark {
                watermark::embed(&mut image);
            }
            pictures.push(Generated { image, seed });
            watcher.report(Phase::Decode, 1, 1, None).await?;
        }
        Ok(pictures)
    }

    /// The size of the picture and of its latents: the request's, or else the UNet's own.
    fn canvas(&self, request: &GenerateRequest) -> Result<Canvas> {
        let factor = self.models.vae.downsampling();
        let side = |name: &str, asked: Option<usize>, axis: usize| -> Result<usize> {
            let own = self.models.sample_size.map(|sides| sides[axis].saturating_mul(factor));
            let side = asked.or(own).ok_or_else(|| {
                Error::input(
                    "size-missing",
                    format!("no {name} was given, and the model does not state its own"),
                    "give a width and a height",
                )
            })?;
            if !(1..=crate::request::MAX_SIDE).contains(&side) || !side.is_multiple_of(factor) {
                return Err(Error::input(
                    "size-multiple",
                    format!("the {name} is {side}; this model makes multiples of {factor}"),
                    format!("use {}", side.clamp(factor, crate::request::MAX_SIDE) / factor * factor),
                ));
            }
            Ok(side)
        };
        let (height, width) = (side("height", request.height, 0)?, side("width", request.width, 1)?);
        Ok(Canvas { width, height, latent_width: width / factor, latent_height: height / factor })
    }

    /// Photos, style image and prompts to embeddings; one step each, and one for each picture's prior.
    async fn encode<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
        &self,
        request: &GenerateRequest,
        watcher: &mut Watcher<W>,
    ) -> Result<Embeds> {
        let alpha = request.effective_alpha();
        let style = request.style.as_ref().filter(|_| alpha > 0.0);
        let prompt = Some(request.prompt.as_str()).filter(|_| alpha < 1.0);
        let negative = Some(request.negative_prompt.as_str())
            .filter(|negative| !negative.trim().is_empty() && request.guidance_scale != 1.0);
        let photos = |person: &Person| -> usize {
            person.identities.iter().map(|identity| identity.photos.len()).sum()
        };
        let texts = prompt.or(negative).map_or(0, |_| request.count);
        let steps = request.people.iter().map(photos).sum::<usize>() + usize::from(style.is_some()) + texts;
        let mut step = 0;
        let mut advance = async || {
            step += 1;
            watcher.report(Phase::Encode, step, steps, None).await
        };

        let mut id_embeds = Vec::with_capacity(request.people.len().max(1));
        for (i, person) in request.people.iter().enumerate() {
            let mut embeddings = Vec::new();
            for photo in person.identities.iter().flat_map(|identity| &identity.photos) {
                let name = format!("photo {} of person {}", embeddings.len() + 1, i + 1);
                embeddings.push(embed::identity(&self.models, photo, &name, &self.device).await?);
                advance().await?;
            }
            id_embeds.push(embed::mixed(person, &mut embeddings.into_iter(), &self.device));
        }
        if id_embeds.is_empty() {
            // Nobody: trained as a zero identity (paper section 4.1).
            id_embeds.push(Tensor::zeros([1, self.models.id_embed_dim], &self.device));
        }
        let mut style_embeds = None;
        if let Some(style) = style {
            style_embeds = Some(embed::style(&self.models, style, &self.device).await?);
            advance().await?;
        }
        let mut prompts = vec![Prompts::default(); request.count];
        if prompt.or(negative).is_some() {
            let text = self.models.text.as_ref().ok_or_else(|| {
                Error::weights(
                    "component-missing",
                    "the model has no component 'prior', which prompts need",
                    "leave out the prompts, or use a model with a prior",
                )
            })?;
            let prompt = prompt.map(|prompt| text.encode(&[prompt])).transpose()?;
            let negative = negative.map(|negative| text.encode(&[negative])).transpose()?;
            for (picture, prompts) in prompts.iter_mut().enumerate() {
                let noise = NoiseSource::new(request.seed.wrapping_add(picture as u64));
                prompts.positive = prompt.as_ref().map(|p| text.embed(p, &noise, PRIOR)).transpose()?;
                prompts.negative = negative.as_ref().map(|n| text.embed(n, &noise, PRIOR)).transpose()?;
                advance().await?;
            }
        }
        Ok(Embeds { style: style_embeds, id_embeds, prompts })
    }

    /// The latents of the init image, `[1, channels, height, width]`.
    fn init_latents(&self, request: &GenerateRequest, canvas: &Canvas) -> Result<Option<Tensor<4>>> {
        let Some(init) = &request.init else { return Ok(None) };
        let picture = resize_to_cover(&init.image, canvas.width, canvas.height)?;
        self.models.vae.encode_latents(signed_tensor(&[&picture], &self.device)?).map(Some)
    }

    /// Embeddings to guidance tokens, with the null half of classifier-free guidance where there is any.
    fn denoiser(
        &self,
        request: &GenerateRequest,
        embeds: &Embeds,
        prompts: &Prompts,
        regions: Option<Regions>,
    ) -> Result<Denoiser<'_>> {
        let fusion = &self.models.fusion;
        let alpha = request.effective_alpha();
        let zero_style = || Tensor::zeros([1, self.models.vision.embed_dim()], &self.device);
        let tokens = |id_embeds: &Tensor<2>| {
            let branch = |embeds: &Tensor<2>| fusion.forward(embeds.clone(), id_embeds.clone());
            match (&embeds.style, &prompts.positive) {
                (Some(style), Some(prompt)) => hybrid(branch(style), branch(prompt), alpha),
                (Some(only), None) | (None, Some(only)) => branch(only),
                (None, None) => branch(&zero_style()),
            }
        };
        let join = |tokens: Vec<Tensor<3>>| match regions.clone() {
            Some(regions) => Condition::with_regions(tokens, regions),
            None => Ok(Condition { identities: tokens, regions: None }),
        };
        let condition = join(embeds.id_embeds.iter().map(tokens).collect())?;
        if request.guidance_scale == 1.0 {
            return Ok(Denoiser { unet: &self.models.unet, condition, guidance_scale: None });
        }
        let away_from = prompts.negative.clone().unwrap_or_else(zero_style);
        let null = fusion.forward(away_from, Tensor::zeros([1, self.models.id_embed_dim], &self.device));
        let null = join(vec![null; embeds.id_embeds.len()])?;
        let condition = Condition::cat(null, condition);
        Ok(Denoiser { unet: &self.models.unet, condition, guidance_scale: Some(request.guidance_scale) })
    }

    /// Standard normal latents.
    fn noise(&self, source: &NoiseSource, stream: u64, canvas: &Canvas) -> Tensor<4> {
        let channels = self.models.vae.latent_channels();
        source.tensor(stream, [1, channels, canvas.latent_height, canvas.latent_width], &self.device)
    }

    /// The predicted picture so far, if one is due after `step` steps: from the preview decoder where the model has one,
    /// else from its own.
    async fn preview(
        &self,
        request: &GenerateRequest,
        step: usize,
        pred_original: Tensor<4>,
    ) -> Result<Option<RgbImage>> {
        if !request.preview_every.is_some_and(|every| step.is_multiple_of(every)) {
            return Ok(None);
        }
        let vae = self.models.tiny_vae.as_ref().unwrap_or(&self.models.vae);
        Ok(read_pictures(vae.decode_latents(pred_original)?).await?.pop())
    }

    async fn decode(&self, latents: Tensor<4>) -> Result<RgbImage> {
        let mut pictures = read_pictures(self.models.vae.decode_latents(latents)?).await?;
        pictures.pop().ok_or_else(|| Error::internal("picture-missing", "the decoder gave no picture"))
    }
}

/// Waits until the device has computed `latents`: a GPU only queues what it is told, and without this wait progress and
/// cancelling would run ahead of it by many steps. One value is read back, since WebGPU offers no other wait.
async fn settle(latents: &Tensor<4>) -> Result<()> {
    let one = latents.clone().slice([0..1, 0..1, 0..1, 0..1]);
    one.into_data_async().await.map_err(|e| {
        Error::device("read-back", format!("the device did not finish a step: {e:?}"), "try again")
    })?;
    Ok(())
}

/// What a request's pictures and texts became.
struct Embeds {
    /// `[1, image_embed_dim]`.
    style: Option<Tensor<2>>,
    /// `[1, id_embed_dim]` of each person; one of zeros without people.
    id_embeds: Vec<Tensor<2>>,
    /// Of each picture: the prior draws.
    prompts: Vec<Prompts>,
}

/// One picture's draws from the prior, `[1, image_embed_dim]`.
#[derive(Clone, Default)]
struct Prompts {
    positive: Option<Tensor<2>>,
    negative: Option<Tensor<2>>,
}

/// The UNet under a condition; with a guidance scale, the condition's batch holds the null half first.
struct Denoiser<'a> {
    unet: &'a crate::unet::UNet2DConditionModel,
    condition: Condition,
    guidance_scale: Option<f32>,
}

impl Denoiser<'_> {
    /// `[1, channels, height, width]` both.
    fn predict(&self, input: Tensor<4>, timestep: f32) -> Tensor<4> {
        let device = input.device();
        match self.guidance_scale {
            None => self.unet.forward(input, Tensor::full([1], timestep, &device), &self.condition),
            Some(scale) => {
                let both = Tensor::cat(vec![input.clone(), input], 0);
                guide(self.unet.forward(both, Tensor::full([2], timestep, &device), &self.condition), scale)
            }
        }
    }
}

/// Latents that must stay the init image's, as in inpainting.
struct Held {
    init: Tensor<4>,
    /// 1 where latents may change, `[1, 1, height, width]`.
    changing: Tensor<4>,
}

impl Held {
    fn new(init: &Tensor<4>, changing: Vec<f32>, canvas: &Canvas) -> Self {
        let shape = [1, 1, canvas.latent_height, canvas.latent_width];
        let changing = burn::tensor::TensorData::new(changing, shape);
        Self { init: init.clone(), changing: Tensor::from_data(changing, &init.device()) }
    }

    /// Puts the init image's latents back, noised to the level that step `next` starts from (clean after the last).
    fn put_back(
        &self,
        latents: Tensor<4>,
        next: usize,
        scheduler: &Scheduler,
        noise: &Tensor<4>,
    ) -> Result<Tensor<4>> {
        let held = if next < scheduler.schedule().len() {
            scheduler.add_noise(next, self.init.clone(), noise.clone())?
        } else {
            self.init.clone()
        };
        Ok(latents * self.changing.clone() + held * (self.changing.clone() * -1.0 + 1.0))
    }
}

/// Tells progress, and stops where the watcher wants to.
struct Watcher<W> {
    watch: W,
    picture: usize,
}

impl<W: AsyncFnMut(Progress) -> ControlFlow<()>> Watcher<W> {
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
}
