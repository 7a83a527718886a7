//! Plain JavaScript objects to requests, and results to plain JavaScript objects; typed in `web/engine/protocol.js`.

use std::cell::RefCell;
use std::sync::Arc;

use ::image::{GrayImage, RgbImage};
use js_sys::{Array, BigInt, Object, Uint8Array};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use wasm_bindgen::JsValue;

use super::failure::{notice, set};
use facestudio::error::{Error, Result};
use facestudio::image::codec;
use facestudio::image::decoded::DecodedImages;
use facestudio::pipeline::{FaceStudio, Found, Generated, Phase, Progress};
use facestudio::request::{
    Background, Defaults, GenerateRequest, Identity, InitImage, Landmarks, Layout, Person, Photo, RelativeBox,
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsRequest {
    #[serde(default)]
    people: Vec<JsPerson>,
    style: Option<Encoded>,
    prompt: Option<String>,
    negative_prompt: Option<String>,
    alpha: Option<f32>,
    layout: Option<JsLayout>,
    background: Option<Background>,
    init: Option<JsInit>,
    seed: Option<u64>,
    count: Option<usize>,
    steps: Option<usize>,
    guidance_scale: Option<f32>,
    sampler: Option<Sampler>,
    width: Option<usize>,
    height: Option<usize>,
    preview_every: Option<usize>,
    watermark: Option<bool>,
    prompt_in_metadata: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsPerson {
    identities: Vec<JsIdentity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsIdentity {
    photos: Vec<JsPhoto>,
    beta: Option<f32>,
}

/// A photo, perhaps with the face that is meant.
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

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum JsLayout {
    Whole,
    Boxes(Vec<RelativeBox>),
    Masks(Vec<Encoded>),
    Content(Encoded),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsInit {
    image: Encoded,
    strength: f32,
    mask: Option<Encoded>,
}

/// The bytes of a picture's file: a `Uint8Array` or an `ArrayBuffer`.
struct Encoded(Vec<u8>);

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
    fn decode(&self, name: impl std::fmt::Display) -> Result<RgbImage> {
        Ok(decode(&self.0).map_err(|e| e.context(name))?.as_ref().clone())
    }

    fn decode_mask(&self, name: impl std::fmt::Display) -> Result<GrayImage> {
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
    let people = js.people.iter().enumerate().map(|(i, p)| person(i, p)).collect::<Result<_>>()?;
    Ok(GenerateRequest {
        people,
        style: js.style.map(|image| image.decode("the style picture")).transpose()?,
        prompt: js.prompt.unwrap_or_default(),
        negative_prompt: js.negative_prompt.unwrap_or_default(),
        alpha: js.alpha.unwrap_or(usual.alpha),
        layout: js.layout.map(layout).transpose()?.unwrap_or_default(),
        background: js.background.unwrap_or_default(),
        init: js.init.map(init).transpose()?,
        seed: js.seed.unwrap_or(usual.seed),
        count: js.count.unwrap_or(usual.count),
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

fn person(index: usize, js: &JsPerson) -> Result<Person> {
    let name = format!("a photo of person {}", index + 1);
    let identities = js.identities.iter().map(|identity| {
        let photos = identity.photos.iter().map(|js| photo(&name, js)).collect::<Result<_>>()?;
        Ok(Identity { photos, beta: identity.beta.unwrap_or(1.0) })
    });
    Ok(Person { identities: identities.collect::<Result<_>>()? })
}

fn photo(name: &str, js: &JsPhoto) -> Result<Photo> {
    let landmarks = js.landmarks.as_deref().map(|points| landmarks(name, points)).transpose()?;
    Ok(Photo { image: js.image.decode(name)?, landmarks })
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

fn layout(js: JsLayout) -> Result<Layout> {
    Ok(match js {
        JsLayout::Whole => Layout::Whole,
        JsLayout::Boxes(boxes) => Layout::Boxes(boxes),
        JsLayout::Masks(masks) => {
            let masks = masks.iter().enumerate().map(|(i, m)| m.decode_mask(format!("mask {}", i + 1)));
            Layout::Masks(masks.collect::<Result<_>>()?)
        }
        JsLayout::Content(image) => Layout::Content(image.decode("the content picture")?),
    })
}

fn init(js: JsInit) -> Result<InitImage> {
    let mask = js.mask.map(|mask| mask.decode_mask("the mask of the start picture")).transpose()?;
    Ok(InitImage { image: js.image.decode("the start picture")?, strength: js.strength, mask })
}

/// The person that a picture is compared with.
pub fn reference(value: JsValue) -> Result<Person> {
    let js: JsPerson = serde_wasm_bindgen::from_value(value).map_err(|e| {
        Error::input(
            "person-format",
            format!("the person cannot be read: {e}"),
            "see `Person` in engine/protocol.js",
        )
    })?;
    person(0, &js)
}

/// A `Face` of `web/engine/protocol.js`: where it is, and a photo of it with some room around.
pub fn face(found: &Found, picture: &RgbImage) -> Result<JsValue> {
    let Photo { image, landmarks } = found.cut_out(picture);
    let png = codec::encode_png(&image, &[])?;
    let object = Object::new();
    set(&object, "box", &numbers(&found.face_box));
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

/// A `Picture` of `web/engine/protocol.js`: a PNG with the settings that make it again.
pub fn picture(picture: &Generated, request: &GenerateRequest) -> Result<JsValue> {
    let settings = settings(picture, request);
    let png = codec::encode_generated_png(&picture.image, &settings)?;
    let object = Object::new();
    set(&object, "png", &Uint8Array::from(png.as_slice()));
    set(&object, "seed", &seed(picture.seed));
    set(&object, "width", &picture.image.width().into());
    set(&object, "height", &picture.image.height().into());
    set(&object, "notices", &picture.notices.iter().map(notice).collect::<Array>());
    Ok(object.into())
}

/// The settings that make this picture again, as JSON; without the words where the request leaves them out.
fn settings(picture: &Generated, request: &GenerateRequest) -> String {
    let mut settings = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generated": true,
        "alpha": request.alpha,
        "seed": picture.seed,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "sampler": request.sampler,
        "watermark": request.watermark,
    });
    if request.prompt_in_metadata {
        settings["prompt"] = request.prompt.as_str().into();
        settings["negative_prompt"] = request.negative_prompt.as_str().into();
    }
    settings.to_string()
}

fn count(value: usize) -> JsValue {
    // At most a few thousand.
    JsValue::from_f64(value as f64)
}

fn seed(value: u64) -> JsValue {
    if value <= MAX_SAFE_INTEGER { JsValue::from_f64(value as f64) } else { BigInt::from(value).into() }
}
