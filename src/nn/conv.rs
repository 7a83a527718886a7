use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, module, ops::ConvOptions};

use super::{uniform_fan_in, upsample_nearest};
use crate::kernels::{self, Window};

/// Sizes of a [`Conv2d`].
#[derive(Debug, Clone, Copy)]
pub struct Conv2dConfig {
    channels_in: usize,
    channels_out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
    bias: bool,
}

impl Conv2dConfig {
    /// A square kernel with stride 1, no padding and a bias.
    pub fn new(channels_in: usize, channels_out: usize, kernel: usize) -> Self {
        Self { channels_in, channels_out, kernel, stride: 1, padding: 0, groups: 1, bias: true }
    }

    /// Stride in both directions.
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Zero padding on every side.
    pub fn with_padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Groups of channels.
    pub fn with_groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// With or without a bias.
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Creates the layer (PyTorch's default initialisation).
    pub fn init(&self, device: &Device) -> Conv2d {
        let per_group = self.channels_in / self.groups;
        let fan_in = per_group * self.kernel * self.kernel;
        Conv2d {
            weight: uniform_fan_in([self.channels_out, per_group, self.kernel, self.kernel], fan_in, device),
            bias: self.bias.then(|| uniform_fan_in([self.channels_out], fan_in, device)),
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
        }
    }
}

/// 2-D convolution, NCHW; `weight` is `[out, in / groups, kernel, kernel]`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Conv2d {
    /// `[n, in, h, w]` → `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if let Some(out) = self.fused(&x, None, None) {
            return out;
        }
        let dtype = x.dtype();
        let weight = kernels::dense(self.weight.val()).cast(dtype);
        let bias = self.bias.as_ref().map(|b| b.val().cast(dtype));
        module::conv2d(
            x,
            weight,
            bias,
            ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], self.groups),
        )
    }

    /// As `forward`, and `added`: `[n, out, h', w']` or `[n, out, 1, 1]`.
    pub fn forward_added(&self, x: Tensor<4>, added: Tensor<4>) -> Tensor<4> {
        self.fused(&x, None, Some(&added)).unwrap_or_else(|| self.forward(x) + added)
    }

    /// As `forward` of `x` upsampled by a whole factor (nearest neighbour), without what is beyond `[height, width]`: the
    /// factor is the smallest that reaches it.
    pub fn forward_upsampled(&self, x: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
        if let Some(out) = self.fused(&x, Some([height, width]), None) {
            return out;
        }
        let [n, channels, h, w] = x.dims();
        let factor = height.div_ceil(h).max(width.div_ceil(w));
        let mut x = upsample_nearest(x, factor);
        if [height, width] != [factor * h, factor * w] {
            x = x.slice([0..n, 0..channels, 0..height, 0..width]);
        }
        self.forward(x)
    }

    fn fused(&self, x: &Tensor<4>, seen: Option<[usize; 2]>, added: Option<&Tensor<4>>) -> Option<Tensor<4>> {
        if self.groups != 1 {
            return None;
        }
        let window = Window { stride: self.stride, padding: self.padding, seen };
        let bias = self.bias.as_ref().map(Param::val);
        kernels::conv2d(x, &self.weight.val(), bias.as_ref(), window, added)
    }
}
