//! Photos and style images to embeddings: faces are found here, and what is found decides what is read.

use std::hash::Hash;

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::tensor::{Device, Tensor, TensorData};

use super::cache::Key;
use super::readers::Readers;
use crate::encoders::detector::Detector;
use crate::encoders::vision::VisionEnsemble;
use crate::error::{Error, Result};
use crate::guidance::mixing;
use crate::image::align;
use crate::image::mask::{FACE_FILL, Mask, hide};
use crate::image::preprocess::signed_tensor;
use crate::nn::read_finite;
use crate::request::{Landmarks, Person, Photo};

/// The largest style image that faces are hidden in, in sides of the largest vision encoder's input: more would cost
/// memory and be thrown away.
const STYLE_SIDES: usize = 2;

/// The unit-length identity embedding of the face in a photo; `name` tells the photo in `face-not-found`.
pub async fn identity(readers: &Readers, photo: &Photo, name: &str, device: &Device) -> Result<Vec<f32>> {
    let key = Key::new("identity", |hasher| photo.hash(hasher));
    let embed = async || {
        let landmarks = landmarks(readers, photo, name, device).await?;
        face(readers, &photo.image, &landmarks, name, device).await
    };
    readers.cache.remember(key, embed).await
}

/// Where the face of a photo is: as the photo says, or else the largest one's; fails with `face-not-found`, which tells the
/// photo's `name`.
pub async fn landmarks(readers: &Readers, photo: &Photo, name: &str, device: &Device) -> Result<Landmarks> {
    if let Some(landmarks) = photo.landmarks {
        return Ok(landmarks);
    }
    let key = Key::new("largest", |hasher| photo.image.hash(hasher));
    let find = async || {
        let found = readers.detector()?.detect(&photo.image, false, device).await?;
        let largest = found.into_iter().max_by(|a, b| a.area().total_cmp(&b.area()));
        Ok(largest.ok_or_else(|| not_found(name))?.landmarks)
    };
    readers.cache.remember(key, find).await
}

/// A face brought onto [`align::TEMPLATE`], `size × size` pixels.
pub fn aligned(photo: &RgbImage, landmarks: &Landmarks, size: usize) -> Result<RgbImage> {
    align::align(photo, &align::from_corner(landmarks), size)
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
    readers: &Readers,
    photo: &RgbImage,
    landmarks: &Landmarks,
    name: &str,
    device: &Device,
) -> Result<Vec<f32>> {
    let encoder = readers.face_encoder()?;
    let crop = aligned(photo, landmarks, encoder.image_size())?;
    let embeds = encoder.embed(signed_tensor(&[&crop], device)?)?;
    read_finite(embeds, &format!("the identity of {name}")).await
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

/// A style image's embedding, `e_h = CLIP_V(I_h)` with its faces hidden as in training (paper section 3.1) → `[1, dim]`. Without
/// a `detector` they are seen: as in training where there is no identity.
pub async fn style(
    vision: &VisionEnsemble,
    detector: Option<&Detector>,
    picture: &RgbImage,
    device: &Device,
) -> Result<Tensor<2>> {
    let encoders = &vision.encoders;
    let largest = encoders.iter().map(|encoder| encoder.preprocessing().size).max().unwrap_or(1);
    let mut picture = shrunk(picture, (STYLE_SIDES * largest) as u32);
    let faces = match detector {
        Some(detector) => detector.detect(&picture, false, device).await?,
        None => Vec::new(),
    };
    for face in faces {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        picture = hide(&picture, &Mask::head(face.face_box, width, height), FACE_FILL)?;
    }
    let pixel_values = encoders
        .iter()
        .map(|encoder| encoder.preprocessing().tensor(&picture, device))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_shrunk_to_their_shorter_side() {
        let sides = |width, height, side| shrunk(&RgbImage::new(width, height), side).dimensions();
        assert_eq!(sides(100, 60, 30), (50, 30));
        assert_eq!(sides(60, 100, 30), (30, 50));
        assert_eq!([sides(100, 60, 60), sides(100, 60, 61)], [(100, 60); 2]);
    }

    /// A face that lies as in the template is cut out pixel for pixel, whatever its surroundings.
    #[test]
    fn detections_count_from_the_corner_of_the_picture() {
        let photo = RgbImage::from_fn(150, 140, |x, y| {
            ::image::Rgb([(31 * x + 7 * y) as u8, (x * y) as u8, (53 * y + x) as u8])
        });
        for (left, top) in [(0, 0), (20, 9)] {
            // The centre of the template's first pixel is half a pixel from the corner of that pixel.
            let seen = |[x, y]: [f32; 2]| [x + left as f32 + 0.5, y + top as f32 + 0.5];
            let landmarks = align::TEMPLATE.map(seen);
            let crop = aligned(&photo, &landmarks, 112).unwrap();
            let expected = imageops::crop_imm(&photo, left, top, 112, 112).to_image();
            let off = crop.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off.is_some_and(|off| off <= 1), "{off:?}");
        }
    }
}
