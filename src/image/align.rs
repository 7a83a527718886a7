//! Faces to the pose that the identity encoder was trained on: five landmarks onto fixed places.

use ::image::{Rgb, RgbImage};

use crate::error::{Error, Result};

/// Where the eyes, nose tip and mouth corners go in a crop of side 112, the picture's left one first; InsightFace's
/// `arcface_dst` (`insightface/utils/face_align.py`).
pub const TEMPLATE: [[f32; 2]; 5] =
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];

/// Side of the crop that [`TEMPLATE`] is for, in pixels.
pub const TEMPLATE_SIZE: f32 = 112.0;

/// Side of the wider crop that InsightFace has for networks of 128 pixels and multiples of it: [`TEMPLATE`] lies 8 pixels
/// further to the right in it, and at the same height.
const WIDE_SIZE: usize = 128;
const WIDE_SHIFT: f32 = 8.0;

/// [`TEMPLATE`] for a crop of side `size`, as InsightFace's `estimate_norm` scales it. Sides that are no multiple of 112 or
/// 128, which InsightFace refuses, have the narrower crop.
pub fn template(size: usize) -> [[f32; 2]; 5] {
    let wide = size.is_multiple_of(WIDE_SIZE) && !size.is_multiple_of(TEMPLATE_SIZE as usize);
    let (side, shift) = if wide { (WIDE_SIZE as f32, WIDE_SHIFT) } else { (TEMPLATE_SIZE, 0.0) };
    let scale = size as f32 / side;
    TEMPLATE.map(|[x, y]| [(x + shift) * scale, y * scale])
}

/// A rotation, uniform scaling and translation of the plane: `(x, y) ↦ (a x − b y + c, b x + a y + d)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the angle.
    pub a: f32,
    /// Scale times the sine of the angle.
    pub b: f32,
    /// Translation along x.
    pub c: f32,
    /// Translation along y.
    pub d: f32,
}

impl Similarity {
    /// The similarity that maps `from` to `to` with the least sum of squared distances (Umeyama 1991).
    ///
    /// In the plane the rotation comes from sums of products, with no singular value decomposition, and is never a
    /// reflection. Fails with `landmarks-degenerate` where the points coincide or are not finite, so that there is
    /// no such similarity.
    pub fn fit<const N: usize>(from: &[[f32; 2]; N], to: &[[f32; 2]; N]) -> Result<Self> {
        let mean = |points: &[[f32; 2]; N], axis: usize| {
            points.iter().map(|p| f64::from(p[axis])).sum::<f64>() / N as f64
        };
        let (from_x, from_y, to_x, to_y) = (mean(from, 0), mean(from, 1), mean(to, 0), mean(to, 1));
        let (mut dot, mut cross, mut spread) = (0.0, 0.0, 0.0);
        for (p, q) in from.iter().zip(to) {
            let (px, py) = (f64::from(p[0]) - from_x, f64::from(p[1]) - from_y);
            let (qx, qy) = (f64::from(q[0]) - to_x, f64::from(q[1]) - to_y);
            dot += px * qx + py * qy;
            cross += px * qy - py * qx;
            spread += px * px + py * py;
        }
        let (a, b) = (dot / spread, cross / spread);
        let scale = a.hypot(b);
        // Points that coincide have no spread; what is left is not finite, or no scale that a picture could have.
        if !(1e-6..=1e6).contains(&scale) {
            return Err(Error::input(
                "landmarks-degenerate",
                format!("the face's landmarks {from:?} do not span a face"),
                "use a photo in which both eyes and the mouth are visible",
            ));
        }
        Ok(Self {
            a: a as f32,
            b: b as f32,
            c: (to_x - a * from_x + b * from_y) as f32,
            d: (to_y - b * from_x - a * from_y) as f32,
        })
    }

    /// Maps one point.
    pub fn map(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.a * x - self.b * y + self.c, self.b * x + self.a * y + self.d]
    }

    /// How much longer distances become.
    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }

    /// The similarity that undoes this one.
    pub fn inverse(&self) -> Self {
        let squared = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / squared, -self.b / squared);
        Self { a, b, c: b * self.d - a * self.c, d: -b * self.c - a * self.d }
    }
}

/// Most samples along each side of an output pixel. Larger reductions alias a little instead of taking seconds.
const MAX_SAMPLES: usize = 16;

/// The aligned crop of a face, `size × size` pixels.
///
/// `landmarks` are the eyes, nose tip and mouth corners in `photo`, in the order of [`TEMPLATE`], with the centre of
/// the top left pixel at (0, 0), as in InsightFace and OpenCV. Fails with `landmarks-degenerate` where they do not
/// span a face.
pub fn align(photo: &RgbImage, landmarks: &[[f32; 2]; 5], size: usize) -> Result<RgbImage> {
    let to_crop = Similarity::fit(landmarks, &template(size))?;
    Ok(warp(photo, &to_crop, size, size))
}

/// Landmarks that count from the picture's upper left corner, as detectors and the renderer tell them, as [`align`] takes them: from
/// the centre of the pixel there.
pub fn from_corner(landmarks: &[[f32; 2]; 5]) -> [[f32; 2]; 5] {
    landmarks.map(|[x, y]| [x - 0.5, y - 0.5])
}

/// `photo` after `transform`, cut to `width × height`; black where there is no photo.
///
/// Interpolates linearly; where the transform shrinks, it averages as many samples per pixel as fit, so that large
/// photos do not alias.
pub fn warp(photo: &RgbImage, transform: &Similarity, width: usize, height: usize) -> RgbImage {
    let back = transform.inverse();
    let samples = (back.scale().round() as usize).clamp(1, MAX_SAMPLES);
    let step = 1.0 / samples as f32;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let mut sum = [0.0; 3];
        for j in 0..samples {
            for i in 0..samples {
                // Evenly over the pixel, which reaches half a pixel around its centre.
                let offset = |k: usize| (k as f32 + 0.5) * step - 0.5;
                let colour = sample(photo, back.map([x as f32 + offset(i), y as f32 + offset(j)]));
                sum.iter_mut().zip(colour).for_each(|(sum, c)| *sum += c);
            }
        }
        Rgb(sum.map(|c| (c / (samples * samples) as f32).round() as u8))
    })
}

/// The colour at a point between pixels, bilinear; black outside.
fn sample(photo: &RgbImage, [x, y]: [f32; 2]) -> [f32; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (right_weight, bottom_weight) = (x - left, y - top);
    let mut colour = [0.0; 3];
    for (dy, wy) in [(0.0, 1.0 - bottom_weight), (1.0, bottom_weight)] {
        for (dx, wx) in [(0.0, 1.0 - right_weight), (1.0, right_weight)] {
            let (px, py) = (left + dx, top + dy);
            if px >= 0.0 && py >= 0.0 && px < photo.width() as f32 && py < photo.height() as f32 {
                let pixel = photo.get_pixel(px as u32, py as u32);
                colour.iter_mut().zip(pixel.0).for_each(|(c, p)| *c += wy * wx * f32::from(p));
            }
        }
    }
    colour
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(angle: f32, scale: f32, c: f32, d: f32) -> Similarity {
        Similarity { a: scale * angle.cos(), b: scale * angle.sin(), c, d }
    }

    /// A smooth picture with a different colour everywhere.
    fn colour_at(x: f32, y: f32) -> [f32; 3] {
        [127.0 + 90.0 * (x / 23.0).sin(), 127.0 + 90.0 * (y / 19.0).cos(), 60.0 + 0.4 * (x + y)]
    }

    #[test]
    fn a_known_similarity_is_found() {
        let known = turned(0.4, 1.7, -12.0, 33.0);
        let found = Similarity::fit(&TEMPLATE, &TEMPLATE.map(|p| known.map(p))).unwrap();
        for (value, expected) in
            [(found.a, known.a), (found.b, known.b), (found.c, known.c), (found.d, known.d)]
        {
            assert!((value - expected).abs() < 1e-3, "{found:?}");
        }
        let [x, y] = known.inverse().map(known.map([5.0, -7.0]));
        assert!((x - 5.0).abs() < 1e-4 && (y + 7.0).abs() < 1e-4);
    }

    #[test]
    fn no_similarity_near_the_fitted_one_is_closer() {
        let target = [[30.0, 45.0], [80.0, 52.0], [50.0, 70.0], [44.0, 99.0], [71.0, 90.0]];
        let fitted = Similarity::fit(&TEMPLATE, &target).unwrap();
        let error = |s: &Similarity| -> f32 {
            TEMPLATE
                .iter()
                .zip(&target)
                .map(|(p, q)| {
                    let [x, y] = s.map(*p);
                    (x - q[0]).powi(2) + (y - q[1]).powi(2)
                })
                .sum()
        };
        let least = error(&fitted);
        for (da, db, dc, dd) in
            [(0.01, 0.0, 0.0, 0.0), (0.0, 0.01, 0.0, 0.0), (0.0, 0.0, 0.5, 0.0), (0.0, 0.0, 0.0, 0.5)]
        {
            for sign in [-1.0, 1.0] {
                let near = Similarity {
                    a: fitted.a + sign * da,
                    b: fitted.b + sign * db,
                    c: fitted.c + sign * dc,
                    d: fitted.d + sign * dd,
                };
                assert!(error(&near) > least);
            }
        }
    }

    #[test]
    fn a_turned_and_scaled_face_comes_back() {
        // `photo` shows the template's face after `known`.
        for (angle, scale) in [(0.3_f32, 1.0_f32), (-0.5, 2.2), (0.1, 3.6)] {
            let known = turned(angle, scale, 90.0, 60.0);
            let side = (112.0 * scale * 1.5 + 150.0) as u32;
            let back = known.inverse();
            let photo = RgbImage::from_fn(side, side, |x, y| {
                let [u, v] = back.map([x as f32, y as f32]);
                Rgb(colour_at(u, v).map(|c| c.clamp(0.0, 255.0) as u8))
            });
            let crop = align(&photo, &TEMPLATE.map(|p| known.map(p)), 112).unwrap();
            for (x, y) in [(30_u32, 40_u32), (56, 56), (80, 70), (60, 100)] {
                let expected = colour_at(x as f32, y as f32);
                for (got, expected) in crop.get_pixel(x, y).0.into_iter().zip(expected) {
                    assert!((f32::from(got) - expected).abs() < 3.0, "{got} for {expected} at {x},{y}");
                }
            }
        }
    }

    #[test]
    fn shrinking_averages() {
        let stripes = RgbImage::from_fn(224, 224, |x, _| Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]));
        let half = warp(&stripes, &turned(0.0, 0.25, 0.0, 0.0), 40, 40);
        for x in 5..35 {
            assert!((118..=138).contains(&half.get_pixel(x, 20).0[0]));
        }
    }

    #[test]
    fn landmarks_that_span_no_face_are_an_error() {
        let photo = RgbImage::new(10, 10);
        for landmarks in [[[3.0, 3.0]; 5], [[f32::NAN; 2]; 5], [[f32::INFINITY, 0.0]; 5]] {
            assert_eq!(align(&photo, &landmarks, 112).unwrap_err().code, "landmarks-degenerate");
        }
    }

    /// One white pixel, moved by half a pixel and a quarter: it is shared out by area, and there is black around it.
    #[test]
    fn between_pixels_colours_mix_by_distance_and_beyond_the_border_is_black() {
        let photo = RgbImage::from_pixel(2, 1, Rgb([200; 3]));
        let moved = warp(&photo, &Similarity { a: 1.0, b: 0.0, c: 0.5, d: 0.25 }, 4, 3);
        let values: Vec<u8> = moved.pixels().map(|pixel| pixel.0[0]).collect();
        assert_eq!(values, [75, 150, 75, 0, 25, 50, 25, 0, 0, 0, 0, 0]);
    }

    /// A row of four pixels, to half: each of the two is the mean of a pixel's width on either side of its own centre.
    #[test]
    fn samples_lie_evenly_over_a_pixel() {
        let photo = RgbImage::from_fn(4, 4, |x, _| Rgb([[0, 40, 80, 240][x as usize]; 3]));
        // Pixel 0 covers pixels 0 and 1 of the photo, 1 covers 2 and 3.
        let half = warp(&photo, &Similarity { a: 0.5, b: 0.0, c: -0.25, d: -0.25 }, 2, 2);
        assert_eq!(half.pixels().map(|pixel| pixel.0[0]).collect::<Vec<_>>(), [20, 160, 20, 160]);
    }

    #[test]
    fn crops_of_128_have_the_wider_template() {
        let near = |size: usize, [x, y]: [f32; 2]| {
            let [found_x, found_y] = template(size)[0];
            (found_x - x).abs() < 1e-3 && (found_y - y).abs() < 1e-3
        };
        assert!(near(112, TEMPLATE[0]) && near(224, TEMPLATE[0].map(|v| 2.0 * v)));
        assert!(near(64, TEMPLATE[0].map(|v| v * 64.0 / 112.0)));
        let [x, y] = TEMPLATE[0];
        assert!(near(128, [x + 8.0, y]) && near(256, [2.0 * (x + 8.0), 2.0 * y]));
        // A multiple of both has the narrow one.
        assert!(near(896, TEMPLATE[0].map(|v| 8.0 * v)));
    }
}
