//! How far two pictures are apart, pixel by pixel.

use ::image::RgbImage;

/// Peak signal-to-noise ratio in dB over the pixels `(x, y)` of two pictures of one size that `counts`; infinite where they
/// are equal there, NaN where none counts.
pub fn psnr(a: &RgbImage, b: &RgbImage, counts: impl Fn(u32, u32) -> bool) -> f64 {
    let (mut squares, mut values) = (0.0, 0u32);
    for ((_, _, a), b) in a.enumerate_pixels().zip(b.pixels()).filter(|((x, y, _), _)| counts(*x, *y)) {
        squares += a.0.iter().zip(b.0).map(|(a, b)| f64::from(a.abs_diff(b)).powi(2)).sum::<f64>();
        values += 3;
    }
    10.0 * (255.0 * 255.0 * f64::from(values) / squares).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pixels_that_count_are_compared() {
        let a = RgbImage::new(4, 1);
        let b = RgbImage::from_fn(4, 1, |x, _| ::image::Rgb([if x < 2 { 255 } else { 51 }; 3]));
        assert_eq!(psnr(&a, &a, |_, _| true), f64::INFINITY);
        assert!((psnr(&a, &b, |x, _| x >= 2) - 20.0 * 5.0f64.log10()).abs() < 1e-9);
        assert!((psnr(&a, &b, |x, _| x < 2)).abs() < 1e-9);
        assert!(psnr(&a, &b, |_, _| false).is_nan());
    }
}
