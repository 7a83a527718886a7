//! Networks that make pictures larger: Real-ESRGAN's (Wang et al. 2021, arXiv 2107.10833). A picture of any size is taken a tile at a
//! time.

mod rrdb;
mod srvgg;

use std::ops::ControlFlow;

use ::image::imageops;
use ::image::{Rgb, RgbImage};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::codec::MAX_PIXELS;
use crate::image::preprocess::{normalized_tensor, read_pictures};
use crate::weights::{self, Component};
pub use rrdb::{RrdbNet, RrdbNetConfig};
pub use srvgg::{SrvggNetCompact, SrvggNetCompactConfig};

/// Pixels along a tile; four times as many, of 64 channels, are less than a WebGPU device must bind at once (128 MiB).
const TILE: u32 = 96;
/// Pixels around a tile that the network sees as well, so that no seam is seen: as far as a compact network reaches, and far more than
/// counts in a deep one.
const AROUND: u32 = 32;

/// `config.json` of an upscaler of either architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum UpscalerConfig {
    /// A chain of convolutions at the picture's own size.
    #[serde(rename = "srvgg_net_compact")]
    SrvggNetCompact(SrvggNetCompactConfig),
    /// Residual dense blocks (ESRGAN, Wang et al. 2018, arXiv 1809.00219).
    #[serde(rename = "rrdb_net")]
    RrdbNet(RrdbNetConfig),
}

impl UpscalerConfig {
    /// Fails with `config-range` on sizes that no such network has.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::SrvggNetCompact(config) => config.check(),
            Self::RrdbNet(config) => config.check(),
        }
    }
}

/// An upscaler of either architecture.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds one")]
pub enum Upscaler {
    /// A chain of convolutions.
    SrvggNetCompact(SrvggNetCompact),
    /// Residual dense blocks.
    RrdbNet(RrdbNet),
}

impl Upscaler {
    /// Loads the upscaler of a component folder.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let tensors = component.tensors()?;
        Ok(match component.json("config.json")? {
            UpscalerConfig::SrvggNetCompact(config) => {
                Self::SrvggNetCompact(weights::apply(config.init(device)?, tensors.as_ref(), "")?)
            }
            UpscalerConfig::RrdbNet(config) => {
                Self::RrdbNet(weights::apply(config.init(device)?, tensors.as_ref(), "")?)
            }
        })
    }

    /// Side of a picture that it makes over side of the one that it takes.
    pub fn factor(&self) -> usize {
        match self {
            Self::SrvggNetCompact(network) => network.factor(),
            Self::RrdbNet(network) => network.factor(),
        }
    }

    /// Sides of the pictures that the network takes are multiples of this.
    fn multiple(&self) -> usize {
        match self {
            Self::SrvggNetCompact(_) => 1,
            Self::RrdbNet(network) => network.multiple(),
        }
    }

    /// Pictures `[n, 3, h, w]` in [0, 1] → `[n, 3, h · factor, w · factor]`, about in [0, 1].
    ///
    /// Fails with `upscaler-input` on another shape, or sides that the network cannot take.
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        let [_, channels, height, width] = images.dims();
        let fits = |side: usize| side > 0 && side.is_multiple_of(self.multiple());
        if channels != 3 || !fits(height) || !fits(width) {
            return Err(Error::input(
                "upscaler-input",
                format!(
                    "the upscaler takes 3 channels and sides that are multiples of {}, not {channels}×{height}×{width}",
                    self.multiple()
                ),
                "resize or pad the picture",
            ));
        }
        Ok(match self {
            Self::SrvggNetCompact(network) => network.forward(images),
            Self::RrdbNet(network) => network.forward(images),
        })
    }

    /// The picture, larger by the network's factor. `watch` hears of every tile, of how many; `Break` cancels.
    ///
    /// Fails with `image-empty`, and with `image-too-large` where the result would be larger than any picture that is read.
    pub async fn enlarge(
        &self,
        picture: &RgbImage,
        device: &Device,
        mut watch: impl AsyncFnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let factor = self.factor() as u32;
        if width == 0 || height == 0 {
            return Err(Error::input("image-empty", "a picture has no pixels", "use another picture"));
        }
        let size = [width, height].map(|side| u64::from(side) * u64::from(factor));
        if size[0].saturating_mul(size[1]) > MAX_PIXELS {
            return Err(Error::input(
                "image-too-large",
                format!(
                    "the picture would have {}×{} pixels; at most {} megapixels",
                    size[0],
                    size[1],
                    MAX_PIXELS >> 20
                ),
                "enlarge a smaller part of it",
            ));
        }
        let mut larger = RgbImage::new(width * factor, height * factor);
        let [across, down] = [width, height].map(|side| side.div_ceil(TILE));
        let count = (across * down) as usize;
        for tile in 0..across * down {
            let (left, top) = (tile % across * TILE, tile / across * TILE);
            let seen = Seen::new([left, top], [width, height]);
            let part = seen.cut(picture, self.multiple() as u32);
            let tensor = normalized_tensor(&part, [0.0; 3], [1.0; 3], device)?;
            // Pictures are read in [-1, 1].
            let made = read_pictures(self.forward(tensor)? * 2.0 - 1.0).await?.pop();
            let made =
                made.ok_or_else(|| Error::internal("picture-missing", "the upscaler gave no picture"))?;
            let [x, y] = [left - seen.left, top - seen.top].map(|from| from * factor);
            let [w, h] = [(width - left).min(TILE), (height - top).min(TILE)].map(|side| side * factor);
            let own = imageops::crop_imm(&made, x, y, w, h).to_image();
            imageops::replace(&mut larger, &own, i64::from(left * factor), i64::from(top * factor));
            if watch(tile as usize + 1, count).await.is_break() {
                return Err(Error::cancelled());
            }
        }
        Ok(larger)
    }
}

/// A tile and what is around it, as far as the picture reaches: at its edge the network sees what it would see of the whole.
struct Seen {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Seen {
    fn new(corner: [u32; 2], size: [u32; 2]) -> Self {
        let [(left, right), (top, bottom)] = [0, 1].map(|axis| {
            (corner[axis].saturating_sub(AROUND), (corner[axis] + TILE + AROUND).min(size[axis]))
        });
        Self { left, top, width: right - left, height: bottom - top }
    }

    /// Its pixels; those at the right and the lower edge go on up to sides that are multiples of `multiple`.
    fn cut(&self, picture: &RgbImage, multiple: u32) -> RgbImage {
        let [width, height] = [self.width, self.height].map(|side| side.next_multiple_of(multiple));
        RgbImage::from_fn(width, height, |x, y| -> Rgb<u8> {
            *picture.get_pixel(self.left + x.min(self.width - 1), self.top + y.min(self.height - 1))
        })
    }
}

/// `config-range` of one of these networks.
fn out_of_range(what: String) -> Error {
    Error::weights(
        "config-range",
        format!("the upscaler's config: {what}"),
        "use the config.json that belongs to the weights",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7 + y) as u8, (x ^ y) as u8, (y * 5 + x / 3) as u8])
        })
    }

    fn compact(upscale: usize) -> Upscaler {
        let config = SrvggNetCompactConfig { num_feat: 4, num_conv: 3, upscale };
        Upscaler::SrvggNetCompact(config.init(&Device::flex()).unwrap())
    }

    fn blocks(scale: usize) -> Upscaler {
        let config = RrdbNetConfig { scale, num_feat: 4, num_block: 1, num_grow_ch: 2 };
        Upscaler::RrdbNet(config.init(&Device::flex()).unwrap())
    }

    fn enlarge(upscaler: &Upscaler, picture: &RgbImage) -> Result<RgbImage> {
        let watch = async |_, _| ControlFlow::Continue(());
        pollster::block_on(upscaler.enlarge(picture, &Device::flex(), watch))
    }

    /// What the network makes of the whole, whose sides it can take.
    fn whole(upscaler: &Upscaler, picture: &RgbImage) -> RgbImage {
        let tensor = normalized_tensor(picture, [0.0; 3], [1.0; 3], &Device::flex()).unwrap();
        let made = upscaler.forward(tensor).unwrap() * 2.0 - 1.0;
        pollster::block_on(read_pictures(made)).unwrap().remove(0)
    }

    #[test]
    fn tiles_give_what_the_whole_picture_gives() {
        let picture = picture(230, 130);
        let mut varied = 0;
        for upscaler in [compact(2), compact(4), blocks(2), blocks(4)] {
            let tiled = enlarge(&upscaler, &picture).unwrap();
            let factor = upscaler.factor() as u32;
            assert_eq!(tiled.dimensions(), (230 * factor, 130 * factor));
            let whole = whole(&upscaler, &picture);
            let off = tiled.as_raw().iter().zip(whole.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(1), "{off:?}");
            varied += usize::from(tiled.pixels().any(|pixel| pixel != tiled.get_pixel(0, 0)));
        }
        // Random weights may make nothing but white.
        assert!(varied > 0);
    }

    #[test]
    fn any_size_is_taken_and_each_tile_told() {
        for (width, height) in [(1, 1), (97, 3), (95, 191)] {
            let upscaler = blocks(2);
            let made = enlarge(&upscaler, &picture(width, height)).unwrap();
            assert_eq!(made.dimensions(), (2 * width, 2 * height));
        }
        let mut told = Vec::new();
        let watch = async |tile, count| {
            told.push((tile, count));
            if tile == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let upscaler = compact(2);
        let error =
            pollster::block_on(upscaler.enlarge(&picture(200, 120), &Device::flex(), watch)).unwrap_err();
        assert_eq!((error, told), (Error::cancelled(), vec![(1, 6), (2, 6), (3, 6)]));
    }

    #[test]
    fn what_cannot_be_enlarged_is_refused() {
        let code = |upscaler: &Upscaler, picture: &RgbImage| {
            enlarge(upscaler, picture).map(|_| ()).unwrap_err().code
        };
        assert_eq!(code(&compact(2), &RgbImage::new(0, 4)), "image-empty");
        assert_eq!(code(&compact(4), &RgbImage::new(4000, 1049)), "image-too-large");
        let odd = Tensor::zeros([1, 3, 5, 4], &Device::flex());
        assert_eq!(blocks(2).forward(odd).map(|_| ()).unwrap_err().code, "upscaler-input");
        for (num_feat, num_conv, upscale) in [(0, 3, 2), (4, 1 << 20, 2), (4, 3, 0), (4, 3, 9)] {
            let config =
                UpscalerConfig::SrvggNetCompact(SrvggNetCompactConfig { num_feat, num_conv, upscale });
            assert_eq!(config.check().unwrap_err().code, "config-range");
        }
        for (scale, num_feat, num_block, num_grow_ch) in
            [(3, 4, 1, 2), (4, 0, 1, 2), (4, 4, 1 << 20, 2), (4, 4, 1, 0)]
        {
            let config = RrdbNetConfig { scale, num_feat, num_block, num_grow_ch };
            assert_eq!(UpscalerConfig::RrdbNet(config).check().unwrap_err().code, "config-range");
        }
    }
}
