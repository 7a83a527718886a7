//! `SRVGGNetCompact` of Real-ESRGAN's repository (`realesrgan/archs/srvgg_arch.py`): a chain of convolutions at the picture's own
//! size, whose last one makes the pixels of each pixel's place; what it makes is added to the picture, enlarged plainly.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::out_of_range;
use crate::error::Result;
use crate::nn::{Activation, Conv2d, Conv2dConfig, lazy, upsample_nearest};

/// Sizes of a [`SrvggNetCompact`]; names are upstream's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SrvggNetCompactConfig {
    /// Channels between the convolutions.
    pub num_feat: usize,
    /// Convolutions but for the first and the last.
    pub num_conv: usize,
    /// Side of the result over side of the picture.
    pub upscale: usize,
}

impl SrvggNetCompactConfig {
    pub(super) fn check(&self) -> Result<()> {
        let Self { num_feat, num_conv, upscale } = *self;
        if (1..=1024).contains(&num_feat) && num_conv <= 256 && (1..=4).contains(&upscale) {
            return Ok(());
        }
        Err(out_of_range(format!("num_feat {num_feat}, num_conv {num_conv}, upscale {upscale}")))
    }

    /// Creates the network with random weights. Fails with `config-range`.
    pub fn init(&self, device: &Device) -> Result<SrvggNetCompact> {
        self.check()?;
        let conv = |from, to| Layer::Conv(Conv2dConfig::new(from, to, 3).with_padding(1).init(device));
        let act = || Layer::Act(PRelu::new(self.num_feat, device));
        let mut body = vec![conv(3, self.num_feat), act()];
        for _ in 0..self.num_conv {
            body.extend([conv(self.num_feat, self.num_feat), act()]);
        }
        body.push(conv(self.num_feat, 3 * self.upscale * self.upscale));
        Ok(SrvggNetCompact { body, upscale: self.upscale })
    }
}

/// A chain of convolutions; see the file's head.
#[derive(Module, Debug)]
pub struct SrvggNetCompact {
    body: Vec<Layer>,
    upscale: usize,
}

impl SrvggNetCompact {
    pub(super) fn factor(&self) -> usize {
        self.upscale
    }

    /// `[n, 3, h, w]` → `[n, 3, h · upscale, w · upscale]`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = self.body.iter().fold(x.clone(), |x, layer| match layer {
            Layer::Conv(conv) => conv.forward(x),
            Layer::Act(act) => act.forward(x),
        });
        // Shi et al. 2016, arXiv 1609.05158: `[n, c f², h, w]` → `[n, c, h f, w f]`.
        let ([n, _, h, w], f) = (out.dims(), self.upscale);
        let out = out.reshape([n, 3, f, f, h, w]).permute([0, 1, 4, 2, 5, 3]).reshape([n, 3, h * f, w * f]);
        out + upsample_nearest(x, f)
    }
}

/// An entry of upstream's list.
#[derive(Module, Debug)]
enum Layer {
    Conv(Conv2d),
    Act(PRelu),
}

/// Parametric ReLU (He et al. 2015, arXiv 1502.01852), a slope a channel.
#[derive(Module, Debug)]
struct PRelu {
    /// `[channels]`.
    weight: Param<Tensor<1>>,
}

impl PRelu {
    /// PyTorch's first slope.
    fn new(channels: usize, device: &Device) -> Self {
        Self { weight: lazy([channels], device, |shape, device| Tensor::full(shape, 0.25, device)) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let slope = self.weight.val().cast(x.dtype()).reshape([1, -1, 1, 1]);
        Activation::Relu.forward(x.clone()) - Activation::Relu.forward(-x) * slope
    }
}
