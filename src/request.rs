//! What a user asks for: parsed and checked once, before any work starts. [`Recipe`] says it afterwards.

mod embedding;
mod into;
mod person;
mod recipe;
mod roles;

use ::image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sampling::Sampler;
pub use embedding::{Embedding, EmbeddingHash};
pub use into::{
    IntoPhoto, IntoPhotoOf, MAX_PHOTO, RedrawFaces, Replacement, ReplacementOf, STRENGTH as INTO_STRENGTH,
    WhichFace,
};
pub use person::{IdentityOf, Landmarks, PersonOf, Photo};
pub use recipe::{EnlargeRecipe, FORMAT, ModelId, PhotoHash, PixelHash, Recipe, find_picture};
pub use roles::{Numbers, Roles};

/// Everything that decides a picture. The same request with the same model gives the same pictures.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// The people to show; empty for a picture without an identity (style and prompt only).
    pub people: Vec<Person>,
    /// The style image `I_h`. Faces in it are hidden first, as in training: it gives everything but the identity. Where nobody is
    /// asked for they are seen.
    pub style: Option<RgbImage>,
    /// The prompt `T`; empty means none.
    pub prompt: String,
    /// What a model that sees reference pictures is told of them before the prompt; its own words if left out. Other models refuse it.
    pub roles: Option<Roles>,
    /// A prompt to move away from: its embedding takes the null condition's place.
    pub negative_prompt: String,
    /// Words that were learnt, for prompt and negative prompt. Models that do not attend to a CLIP's tokens refuse them.
    pub embeddings: Vec<Embedding>,
    /// The layer of a CLIP's text encoder that is read, counted from the last, which is 1: the web UI's "clip skip". Models that do
    /// not attend to a CLIP's tokens refuse another than 1.
    pub clip_skip: usize,
    /// Balance of hybrid guidance, `e_g = α e_i + (1 − α) e_p`: 1 is the style image alone, 0 the prompt alone.
    /// Counts only where there are both, see [`GenerateRequest::effective_alpha`].
    pub alpha: f32,
    /// Where each person goes; needed for two people or more.
    pub layout: Layout,
    /// What fills the picture outside every person.
    pub background: Background,
    /// Start from a picture instead of noise (image-to-image).
    pub init: Option<InitImage>,
    /// Put the people into a photo that exists, in the place of faces that it shows. Each head is drawn at `width` × `height`; the
    /// picture has the photo's size.
    pub into: Option<IntoPhoto>,
    /// Draw small faces of the finished picture once more, larger.
    pub redraw_faces: Option<RedrawFaces>,
    /// Seed of all noise.
    pub seed: u64,
    /// Number of pictures; picture `i` uses seed `seed + i`.
    pub count: usize,
    /// So many pictures are drawn in the place of one, of following seeds, and the one most like its people comes first, see
    /// [`Generated::likeness`]; 1 draws one and measures nothing. More go with a `count` of 1 alone.
    ///
    /// [`Generated::likeness`]: crate::pipeline::Generated::likeness
    pub candidates: usize,
    /// Denoising steps: each runs the denoiser as often as its sampler says, see [`Sampler::evaluations`].
    pub steps: usize,
    /// Classifier-free guidance scale; 1 turns guidance off.
    pub guidance_scale: f32,
    /// The sampler.
    pub sampler: Sampler,
    /// Width in pixels; `None` is the model's own size.
    pub width: Option<usize>,
    /// Height in pixels; `None` is the model's own size.
    pub height: Option<usize>,
    /// A preview after every so many steps; none without it. Each costs a run of the model's preview decoder, or of its
    /// own where it has none.
    pub preview_every: Option<usize>,
    /// Mark the pictures invisibly as generated, see [`image::watermark`](crate::image::watermark).
    pub watermark: bool,
    /// Write prompt and negative prompt into the files' metadata, among the settings that make a picture again.
    pub prompt_in_metadata: bool,
}

/// A person of photos.
pub type Person = PersonOf<Photo>;
/// An identity of photos.
pub type Identity = IdentityOf<Photo>;
/// A layout of pixels.
pub type Layout = LayoutOf<RgbImage, GrayImage>;
/// A picture to start from, in pixels.
pub type InitImage = InitImageOf<RgbImage, GrayImage>;

/// Where the people of a picture go. `P` is a picture, `M` a mask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "Layout"))]
pub enum LayoutOf<P, M> {
    /// One person, everywhere.
    #[default]
    Whole,
    /// One box per person, relative to the picture.
    Boxes(Vec<RelativeBox>),
    /// One mask per person, all of one size; white is the person.
    Masks(Vec<M>),
    /// The people found in a content image, from left to right.
    Content(P),
}

/// A box in fractions of the picture's width and height, from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RelativeBox {
    /// Left edge, 0 to 1.
    pub x: f32,
    /// Top edge, 0 to 1.
    pub y: f32,
    /// Width, 0 to 1.
    pub width: f32,
    /// Height, 0 to 1.
    pub height: f32,
}

impl RelativeBox {
    /// Fails with `box-range` where it is empty or not inside the picture.
    fn validate(&self, name: &str) -> Result<()> {
        let Self { x, y, width, height } = *self;
        let inside = x >= 0.0 && y >= 0.0 && x + width <= 1.001 && y + height <= 1.001;
        if inside && width > 0.0 && height > 0.0 {
            return Ok(());
        }
        Err(Error::input(
            "box-range",
            format!("{name} ({x}, {y}, {width}, {height}) is not inside the picture"),
            "boxes are x, y, width, height as fractions of the picture",
        ))
    }
}

/// What happens outside every person (paper section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Background {
    /// It takes the guidance of the person with this index.
    Person(usize),
    /// Its latents are held fixed to the init image's, as in inpainting; needs `init`.
    Hold,
}

impl Default for Background {
    fn default() -> Self {
        Self::Person(0)
    }
}

/// Image-to-image and inpainting. `P` is a picture, `M` a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "InitImage"))]
pub struct InitImageOf<P, M> {
    /// The picture to start from; resized to cover the output.
    pub image: P,
    /// How much of the steps is taken: 0 returns the picture almost unchanged, 1 lays the first step's noise over it. With a mask,
    /// 1 starts from noise alone.
    pub strength: f32,
    /// Where the picture may change (white); everywhere if left out. Elsewhere latents are held.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub mask: Option<M>,
}

/// What a request runs with that does not say: a model has its own, see [`FaceStudio::defaults`].
///
/// [`FaceStudio::defaults`]: crate::pipeline::FaceStudio::defaults
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Defaults {
    /// The sampler.
    pub sampler: Sampler,
    /// Denoising steps.
    pub steps: usize,
    /// Classifier-free guidance scale; 1 turns guidance off.
    pub guidance_scale: f32,
}

impl Default for Defaults {
    /// 25 Euler ancestral steps: paper section 4.1.
    fn default() -> Self {
        Self { sampler: Sampler::EulerAncestral, steps: 25, guidance_scale: 3.0 }
    }
}

impl Defaults {
    /// With a sampler whose models are distilled theirs, with others as always.
    pub fn with_sampler(sampler: Sampler) -> Self {
        let usual = Self { sampler, ..Self::default() };
        match sampler.distilled_for() {
            Some((steps, guidance_scale)) => Self { steps, guidance_scale, ..usual },
            None => usual,
        }
    }

    /// Fails with `guidance-scale-range` or `steps-range`.
    pub fn validate(&self) -> Result<()> {
        range("guidance-scale", self.guidance_scale, 1.0, 30.0, "2 to 5 is usual; 1 turns guidance off")?;
        count("steps", self.steps, MAX_STEPS)
    }
}

/// Most pixels along one side of an output.
pub const MAX_SIDE: usize = 2048;
/// Most steps of one picture.
pub const MAX_STEPS: usize = 1000;
/// Most pictures of one request.
pub const MAX_COUNT: usize = 64;
/// Most layers of a text encoder.
pub const MAX_CLIP_SKIP: usize = 256;
/// Most people in one picture.
pub const MAX_PEOPLE: usize = 8;

impl Default for GenerateRequest {
    fn default() -> Self {
        let Defaults { sampler, steps, guidance_scale } = Defaults::default();
        Self {
            people: Vec::new(),
            style: None,
            prompt: String::new(),
            roles: None,
            negative_prompt: String::new(),
            embeddings: Vec::new(),
            clip_skip: 1,
            alpha: 0.5,
            layout: Layout::Whole,
            background: Background::default(),
            init: None,
            into: None,
            redraw_faces: None,
            seed: 0,
            count: 1,
            candidates: 1,
            steps,
            guidance_scale,
            sampler,
            width: None,
            height: None,
            preview_every: None,
            watermark: true,
            prompt_in_metadata: true,
        }
    }
}

impl GenerateRequest {
    /// Checks everything that can be checked without a model.
    pub fn validate(&self) -> Result<()> {
        range("alpha", self.alpha, 0.0, 1.0, "use 1 for the style image alone, 0 for the prompt alone")?;
        let Self { sampler, steps, guidance_scale, .. } = *self;
        Defaults { sampler, steps, guidance_scale }.validate()?;
        count("count", self.count, MAX_COUNT)?;
        count("clip-skip", self.clip_skip, MAX_CLIP_SKIP)?;
        count("candidates", self.candidates, MAX_COUNT)?;
        if self.candidates > 1 && (self.count > 1 || self.people.is_empty()) {
            return Err(Error::input(
                "candidates-range",
                format!(
                    "{} candidates are asked for of {} pictures of {} people",
                    self.candidates,
                    self.count,
                    self.people.len()
                ),
                "candidates are drawn for one picture, and of a person whom it is to be like",
            ));
        }
        for (i, embedding) in self.embeddings.iter().enumerate() {
            let same = |other: &Embedding| other.word().to_lowercase() == embedding.word().to_lowercase();
            if self.embeddings[..i].iter().any(same) {
                return Err(Error::input(
                    "embedding-word",
                    format!("two embeddings have the word '{}'", embedding.word()),
                    "give one of them another word",
                ));
            }
        }
        for (name, side) in [("width", self.width), ("height", self.height)] {
            if let Some(side) = side {
                count(name, side, MAX_SIDE)?;
            }
        }
        if let Some(every) = self.preview_every {
            count("preview-every", every, MAX_STEPS)?;
        }
        if self.people.len() > MAX_PEOPLE {
            return Err(Error::input(
                "people-count",
                format!("{} people; at most {MAX_PEOPLE} fit in one picture", self.people.len()),
                "remove some",
            ));
        }
        if self.people.is_empty() && self.style.is_none() && self.prompt.trim().is_empty() {
            return Err(Error::input(
                "nothing-asked",
                "no face, no style image and no prompt",
                "give at least one",
            ));
        }
        for (i, person) in self.people.iter().enumerate() {
            person.validate(i)?;
        }
        if let Some(redraw) = &self.redraw_faces {
            redraw.validate()?;
        }
        // The photo's faces say where each goes.
        match &self.into {
            Some(into) => into.validate(self)?,
            None => self.validate_layout()?,
        }
        if let Some(init) = &self.init {
            range("strength", init.strength, 0.0, 1.0, "0.6 is a good start")?;
        }
        if self.background == Background::Hold && self.init.is_none() {
            return Err(Error::input(
                "hold-without-init",
                "the background cannot be held: there is no init image to hold it to",
                "add an init image, or let the background follow a person",
            ));
        }
        Ok(())
    }

    /// Fails with `nothing-to-draw` where there is neither style image nor prompt, which most families of models need: a face
    /// alone says who, not what.
    pub fn validate_subject(&self) -> Result<()> {
        if self.style.is_none() && self.prompt.trim().is_empty() {
            return Err(Error::input(
                "nothing-to-draw",
                "a face alone says who, not what: there is no style image and no prompt",
                "add a style image or a prompt",
            ));
        }
        Ok(())
    }

    /// The balance that is used: a request without a style image is drawn from its prompt alone (0), one without a
    /// prompt from its style image alone (1), and one with both as [`alpha`](Self::alpha) says.
    pub fn effective_alpha(&self) -> f32 {
        match (&self.style, self.prompt.trim().is_empty()) {
            (None, _) => 0.0,
            (Some(_), true) => 1.0,
            (Some(_), false) => self.alpha,
        }
    }

    fn validate_layout(&self) -> Result<()> {
        let people = self.people.len().max(1);
        let regions = match &self.layout {
            Layout::Whole if people > 1 => {
                return Err(Error::input(
                    "layout-missing",
                    format!("{people} people need a layout"),
                    "give a box or a mask per person, or a content image",
                ));
            }
            Layout::Whole | Layout::Content(_) => people,
            Layout::Boxes(boxes) => {
                for (i, area) in boxes.iter().enumerate() {
                    area.validate(&format!("box {}", i + 1))?;
                }
                boxes.len()
            }
            Layout::Masks(masks) => {
                if let Some(i) = masks.iter().position(|m| m.dimensions() != masks[0].dimensions()) {
                    return Err(Error::input(
                        "mask-size",
                        format!("mask {} has another size than mask 1", i + 1),
                        "make all masks the size of the picture",
                    ));
                }
                masks.len()
            }
        };
        if regions != people {
            return Err(Error::input(
                "region-count",
                format!("{regions} regions for {people} people"),
                "give one region (box or mask) per person",
            ));
        }
        if let Background::Person(index) = self.background
            && index >= people
        {
            return Err(Error::input(
                "background-person",
                format!("the background follows person {}, but there are {people}", index + 1),
                "name one of the people",
            ));
        }
        Ok(())
    }
}

impl<P, M> LayoutOf<P, M> {
    /// The same layout of other pictures and masks, which are told what they are called.
    pub fn try_map<Q, N>(
        &self,
        mut picture: impl FnMut(&P, &str) -> Result<Q>,
        mut mask: impl FnMut(&M, &str) -> Result<N>,
    ) -> Result<LayoutOf<Q, N>> {
        Ok(match self {
            Self::Whole => LayoutOf::Whole,
            Self::Boxes(boxes) => LayoutOf::Boxes(boxes.clone()),
            Self::Masks(masks) => {
                let masks = masks.iter().enumerate().map(|(i, own)| mask(own, &format!("mask {}", i + 1)));
                LayoutOf::Masks(masks.collect::<Result<_>>()?)
            }
            Self::Content(content) => LayoutOf::Content(picture(content, "the content picture")?),
        })
    }
}

impl<P, M> InitImageOf<P, M> {
    /// The same start from another picture and mask, which are told what they are called.
    pub fn try_map<Q, N>(
        &self,
        mut picture: impl FnMut(&P, &str) -> Result<Q>,
        mut mask: impl FnMut(&M, &str) -> Result<N>,
    ) -> Result<InitImageOf<Q, N>> {
        let inside = self.mask.as_ref().map(|own| mask(own, "the mask of the start picture")).transpose()?;
        Ok(InitImageOf {
            image: picture(&self.image, "the start picture")?,
            strength: self.strength,
            mask: inside,
        })
    }
}

fn range(name: &'static str, value: f32, low: f32, high: f32, remedy: &str) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let code = match name {
        "alpha" => "alpha-range",
        "strength" => "strength-range",
        _ => "guidance-scale-range",
    };
    Err(Error::input(code, format!("{name} is {value}, outside {low} to {high}"), remedy))
}

fn count(name: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let code = match name {
        "steps" => "steps-range",
        "count" => "count-range",
        "clip-skip" => "clip-skip-range",
        "candidates" => "candidates-range",
        "preview-every" => "preview-range",
        _ => "size-range",
    };
    let message = format!("{name} is {value}; it must be 1 to {most}");
    Err(Error::input(code, message, "choose a number in that range, or leave it out"))
}
