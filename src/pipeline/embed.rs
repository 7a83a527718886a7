//! Photos and style images to embeddings: faces are found here, and what is found decides what is read.

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::models::Models;
use crate::encoders::detector::{DecodeOptions, Detection, Detector, FACE_STRIDE};
use crate::encoders::vision::{Preprocessing, VisionEnsemble};
use crate::error::{Error, Result};
use crate::guidance::mixing;
use crate::image::align;
use crate::image::mask::{FACE_FILL, Mask, hide};
use crate::image::preprocess::{clip_tensor, signed_tensor};
use crate::request::Person;

/// The largest style image that faces are hidden in, in sides of the largest vision encoder's input: more would cost
/// memory and be thrown away.
const STYLE_SIDES: usize = 2;

/// Finds the faces of a picture; boxes and landmarks in the picture's own pixels, its top left corner at (0, 0).
///
/// The picture is scaled so that its longer side is the detector's, both sides rounded to whole cells.
pub async fn detect(
    detector: &Detector,
    picture: &RgbImage,
    masks: bool,
    device: &Device,
) -> Result<Vec<Found>> {
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::input("image-empty", "a picture has no pixels", "use another picture"));
    }
    let scale = detector.image_size() as f32 / width.max(height) as f32;
    let cells =
        |side: u32| ((side as f32 * scale / FACE_STRIDE as f32).round() as usize).max(1) * FACE_STRIDE;
    let (seen_width, seen_height) = (cells(width), cells(height));
    let seen = imageops::resize(picture, seen_width as u32, seen_height as u32, FilterType::CatmullRom);
    let data = detector.forward(signed_tensor(&[&seen], device)?)?.into_host().await?;
    let (rows, columns) = data.mask_grid();
    let back = [width as f32 / seen_width as f32, height as f32 / seen_height as f32];
    let found = data.decode(0, &DecodeOptions { masks, ..DecodeOptions::default() });
    found.into_iter().map(|detection| Found::new(detection, back, columns, rows)).collect()
}

/// A face in a picture, in the picture's pixels.
#[derive(Debug, Clone)]
pub struct Found {
    /// Left, top, right and bottom edge.
    pub face_box: [f32; 4],
    /// In the order of [`align::TEMPLATE`].
    pub landmarks: [[f32; 2]; 5],
    /// Where the person is, over the whole picture; where masks were asked for.
    pub mask: Option<Mask>,
}

impl Found {
    fn new(detection: Detection, back: [f32; 2], columns: usize, rows: usize) -> Result<Self> {
        let [left, top, right, bottom] = detection.face_box;
        Ok(Self {
            face_box: [left * back[0], top * back[1], right * back[0], bottom * back[1]],
            landmarks: detection.landmarks.map(|[x, y]| [x * back[0], y * back[1]]),
            mask: detection.mask.map(|values| Mask::new(columns, rows, values)).transpose()?,
        })
    }

    /// Of the face's box.
    pub fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.face_box;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }
}

/// The unit-length identity embedding of the largest face in a photo; `name` tells the photo in `face-not-found`.
pub async fn identity(models: &Models, photo: &RgbImage, name: &str, device: &Device) -> Result<Vec<f32>> {
    face(models, photo, &largest(models, photo, name, device).await?, name, device).await
}

/// The largest face in a photo; fails with `face-not-found`, which tells the photo's `name`.
pub async fn largest(models: &Models, photo: &RgbImage, name: &str, device: &Device) -> Result<Found> {
    let found = detect(&models.detector, photo, false, device).await?;
    found.into_iter().max_by(|a, b| a.area().total_cmp(&b.area())).ok_or_else(|| not_found(name))
}

/// A face brought onto [`align::TEMPLATE`], `size × size` pixels.
pub fn aligned(photo: &RgbImage, face: &Found, size: usize) -> Result<RgbImage> {
    // `align` counts from the centre of the top left pixel, detections from its corner.
    let landmarks = face.landmarks.map(|[x, y]| [x - 0.5, y - 0.5]);
    align::align(photo, &landmarks, size)
}

/// There is no face in the picture called `name`.
pub fn not_found(name: &str) -> Error {
    Error::input(
        "face-not-found",
        format!("no face was found in {name}"),
        "use a photo that shows the whole face from the front, large and well lit",
    )
}

/// The unit-length identity embedding of one face in the photo called `name`.
pub async fn face(
    models: &Models,
    photo: &RgbImage,
    face: &Found,
    name: &str,
    device: &Device,
) -> Result<Vec<f32>> {
    let encoder = models.face_encoder()?;
    let crop = aligned(photo, face, encoder.image_size())?;
    let embeds = encoder.embed(signed_tensor(&[&crop], device)?)?;
    let fail = |e: String| Error::device("read-back", format!("could not read a tensor back: {e}"), "");
    let data = embeds.cast(DType::F32).into_data_async().await.map_err(|e| fail(format!("{e:?}")))?;
    let embedding = data.try_into_vec::<f32>().map_err(|e| fail(format!("{e:?}")))?;
    if embedding.iter().all(|value| value.is_finite()) {
        return Ok(embedding);
    }
    Err(Error::weights(
        "embedding-not-finite",
        format!("the identity encoder gave no usable embedding for {name}"),
        "fetch or convert the model again",
    ))
}

/// A person's identity, `e_f = Σ β_i e_f^i` (paper section 3.2), from the embeddings of all photos in order.
pub fn mix(person: &Person, photos: &mut impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
    let identities: Vec<(f32, Vec<f32>)> = person
        .identities
        .iter()
        .map(|identity| (identity.beta, photos.take(identity.photos.len()).collect::<Vec<_>>()))
        .filter(|(_, embeddings)| !embeddings.is_empty())
        .map(|(beta, embeddings)| (beta, mixing::average(&embeddings)))
        .collect();
    mixing::mix(&identities)
}

/// [`mix`] on the device, `[1, dim]`.
pub fn mixed(person: &Person, photos: &mut impl Iterator<Item = Vec<f32>>, device: &Device) -> Tensor<2> {
    let mix = mix(person, photos);
    let dim = mix.len();
    Tensor::from_data(TensorData::new(mix, [1, dim]), device)
}

/// A style image's embedding, `e_h = CLIP_V(I_h)` with its faces hidden as in training (paper section 3.1) → `[1, dim]`.
pub async fn style(
    vision: &VisionEnsemble,
    models: &Models,
    picture: &RgbImage,
    device: &Device,
) -> Result<Tensor<2>> {
    let encoders = &vision.encoders;
    let largest = encoders.iter().map(|encoder| encoder.preprocessing().size).max().unwrap_or(1);
    let mut picture = shrunk(picture, (STYLE_SIDES * largest) as u32);
    for face in detect(&models.detector, &picture, false, device).await? {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        picture = hide(&picture, &Mask::head(face.face_box, width, height), FACE_FILL)?;
    }
    let pixel_values = encoders
        .iter()
        .map(|encoder| {
            let Preprocessing { size, mean, std } = encoder.preprocessing();
            clip_tensor(&picture, size, mean, std, device)
        })
        .collect::<Result<_>>()?;
    vision.forward(pixel_values)
}

/// The picture with its shorter side at most `side`.
fn shrunk(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let shorter = width.min(height);
    if shorter <= side {
        return picture.clone();
    }
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(shorter)) as u32;
    imageops::resize(picture, scaled(width), scaled(height), FilterType::CatmullRom)
}
