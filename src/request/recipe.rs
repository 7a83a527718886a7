//! [`Recipe`]: how a finished picture was made, so that it can be made again. It holds no picture, only what its pictures hash to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use ::image::{GrayImage, ImageBuffer, Pixel, RgbImage};
use serde::{Deserialize, Serialize};

use super::{
    Background, Embedding, EmbeddingHash, GenerateRequest, InitImageOf, IntoPhotoOf, Landmarks, LayoutOf,
    PersonOf, Photo, RedrawFaces, Roles,
};
use crate::error::{Error, Result};
use crate::sampling::Sampler;
use crate::weights::Sha256Stream;

/// The format of recipes that this version writes, and the only one so far.
pub const FORMAT: u32 = 1;

/// Everything that decides one picture, but the pixels of the pictures that it was made from: with those, and the same model in
/// the same precision, it makes the picture again. Another device rounds otherwise, which moves a pixel by a level or two.
///
/// As JSON it is the text `facestudio` of a picture's PNG. Another format, and a field that is not known, are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Recipe {
    /// Version of this format.
    pub format: u32,
    /// The release of FaceStudio that made the picture.
    pub version: String,
    /// The model that made it.
    pub model: ModelId,
    /// What the denoiser computed in: `f16` or `f32`.
    pub precision: String,
    /// The people, from left to right where the layout finds them in a picture.
    pub people: Vec<PersonOf<PhotoHash>>,
    /// The style image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub style: Option<PixelHash>,
    /// The prompt; left out where the request wants no words in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub prompt: Option<String>,
    /// What the model was told of its reference pictures, where it sees any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub roles: Option<Roles>,
    /// What the picture should not show; left out with the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub negative_prompt: Option<String>,
    /// The words that were learnt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<EmbeddingHash>>"))]
    pub embeddings: Vec<EmbeddingHash>,
    /// The layer of the text encoder that was read, counted from the last, which is 1.
    #[serde(default = "last_layer", skip_serializing_if = "is_last_layer")]
    #[cfg_attr(test, ts(optional, as = "Option<usize>"))]
    pub clip_skip: usize,
    /// Balance of hybrid guidance as it counted: 1 is the style image alone, 0 the prompt alone.
    pub alpha: f32,
    /// Where each person goes.
    pub layout: LayoutOf<PixelHash, PixelHash>,
    /// What fills the picture outside every person.
    pub background: Background,
    /// What the picture was started from instead of noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub init: Option<InitImageOf<PixelHash, PixelHash>>,
    /// The photo that the people were put into, its faces by their boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub into: Option<IntoPhotoOf<PixelHash, PixelHash>>,
    /// Which faces were drawn once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub redraw_faces: Option<RedrawFaces>,
    /// Seed of this picture's noise.
    #[cfg_attr(test, ts(type = "number | bigint"))]
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// Classifier-free guidance scale; 1 is without guidance.
    pub guidance_scale: f32,
    /// The sampler.
    #[cfg_attr(test, ts(type = "Sampler"))]
    pub sampler: Sampler,
    /// Width in pixels; of people who were put into a photo, that at which each head was drawn.
    pub width: usize,
    /// Height in pixels, as the width.
    pub height: usize,
    /// Whether the pixels are marked as generated.
    pub watermark: bool,
}

fn last_layer() -> usize {
    1
}

fn is_last_layer(clip_skip: &usize) -> bool {
    *clip_skip == 1
}

/// Which model it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ModelId {
    /// The name in its manifest, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub name: Option<String>,
    /// The version in its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub version: Option<String>,
    /// SHA-256 of the list of its components' files, as `sha256sum` writes it: the hash of each, two spaces, its path in the model
    /// folder and a line feed, in order of component and file.
    pub sha256: String,
}

/// SHA-256 of a decoded picture, in lower-case hexadecimal: of its width and height as little-endian 32-bit numbers, and of its
/// pixels row by row, three bytes each, or one in a mask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
#[cfg_attr(test, derive(ts_rs::TS), ts(type = "string"))]
pub struct PixelHash(String);

/// A photo's hash, and the face in it that the request named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PhotoHash {
    /// Of its pixels.
    pub sha256: PixelHash,
    /// The face that is meant; the largest that is found if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<(f32, f32)>>"))]
    pub landmarks: Option<Landmarks>,
}

/// How a picture was made larger, beside what it says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnlargeRecipe {
    /// The release of FaceStudio that did it.
    pub version: String,
    /// The model that did it.
    pub model: ModelId,
    /// Side of the picture over side of what it was made from.
    pub factor: usize,
    /// What it was made from.
    pub source: PixelHash,
}

impl PixelHash {
    /// The hash of a photo or a mask.
    pub fn of<P, C>(picture: &ImageBuffer<P, C>) -> Self
    where
        P: Pixel<Subpixel = u8>,
        C: Deref<Target = [u8]>,
    {
        let mut hash = Sha256Stream::default();
        hash.update(&picture.width().to_le_bytes());
        hash.update(&picture.height().to_le_bytes());
        hash.update(picture.as_raw());
        Self(hash.finish())
    }
}

impl fmt::Display for PixelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PixelHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text))
        } else {
            Err("a picture's hash has 64 digits from 0 to f".to_owned())
        }
    }
}

impl Recipe {
    /// The recipe of a request's picture of `[width, height]` pixels.
    pub fn new(request: &GenerateRequest, model: ModelId, precision: &str, size: [usize; 2]) -> Result<Self> {
        // Named one by one: a new field that decides the picture must not be forgotten here.
        let GenerateRequest {
            people,
            style,
            prompt,
            roles,
            negative_prompt,
            embeddings,
            clip_skip,
            alpha: _,
            layout,
            background,
            init,
            into,
            redraw_faces,
            seed,
            count: _,
            candidates: _,
            steps,
            guidance_scale,
            sampler,
            width: _,
            height: _,
            preview_every: _,
            watermark,
            prompt_in_metadata,
        } = request;
        let picture = |picture: &RgbImage, _: &str| Ok(PixelHash::of(picture));
        let photo = |Photo { image, landmarks }: &Photo, _: &str| {
            Ok(PhotoHash { sha256: PixelHash::of(image), landmarks: *landmarks })
        };
        let mask = |mask: &GrayImage, _: &str| Ok(PixelHash::of(mask));
        let people = people.iter().enumerate().map(|(i, person)| person.try_map(i, photo));
        let embeddings = embeddings.iter().map(|embedding| EmbeddingHash {
            word: prompt_in_metadata.then(|| embedding.word().to_owned()),
            sha256: embedding.sha256(),
        });
        let [width, height] = size;
        Ok(Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model,
            precision: precision.to_owned(),
            people: people.collect::<Result<_>>()?,
            style: style.as_ref().map(PixelHash::of),
            prompt: prompt_in_metadata.then(|| prompt.clone()),
            roles: roles.clone(),
            negative_prompt: prompt_in_metadata.then(|| negative_prompt.clone()),
            embeddings: embeddings.collect(),
            clip_skip: *clip_skip,
            alpha: request.effective_alpha(),
            layout: layout.try_map(picture, mask)?,
            background: *background,
            init: init.as_ref().map(|init| init.try_map(picture, mask)).transpose()?,
            into: into.as_ref().map(|into| into.try_map(picture, mask)).transpose()?,
            redraw_faces: *redraw_faces,
            seed: *seed,
            steps: *steps,
            guidance_scale: *guidance_scale,
            sampler: *sampler,
            width,
            height,
            watermark: *watermark,
        })
    }

    /// The request that makes the picture again, from its pictures, masks and embeddings in any order; more may be given. `words` are
    /// prompt and negative prompt, where the recipe leaves them out.
    ///
    /// Fails with `recipe-picture` where a picture is missing, with `recipe-embedding` where an embedding is, and as
    /// [`words`](Self::words).
    pub fn request(
        &self,
        pictures: &[RgbImage],
        masks: &[GrayImage],
        embeddings: &[Embedding],
        words: [Option<&str>; 2],
    ) -> Result<GenerateRequest> {
        let pictures: BTreeMap<_, _> = pictures.iter().map(|own| (PixelHash::of(own), own)).collect();
        let masks: BTreeMap<_, _> = masks.iter().map(|own| (PixelHash::of(own), own)).collect();
        let picture =
            |hash: &PixelHash, name: &str| find_picture(&pictures, hash, name).map(|own| (*own).clone());
        let mask = |hash: &PixelHash, name: &str| find_picture(&masks, hash, name).map(|own| (*own).clone());
        let [prompt, negative_prompt] = self.words(words)?;
        let photo = |PhotoHash { sha256, landmarks }: &PhotoHash, name: &str| -> Result<Photo> {
            Ok(Photo { image: picture(sha256, name)?, landmarks: *landmarks })
        };
        let people = self.people.iter().enumerate().map(|(i, person)| person.try_map(i, photo));
        Ok(GenerateRequest {
            people: people.collect::<Result<_>>()?,
            style: self.style.as_ref().map(|own| picture(own, "the style picture")).transpose()?,
            prompt,
            roles: self.roles.clone(),
            negative_prompt,
            embeddings: self.learnt(embeddings)?,
            clip_skip: self.clip_skip,
            alpha: self.alpha,
            layout: self.layout.try_map(picture, mask)?,
            background: self.background,
            init: self.init.as_ref().map(|init| init.try_map(picture, mask)).transpose()?,
            into: self.into.as_ref().map(|into| into.try_map(picture, mask)).transpose()?,
            redraw_faces: self.redraw_faces,
            seed: self.seed,
            count: 1,
            candidates: 1,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            sampler: self.sampler,
            width: Some(self.width),
            height: Some(self.height),
            preview_every: None,
            watermark: self.watermark,
            prompt_in_metadata: self.says_words(),
        })
    }

    /// Its embeddings among those that are there, by hash; fails with `recipe-embedding`, which names it.
    pub fn learnt(&self, there: &[Embedding]) -> Result<Vec<Embedding>> {
        let one = |own: &EmbeddingHash| {
            let found = there.iter().find(|embedding| embedding.sha256() == own.sha256);
            let found = found.ok_or_else(|| {
                Error::input(
                    "recipe-embedding",
                    match &own.word {
                        Some(word) => format!("the embedding '{word}' ({}) was not given", own.sha256),
                        None => format!("an embedding ({}) was not given", own.sha256),
                    },
                    "give the very file of Textual Inversion that was used",
                )
            })?;
            own.word.as_ref().map_or_else(|| Ok(found.clone()), |word| found.named(word))
        };
        self.embeddings.iter().map(one).collect()
    }

    /// Whether prompt and negative prompt are in it: a request may have left them out.
    pub fn says_words(&self) -> bool {
        self.prompt.is_some() && self.negative_prompt.is_some()
    }

    /// Prompt and negative prompt: its own, or those that are `given` where it leaves them out.
    ///
    /// Fails with `recipe-words` where one is in neither, or in both.
    pub fn words(&self, given: [Option<&str>; 2]) -> Result<[String; 2]> {
        let one = |name: &str, own: &Option<String>, given: Option<&str>| match (own, given) {
            (Some(word), None) => Ok(word.clone()),
            (None, Some(word)) => Ok(word.to_owned()),
            (None, None) => Err(Error::input(
                "recipe-words",
                format!("the {name} was left out of the picture's recipe"),
                "say both: the prompt and the negative prompt, which may be empty",
            )),
            (Some(_), Some(_)) => Err(Error::input(
                "recipe-words",
                format!("a {name} is given, and the picture's recipe says its own"),
                "leave both prompts out",
            )),
        };
        let [prompt, negative] = given;
        Ok([one("prompt", &self.prompt, prompt)?, one("negative prompt", &self.negative_prompt, negative)?])
    }

    /// Fails with `recipe-model` or `recipe-precision` where the picture was made by another model than this, or in another precision.
    pub fn check(&self, model: &ModelId, precision: &str) -> Result<()> {
        if self.model.sha256 != model.sha256 {
            return Err(Error::input(
                "recipe-model",
                format!("the picture was made by {}, and this is {model}", self.model),
                "open that model; another draws another picture",
            ));
        }
        if self.precision != precision {
            return Err(Error::input(
                "recipe-precision",
                format!("the picture was made in {}, and this model computes in {precision}", self.precision),
                "open the model in that precision",
            ));
        }
        Ok(())
    }

    /// Parses its JSON. Fails with `recipe-format` on anything else: another format, or a field that
    /// is not known.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let invalid = |message: String, remedy: &str| Error::input("recipe-format", message, remedy);
        let unreadable = |e: serde_json::Error| {
            let remedy = "take the picture as it was written; versions before recipes wrote too little";
            invalid(format!("the picture's recipe cannot be read: {e}"), remedy)
        };
        let Head { format } = serde_json::from_str(text).map_err(unreadable)?;
        if format != FORMAT {
            let message = format!("the picture's recipe has format {format}; this version reads {FORMAT}");
            return Err(invalid(message, "update facestudio"));
        }
        serde_json::from_str(text).map_err(unreadable)
    }
}

/// A picture of a recipe among those that are there, by hash; fails with `recipe-picture`, which names it.
pub fn find_picture<'a, T>(there: &'a BTreeMap<PixelHash, T>, hash: &PixelHash, name: &str) -> Result<&'a T> {
    there.get(hash).ok_or_else(|| {
        Error::input(
            "recipe-picture",
            format!("{name} is not among the pictures that were given: its pixels' sha256 is {hash}"),
            "give the very picture that was used: of a photo the studio uses a crop around the face",
        )
    })
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.sha256.get(..12).unwrap_or(&self.sha256);
        match (&self.name, &self.version) {
            (Some(name), Some(version)) => write!(f, "{name} {version} ({short}…)"),
            _ => write!(f, "a model without a manifest ({short}…)"),
        }
    }
}

#[cfg(test)]
mod tests;
