//! [`FaceStudio::generate`]: the whole flow on one screen. The loop over its steps is [`denoise`].

mod adapters;
mod arc2face;
mod cache;
mod chat;
mod defaults;
mod denoise;
mod embed;
mod enlarge;
mod evidence;
mod family;
mod folder;
mod fused;
mod index;
mod klein;
mod models;
mod network;
mod photo;
mod precision;
mod progress;
pub mod prompt;
mod readers;
mod references;
mod regions;
mod resident;

use std::ops::ControlFlow;
use std::sync::Arc;

use ::image::RgbImage;
use burn::tensor::{DType, Device, Tensor};

use crate::condition::Places;
pub use crate::encoders::detector::DetectedFace;
use crate::error::{Error, Notice, Result};
use crate::guidance::mixing;
use crate::image::mask::Mask;
use crate::image::preprocess::{read_pictures, resize_to_cover, signed_tensor};
use crate::image::watermark;
use crate::nn::read_finite;
use crate::request::{
    Defaults, GenerateRequest, IntoPhoto, ModelId, Person, Recipe, RedrawFaces, Roles, WhichFace,
};
use crate::sampling::{NoiseSource, Scheduler, StepOutput};
use crate::weights::Files;
use cache::{Cache, Key};
pub use defaults::{NAME as DEFAULTS, defaults};
pub use denoise::{Denoiser, InpaintMask, denoise, start};
pub use enlarge::Enlarger;
use family::Guided;
use models::Models;
pub use network::{Network, Predict};
pub use precision::Precision;
use progress::{Host, OneFace, Watcher};
pub use progress::{Phase, Progress};
use references::ReferenceReader;
pub use regions::{Canvas, Sizes};

/// Streams of a picture's [`NoiseSource`]: the noise that it starts from, which latents outside of a mask keep.
const START: u64 = 0;
/// The noise of the first step; each has a stream of its own.
const STEPS: u64 = 1 << 32;

/// The stream of step `i`'s fresh noise.
fn fresh_stream(i: usize) -> u64 {
    STEPS + i as u64
}

/// One finished picture.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The pixels.
    pub image: RgbImage,
    /// What makes this picture alone again.
    pub recipe: Recipe,
    /// What was done otherwise than asked: what of the texts was not read.
    pub notices: Vec<Notice>,
    /// Of several [candidates](GenerateRequest::candidates), how alike the person and the face most like them are: the cosine of the
    /// identity encoder's embeddings, −1 to 1, and of several people the least. `None` where no face is found, and where there is
    /// one candidate.
    pub likeness: Option<f32>,
}

/// A loaded model.
#[derive(Debug)]
pub struct FaceStudio {
    models: Models,
    /// The latest requests' guidance.
    prepared: Cache,
    device: Device,
    /// What the denoiser computes in.
    dtype: DType,
}

impl FaceStudio {
    /// Loads every component of a model folder onto `device`; files on disk are held against its manifest.
    ///
    /// The folder has diffusers' layout: `tokenizer`, `text_encoder`, `vision_encoder`, `vision_encoder_2` and so on,
    /// `face_encoder`, `detector`, `prior` (with its own `scheduler_config.json`), `guidance`, `unet`, `vae`,
    /// `scheduler`, and perhaps `tiny_vae` for cheaper previews and `segmenter` for the outlines of people in content
    /// images. Without a `prior`, only style images can be drawn from.
    ///
    /// In place of `prior` and `guidance` it may have adapters of the IP-Adapter family, `ip_adapter`, `ip_adapter_2` and so
    /// on, each with a `config.json` that says whether it reads the style image or faces; `vision_encoder` and
    /// `face_encoder` are then needed only where an adapter reads what they say.
    ///
    /// Or it may have `arc2face`, whose `text_encoder` reads faces in the place of a word: such a model draws from faces alone.
    ///
    /// Or it may have `transformer` in place of `unet`, FLUX.2 klein's, which sees photos and style images themselves: with
    /// `model_index.json`, and without the others but `tokenizer`, `text_encoder`, `vae`, `scheduler` and, for photos in which faces are
    /// to be found, `detector`. Its text encoder and its transformer take turns and are not read yet: it is drawn with by
    /// [`generate_with`](Self::generate_with), which asks for each.
    pub fn load(files: &dyn Files, device: &Device) -> Result<Self> {
        let checked = files.checked();
        let files = checked.as_ref().map_or(files, |checked| checked);
        Ok(Self {
            models: Models::load(files, device)?,
            prepared: Cache::new(cache::REQUESTS),
            device: device.clone(),
            dtype: Precision::default().dtype(device)?,
        })
    }

    /// Computes in another precision than [`Precision::Auto`]'s. Fails with `precision` where the device has none such.
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        Ok(Self { dtype: precision.dtype(&self.device)?, ..self })
    }

    /// What the denoiser computes in: `f16` or `f32`.
    pub fn precision(&self) -> &'static str {
        if self.dtype == DType::F16 { "f16" } else { "f32" }
    }

    /// Bytes of the files of those networks that only the beginning of a picture needs: the segmenter, the encoders of styles and
    /// texts, the prior, and what makes guidance of them.
    pub fn encoders_size(&self) -> u64 {
        self.models.residents().map(|resident| resident.size()).sum()
    }

    /// Lets go of those networks: at once, or when the picture that uses them has its guidance. A large model's are most of its
    /// memory besides the UNet. The face encoder stays beside the detector.
    ///
    /// A request like an earlier one in all but its steps, sampler, init image, preview or seed is drawn without them, from what is
    /// kept; where a prior draws of a prompt, another seed needs the prior and what makes guidance of it. A request that needs
    /// more has [`generate_with`](Self::generate_with) ask for each component that it needs, and [`generate`](Self::generate) fail
    /// with `encoders-released`.
    pub fn release_encoders(&self) {
        self.models.residents().for_each(|resident| resident.release());
    }

    /// Whether all of those networks are there.
    pub fn has_encoders(&self) -> bool {
        self.models.residents().all(|resident| resident.is_held())
    }

    /// Reads one of those networks again, by the name that [`generate_with`](Self::generate_with) asks for, from the folder that
    /// the model was loaded from. Nothing is read where it is there.
    ///
    /// Fails with `component-missing` on another name, and with `model-mismatch` where the folder's is another than it was.
    pub fn load_component(&self, name: &str, files: &dyn Files) -> Result<()> {
        let checked = files.checked();
        let files = checked.as_ref().map_or(files, |checked| checked);
        let resident = self.models.reloadable().find(|resident| resident.name() == name);
        resident.ok_or_else(|| folder::missing(name))?.load(files, &self.device)
    }

    /// Forgets what was encoded: embeddings of faces, styles and texts. Only pictures to come would use them.
    pub fn forget_encoded(&self) {
        self.models.readers.cache.clear();
        self.models.readers.chats.clear();
        self.prepared.clear();
    }

    fn key(&self, request: &GenerateRequest, canvas: &Canvas) -> Key {
        let draws = self.models.draws && fused::texts(request).iter().any(Option::is_some);
        Key::of_guidance(request, canvas, draws, self.models.sees_references)
    }

    /// The faces of a picture, as the pipeline finds them, without person masks.
    pub async fn faces(&self, picture: &RgbImage) -> Result<Vec<DetectedFace>> {
        self.models.readers.detector()?.detect(picture, false, &self.device).await
    }

    /// The faces of a picture, each with its embedding by the identity encoder, `[id_embed_dim]`.
    pub async fn identities(&self, picture: &RgbImage) -> Result<Vec<(DetectedFace, Vec<f32>)>> {
        let mut identities = Vec::new();
        for face in self.faces(picture).await? {
            let embedding =
                embed::face(&self.models.readers, picture, &face.landmarks, "the picture", &self.device)
                    .await?;
            identities.push((face, embedding));
        }
        Ok(identities)
    }

    /// How alike the people of a picture and a person are: the cosine of the identity encoder's embeddings, −1 to 1.
    ///
    /// Of several faces in the picture the one most like the person counts. Fails with `face-not-found` where the
    /// picture, or a photo of the person, shows none, and where the person cannot be drawn either.
    pub async fn similarity(&self, picture: &RgbImage, person: &Person) -> Result<f32> {
        person.validate(0)?;
        let reference = self.reference(person).await?;
        let identities = self.identities(picture).await?;
        let cosines = identities.iter().map(|(_, embedding)| mixing::cosine(&reference, embedding));
        cosines.max_by(f32::total_cmp).ok_or_else(|| embed::not_found("the picture"))
    }

    /// What a person's photos say to the identity encoder, mixed by β.
    async fn reference(&self, person: &Person) -> Result<Vec<f32>> {
        let mut embeddings = Vec::new();
        for photo in person.identities.iter().flat_map(|identity| &identity.photos) {
            let name = format!("photo {}", embeddings.len() + 1);
            embeddings.push(embed::identity(&self.models.readers, photo, &name, &self.device).await?);
        }
        Ok(embed::mix(person, &mut embeddings.into_iter()))
    }

    /// Measures how alike the pictures and their people are, and puts those that are most so first.
    async fn rank(&self, people: &[Person], pictures: &mut [Generated]) -> Result<()> {
        let mut references = Vec::with_capacity(people.len());
        for person in people {
            references.push(self.reference(person).await?);
        }
        for picture in pictures.iter_mut() {
            let found = self.identities(&picture.image).await?;
            let likeness = |reference: &Vec<f32>| {
                found.iter().map(|(_, face)| mixing::cosine(reference, face)).max_by(f32::total_cmp)
            };
            let each: Option<Vec<f32>> = references.iter().map(likeness).collect();
            picture.likeness = each.and_then(|each| each.into_iter().min_by(f32::total_cmp));
        }
        let or_least = |picture: &Generated| picture.likeness.unwrap_or(f32::NEG_INFINITY);
        pictures.sort_by(|a, b| or_least(b).total_cmp(&or_least(a)));
        Ok(())
    }

    /// The picture sizes that this model makes.
    pub fn sizes(&self) -> Sizes {
        let factor = self.models.vae.downsampling();
        Sizes {
            own: self.models.sample_size.map(|[height, width]| [width * factor, height * factor]),
            multiple: factor,
        }
    }

    /// Which model it is: the name in its manifest, and the hash of its files. Those that a manifest lists are what it says; others
    /// were hashed when they were loaded.
    pub fn model(&self) -> &ModelId {
        &self.models.id
    }

    /// What the model's pictures are made with where a request does not say.
    pub fn defaults(&self) -> Defaults {
        self.models.defaults
    }

    /// Whether the model can draw from prompts: with a prior, or with adapters.
    pub fn reads_words(&self) -> bool {
        self.models.reads_words
    }

    /// Whether the model can draw from style images.
    pub fn reads_styles(&self) -> bool {
        self.models.reads_styles
    }

    /// Whether the model sees pictures themselves and is told what each is, see [`Roles`](crate::request::Roles).
    pub fn sees_references(&self) -> bool {
        self.models.sees_references
    }

    /// Whether the model's text encoder and its denoiser take turns in memory, so that pictures are drawn with
    /// [`generate_with`](Self::generate_with) alone.
    pub fn takes_turns(&self) -> bool {
        self.models.takes_turns()
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
        self.generate_with(request, watch, async |component: &str| Err(resident::released(component))).await
    }

    /// As [`generate`](Self::generate); `bring` is called, and awaited, with the name of each component that is needed and
    /// [was let go of](Self::release_encoders): it has it [read again](Self::load_component).
    pub async fn generate_with(
        &self,
        request: &GenerateRequest,
        watch: impl AsyncFnMut(Progress) -> ControlFlow<()>,
        bring: impl AsyncFnMut(&str) -> Result<()>,
    ) -> Result<Vec<Generated>> {
        request.validate()?;
        if request.roles.is_some() && !self.models.sees_references {
            return Err(Error::input(
                "roles-unsupported",
                "roles are given, and this model sees no pictures that could be told of",
                "leave the roles out",
            ));
        }
        if !request.prompt_in_metadata && request.roles.as_ref().is_some_and(|own| *own != Roles::default()) {
            return Err(Error::input(
                "roles-in-metadata",
                "the picture's metadata are to be without words, and sentences of its own roles would stand there",
                "leave the roles out, or let the metadata have words",
            ));
        }
        let several;
        let (candidates, mut request) = (request.candidates, request);
        if candidates > 1 {
            // What they are measured with must be there before anything is drawn.
            self.models.readers.detector()?;
            self.models.readers.face_encoder()?;
            several = GenerateRequest { count: candidates, candidates: 1, ..request.clone() };
            request = &several;
        }
        let mut watcher = Watcher { watch, bring, picture: 0 };
        let mut pictures = match &request.into {
            Some(into) => self.put_into(request, into, &mut watcher).await?,
            None => self.draw(request, &mut watcher).await?,
        };
        for (index, picture) in pictures.iter_mut().enumerate() {
            if let Some(redraw) = &request.redraw_faces {
                watcher.turn_to(index);
                self.redraw_faces(request, redraw, picture, &mut watcher).await?;
            }
        }
        if candidates > 1 {
            self.rank(&request.people, &mut pictures).await?;
        }
        if request.watermark && request.into.is_none() {
            pictures.iter_mut().for_each(|picture| watermark::embed(&mut picture.image));
        }
        Ok(pictures)
    }

    /// Puts people into a photo: each face is drawn as a picture of its own, put back and marked.
    async fn put_into(
        &self,
        request: &GenerateRequest,
        into: &IntoPhoto,
        host: &mut impl Host,
    ) -> Result<Vec<Generated>> {
        let canvas = self.canvas(request)?;
        let found = if photo::searches(into) { self.faces(&into.photo).await? } else { Vec::new() };
        let faces = photo::chosen(into, &found, [canvas.width, canvas.height])?;
        let mut recipe = self.recipe(request, &canvas)?;
        // Whoever makes it again need not find as many faces.
        for (face, replacement) in faces.iter().zip(recipe.into.iter_mut().flat_map(|own| &mut own.faces)) {
            replacement.face = WhichFace::Box(face.area);
        }
        let mut pictures = Vec::with_capacity(request.count);
        for index in 0..request.count {
            host.turn_to(index);
            let seed = request.seed.wrapping_add(index as u64);
            let whole = GenerateRequest { seed, ..request.clone() };
            let (image, recipe) = (into.photo.clone(), Recipe { seed, ..recipe.clone() });
            let mut picture = Generated { image, recipe, notices: Vec::new(), likeness: None };
            self.redraw(&whole, &faces, into.strength, &mut picture, host).await?;
            photo::mark(&mut picture.image, &faces);
            pictures.push(picture);
        }
        Ok(pictures)
    }

    /// Draws a finished picture's small faces once more.
    async fn redraw_faces(
        &self,
        request: &GenerateRequest,
        redraw: &RedrawFaces,
        picture: &mut Generated,
        host: &mut impl Host,
    ) -> Result<()> {
        let canvas = self.canvas(request)?;
        let masks = evidence::masks(&self.models.readers, request, &canvas, host, &self.device).await?;
        let person = |place| regions::person_at(&masks, request.people.len(), place);
        let own = self.sizes().own.unwrap_or([canvas.width, canvas.height]);
        let found = self.faces(&picture.image).await?;
        let faces = photo::small(redraw, &found, picture.image.dimensions(), own, person)?;
        let [width, height] = own.map(Some);
        let whole = GenerateRequest { seed: picture.recipe.seed, width, height, ..request.clone() };
        self.redraw(&whole, &faces, redraw.strength, picture, host).await
    }

    async fn redraw<H: Host>(
        &self,
        whole: &GenerateRequest,
        faces: &[photo::Redrawn],
        strength: f32,
        picture: &mut Generated,
        host: &mut H,
    ) -> Result<()> {
        let Generated { image, notices, .. } = picture;
        let draw = async |request: &GenerateRequest, host: &mut OneFace<'_, H>| {
            let drawn = self.draw(request, host).await?.pop();
            let Generated { image, notices: own, .. } =
                drawn.ok_or_else(|| Error::internal("picture-missing", "no picture was drawn"))?;
            *notices = own;
            Ok(image)
        };
        photo::redraw(whole, image, faces, strength, self.models.reads_styles, host, draw).await
    }

    /// The recipe of a request's first picture.
    fn recipe(&self, request: &GenerateRequest, canvas: &Canvas) -> Result<Recipe> {
        let (id, size) = (self.models.id.clone(), [canvas.width, canvas.height]);
        let mut recipe = Recipe::new(request, id, self.precision(), size)?;
        if self.models.sees_references {
            recipe.roles.get_or_insert_default();
        }
        Ok(recipe)
    }

    /// Draws the pictures of a request that begins with nothing, or with its init image; they are not marked yet.
    async fn draw(&self, request: &GenerateRequest, host: &mut impl Host) -> Result<Vec<Generated>> {
        let canvas = self.canvas(request)?;
        let init = self.init_latents(request, &canvas)?;
        let prepared = self.prepared(request, &canvas, init.as_ref(), host).await?;
        if !self.has_encoders() {
            self.device.memory_cleanup();
        }
        let changing = regions::changing(request, &prepared.masks, &canvas)?;
        let strength = request.init.as_ref().map(|init| init.strength);
        let scheduler = self.models.scheduler.clone().for_image_tokens(canvas.positions());
        let schedule = scheduler.schedule(request.sampler, request.steps, strength)?;
        let network = self.models.network(host, &self.device).await?;
        let recipe = self.recipe(request, &canvas)?;

        let mut pictures = Vec::with_capacity(request.count);
        for (picture, guided) in prepared.guided.iter().enumerate() {
            let Guided { condition, guidance_scale } = guided.clone();
            host.turn_to(picture);
            let seed = request.seed.wrapping_add(picture as u64);
            let noise = NoiseSource::new(seed);
            let scheduler = Scheduler::new(schedule.clone());
            let noise_at_start = self.noise(&noise, START, &canvas);
            let inpaint = init.as_ref().zip(changing.as_ref());
            let inpaint =
                inpaint.map(|(init, mask)| InpaintMask::new(init, mask.values(), &noise_at_start, &canvas));
            let latents = start(&scheduler, &noise_at_start, init.as_ref().zip(strength), inpaint.as_ref())?;
            let denoiser = Denoiser { network: &*network, condition, guidance_scale, dtype: self.dtype };
            let fresh = |i: usize| Some(self.noise(&noise, fresh_stream(i), &canvas));
            let after = async |step, output: StepOutput| {
                let preview = self.preview(request, step, output.pred_original).await?;
                host.report(Phase::Denoise, step, schedule.len(), preview).await
            };
            let latents = denoise(&denoiser, scheduler, latents, fresh, inpaint.as_ref(), after).await?;
            let image = self.decode(latents).await?;
            let recipe = Recipe { seed, ..recipe.clone() };
            pictures.push(Generated { image, recipe, notices: prepared.notices.clone(), likeness: None });
            host.report(Phase::Decode, 1, 1, None).await?;
        }
        Ok(pictures)
    }

    /// A request's masks and guidance on a canvas, with the latents of its init image: kept from an earlier request, or made by the encoders.
    async fn prepared(
        &self,
        request: &GenerateRequest,
        canvas: &Canvas,
        init: Option<&Tensor<4>>,
        host: &mut impl Host,
    ) -> Result<Arc<Prepared>> {
        let key = self.key(request, canvas);
        if let Some(prepared) = self.prepared.get::<Arc<Prepared>>(key) {
            host.report(Phase::Encode, 1, 1, None).await?;
            return Ok(prepared);
        }
        let Models { readers, family, vae, .. } = &self.models;
        // Held to the end, though it be let go of when everything is read.
        let family = family.get(host).await?;
        family.check(request)?;
        let masks = evidence::masks(readers, request, canvas, host, &self.device).await?;
        let regions = regions::regions(&masks, request.background, canvas)?;
        let places = regions.map(Places::Regions);
        let needs = family.needs(request, places.as_ref());
        let pictures = ReferenceReader { vae, area: canvas.width * canvas.height };
        let mut evidence = evidence::gather(readers, &needs, &pictures, request, host, &self.device).await?;
        evidence.start = init.cloned();
        let guided = family.condition(&evidence, request, places.as_ref(), &self.device)?;
        for Guided { condition, .. } in &guided {
            for tokens in condition.tokens() {
                read_finite(tokens.clone(), "the guidance").await?;
            }
            for reference in condition.references() {
                read_finite(reference.latents.clone(), "a reference picture").await?;
            }
        }
        let prepared = Arc::new(Prepared { masks, guided, notices: evidence.notices });
        self.prepared.put(key, prepared.clone());
        Ok(prepared)
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

    /// The latents of the init image, `[1, channels, height, width]`.
    fn init_latents(&self, request: &GenerateRequest, canvas: &Canvas) -> Result<Option<Tensor<4>>> {
        let Some(init) = &request.init else { return Ok(None) };
        let picture = resize_to_cover(&init.image, canvas.width, canvas.height)?;
        self.models.vae.encode_latents(signed_tensor(&[&picture], &self.device)?).map(Some)
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

/// What a request's pictures need of the encoders.
#[derive(Debug)]
struct Prepared {
    /// Each person's, on the latents.
    masks: Vec<Mask>,
    /// Of each picture.
    guided: Vec<Guided>,
    /// Of the texts.
    notices: Vec<Notice>,
}

pub(crate) mod internal {
    pub use super::adapters::AdapterGuidance;
    pub use super::embed::aligned;
    pub use super::evidence::{Evidence, Needs, PersonEvidence, Texts};
    pub use super::family::{Family, Guided};
    pub use super::klein::KleinGuidance;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::request::MAX_STEPS;

    #[test]
    fn noise_at_the_start_in_the_prior_and_in_each_step_is_other_noise() {
        let steps: BTreeSet<u64> = (0..MAX_STEPS).map(fresh_stream).collect();
        assert_eq!(steps.len(), MAX_STEPS);
        assert!([START, prompt::PRIOR_STREAM].iter().all(|stream| !steps.contains(stream)));
        assert_ne!(START, prompt::PRIOR_STREAM);
    }
}
