//! The identity encoder `e_f = ArcFace(I_f)` of the paper: InsightFace's improved residual network.
//!
//! Names are those of InsightFace's `arcface_torch` backbones (`iresnet50`, `iresnet100`), so that their
//! checkpoints load as they are. Blocks follow Deng et al. 2019 (ArcFace), section 3.2: batch norm first, PReLU
//! between the two convolutions, no activation after the sum.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::check_range;
use crate::error::{Error, Result};
use crate::nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, LinearConfig, lazy};
use crate::weights::{self, Component};

/// InsightFace's `BatchNorm` epsilon in every layer.
const BATCH_NORM_EPS: f64 = 1e-5;
/// PyTorch's initial slope of `PReLU`.
const PRELU_SLOPE: f64 = 0.25;

/// The `model_type` of an identity encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FaceModelType {
    /// InsightFace's `iresnet`.
    #[default]
    #[serde(rename = "ir_resnet")]
    IrResNet,
}

/// `config.json` of an identity encoder; the defaults are `iresnet50`'s (`iresnet100`: `layers` [3, 13, 30, 3]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaceEncoderConfig {
    /// Always `ir_resnet`.
    pub model_type: FaceModelType,
    /// Blocks in each of the four stages; each stage halves the picture.
    pub layers: [usize; 4],
    /// Channels of the stem and of the four stages.
    pub channels: [usize; 5],
    /// Width of the embedding.
    pub embedding_size: usize,
    /// Side of the square, aligned face crop in pixels.
    pub image_size: usize,
}

impl Default for FaceEncoderConfig {
    fn default() -> Self {
        Self {
            model_type: FaceModelType::IrResNet,
            layers: [3, 4, 14, 3],
            channels: [64, 64, 128, 256, 512],
            embedding_size: 512,
            image_size: 112,
        }
    }
}

impl FaceEncoderConfig {
    /// Creates the encoder with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<FaceEncoder> {
        for blocks in self.layers {
            check_range("layers", blocks, 1..=256)?;
        }
        for channels in self.channels {
            check_range("channels", channels, 1..=4096)?;
        }
        check_range("embedding_size", self.embedding_size, 1..=16_384)?;
        check_range("image_size", self.image_size, 16..=1024)?;
        let stage = |index: usize| {
            let (channels_in, channels) = (self.channels[index], self.channels[index + 1]);
            (0..self.layers[index])
                .map(|block| match block {
                    0 => IrBlock::new(channels_in, channels, 2, device),
                    _ => IrBlock::new(channels, channels, 1, device),
                })
                .collect()
        };
        let [stem, .., last] = self.channels;
        // A padded 3×3 convolution with stride 2 rounds up.
        let side = (0..self.layers.len()).fold(self.image_size, |side, _| side.div_ceil(2));
        Ok(FaceEncoder {
            conv1: conv3x3(3, stem, 1, device),
            bn1: batch_norm(stem, device),
            prelu: Prelu::new(stem, device),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            bn2: batch_norm(last, device),
            fc: LinearConfig::new(last * side * side, self.embedding_size).init(device),
            features: batch_norm(self.embedding_size, device),
            image_size: self.image_size,
        })
    }
}

fn conv3x3(channels_in: usize, channels_out: usize, stride: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new(channels_in, channels_out, 3)
        .with_stride(stride)
        .with_padding(1)
        .with_bias(false)
        .init(device)
}

fn batch_norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNorm::new(channels, BATCH_NORM_EPS, device)
}

/// A face crop to an identity embedding.
#[derive(Module, Debug)]
pub struct FaceEncoder {
    conv1: Conv2d,
    bn1: BatchNorm,
    prelu: Prelu,
    layer1: Vec<IrBlock>,
    layer2: Vec<IrBlock>,
    layer3: Vec<IrBlock>,
    layer4: Vec<IrBlock>,
    bn2: BatchNorm,
    fc: Linear,
    features: BatchNorm,
    image_size: usize,
}

impl FaceEncoder {
    /// Loads the encoder of a component folder.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: FaceEncoderConfig = component.json("config.json")?;
        weights::apply(config.init(device)?, component.tensors()?.as_ref(), "")
    }

    /// Side of the square, aligned face crop that it takes, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// `pixel_values`: aligned RGB crops in [-1, 1], `[n, 3, image_size, image_size]` → `[n, embedding_size]`,
    /// not normalised. Fails with `face-input` on another shape.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Result<Tensor<2>> {
        let size = self.image_size;
        let [_, channels, height, width] = pixel_values.dims();
        if [channels, height, width] != [3, size, size] {
            return Err(Error::input(
                "face-input",
                format!("the identity encoder takes 3×{size}×{size} crops, not {channels}×{height}×{width}"),
                "align the face to the encoder's own size",
            ));
        }
        let x = self.prelu.forward(self.bn1.forward(self.conv1.forward(pixel_values)));
        let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let x = stages.into_iter().flatten().fold(x, |x, block| block.forward(x));
        let x = self.bn2.forward(x).flatten::<2>(1, 3);
        Ok(self.features.forward(self.fc.forward(x)))
    }

    /// [`FaceEncoder::forward`] scaled to unit length, in f32: the dot product of two is their cosine similarity.
    pub fn embed(&self, pixel_values: Tensor<4>) -> Result<Tensor<2>> {
        let embeds = self.forward(pixel_values)?.cast(DType::F32);
        let length = embeds.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        Ok(embeds / length)
    }
}

#[derive(Module, Debug)]
struct IrBlock {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    prelu: Prelu,
    conv2: Conv2d,
    bn3: BatchNorm,
    /// Named by position: `downsample.0` convolves and `downsample.1` normalises.
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl IrBlock {
    fn new(channels_in: usize, channels: usize, stride: usize, device: &Device) -> Self {
        let downsample = stride > 1 || channels_in != channels;
        Self {
            bn1: batch_norm(channels_in, device),
            conv1: conv3x3(channels_in, channels, 1, device),
            bn2: batch_norm(channels, device),
            prelu: Prelu::new(channels, device),
            conv2: conv3x3(channels, channels, stride, device),
            bn3: batch_norm(channels, device),
            downsample: downsample.then(|| {
                let conv = Conv2dConfig::new(channels_in, channels, 1).with_stride(stride).with_bias(false);
                (conv.init(device), batch_norm(channels, device))
            }),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = self.conv1.forward(self.bn1.forward(x.clone()));
        let out = self.prelu.forward(self.bn2.forward(out));
        let out = self.bn3.forward(self.conv2.forward(out));
        let identity = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x)),
            None => x,
        };
        out + identity
    }
}

/// `max(x, 0) + a · min(x, 0)` with a learned slope for each channel.
#[derive(Module, Debug)]
struct Prelu {
    /// `[channels]`.
    weight: Param<Tensor<1>>,
}

impl Prelu {
    fn new(channels: usize, device: &Device) -> Self {
        Self { weight: lazy([channels], device, |shape, device| Tensor::full(shape, PRELU_SLOPE, device)) }
    }

    /// `[n, c, h, w]` → the same shape.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        activation::prelu(x, self.weight.val().cast(dtype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    fn tiny() -> FaceEncoderConfig {
        FaceEncoderConfig {
            layers: [1, 2, 1, 1],
            channels: [4, 4, 6, 8, 8],
            embedding_size: 10,
            image_size: 20,
            ..FaceEncoderConfig::default()
        }
    }

    #[test]
    fn embeddings_have_unit_length() {
        let device = Device::flex();
        let encoder = tiny().init(&device).unwrap();
        let crops = Tensor::random([3, 3, 20, 20], Distribution::Uniform(-1.0, 1.0), &device);
        let lengths = encoder.embed(crops).unwrap().square().sum_dim(1);
        for length in lengths.try_into_vec_as::<f32>().unwrap() {
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }

    #[test]
    fn unusable_sizes_are_errors() {
        let device = Device::flex();
        let encoder = tiny().init(&device).unwrap();
        assert_eq!(encoder.forward(Tensor::zeros([1, 3, 20, 21], &device)).unwrap_err().code, "face-input");
        for config in [
            FaceEncoderConfig { image_size: usize::MAX, ..tiny() },
            FaceEncoderConfig { layers: [0, 1, 1, 1], ..tiny() },
            FaceEncoderConfig { embedding_size: 0, ..tiny() },
        ] {
            assert_eq!(config.init(&device).unwrap_err().code, "config-range");
        }
    }
}
