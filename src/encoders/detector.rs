//! Finds faces, with a network of either architecture: our own, which also tells people apart, and YuNet, which was
//! trained on photographs.

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::mask::Mask;
use crate::nn::read_finite;
use crate::request::{Landmarks, Photo};
use crate::weights::{self, Component};

pub mod facestudio;
pub mod yunet;

use facestudio::{FaceStudioDetector, FaceStudioDetectorConfig};
use yunet::{YuNet, YuNetConfig};

/// Eyes, nose tip and mouth corners; of an upright face the picture's left one first.
pub const LANDMARKS: usize = 5;

/// Side of a face's cut-out over the longer side of its box.
const ROOM: f32 = 1.8;
/// Most pixels along one side of a cut-out; identity encoders look at far fewer.
const MAX_CUT_OUT: u32 = 512;

/// The config of either architecture, told apart by `model_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum DetectorConfig {
    /// Our own network.
    #[serde(rename = "facestudio_detector")]
    FaceStudio(FaceStudioDetectorConfig),
    /// YuNet.
    #[serde(rename = "yunet")]
    YuNet(YuNetConfig),
}

/// A detector of either architecture.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds one")]
pub enum Detector {
    /// Our own network.
    FaceStudio(FaceStudioDetector),
    /// YuNet.
    YuNet(YuNet),
}

impl Detector {
    /// Loads the detector of a component folder.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: DetectorConfig = component.json("config.json")?;
        let tensors = component.tensors()?;
        Ok(match config {
            DetectorConfig::FaceStudio(config) => {
                Self::FaceStudio(weights::apply(config.init(device)?, tensors.as_ref(), "")?)
            }
            DetectorConfig::YuNet(config) => {
                Self::YuNet(weights::apply(config.init(device)?, tensors.as_ref(), "")?)
            }
        })
    }

    /// Finds the faces of a picture of any size; positions in the picture's own pixels, its top left corner at (0, 0).
    ///
    /// With `masks`, our own network also says where each person is; YuNet knows faces alone. Fails with `image-empty`
    /// on a picture without pixels.
    pub async fn detect(
        &self,
        picture: &RgbImage,
        masks: bool,
        device: &Device,
    ) -> Result<Vec<DetectedFace>> {
        if picture.width() == 0 || picture.height() == 0 {
            return Err(Error::input("image-empty", "a picture has no pixels", "use another picture"));
        }
        match self {
            Self::FaceStudio(network) => network.detect(picture, masks, device).await,
            Self::YuNet(network) => network.detect(picture, device).await,
        }
    }
}

/// A face in a picture, in the picture's pixels.
#[derive(Debug, Clone)]
pub struct DetectedFace {
    /// Left, top, right and bottom edge.
    pub face_box: [f32; 4],
    /// In the order of [`crate::image::align::TEMPLATE`].
    pub landmarks: Landmarks,
    /// Where the person is, over the whole picture; where masks were asked for and the detector makes them.
    pub mask: Option<Mask>,
}

impl DetectedFace {
    /// Of the face's box.
    pub fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.face_box;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }

    /// The face with some room around it, at most [`MAX_CUT_OUT`] pixels wide, as a photo that needs not be searched again.
    pub fn cut_out(&self, picture: &RgbImage) -> Photo {
        let [left, top, right, bottom] = self.face_box;
        let side = ROOM * (right - left).max(bottom - top).max(1.0);
        let (x, y) = (0.5 * (left + right - side), 0.5 * (top + bottom - side));
        let inside = |at: f32, length: u32| at.round().clamp(0.0, length as f32) as u32;
        // A box may lie outside of the picture.
        let x0 = inside(x, picture.width().saturating_sub(1));
        let y0 = inside(y, picture.height().saturating_sub(1));
        let width = inside(x + side, picture.width()).saturating_sub(x0).max(1);
        let height = inside(y + side, picture.height()).saturating_sub(y0).max(1);
        let mut image = imageops::crop_imm(picture, x0, y0, width, height).to_image();
        if width.max(height) > MAX_CUT_OUT {
            let scaled = |length: u32| (length * MAX_CUT_OUT / width.max(height)).max(1);
            image = imageops::resize(&image, scaled(width), scaled(height), FilterType::CatmullRom);
        }
        let scale = [image.width() as f32 / width as f32, image.height() as f32 / height as f32];
        let landmarks = self.landmarks.map(|[x, y]| {
            let there = [(x - x0 as f32) * scale[0], (y - y0 as f32) * scale[1]];
            Photo::nearest(there, image.width(), image.height())
        });
        Photo { image, landmarks: Some(landmarks) }
    }
}

/// What a network says of a face, positions in pixels of the network's input.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom edge; our own network's are clamped to the picture.
    pub face_box: [f32; 4],
    /// Eye, eye, nose tip, mouth corner, mouth corner; of an upright face the picture's left one first. x and y.
    pub landmarks: [[f32; 2]; LANDMARKS],
    /// Probability that a cell shows this person, `[h/4 × w/4]`, row-major; `None` if masks were not asked for, and from
    /// YuNet.
    pub mask: Option<Vec<f32>>,
}

/// Refuses with `detector-input` what is not `[n, 3, h, w]` with sides that are multiples of `stride`.
fn check_input(pixel_values: &Tensor<4>, stride: usize) -> Result<()> {
    let [_, channels, height, width] = pixel_values.dims();
    let fits = |side: usize| side > 0 && side.is_multiple_of(stride);
    if channels == 3 && fits(height) && fits(width) {
        return Ok(());
    }
    Err(Error::input(
        "detector-input",
        format!(
            "the detector takes 3 channels and sides that are multiples of {stride}, not {channels}×{height}×{width}"
        ),
        "resize or pad the picture",
    ))
}

/// Intersection over union of two boxes.
pub fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |r: &[f32; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let both = width * height;
    both / (area(a) + area(b) - both).max(1e-6)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) async fn read_outputs<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    read_finite(tensor, "what was seen in a picture").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::align::TEMPLATE;
    use crate::request::{Identity, Person};

    /// A face whose box and landmarks lie around a place, as far as `scale` times the template.
    fn face_at([x, y]: [f32; 2], scale: f32) -> DetectedFace {
        let landmarks = TEMPLATE.map(|[a, b]| [x + scale * (a - 56.0), y + scale * (b - 72.0)]);
        let half = 40.0 * scale;
        DetectedFace { face_box: [x - half, y - half, x + half, y + half], landmarks, mask: None }
    }

    #[test]
    fn landmarks_of_a_cut_out_lie_on_the_same_pixels() {
        // Brightness says where a pixel was; slopes survive that a large cut-out is made smaller.
        let picture = RgbImage::from_fn(2000, 1600, |x, y| ::image::Rgb([(x / 8) as u8, (y / 8) as u8, 0]));
        for (place, scale) in [([900.0, 700.0], 1.0), ([1000.0, 800.0], 8.0), ([60.0, 1500.0], 3.0)] {
            let face = face_at(place, scale);
            let cut = face.cut_out(&picture);
            assert!(cut.image.width().max(cut.image.height()) <= MAX_CUT_OUT);
            let there = cut.landmarks.unwrap();
            for ([x, y], [u, v]) in face.landmarks.into_iter().zip(there) {
                let inside =
                    u >= 0.0 && v >= 0.0 && u < cut.image.width() as f32 && v < cut.image.height() as f32;
                if inside {
                    let [r, g, _] = cut.image.get_pixel(u as u32, v as u32).0.map(f32::from);
                    assert!((8.0 * r - x).abs() < 12.0 && (8.0 * g - y).abs() < 12.0, "{r} {g}: {x} {y}");
                }
            }
        }
    }

    #[test]
    fn whatever_is_found_can_be_drawn_from() {
        let picture = RgbImage::new(90, 70);
        for place in [[45.0, 30.0], [0.0, 0.0], [89.0, 69.0], [-300.0, 40.0], [400.0, 500.0]] {
            for scale in [0.01, 1.0, 20.0] {
                let photo = face_at(place, scale).cut_out(&picture);
                assert!(photo.landmarks.is_some());
                let person = Person::of(vec![Identity { photos: vec![photo], beta: 1.0 }]);
                person.validate(0).unwrap();
            }
        }
    }
}
