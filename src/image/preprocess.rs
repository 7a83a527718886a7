//! Pictures to the tensors that networks take, and back.

use std::borrow::Cow;

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::nn::read_back;

/// A picture longer than this times its width is cut to its middle before it is resized: otherwise a line of
/// 16,384×1 pixels would become gigabytes on its way to a square.
const MAX_ASPECT: u32 = 4;

/// What a picture is resized to before its middle is cut out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    /// In proportion, until it covers so many pixels.
    Cover { width: u32, height: u32 },
    /// To this size, out of proportion where need be.
    Squash { width: u32, height: u32 },
}

/// Resizes to cover `width × height` and cuts the overhang off evenly. Bicubic, antialiased.
///
/// Fails with `image-empty` on a picture or a size without pixels.
pub fn resize_to_cover(picture: &RgbImage, width: usize, height: usize) -> Result<RgbImage> {
    let (width, height) = (width as u32, height as u32);
    frame(picture, Framing::Cover { width, height }, (width, height), FilterType::CatmullRom)
}

/// Resizes, and cuts the middle of `size` (width and height) out, which must lie in what the framing gives.
pub(super) fn frame(
    picture: &RgbImage,
    framing: Framing,
    size: (u32, u32),
    filter: FilterType,
) -> Result<RgbImage> {
    let (Framing::Cover { width, height } | Framing::Squash { width, height }) = framing;
    if [picture.width(), picture.height(), width, height, size.0, size.1].contains(&0) {
        return Err(empty(picture, size.0, size.1));
    }
    let full = if picture.dimensions() == (width, height) {
        Cow::Borrowed(picture)
    } else {
        Cow::Owned(match framing {
            Framing::Cover { .. } => cover(picture, width, height, filter),
            Framing::Squash { .. } => imageops::resize(picture, width, height, filter),
        })
    };
    if full.dimensions() == size {
        return Ok(full.into_owned());
    }
    let (left, top) = (full.width().saturating_sub(size.0) / 2, full.height().saturating_sub(size.1) / 2);
    Ok(imageops::crop_imm(&*full, left, top, size.0, size.1).to_image())
}

/// The picture resized in proportion until it covers `width × height`.
fn cover(picture: &RgbImage, width: u32, height: u32, filter: FilterType) -> RgbImage {
    let bound = |side: u32, other: u32, out_side: u32, out_other: u32| {
        let needed = u64::from(other) * u64::from(out_side) / u64::from(out_other);
        u64::from(side).min((needed + 1) * u64::from(MAX_ASPECT)) as u32
    };
    let cut_width = bound(picture.width(), picture.height(), width, height);
    let cut_height = bound(picture.height(), picture.width(), height, width);
    let (left, top) = ((picture.width() - cut_width) / 2, (picture.height() - cut_height) / 2);
    let cut = imageops::crop_imm(picture, left, top, cut_width, cut_height);

    let scale = (f64::from(width) / f64::from(cut_width)).max(f64::from(height) / f64::from(cut_height));
    // Truncated, as torchvision and transformers do; a rounding error must not leave the picture a pixel short.
    let scaled = |side: u32, least: u32| ((f64::from(side) * scale + 1e-6) as u32).max(least);
    imageops::resize(&*cut, scaled(cut_width, width), scaled(cut_height, height), filter)
}

/// The middle of a picture that [`resize_to_cover`] shows at `width × height`, in the picture's own pixels.
///
/// Fails with `image-empty` on a picture or a size without pixels.
pub fn cut_to_cover(picture: &RgbImage, width: usize, height: usize) -> Result<RgbImage> {
    let (full_width, full_height) = picture.dimensions();
    if full_width == 0 || full_height == 0 || width == 0 || height == 0 {
        return Err(empty(picture, width as u32, height as u32));
    }
    let part = |side: u32, other: u32, of: usize, to: usize| {
        let part = (u64::from(other) * of as u64 + to as u64 / 2) / to as u64;
        u64::from(side).min(part.max(1)) as u32
    };
    let (cut_width, cut_height) =
        (part(full_width, full_height, width, height), part(full_height, full_width, height, width));
    let (left, top) = ((full_width - cut_width) / 2, (full_height - cut_height) / 2);
    Ok(imageops::crop_imm(picture, left, top, cut_width, cut_height).to_image())
}

fn empty(picture: &RgbImage, width: u32, height: u32) -> Error {
    Error::input(
        "image-empty",
        format!("a {}×{} picture cannot become {width}×{height}", picture.width(), picture.height()),
        "use a picture with at least one pixel",
    )
}

/// [0, 1], minus `mean`, over `std` → `[1, 3, h, w]`.
pub fn normalized_tensor(
    picture: &RgbImage,
    mean: [f32; 3],
    std: [f32; 3],
    device: &Device,
) -> Result<Tensor<4>> {
    scaled_tensor(picture, 255.0, mean, std, device)
}

/// Bytes over `divisor`, minus `mean`, over `std` → `[1, 3, h, w]`.
pub(super) fn scaled_tensor(
    picture: &RgbImage,
    divisor: f32,
    mean: [f32; 3],
    std: [f32; 3],
    device: &Device,
) -> Result<Tensor<4>> {
    planes(&[picture], device, |channel, value| (value / divisor - mean[channel]) / std[channel])
}

/// Pictures of one size in [-1, 1], what the VAE, the identity encoder and our own detector take: `[n, 3, h, w]`.
///
/// Fails with `image-batch` where there is none, or their sizes differ.
pub fn signed_tensor(pictures: &[&RgbImage], device: &Device) -> Result<Tensor<4>> {
    planes(pictures, device, |_, value| to_signed(value))
}

/// Pictures of one size in 0 to 255 with their channels in the order blue, green, red, as OpenCV hands them to YuNet:
/// `[n, 3, h, w]`.
///
/// Fails with `image-batch` where there is none, or their sizes differ.
pub fn bgr_tensor(pictures: &[&RgbImage], device: &Device) -> Result<Tensor<4>> {
    Ok(planes(pictures, device, |_, value| value)?.flip([1]))
}

/// A byte of a picture as networks take it, in [-1, 1].
pub fn to_signed(byte: f32) -> f32 {
    byte / 127.5 - 1.0
}

/// A network's value in [-1, 1] as a byte of a picture; clamped.
pub fn to_byte(value: f32) -> u8 {
    ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
}

fn planes(pictures: &[&RgbImage], device: &Device, map: impl Fn(usize, f32) -> f32) -> Result<Tensor<4>> {
    let Some((width, height)) = pictures.first().map(|p| p.dimensions()) else {
        return Err(Error::input("image-batch", "no picture to make a tensor of", "give at least one"));
    };
    if let Some(other) = pictures.iter().find(|p| p.dimensions() != (width, height)) {
        return Err(Error::input(
            "image-batch",
            format!("pictures of {width}×{height} and {}×{} in one batch", other.width(), other.height()),
            "resize them to one size first",
        ));
    }
    let (width, height) = (width as usize, height as usize);
    let mut values = Vec::with_capacity(pictures.len() * 3 * width * height);
    for picture in pictures {
        for channel in 0..3 {
            let bytes = picture.as_raw().iter().skip(channel).step_by(3);
            values.extend(bytes.map(|byte| map(channel, f32::from(*byte))));
        }
    }
    Ok(Tensor::from_data(TensorData::new(values, [pictures.len(), 3, height, width]), device))
}

/// `[n, 3, h, w]` in [-1, 1] → pictures; values outside are clamped.
///
/// Fails with `picture-not-finite` where a value is an infinity or not a number: a grey picture would hide that.
pub async fn read_pictures(pixels: Tensor<4>) -> Result<Vec<RgbImage>> {
    let [_, channels, height, width] = pixels.dims();
    if channels != 3 {
        return Err(Error::internal("picture-channels", format!("{channels} channels are no RGB picture")));
    }
    let values = read_back(pixels, "pictures").await?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::device(
            "picture-not-finite",
            "the network's picture is not a number in places",
            "use another backend, or f32 as precision; lower the guidance scale",
        ));
    }
    let plane = height * width;
    let pictures = values.chunks_exact(3 * plane).map(|picture| {
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let p = y as usize * width + x as usize;
            ::image::Rgb([0, 1, 2].map(|channel| to_byte(picture[channel * plane + p])))
        })
    });
    Ok(pictures.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::Rgb;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(255 * x / width) as u8, (255 * y / height) as u8, ((x + y) % 256) as u8])
        })
    }

    #[test]
    fn what_is_cut_out_has_the_proportions_and_the_middle() {
        let picture = RgbImage::from_fn(40, 10, |x, y| ::image::Rgb([x as u8, y as u8, 0]));
        let cut = cut_to_cover(&picture, 64, 32).unwrap();
        assert_eq!((cut.dimensions(), cut.get_pixel(0, 0).0), ((20, 10), [10, 0, 0]));
        assert_eq!(cut_to_cover(&picture, 1, 2).unwrap().dimensions(), (5, 10));
        assert_eq!(cut_to_cover(&picture, 4, 1).unwrap().dimensions(), (40, 10));
        assert_eq!(cut_to_cover(&picture, 1, 2000).unwrap().dimensions(), (1, 10));
        // 10 / 4, 30 / 4 and 20 / 3 pixels are rounded, halves up.
        assert_eq!(cut_to_cover(&picture, 1, 4).unwrap().dimensions(), (3, 10));
        assert_eq!(cut_to_cover(&picture, 3, 4).unwrap().dimensions(), (8, 10));
        assert_eq!(cut_to_cover(&picture, 2, 3).unwrap().dimensions(), (7, 10));
        assert_eq!(cut_to_cover(&picture, 5, 11).unwrap().dimensions(), (5, 10));
        assert_eq!(cut_to_cover(&picture, 0, 1).unwrap_err().code, "image-empty");
        let tall = RgbImage::from_fn(10, 40, |x, y| ::image::Rgb([x as u8, y as u8, 0]));
        let cut = cut_to_cover(&tall, 64, 32).unwrap();
        assert_eq!((cut.dimensions(), cut.get_pixel(0, 0).0), ((10, 5), [0, 17, 0]));
        assert_eq!(cut_to_cover(&RgbImage::new(1, 1), 2, 2).unwrap().dimensions(), (1, 1));
        assert_eq!(cut_to_cover(&picture, 1, 0).unwrap_err().code, "image-empty");
        for (width, height) in [(0, 5), (5, 0)] {
            assert_eq!(cut_to_cover(&RgbImage::new(width, height), 1, 1).unwrap_err().code, "image-empty");
        }
    }

    #[test]
    fn pictures_survive_the_way_to_a_tensor_and_back() {
        let (first, second) = (gradient(40, 24), gradient(40, 24));
        let tensor = signed_tensor(&[&first, &second], &Device::flex()).unwrap();
        assert_eq!(tensor.dims(), [2, 3, 24, 40]);
        let back = pollster::block_on(read_pictures(tensor)).unwrap();
        assert_eq!(back, [first, second]);
    }

    #[test]
    fn channels_are_normalised_apart() {
        let picture = RgbImage::from_pixel(8, 8, Rgb([255, 51, 0]));
        let (mean, std) = ([0.5, 0.2, 0.1], [0.5, 0.1, 0.2]);
        let tensor = normalized_tensor(&picture, mean, std, &Device::flex()).unwrap();
        let means: Vec<f32> = tensor.mean_dims(&[2, 3]).try_into_vec_as().unwrap();
        for (mean, expected) in means.iter().zip([1.0, 0.0, -0.5]) {
            assert!((mean - expected).abs() < 1e-5, "{means:?}");
        }
    }

    #[test]
    fn covering_keeps_the_centre_and_the_proportions() {
        // A wide picture's outer thirds are cut off.
        let picture = RgbImage::from_fn(90, 30, |x, _| match x {
            0..30 => Rgb([255, 0, 0]),
            30..60 => Rgb([0, 255, 0]),
            _ => Rgb([0, 0, 255]),
        });
        let square = resize_to_cover(&picture, 60, 60).unwrap();
        assert_eq!(square.get_pixel(30, 30), &Rgb([0, 255, 0]));
        assert_eq!(square.get_pixel(4, 50), &Rgb([0, 255, 0]));
        for (w, h) in [(1, 1), (13, 200), (7, 7), (64, 3)] {
            assert_eq!(resize_to_cover(&picture, w, h).unwrap().dimensions(), (w as u32, h as u32));
        }
    }

    #[test]
    fn a_line_becomes_a_square_without_becoming_gigabytes() {
        for (w, h) in [(16_384, 1), (1, 16_384)] {
            let line = RgbImage::from_pixel(w, h, Rgb([9, 8, 7]));
            let square = resize_to_cover(&line, 224, 224).unwrap();
            assert!(square.pixels().all(|p| *p == Rgb([9, 8, 7])));
        }
    }

    #[test]
    fn unusable_pictures_are_errors() {
        let device = Device::flex();
        assert_eq!(resize_to_cover(&RgbImage::new(0, 5), 4, 4).unwrap_err().code, "image-empty");
        assert_eq!(signed_tensor(&[], &device).unwrap_err().code, "image-batch");
        let (a, b) = (gradient(4, 4), gradient(4, 5));
        assert_eq!(signed_tensor(&[&a, &b], &device).unwrap_err().code, "image-batch");
        for bad in [f32::NAN, f32::INFINITY] {
            let broken = Tensor::full([1, 3, 2, 2], bad, &device);
            assert_eq!(pollster::block_on(read_pictures(broken)).unwrap_err().code, "picture-not-finite");
        }
    }
}
