//! Reference pictures of models that see pictures beside a text: what of a photo is shown, and at which size.

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};

use super::align::{Similarity, TEMPLATE};
use crate::error::{Error, Result};
use crate::request::Landmarks;

/// The square of [`head_and_shoulders`], in units of [`TEMPLATE`], in which eyes are 35 apart: its middle and its side. Adults' mean
/// measures (ANSUR II, 2012) fit: from the eyes to the top of the head some 64 units, to the chin as many, and 274 across the
/// shoulders.
const MIDDLE: [f32; 2] = [56.0, 105.0];
const SIDE: f32 = 300.0;

/// Least pixels along a side, and largest ratio of both (diffusers' `Flux2ImageProcessor`).
const LEAST_SIDE: usize = 64;
const LARGEST_ASPECT: u32 = 8;
/// Most pixels (diffusers' pipelines of FLUX.2).
const LARGEST_AREA: usize = 1024 * 1024;

/// Head and shoulders of the person whose face is at `landmarks`: an upright square of 8.5 times the distance between the eyes of
/// a face seen from the front, in which the eyes of a face that is held upright are in the middle across and a third of the way
/// down; as far as the photo reaches.
///
/// Fails with `landmarks-degenerate` where the landmarks span no face, and with `landmarks-range` where that square lies outside
/// of the photo.
pub fn head_and_shoulders(photo: &RgbImage, landmarks: &Landmarks) -> Result<RgbImage> {
    let face = Similarity::fit(landmarks, &TEMPLATE)?;
    let middle = face.inverse().map(MIDDLE);
    let half = SIDE / face.scale() / 2.0;
    let inside = |at: f32, length: u32| at.round().clamp(0.0, length as f32) as u32;
    let sides = [photo.width(), photo.height()];
    let [(left, right), (top, bottom)] = [0, 1]
        .map(|axis| (inside(middle[axis] - half, sides[axis]), inside(middle[axis] + half, sides[axis])));
    if left >= right || top >= bottom {
        return Err(Error::input(
            "landmarks-range",
            format!("the face at {landmarks:?} lies outside of its {}×{} photo", sides[0], sides[1]),
            "give the landmarks that were found in this very photo, or leave them out",
        ));
    }
    Ok(imageops::crop_imm(photo, left, top, right - left, bottom - top).to_image())
}

/// A picture as FLUX.2's pipelines take a reference: of at most `area` pixels, and never more than 1024², at least 64 along each
/// side, and cut around its middle to sides that are multiples of `multiple`. Larger than it is it becomes only to reach 64.
///
/// Fails with `reference-aspect` where it is more than eight times as long as wide, and with `image-empty` without pixels.
pub fn fitted(picture: &RgbImage, area: usize, multiple: usize) -> Result<RgbImage> {
    let (width, height) = picture.dimensions();
    let (shorter, longer) = (width.min(height), width.max(height));
    if shorter == 0 {
        return Err(Error::input("image-empty", "a reference picture has no pixels", "use another picture"));
    }
    if longer > LARGEST_ASPECT.saturating_mul(shorter) {
        return Err(Error::input(
            "reference-aspect",
            format!(
                "a reference picture is {width}×{height}: more than {LARGEST_ASPECT} times as long as wide"
            ),
            "cut it to what should be seen of it",
        ));
    }
    let pixels = f64::from(width) * f64::from(height);
    let smaller = (area.min(LARGEST_AREA) as f64 / pixels).sqrt().min(1.0);
    let least = LEAST_SIDE.max(multiple) as f64 / f64::from(shorter);
    let scale = smaller.max(least);
    let scaled = |side: u32| ((f64::from(side) * scale + 1e-6) as u32).max(multiple as u32);
    let (width, height) = (scaled(width), scaled(height));
    let sized = if picture.dimensions() == (width, height) {
        picture.clone()
    } else {
        imageops::resize(picture, width, height, FilterType::Lanczos3)
    };
    let whole = |side: u32| side / multiple as u32 * multiple as u32;
    let (across, down) = (whole(width), whole(height));
    Ok(imageops::crop_imm(&sized, (width - across) / 2, (height - down) / 2, across, down).to_image())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::Rgb;

    /// Brightness says where a pixel was.
    fn photo(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x / 4) as u8, (y / 4) as u8, 0]))
    }

    /// The template at a place, so large, and turned by some degrees.
    fn face([x, y]: [f32; 2], scale: f32, degrees: f32) -> Landmarks {
        let (sin, cos) = degrees.to_radians().sin_cos();
        TEMPLATE.map(|[a, b]| {
            let [a, b] = [scale * (a - 56.0), scale * (b - 51.6)];
            [x + cos * a - sin * b, y + sin * a + cos * b]
        })
    }

    #[test]
    fn head_and_shoulders_are_a_square_with_the_eyes_a_third_down() {
        let picture = photo(900, 900);
        for scale in [0.5, 1.0, 2.0] {
            let cut = head_and_shoulders(&picture, &face([450.0, 320.0], scale, 0.0)).unwrap();
            let side = (300.0 * scale).round() as u32;
            assert!(
                cut.width().abs_diff(side) < 2 && cut.height().abs_diff(side) < 2,
                "{:?}",
                cut.dimensions()
            );
            let [left, top, _] = cut.get_pixel(0, 0).0.map(|v| 4.0 * f32::from(v));
            let eyes = [(450.0 - left) / side as f32, (320.0 - top) / side as f32];
            assert!((eyes[0] - 0.5).abs() < 0.03 && (eyes[1] - 0.32).abs() < 0.03, "{scale}: {eyes:?}");
        }
        // Upright whatever the face is, below which the body is.
        let tilted = head_and_shoulders(&picture, &face([450.0, 320.0], 1.0, 30.0)).unwrap();
        assert!(tilted.width().abs_diff(300) < 2, "{:?}", tilted.dimensions());
        let left = 4 * u32::from(tilted.get_pixel(0, 0).0[0]);
        assert!(left.abs_diff(300 - 27) < 8, "{left}");
    }

    #[test]
    fn no_more_than_the_photo_is_shown() {
        let cut = head_and_shoulders(&photo(200, 160), &face([30.0, 60.0], 1.0, 0.0)).unwrap();
        assert_eq!(cut.dimensions(), (180, 160));
        let all = head_and_shoulders(&photo(64, 72), &face([32.0, 30.0], 0.5, 0.0)).unwrap();
        assert_eq!(all.dimensions(), (64, 72));
        let outside = head_and_shoulders(&photo(40, 40), &face([-400.0, 20.0], 1.0, 0.0));
        assert_eq!(outside.unwrap_err().code, "landmarks-range");
        assert_eq!(
            head_and_shoulders(&photo(9, 9), &[[1.0; 2]; 5]).unwrap_err().code,
            "landmarks-degenerate"
        );
    }

    #[test]
    fn references_are_of_sizes_that_the_model_takes() {
        let size = |width, height, area| fitted(&photo(width, height), area, 16).map(|fit| fit.dimensions());
        // As it is, but for the edges.
        assert_eq!(size(512, 512, 512 * 512).unwrap(), (512, 512));
        assert_eq!(size(100, 79, 512 * 512).unwrap(), (96, 64));
        // Smaller, to the area; never beyond 1024².
        assert_eq!(size(1000, 1000, 512 * 512).unwrap(), (512, 512));
        assert_eq!(size(1600, 400, 512 * 512).unwrap(), (1024, 256));
        assert_eq!(size(2048, 2048, 2048 * 2048).unwrap(), (1024, 1024));
        // Larger, to 64.
        assert_eq!(size(20, 30, 512 * 512).unwrap(), (64, 96));
        assert_eq!(size(1, 8, 512 * 512).unwrap(), (64, 512));
        assert_eq!(fitted(&photo(70, 70), 4096, 128).unwrap().dimensions(), (128, 128));
        // The middle is kept.
        let cut = fitted(&photo(96 + 8, 96), 1 << 20, 16).unwrap();
        assert_eq!(cut.get_pixel(0, 0).0[0], 1);
        for (width, height, code) in [(9, 1, "reference-aspect"), (0, 5, "image-empty")] {
            assert_eq!(size(width, height, 1 << 20).unwrap_err().code, code);
        }
    }
}
