//! Pictures without a model: made-up people to try the page with, and a look at a chosen file.

use js_sys::Object;
use wasm_bindgen::prelude::*;

use super::failure::set;
use crate::error::Error;
use crate::image::codec;
use crate::synth::{Identity, IdentitySplit, Scene, SceneOptions, Style, render};

/// Largest side of a rendered sample, in pixels.
const MAX_SIZE: u32 = 512;

/// The page's names of the renderer's styles.
const STYLES: [(&str, Style); 8] = [
    ("photo", Style::Photo),
    ("flat_cartoon", Style::FlatCartoon),
    ("ink_sketch", Style::InkSketch),
    ("watercolor", Style::Watercolor),
    ("oil", Style::Oil),
    ("pop_art", Style::PopArt),
    ("pixel_art", Style::PixelArt),
    ("neon", Style::Neon),
];

/// Draws a made-up person as a PNG of `size`×`size` pixels; the same arguments always give the same picture.
///
/// The style `photo` gives an identity photo of person `seed`; every other style (`watercolor`, `ink_sketch`, …) a
/// portrait of a random person in that style. These people are never among those that the model was trained on.
#[wasm_bindgen]
pub fn render_face(seed: u32, style: &str, size: u32) -> Result<Vec<u8>, JsValue> {
    let style = STYLES.iter().find(|(name, _)| *name == style).map(|(_, style)| *style).ok_or_else(|| {
        let names: Vec<&str> = STYLES.iter().map(|(name, _)| *name).collect();
        let remedy = format!("use one of {}", names.join(", "));
        Error::input("style-unknown", format!("no style is called '{style}'"), remedy)
    })?;
    if !(16..=MAX_SIZE).contains(&size) {
        let message = format!("a sample of {size} pixels; it must be 16 to {MAX_SIZE}");
        return Err(Error::input("size-range", message, "").into());
    }
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

/// Decodes a picture to learn its `{ width, height }`; rejects a file that is none with a `Failure`.
#[wasm_bindgen]
pub fn inspect_image(bytes: &[u8]) -> Result<JsValue, JsValue> {
    let image = codec::decode(bytes)?;
    let object = Object::new();
    set(&object, "width", &image.width().into());
    set(&object, "height", &image.height().into());
    Ok(object.into())
}
