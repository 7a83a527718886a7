//! ResNet (He et al. 2016) of bottlenecks, with the stride in their 3×3 convolution, as torchvision, timm and transformers
//! have it. Names are torchvision's.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation::relu, module::max_pool2d, ops::MaxPoolOptions};
use serde::{Deserialize, Serialize};

use crate::encoders::bottleneck::{BATCH_NORM_EPS, Bottleneck, EXPANSION, Shrinks, convolution};
use crate::encoders::{check_range, config_range};
use crate::error::Result;
use crate::nn::{BatchNorm, Conv2d};

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
                    0 => Bottleneck::new(channels_in, channels, stride, Shrinks::ByStride, device),
                    _ => Bottleneck::new(channels, channels, 1, Shrinks::ByStride, device),
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
