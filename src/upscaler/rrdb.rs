//! `RRDBNet` of ESRGAN and Real-ESRGAN (`basicsr/archs/rrdbnet_arch.py`): residual dense blocks at the picture's own size, and
//! convolutions of what is then enlarged twice. For a factor of 2 the picture is halved first, its pixels becoming channels.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::out_of_range;
use crate::error::Result;
use crate::nn::{Conv2d, Conv2dConfig};

/// What a block adds is scaled by this (upstream's `0.2`).
const RESIDUAL: f32 = 0.2;
/// Slope below zero.
const SLOPE: f64 = 0.2;

/// Sizes of a [`RrdbNet`]; names are upstream's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RrdbNetConfig {
    /// Side of the result over side of the picture: 2 or 4.
    pub scale: usize,
    /// Channels between the blocks.
    pub num_feat: usize,
    /// Blocks.
    pub num_block: usize,
    /// Channels that each convolution of a dense block adds.
    pub num_grow_ch: usize,
}

impl RrdbNetConfig {
    pub(super) fn check(&self) -> Result<()> {
        let Self { scale, num_feat, num_block, num_grow_ch } = *self;
        let channels = 1..=1024;
        if matches!(scale, 2 | 4)
            && channels.contains(&num_feat)
            && (1..=256).contains(&num_block)
            && channels.contains(&num_grow_ch)
        {
            return Ok(());
        }
        Err(out_of_range(format!(
            "scale {scale}, num_feat {num_feat}, num_block {num_block}, num_grow_ch {num_grow_ch}"
        )))
    }

    /// Creates the network with random weights. Fails with `config-range`.
    pub fn init(&self, device: &Device) -> Result<RrdbNet> {
        self.check()?;
        let (feat, halved) = (self.num_feat, self.scale == 2);
        let blocks = (0..self.num_block).map(|_| Rrdb::new(feat, self.num_grow_ch, device)).collect();
        Ok(RrdbNet {
            conv_first: conv(if halved { 12 } else { 3 }, feat, device),
            body: blocks,
            conv_body: conv(feat, feat, device),
            conv_up1: conv(feat, feat, device),
            conv_up2: conv(feat, feat, device),
            conv_hr: conv(feat, feat, device),
            conv_last: conv(feat, 3, device),
            halved,
        })
    }
}

fn conv(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new(from, to, 3).with_padding(1).init(device)
}

fn leaky(x: Tensor<4>) -> Tensor<4> {
    activation::leaky_relu(x, SLOPE)
}

/// Residual dense blocks; see the file's head.
#[derive(Module, Debug)]
pub struct RrdbNet {
    conv_first: Conv2d,
    body: Vec<Rrdb>,
    conv_body: Conv2d,
    conv_up1: Conv2d,
    conv_up2: Conv2d,
    conv_hr: Conv2d,
    conv_last: Conv2d,
    halved: bool,
}

impl RrdbNet {
    pub(super) fn factor(&self) -> usize {
        if self.halved { 2 } else { 4 }
    }

    pub(super) fn multiple(&self) -> usize {
        if self.halved { 2 } else { 1 }
    }

    /// `[n, 3, h, w]` → `[n, 3, h · scale, w · scale]`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.halved { unshuffled(x) } else { x };
        let feat = self.conv_first.forward(x);
        let body = self.body.iter().fold(feat.clone(), |x, block| block.forward(x));
        let feat = self.conv_body.forward_added(body, feat);
        let feat = [&self.conv_up1, &self.conv_up2].into_iter().fold(feat, |feat, conv| {
            let [_, _, height, width] = feat.dims();
            leaky(conv.forward_upsampled(feat, [2 * height, 2 * width]))
        });
        self.conv_last.forward(leaky(self.conv_hr.forward(feat)))
    }
}

/// `[n, c, 2h, 2w]` → `[n, 4c, h, w]`.
fn unshuffled(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h / 2, 2, w / 2, 2]).permute([0, 1, 3, 5, 2, 4]).reshape([n, c * 4, h / 2, w / 2])
}

/// Three dense blocks.
#[derive(Module, Debug)]
struct Rrdb {
    rdb1: DenseBlock,
    rdb2: DenseBlock,
    rdb3: DenseBlock,
}

impl Rrdb {
    fn new(feat: usize, grow: usize, device: &Device) -> Self {
        let block = || DenseBlock::new(feat, grow, device);
        Self { rdb1: block(), rdb2: block(), rdb3: block() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = self.rdb3.forward(self.rdb2.forward(self.rdb1.forward(x.clone())));
        out * RESIDUAL + x
    }
}

/// Five convolutions, each of which sees the block's input and what all before it made.
#[derive(Module, Debug)]
struct DenseBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
    conv4: Conv2d,
    conv5: Conv2d,
}

impl DenseBlock {
    fn new(feat: usize, grow: usize, device: &Device) -> Self {
        let made = |before: usize, to: usize| conv(feat + before * grow, to, device);
        Self {
            conv1: made(0, grow),
            conv2: made(1, grow),
            conv3: made(2, grow),
            conv4: made(3, grow),
            conv5: made(4, feat),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let convs = [&self.conv1, &self.conv2, &self.conv3, &self.conv4];
        let seen = convs.into_iter().fold(vec![x.clone()], |mut seen, conv| {
            let made = leaky(conv.forward(Tensor::cat(seen.clone(), 1)));
            seen.push(made);
            seen
        });
        self.conv5.forward(Tensor::cat(seen, 1)) * RESIDUAL + x
    }
}
