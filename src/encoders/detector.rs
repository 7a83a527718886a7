//! Finds faces, with a network of either architecture: our own, which also tells people apart, and YuNet, which was
//! trained on photographs.

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::mask::Mask;
use crate::nn::read_finite;
use crate::weights::{self, Component};

pub mod facestudio;
pub mod yunet;

use facestudio::{FaceStudioDetector, FaceStudioDetectorConfig};
use yunet::{YuNet, YuNetConfig};

/// Eyes, nose tip and mouth corners; of an upright face the picture's left one first.
pub const LANDMARKS: usize = 5;

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
    pub async fn detect(&self, picture: &RgbImage, masks: bool, device: &Device) -> Result<Vec<Found>> {
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
pub struct Found {
    /// Left, top, right and bottom edge.
    pub face_box: [f32; 4],
    /// In the order of [`crate::image::align::TEMPLATE`].
    pub landmarks: [[f32; 2]; LANDMARKS],
    /// Where the person is, over the whole picture; where masks were asked for and the detector makes them.
    pub mask: Option<Mask>,
}

impl Found {
    /// Of the face's box.
    pub fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.face_box;
        (right - left).max(0.0) * (bottom - top).max(0.0)
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
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
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
