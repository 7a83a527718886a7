//! Our own detector, which `mini` has: finds faces (box and five landmarks) and tells people apart. A small anchor-free
//! network.
//!
//! Each cell of a stride-8 grid says whether a face is centred there (Zhou et al. 2019, *Objects as Points*), how
//! far its box reaches and where its landmarks lie. Each cell of a stride-4 grid says whether it shows a person, and
//! points to the centre of that person's face; a person's mask is the cells that point to their face (Neven et al.
//! 2019, *Instance Segmentation by Jointly Optimizing Spatial Embeddings*, with fixed bandwidth).

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, activation::relu};
use serde::{Deserialize, Serialize};

use super::{DetectedFace, Detection, LANDMARKS, check_input};
use crate::encoders::check_range;
use crate::error::Result;
use crate::image::mask::Mask;
use crate::image::preprocess::signed_tensor;
use crate::nn::{BatchNorm, Conv2d, Conv2dConfig, lazy, upsample_nearest};

mod decode;

pub use decode::{DecodeOptions, DetectorData};

/// Pixels along the side of a cell of the face grid.
pub const FACE_STRIDE: usize = 8;
/// Pixels along the side of a cell of the person grid.
pub const MASK_STRIDE: usize = 4;

const BATCH_NORM_EPS: f64 = 1e-5;
/// The heatmap starts at σ(−2.19) = 0.1, so that the many empty cells do not drown the few faces (*Objects as
/// Points*, section 4).
const HEATMAP_BIAS: f64 = -2.19;

/// `config.json` of a detector; the defaults make 0.4 M parameters and 0.2 GFLOP at 128×128.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaceStudioDetectorConfig {
    /// Channels of each level; level `i` has stride `2^(i + 1)`. At least three, for strides 4 and 8.
    pub channels: Vec<usize>,
    /// Residual blocks in each level from stride 4 on.
    pub blocks: usize,
    /// Channels of the top-down path and the heads.
    pub head_channels: usize,
    /// Side of the square pictures it was trained on, in pixels; it takes any multiple of 8.
    pub image_size: usize,
}

impl Default for FaceStudioDetectorConfig {
    fn default() -> Self {
        Self { channels: vec![16, 24, 48, 64, 64], blocks: 1, head_channels: 48, image_size: 128 }
    }
}

impl FaceStudioDetectorConfig {
    /// Creates the detector with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<FaceStudioDetector> {
        check_range("channels (levels)", self.channels.len(), 3..=7)?;
        for channels in &self.channels {
            check_range("channels", *channels, 1..=4096)?;
        }
        check_range("blocks", self.blocks, 0..=64)?;
        check_range("head_channels", self.head_channels, 1..=4096)?;
        check_range("image_size", self.image_size, FACE_STRIDE..=4096)?;
        let head = self.head_channels;
        let levels = self
            .channels
            .windows(2)
            .map(|pair| Level {
                down: ConvNorm::new(pair[0], pair[1], 2, device),
                blocks: (0..self.blocks).map(|_| Block::new(pair[1], device)).collect(),
            })
            .collect();
        let lateral =
            self.channels[1..].iter().map(|channels| Conv2dConfig::new(*channels, head, 1).init(device));
        let output = |channels| Conv2dConfig::new(head, channels, 1).init(device);
        let mut heatmap = output(1);
        heatmap.bias = Some(lazy([1], device, |shape, device| Tensor::full(shape, HEATMAP_BIAS, device)));
        Ok(FaceStudioDetector {
            stem: ConvNorm::new(3, self.channels[0], 2, device),
            levels,
            lateral: lateral.collect(),
            smooth: (1..self.channels.len()).map(|_| ConvNorm::new(head, head, 1, device)).collect(),
            face_head: ConvNorm::new(head, head, 1, device),
            person_head: ConvNorm::new(head, head, 1, device),
            heatmap,
            boxes: output(4),
            landmarks: output(2 * LANDMARKS),
            mask: output(1),
            offsets: output(2),
            image_size: self.image_size,
        })
    }
}

/// The network; see the module's description.
#[derive(Module, Debug)]
pub struct FaceStudioDetector {
    stem: ConvNorm,
    /// Strides 4, 8, ...
    levels: Vec<Level>,
    /// One for each of `levels`.
    lateral: Vec<Conv2d>,
    /// One for each of `levels`.
    smooth: Vec<ConvNorm>,
    face_head: ConvNorm,
    person_head: ConvNorm,
    heatmap: Conv2d,
    boxes: Conv2d,
    landmarks: Conv2d,
    mask: Conv2d,
    offsets: Conv2d,
    image_size: usize,
}

/// What the network says, unactivated, in f32. Grids are row-major; a cell's centre lies at `(column + ½, row + ½)`
/// cells from the picture's top left corner.
#[derive(Debug, Clone)]
pub struct DetectorOutput {
    /// Logit that a face's box is centred in the cell, `[n, 1, h/8, w/8]`; activated by the sigmoid.
    pub heatmap: Tensor<4>,
    /// Distances from the cell's centre to the box's left, top, right and bottom edge in stride-8 cells,
    /// `[n, 4, h/8, w/8]`; activated by the softplus. Meaningful where there is a face.
    pub boxes: Tensor<4>,
    /// Landmarks relative to the cell's centre in stride-8 cells, `[n, 10, h/8, w/8]`: x and y of the eye, eye, nose
    /// tip, mouth corner, mouth corner, the picture's left one first; not activated.
    pub landmarks: Tensor<4>,
    /// Logit that the cell shows a person, `[n, 1, h/4, w/4]`; activated by the sigmoid.
    pub mask: Tensor<4>,
    /// From the cell's centre to the centre of the face box of the person shown there, x and y in stride-4 cells,
    /// `[n, 2, h/4, w/4]`; not activated. Meaningful where there is a person.
    pub offsets: Tensor<4>,
}

impl FaceStudioDetector {
    /// Side of the square pictures it was trained on, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// The faces of a picture, in the picture's pixels with its top left corner at (0, 0).
    ///
    /// The picture is scaled so that its longer side is [`Self::image_size`], both sides rounded to whole cells.
    pub async fn detect(
        &self,
        picture: &RgbImage,
        masks: bool,
        device: &Device,
    ) -> Result<Vec<DetectedFace>> {
        let (width, height) = picture.dimensions();
        let scale = self.image_size as f32 / width.max(height) as f32;
        let cells =
            |side: u32| ((side as f32 * scale / FACE_STRIDE as f32).round() as usize).max(1) * FACE_STRIDE;
        let (seen_width, seen_height) = (cells(width), cells(height));
        let seen = imageops::resize(picture, seen_width as u32, seen_height as u32, FilterType::CatmullRom);
        let data = self.forward(signed_tensor(&[&seen], device)?)?.into_host().await?;
        let (rows, columns) = data.mask_grid();
        let back = [width as f32 / seen_width as f32, height as f32 / seen_height as f32];
        let options = DecodeOptions { masks, ..DecodeOptions::default() };
        let found =
            data.decode(0, &options).into_iter().map(|Detection { face_box, landmarks, mask, .. }| {
                let [left, top, right, bottom] = face_box;
                Ok(DetectedFace {
                    face_box: [left * back[0], top * back[1], right * back[0], bottom * back[1]],
                    landmarks: landmarks.map(|[x, y]| [x * back[0], y * back[1]]),
                    mask: mask.map(|values| Mask::new(columns, rows, values)).transpose()?,
                })
            });
        found.collect()
    }

    /// `pixel_values`: RGB in [-1, 1], `[n, 3, h, w]`, both sides multiples of 8; else it fails with
    /// `detector-input`.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Result<DetectorOutput> {
        check_input(&pixel_values, FACE_STRIDE)?;
        let mut features = Vec::with_capacity(self.levels.len());
        let mut x = self.stem.forward(pixel_values);
        for level in &self.levels {
            x = level.blocks.iter().fold(level.down.forward(x), |x, block| block.forward(x));
            features.push(x.clone());
        }
        // Coarse to fine: what is seen from afar is added to what is seen sharply.
        let mut faces = None;
        let mut above: Option<Tensor<4>> = None;
        for (index, feature) in features.into_iter().enumerate().rev() {
            let [_, _, height, width] = feature.dims();
            let mut x = self.lateral[index].forward(feature);
            if let Some(above) = above {
                // A coarser level rounds odd sides up.
                x = x + upsample_nearest(above, 2).narrow(2, 0, height).narrow(3, 0, width);
            }
            let x = self.smooth[index].forward(x);
            if index == 1 {
                faces = Some(x.clone());
            }
            above = Some(x);
        }
        let (Some(faces), Some(people)) = (faces, above) else {
            unreachable!("`init` makes at least two levels");
        };
        let faces = self.face_head.forward(faces);
        let people = self.person_head.forward(people);
        Ok(DetectorOutput {
            heatmap: self.heatmap.forward(faces.clone()).cast(DType::F32),
            boxes: self.boxes.forward(faces.clone()).cast(DType::F32),
            landmarks: self.landmarks.forward(faces).cast(DType::F32),
            mask: self.mask.forward(people.clone()).cast(DType::F32),
            offsets: self.offsets.forward(people).cast(DType::F32),
        })
    }
}

#[derive(Module, Debug)]
struct Level {
    down: ConvNorm,
    blocks: Vec<Block>,
}

/// 3×3 convolution, batch norm, ReLU.
#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(channels_in: usize, channels_out: usize, stride: usize, device: &Device) -> Self {
        let conv = Conv2dConfig::new(channels_in, channels_out, 3)
            .with_stride(stride)
            .with_padding(1)
            .with_bias(false);
        Self { conv: conv.init(device), norm: BatchNorm::new(channels_out, BATCH_NORM_EPS, device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.norm.forward(self.conv.forward(x)))
    }
}

/// `relu(x + norm(conv(conv_norm_relu(x))))`.
#[derive(Module, Debug)]
struct Block {
    first: ConvNorm,
    second: Conv2d,
    norm: BatchNorm,
}

impl Block {
    fn new(channels: usize, device: &Device) -> Self {
        let second = Conv2dConfig::new(channels, channels, 3).with_padding(1).with_bias(false);
        Self {
            first: ConvNorm::new(channels, channels, 1, device),
            second: second.init(device),
            norm: BatchNorm::new(channels, BATCH_NORM_EPS, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = self.second.forward(self.first.forward(x.clone()));
        relu(self.norm.forward(out) + x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_detector_is_small_and_takes_any_multiple_of_8() {
        let device = Device::flex();
        let detector = FaceStudioDetectorConfig::default().init(&device).unwrap();
        assert!(detector.num_params() <= 500_000, "{} parameters", detector.num_params());
        let out = detector.forward(Tensor::zeros([2, 3, 72, 40], &device)).unwrap();
        assert_eq!(out.heatmap.dims(), [2, 1, 9, 5]);
        assert_eq!(out.boxes.dims(), [2, 4, 9, 5]);
        assert_eq!(out.landmarks.dims(), [2, 10, 9, 5]);
        assert_eq!(out.mask.dims(), [2, 1, 18, 10]);
        assert_eq!(out.offsets.dims(), [2, 2, 18, 10]);
    }

    #[test]
    fn unusable_sizes_are_errors() {
        let device = Device::flex();
        let detector = FaceStudioDetectorConfig::default().init(&device).unwrap();
        for dims in [[1, 3, 60, 64], [1, 4, 64, 64], [1, 3, 0, 64]] {
            assert_eq!(detector.forward(Tensor::zeros(dims, &device)).unwrap_err().code, "detector-input");
        }
        let config = FaceStudioDetectorConfig {
            channels: vec![16, 1 << 40, 8],
            ..FaceStudioDetectorConfig::default()
        };
        assert_eq!(config.init(&device).unwrap_err().code, "config-range");
        let config =
            FaceStudioDetectorConfig { channels: vec![16, 16], ..FaceStudioDetectorConfig::default() };
        assert_eq!(config.init(&device).unwrap_err().code, "config-range");
    }
}
