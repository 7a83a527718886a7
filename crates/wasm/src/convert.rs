//! Plain JavaScript objects to requests, and results to plain JavaScript objects; typed in `web/engine/protocol.js`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ::image::{GrayImage, RgbImage};
use js_sys::{Array, BigInt, Object, Uint8Array};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use super::failure::{notice, set};
use facestudio::error::{Error, Result};
use facestudio::image::codec;
use facestudio::image::decoded::DecodedImages;
use facestudio::pipeline::{DetectedFace, FaceStudio, Generated, Phase, Progress};
use facestudio::request::{
    Background, Defaults, GenerateRequest, InitImageOf, IntoPhotoOf, Landmarks, LayoutOf, Person, PersonOf,
    Photo, PhotoHash, PixelHash, Recipe, RedrawFaces, Roles, find_picture,
};
use facestudio::sampling::Sampler;

/// The largest integer that a JavaScript number holds exactly, 2⁵³ − 1.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Most bytes of the pixels of pictures that are kept decoded: a photo of 20 megapixels, or some hundred faces.
const DECODED: usize = 64 << 20;

thread_local! {
    /// What the page looked at, searched or drew from of late.
    static PICTURES: RefCell<DecodedImages> = const { RefCell::new(DecodedImages::new(DECODED)) };
}

/// A `GenerateRequest` as the page sends it; pictures are still encoded.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JsRequest {
    people: Vec<PersonOf<JsPhoto>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    style: Option<Encoded>,
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Roles>,
    negative_prompt: Option<String>,
    clip_skip: Option<usize>,
    alpha: Option<f32>,
    layout: Option<LayoutOf<Encoded, Encoded>>,
    background: Option<Background>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<InitImageOf<Encoded, Encoded>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    into: Option<IntoPhotoOf<Encoded, Encoded>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redraw_faces: Option<RedrawFaces>,
    #[serde(skip_serializing)]
    seed: Option<u64>,
    count: Option<usize>,
    steps: Option<usize>,
    guidance_scale: Option<f32>,
    sampler: Option<Sampler>,
    width: Option<usize>,
    height: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preview_every: Option<usize>,
    watermark: Option<bool>,
    prompt_in_metadata: Option<bool>,
}

/// A photo, perhaps with the face that is meant.
#[derive(Clone)]
struct JsPhoto {
    image: Encoded,
    landmarks: Option<Vec<Vec<f32>>>,
}

impl<'de> Deserialize<'de> for JsPhoto {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            image: Encoded,
            landmarks: Option<Vec<Vec<f32>>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = JsPhoto;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("the bytes of a picture as a Uint8Array, or { image, landmarks }")
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<JsPhoto, E> {
                Ok(JsPhoto { image: Encoded(bytes), landmarks: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JsPhoto, A::Error> {
                let Fields { image, landmarks } = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(JsPhoto { image, landmarks })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for JsPhoto {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { image, landmarks } = self;
        let Some(landmarks) = landmarks else { return image.serialize(serializer) };
        let mut photo = serializer.serialize_struct("Photo", 2)?;
        photo.serialize_field("image", image)?;
        photo.serialize_field("landmarks", landmarks)?;
        photo.end()
    }
}

impl JsPhoto {
    fn decode(&self, name: &str) -> Result<Photo> {
        let landmarks = self.landmarks.as_deref().map(|points| landmarks(name, points)).transpose()?;
        Ok(Photo { image: self.image.decode(name)?, landmarks })
    }
}

/// The bytes of a picture's file: a `Uint8Array` or an `ArrayBuffer`.
#[derive(Clone)]
struct Encoded(Vec<u8>);

impl Serialize for Encoded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Encoded;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("the bytes of a picture as a Uint8Array")
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Encoded, E> {
                Ok(Encoded(bytes))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Encoded, E> {
                Ok(Encoded(bytes.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

impl Encoded {
    /// The picture; an error says which one it is.
    fn decode(&self, name: &str) -> Result<RgbImage> {
        Ok(decode(&self.0).map_err(|e| e.context(name))?.as_ref().clone())
    }

    fn decode_mask(&self, name: &str) -> Result<GrayImage> {
        codec::decode_mask(&self.0).map_err(|e| e.context(name))
    }
}

/// A picture's file, decoded once: a page that looks at it searches and draws from it next.
pub fn decode(file: &[u8]) -> Result<Arc<RgbImage>> {
    PICTURES.with_borrow_mut(|pictures| pictures.decode(file))
}

/// Parses and decodes the page's request; what it does not say is the model's own. What the numbers may be is checked by the pipeline.
pub fn request(value: JsValue, defaults: Defaults) -> Result<GenerateRequest> {
    let js: JsRequest = serde_wasm_bindgen::from_value(value).map_err(|e| {
        Error::input(
            "request-format",
            format!("the request cannot be read: {e}"),
            "see `GenerateRequest` in engine/protocol.js",
        )
    })?;
    let usual = GenerateRequest::default();
    let people = js.people.iter().enumerate().map(|(i, person)| person.try_map(i, JsPhoto::decode));
    let layout = js.layout.map(|layout| layout.try_map(Encoded::decode, Encoded::decode_mask)).transpose()?;
    Ok(GenerateRequest {
        people: people.collect::<Result<_>>()?,
        style: js.style.map(|image| image.decode("the style picture")).transpose()?,
        prompt: js.prompt.unwrap_or_default(),
        roles: js.roles,
        negative_prompt: js.negative_prompt.unwrap_or_default(),
        embeddings: usual.embeddings,
        clip_skip: js.clip_skip.unwrap_or(usual.clip_skip),
        alpha: js.alpha.unwrap_or(usual.alpha),
        layout: layout.unwrap_or_default(),
        background: js.background.unwrap_or_default(),
        init: js.init.map(|init| init.try_map(Encoded::decode, Encoded::decode_mask)).transpose()?,
        into: js.into.map(|into| into.try_map(Encoded::decode, Encoded::decode_mask)).transpose()?,
        redraw_faces: js.redraw_faces,
        seed: js.seed.unwrap_or(usual.seed),
        count: js.count.unwrap_or(usual.count),
        candidates: usual.candidates,
        steps: js.steps.unwrap_or(defaults.steps),
        guidance_scale: js.guidance_scale.unwrap_or(defaults.guidance_scale),
        sampler: js.sampler.unwrap_or(defaults.sampler),
        width: js.width,
        height: js.height,
        preview_every: js.preview_every,
        watermark: js.watermark.unwrap_or(usual.watermark),
        prompt_in_metadata: js.prompt_in_metadata.unwrap_or(usual.prompt_in_metadata),
    })
}

fn landmarks(name: &str, points: &[Vec<f32>]) -> Result<Landmarks> {
    let pairs: Option<Vec<[f32; 2]>> = points.iter().map(|point| point.as_slice().try_into().ok()).collect();
    pairs.and_then(|pairs| Landmarks::try_from(pairs).ok()).ok_or_else(|| {
        Error::input(
            "landmarks-count",
            format!("the landmarks of {name} are not 5 pairs of x and y"),
            "give all that `faces` gave, or leave them out",
        )
    })
}

/// What makes a picture again: a `GenerateRequest` of a recipe, and of the files of its pictures in any order. `words` are
/// `{ prompt, negative_prompt }`, where the recipe leaves them out.
pub fn again(recipe: &Recipe, files: JsValue, words: JsValue) -> Result<JsValue> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Words {
        prompt: Option<String>,
        negative_prompt: Option<String>,
    }
    let unreadable = |e: serde_wasm_bindgen::Error| {
        let message = format!("what makes a picture again cannot be read: {e}");
        Error::input("request-format", message, "see `Again` in engine/protocol.js")
    };
    let files: Vec<Encoded> = serde_wasm_bindgen::from_value(files).map_err(unreadable)?;
    let words: Option<Words> = serde_wasm_bindgen::from_value(words).map_err(unreadable)?;
    let Words { prompt, negative_prompt } = words.unwrap_or_default();
    let (mut pictures, mut masks) = (BTreeMap::new(), BTreeMap::new());
    for (i, file) in files.into_iter().enumerate() {
        let name = format!("picture {}", i + 1);
        masks.insert(PixelHash::of(&file.decode_mask(&name)?), file.clone());
        pictures.insert(PixelHash::of(&file.decode(&name)?), file);
    }
    let picture = |hash: &PixelHash, name: &str| find_picture(&pictures, hash, name).cloned();
    let mask = |hash: &PixelHash, name: &str| find_picture(&masks, hash, name).cloned();
    let photo = |PhotoHash { sha256, landmarks }: &PhotoHash, name: &str| -> Result<JsPhoto> {
        let landmarks = landmarks.map(|points| points.map(Vec::from).to_vec());
        Ok(JsPhoto { image: picture(sha256, name)?, landmarks })
    };
    let people = recipe.people.iter().enumerate().map(|(i, person)| person.try_map(i, photo));
    let [prompt, negative_prompt] = recipe.words([prompt.as_deref(), negative_prompt.as_deref()])?;
    // A page cannot give any yet.
    recipe.learnt(&[])?;
    let js = JsRequest {
        people: people.collect::<Result<_>>()?,
        style: recipe.style.as_ref().map(|own| picture(own, "the style picture")).transpose()?,
        prompt: Some(prompt),
        roles: recipe.roles.clone(),
        negative_prompt: Some(negative_prompt),
        clip_skip: Some(recipe.clip_skip),
        alpha: Some(recipe.alpha),
        layout: Some(recipe.layout.try_map(picture, mask)?),
        background: Some(recipe.background),
        init: recipe.init.as_ref().map(|init| init.try_map(picture, mask)).transpose()?,
        into: recipe.into.as_ref().map(|into| into.try_map(picture, mask)).transpose()?,
        redraw_faces: recipe.redraw_faces,
        seed: None,
        count: Some(1),
        steps: Some(recipe.steps),
        guidance_scale: Some(recipe.guidance_scale),
        sampler: Some(recipe.sampler),
        width: Some(recipe.width),
        height: Some(recipe.height),
        preview_every: None,
        watermark: Some(recipe.watermark),
        prompt_in_metadata: Some(recipe.says_words()),
    };
    let object = serde_wasm_bindgen::to_value(&js).map_err(|e| Error::internal("json", e.to_string()))?;
    let object: Object = object.into();
    set(&object, "seed", &seed(recipe.seed));
    Ok(object.into())
}

/// The person that a picture is compared with.
pub fn reference(value: JsValue) -> Result<Person> {
    let js: PersonOf<JsPhoto> = serde_wasm_bindgen::from_value(value).map_err(|e| {
        Error::input(
            "person-format",
            format!("the person cannot be read: {e}"),
            "see `Person` in engine/protocol.js",
        )
    })?;
    js.try_map(0, JsPhoto::decode)
}

/// A `Face` of `web/engine/protocol.js`: where it is, and a photo of it with some room around.
pub fn face(face: &DetectedFace, picture: &RgbImage) -> Result<JsValue> {
    let Photo { image, landmarks } = face.cut_out(picture);
    let png = codec::encode_png(&image, &[])?;
    let object = Object::new();
    set(&object, "box", &numbers(&face.face_box));
    set(&object, "png", &Uint8Array::from(png.as_slice()));
    set(&object, "landmarks", &landmarks.iter().flatten().map(|point| numbers(point)).collect::<Array>());
    // Whoever is chosen is drawn next.
    PICTURES.with_borrow_mut(|pictures| pictures.keep(&png, image.into()));
    Ok(object.into())
}

fn numbers(values: &[f32]) -> Array {
    values.iter().map(|value| JsValue::from(*value)).collect()
}

/// `Abilities` of `web/engine/protocol.js`.
pub fn abilities(studio: &FaceStudio) -> Result<JsValue> {
    let sizes = studio.sizes();
    let object = Object::new();
    if let Some([width, height]) = sizes.own {
        set(&object, "width", &count(width));
        set(&object, "height", &count(height));
    }
    set(&object, "multiple", &count(sizes.multiple));
    set(&object, "words", &studio.reads_words().into());
    set(&object, "styles", &studio.reads_styles().into());
    set(&object, "references", &studio.sees_references().into());
    let Defaults { sampler, steps, guidance_scale } = studio.defaults();
    let sampler = serde_wasm_bindgen::to_value(&sampler);
    set(&object, "sampler", &sampler.map_err(|e| Error::internal("json", e.to_string()))?);
    set(&object, "steps", &count(steps));
    set(&object, "guidance_scale", &guidance_scale.into());
    Ok(object.into())
}

/// A `Progress` of `web/engine/protocol.js`.
pub fn progress(progress: &Progress) -> JsValue {
    let phase = match progress.phase {
        Phase::Encode => "encode",
        Phase::Denoise => "denoise",
        Phase::Decode => "decode",
    };
    let object = Object::new();
    set(&object, "phase", &phase.into());
    set(&object, "step", &count(progress.step));
    set(&object, "steps", &count(progress.steps));
    set(&object, "picture", &count(progress.picture));
    if let Some(preview) = &progress.preview {
        // A preview that cannot be encoded is left out: the picture itself will say why.
        if let Ok(png) = codec::encode_png(preview, &[]) {
            set(&object, "preview", &Uint8Array::from(png.as_slice()));
        }
    }
    object.into()
}

/// A `Picture` of `web/engine/protocol.js`: a PNG with the recipe that makes it again.
pub fn picture(picture: &Generated) -> Result<JsValue> {
    let Generated { image, recipe, notices, .. } = picture;
    let png = codec::encode_generated_png(image, recipe)?;
    // By way of JSON, which writes an f32 with the digits that it has.
    let json = serde_json::to_string(recipe).map_err(|e| Error::internal("json", e.to_string()))?;
    let parsed = js_sys::JSON::parse(&json).map_err(|e| Error::internal("json", format!("{e:?}")))?;
    let parsed: Object = parsed.into();
    set(&parsed, "seed", &seed(recipe.seed));
    let object = Object::new();
    set(&object, "png", &Uint8Array::from(png.as_slice()));
    set(&object, "recipe", &parsed);
    set(&object, "seed", &seed(recipe.seed));
    set(&object, "width", &image.width().into());
    set(&object, "height", &image.height().into());
    set(&object, "notices", &notices.iter().map(notice).collect::<Array>());
    Ok(object.into())
}

fn count(value: usize) -> JsValue {
    // At most a few thousand.
    JsValue::from_f64(value as f64)
}

fn seed(value: u64) -> JsValue {
    if value <= MAX_SAFE_INTEGER { JsValue::from_f64(value as f64) } else { BigInt::from(value).into() }
}
