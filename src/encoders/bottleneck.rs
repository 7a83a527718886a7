//! The bottleneck of ResNets (He et al. 2016): 1×1, 3×3 and 1×1 convolutions around a shortcut. Names are torchvision's.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation::relu, module::avg_pool2d, ops::AvgPoolOptions};

use crate::nn::{BatchNorm, Conv2d, Conv2dConfig};

/// Channels out of a bottleneck for each channel inside it.
pub(super) const EXPANSION: usize = 4;
/// PyTorch's `BatchNorm2d` default, and that of DETR's frozen ones.
pub(super) const BATCH_NORM_EPS: f64 = 1e-5;

/// What makes the map smaller.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shrinks {
    /// The mean over cells, after the 3×3 convolution and before the shortcut's (CLIP; Radford et al. 2021, section 2.4).
    ByPooling,
    /// The stride of the 3×3 convolution and of the shortcut's.
    ByStride,
}

/// A convolution without a bias that keeps the size but for its stride.
pub(super) fn convolution(
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

/// Mean over `size × size` cells; the identity for a size of 1.
pub(super) fn avg_pool(x: Tensor<4>, size: usize) -> Tensor<4> {
    if size == 1 { x } else { avg_pool2d(x, AvgPoolOptions::new([size; 2])) }
}

/// See the module's description.
#[derive(Module, Debug)]
pub struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    /// Named by position: `downsample.0` convolves and `downsample.1` normalises; CLIP's pooling before them, "-1", has no
    /// parameters.
    downsample: Option<(Conv2d, BatchNorm)>,
    /// Side of the cells that are pooled.
    pooled: usize,
}

impl Bottleneck {
    pub(super) fn new(
        channels_in: usize,
        channels_out: usize,
        factor: usize,
        shrinks: Shrinks,
        device: &Device,
    ) -> Self {
        let (pooled, stride) = match shrinks {
            Shrinks::ByPooling => (factor, 1),
            Shrinks::ByStride => (1, factor),
        };
        let planes = channels_out / EXPANSION;
        let norm = |channels| BatchNorm::new(channels, BATCH_NORM_EPS, device);
        let downsample = factor > 1 || channels_in != channels_out;
        Self {
            conv1: convolution(channels_in, planes, 1, 1, device),
            bn1: norm(planes),
            conv2: convolution(planes, planes, 3, stride, device),
            bn2: norm(planes),
            conv3: convolution(planes, channels_out, 1, 1, device),
            bn3: norm(channels_out),
            downsample: downsample
                .then(|| (convolution(channels_in, channels_out, 1, stride, device), norm(channels_out))),
            pooled,
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let out = relu(self.bn2.forward(self.conv2.forward(out)));
        let out = self.bn3.forward(self.conv3.forward(avg_pool(out, self.pooled)));
        let identity = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(avg_pool(x, self.pooled))),
            None => x,
        };
        relu(out + identity)
    }
}
