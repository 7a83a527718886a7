//! Pictures without a model: made-up people to try the page with, and a look at a chosen file.

use js_sys::Object;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use super::convert::decode;
use super::failure::{Failure, set};
use facestudio::error::Error;
use facestudio::image::codec;
use facestudio_synth::{
    Background, Beard, COLORS, Glasses, HairColor, HairStyle, Identity, IdentitySplit, Rng, Scene,
    SceneOptions, Style, render,
};

/// Largest side of a rendered sample, in pixels.
const MAX_SIZE: u32 = 512;

/// Draws a made-up person as a PNG of `size`×`size` pixels; the same arguments always give the same picture.
///
/// The style `photo` gives an identity photo of person `seed`; every other style (`watercolor`, `ink_sketch`, …) a
/// portrait of a random person in that style. These people are never among those that the model was trained on.
#[wasm_bindgen]
pub fn render_face(seed: u32, style: &str, size: u32) -> Result<Vec<u8>, Failure> {
    let named: Result<_, serde::de::value::Error> = Style::deserialize(style.into_deserializer());
    // The error lists the names that there are.
    let style = named.map_err(|e| {
        Error::input("style-unknown", format!("no style is called '{style}': {e}"), "use one that there is")
    })?;
    check_size(size)?;
    let scene = if style == Style::Photo {
        Scene::photo_of(Identity::from_pool(IdentitySplit::HeldOut, seed.into()), seed.into())
    } else {
        let options = SceneOptions {
            people: [0.0, 1.0, 0.0, 0.0],
            identities: IdentitySplit::HeldOut,
            non_human_fraction: 0.0,
            styles: vec![style],
            ..SceneOptions::default()
        };
        Scene::random(seed.into(), 0, &options)
    };
    Ok(codec::encode_png(&render(&scene, size).image, &[])?)
}

/// The face maker's random person: `MadeFace` of `web/engine/protocol.js`; the same seed gives the same one.
#[wasm_bindgen]
pub fn random_face(seed: u32) -> Result<JsValue, Failure> {
    to_js(&Identity::from_pool(IdentitySplit::HeldOut, seed.into()))
}

/// What [`draw_face`] can be asked for, by name.
#[derive(Serialize)]
struct FaceChoices {
    hair_styles: &'static [HairStyle],
    /// With red, green and blue in [0, 1].
    hair_colors: Vec<(HairColor, [f32; 3])>,
    beards: &'static [Beard],
    glasses: &'static [Glasses],
    styles: &'static [Style],
    backgrounds: &'static [Background],
}

/// What the face maker can choose from: `FaceChoices` of `web/engine/protocol.js`.
#[wasm_bindgen]
pub fn face_maker() -> Result<JsValue, Failure> {
    to_js(&FaceChoices {
        hair_styles: HairStyle::ALL,
        hair_colors: HairColor::ALL.iter().map(|color| (*color, color.rgb())).collect(),
        beards: Beard::ALL,
        glasses: Glasses::ALL,
        styles: Style::ALL,
        backgrounds: Background::ALL,
    })
}

fn to_js(value: &impl Serialize) -> Result<JsValue, Failure> {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    value.serialize(&serializer).map_err(|e| {
        Error::internal("face-encode", format!("a made-up face cannot be handed over: {e}")).into()
    })
}

/// What the face maker draws: `Portrait` of `web/engine/protocol.js`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Portrait {
    face: Identity,
    style: Style,
    background: Background,
    /// Degrees.
    yaw: f32,
    pitch: f32,
    roll: f32,
    /// −1 frowns, 1 smiles broadly.
    smile: f32,
    /// Draws clothes, colours and strokes.
    seed: u32,
}

/// Draws a face of the face maker as a PNG of `size`×`size` pixels.
///
/// In the style `photo` it is an identity photo. Numbers outside their range are brought into it.
#[wasm_bindgen]
pub fn draw_face(portrait: JsValue, size: u32) -> Result<Vec<u8>, Failure> {
    let portrait: Portrait = serde_wasm_bindgen::from_value(portrait).map_err(|e| {
        let message = format!("the face cannot be read: {e}");
        Error::input("face-format", message, "see `Portrait` in engine/protocol.js")
    })?;
    check_size(size)?;
    let mut scene = Scene::photo_of(portrait.face.clamped(), portrait.seed.into());
    let mut rng = Rng::new(portrait.seed.into(), 0xFACE);
    scene.style = portrait.style;
    scene.background = portrait.background;
    if portrait.background != Background::Plain {
        scene.color = rng.pick(&COLORS);
        scene.accent = rng.pick(&COLORS);
    }
    let within = |value: f32, most: f32| if value.is_nan() { 0.0 } else { value.clamp(-most, most) };
    for person in &mut scene.people {
        person.yaw = within(portrait.yaw, 60.0);
        person.pitch = within(portrait.pitch, 20.0);
        person.roll = within(portrait.roll, 15.0);
        person.expression.smile = within(portrait.smile, 1.0);
    }
    Ok(codec::encode_png(&render(&scene, size).image, &[])?)
}

fn check_size(size: u32) -> Result<(), Error> {
    if (16..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    let message = format!("a sample of {size} pixels; it must be 16 to {MAX_SIZE}");
    Err(Error::input("size-range", message, "the face maker draws icons and small portraits only"))
}

/// Decodes a picture to learn its `{ width, height }`; rejects a file that is none with a `Failure`.
#[wasm_bindgen]
pub fn inspect_image(bytes: &[u8]) -> Result<JsValue, Failure> {
    let image = decode(bytes)?;
    let object = Object::new();
    set(&object, "width", &image.width().into());
    set(&object, "height", &image.height().into());
    Ok(object.into())
}
