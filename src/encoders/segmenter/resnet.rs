//! ResNet (He et al. 2016) of bottlenecks, with the stride in their 3×3 convolution, as torchvision, timm and transformers
//! have it. Names are torchvision's.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation::relu, module::max_pool2d, ops::MaxPoolOptions};
use serde::{Deserialize, Serialize};

use crate::encoders::{check_range, config_range};
use crate::error::Result;
use crate::nn::{BatchNorm, Conv2d, Conv2dConfig};

/// Channels out of a bottleneck for each channel inside it.
const EXPANSION: usize = 4;
/// PyTorch's `BatchNorm2d` default, and that of DETR's frozen ones.
const BATCH_NORM_EPS: f64 = 1e-5;

/// Sizes of a [`ResNet`]; transformers' `ResNetConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResNetConfig {
    /// Channels after the stem.
    pub embedding_size: usize,
    /// Channels after each stage.
    pub hidden_sizes: [usize; 4],
    /// Bottlenecks in each stage.
    pub depths: [usize; 4],
}

impl Default for ResNetConfig {
    /// ResNet-50.
    fn default() -> Self {
        Self { embedding_size: 64, hidden_sizes: [256, 512, 1024, 2048], depths: [3, 4, 6, 3] }
    }
}

impl ResNetConfig {
    /// Creates the network with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<ResNet> {
        check_range("embedding_size", self.embedding_size, 1..=4096)?;
        for (channels, blocks) in self.hidden_sizes.into_iter().zip(self.depths) {
            check_range("hidden_sizes", channels, EXPANSION..=16_384)?;
            check_range("depths", blocks, 1..=256)?;
            if !channels.is_multiple_of(EXPANSION) {
                return Err(config_range(format!(
                    "hidden_sizes holds {channels}, which is no multiple of {EXPANSION}"
                )));
            }
        }
        let stage = |index: usize| {
            let channels = self.hidden_sizes[index];
            let (channels_in, stride) =
                if index == 0 { (self.embedding_size, 1) } else { (self.hidden_sizes[index - 1], 2) };
            (0..self.depths[index])
                .map(|block| match block {
                    0 => Bottleneck::new(channels_in, channels, stride, device),
                    _ => Bottleneck::new(channels, channels, 1, device),
                })
                .collect()
        };
        Ok(ResNet {
            conv1: convolution(3, self.embedding_size, 7, 2, device),
            bn1: BatchNorm::new(self.embedding_size, BATCH_NORM_EPS, device),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
        })
    }
}

fn convolution(
    channels_in: usize,
    channels_out: usize,
    kernel: usize,
    stride: usize,
    device: &Device,
) -> Conv2d {
    Conv2dConfig::new(channels_in, channels_out, kernel)
        .with_stride(stride)
        .with_padding(kernel / 2)
        .with_bias(false)
        .init(device)
}

/// A ResNet without its classifier.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Bottleneck>,
    layer2: Vec<Bottleneck>,
    layer3: Vec<Bottleneck>,
    layer4: Vec<Bottleneck>,
}

impl ResNet {
    /// `pixel_values`: `[n, 3, h, w]`, normalised → what each stage makes, at strides 4, 8, 16 and 32 (rounded up).
    pub fn forward(&self, pixel_values: Tensor<4>) -> [Tensor<4>; 4] {
        let x = relu(self.bn1.forward(self.conv1.forward(pixel_values)));
        let x = max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]));
        let run = |stage: &[Bottleneck], x| stage.iter().fold(x, |x, block| block.forward(x));
        let first = run(&self.layer1, x);
        let second = run(&self.layer2, first.clone());
        let third = run(&self.layer3, second.clone());
        let fourth = run(&self.layer4, third.clone());
        [first, second, third, fourth]
    }
}

#[derive(Module, Debug)]
struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    /// Named by position: `downsample.0` convolves and `downsample.1` normalises.
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Bottleneck {
    fn new(channels_in: usize, channels_out: usize, stride: usize, device: &Device) -> Self {
        let planes = channels_out / EXPANSION;
        let norm = |channels| BatchNorm::new(channels, BATCH_NORM_EPS, device);
        let downsample = stride > 1 || channels_in != channels_out;
        Self {
            conv1: convolution(channels_in, planes, 1, 1, device),
            bn1: norm(planes),
            conv2: convolution(planes, planes, 3, stride, device),
            bn2: norm(planes),
            conv3: convolution(planes, channels_out, 1, 1, device),
            bn3: norm(channels_out),
            downsample: downsample
                .then(|| (convolution(channels_in, channels_out, 1, stride, device), norm(channels_out))),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let out = relu(self.bn2.forward(self.conv2.forward(out)));
        let out = self.bn3.forward(self.conv3.forward(out));
        let identity = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x)),
            None => x,
        };
        relu(out + identity)
    }
}
