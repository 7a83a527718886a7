//! A part of a picture that is drawn anew: cut out with room around it, and put back without a seam.

use ::image::imageops::{self, FilterType};
use ::image::{GrayImage, Luma, Rgb, RgbImage};

use super::mask::{Mask, head_edges};
use crate::error::{Error, Result};
use crate::request::{Landmarks, MAX_PHOTO};

/// How much of a patch's shorter side a head takes: as in the portraits that models learn from, in which hair and neck are seen.
const HEAD_SHARE: f32 = 0.62;
/// Most pixels of a part: a head that fills the largest photo has room around it.
const MAX_PART: u64 = 4 * MAX_PHOTO;
/// Standard deviation of a mask's soft edge, in shorter sides of the canvas: an edge of a latent or two.
const FEATHER: f32 = 0.03;
/// Cells along a side in which the colours at the seam are compared.
const CELLS: usize = 32;
/// Most that a colour is shifted to fit, in levels of 255: a cast is made up for, another thing at the seam is not.
const MOST_SHIFT: f32 = 24.0;

/// Where a head is: an oval that is turned as the face is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    centre: [f32; 2],
    radii: [f32; 2],
    /// Sine and cosine of its turn, clockwise on the picture.
    turn: [f32; 2],
    /// Of its face.
    face_box: [f32; 4],
}

impl Head {
    /// The head around a face's box, `[left, top, right, bottom]` in pixels; upright without landmarks.
    pub fn new(face_box: [f32; 4], landmarks: Option<&Landmarks>) -> Self {
        let [left, top, right, bottom] = face_box;
        let (x, y) = landmarks.map_or((1.0, 0.0), |[a, b, ..]| (b[0] - a[0], b[1] - a[1]));
        let length = x.hypot(y);
        let [sin, cos] = if length > 0.0 { [y / length, x / length] } else { [0.0, 1.0] };
        let middle = [(left + right) / 2.0, (top + bottom) / 2.0];
        let (mut width, mut height) = ((right - left).max(1.0), (bottom - top).max(1.0));
        // Of a face that lies on its side the box lies too.
        if sin.abs() > cos.abs() {
            std::mem::swap(&mut width, &mut height);
        }
        let [left, top, right, bottom] = head_edges([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0]);
        let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        Self {
            centre: [middle[0] + cos * x - sin * y, middle[1] + sin * x + cos * y],
            radii: [(right - left) / 2.0, (bottom - top) / 2.0],
            turn: [sin, cos],
            face_box,
        }
    }

    /// Whether a point is inside the oval, made wider by `margin`.
    fn contains(&self, [x, y]: [f32; 2], margin: f32) -> bool {
        let [sin, cos] = self.turn;
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let along = [cos * dx + sin * dy, cos * dy - sin * dx];
        let [u, v] = [0, 1].map(|axis| along[axis] / (self.radii[axis] + margin));
        u * u + v * v < 1.0
    }

    /// How far a point is from the face's middle, in sides of the face: the larger of two faces stands in front.
    fn distance(&self, [x, y]: [f32; 2]) -> f32 {
        let [left, top, right, bottom] = self.face_box;
        let side = (right - left).max(bottom - top).max(1.0);
        ((left + right) / 2.0 - x).hypot((top + bottom) / 2.0 - y) / side
    }
}

/// A rectangle of a picture, in its pixels; it may reach beyond the picture.
#[derive(Debug, Clone, Copy)]
struct Part {
    left: i64,
    top: i64,
    width: u32,
    height: u32,
}

impl Part {
    /// A part of the canvas's proportions in which something so large takes [`HEAD_SHARE`], moved into the picture as far as it fits.
    ///
    /// Fails with `image-too-large` beyond [`MAX_PART`].
    fn around(
        centre: [f32; 2],
        side: f32,
        picture: (u32, u32),
        canvas: [usize; 2],
        largest: f32,
    ) -> Result<Self> {
        let shorter = canvas[0].min(canvas[1]) as f32;
        let across = (side / HEAD_SHARE).max(shorter / largest).max(1.0) / shorter;
        let [width, height] = canvas.map(|length| ((length as f32 * across).round() as u32).max(1));
        let place = |centre: f32, length: u32, all: u32| {
            let first = (centre - length as f32 / 2.0).round() as i64;
            let room = i64::from(all) - i64::from(length);
            if room >= 0 { first.clamp(0, room) } else { first.clamp(room, 0) }
        };
        if u64::from(width) * u64::from(height) > MAX_PART {
            return Err(Error::input(
                "image-too-large",
                format!("a face of the photo takes {width}×{height} pixels with the room around it"),
                "name a smaller box or mask",
            ));
        }
        Ok(Self {
            left: place(centre[0], width, picture.0),
            top: place(centre[1], height, picture.1),
            width,
            height,
        })
    }

    /// Pixels of the picture along a pixel of the canvas.
    fn scale(&self, canvas: [usize; 2]) -> [f32; 2] {
        [self.width as f32 / canvas[0] as f32, self.height as f32 / canvas[1] as f32]
    }
}

/// A part of a picture, and what of it changes.
#[derive(Debug, Clone)]
pub struct Patch {
    part: Part,
    /// On the canvas: how much of each pixel is drawn anew.
    mask: Mask,
    /// Pixels of the picture that may change, where the whole mask does not say.
    allowed: Option<GrayImage>,
}

impl Patch {
    /// The patch around a head in a picture, drawn on a canvas of `[width, height]` pixels, at most `largest` times as large as it
    /// is. What is nearer to one of the `others` is left alone.
    pub fn of_head(
        head: &Head,
        others: &[Head],
        picture: (u32, u32),
        canvas: [usize; 2],
        largest: f32,
    ) -> Result<Self> {
        let [w, h] = head.radii.map(|radius| 2.0 * radius);
        let part = Part::around(head.centre, w.max(h), picture, canvas, largest)?;
        let [across, down] = part.scale(canvas);
        let sigma = FEATHER * canvas[0].min(canvas[1]) as f32;
        let mut values = Vec::with_capacity(canvas[0] * canvas[1]);
        for y in 0..canvas[1] {
            for x in 0..canvas[0] {
                let at =
                    [part.left as f32 + (x as f32 + 0.5) * across, part.top as f32 + (y as f32 + 0.5) * down];
                let own = head.distance(at);
                let inside =
                    head.contains(at, sigma * across) && others.iter().all(|other| own <= other.distance(at));
                values.push(if inside { 1.0 } else { 0.0 });
            }
        }
        let mask = Mask::new(canvas[0], canvas[1], values)?.softened_inwards(sigma);
        Ok(Self { part, mask, allowed: None })
    }

    /// The patch around what is white in a mask of the picture's size.
    ///
    /// Fails with `mask-empty` where nothing is.
    pub fn of_mask(mask: &GrayImage, canvas: [usize; 2]) -> Result<Self> {
        let mut edges: Option<[u32; 4]> = None;
        for (x, y, Luma([value])) in mask.enumerate_pixels() {
            if *value > 127 {
                let [left, top, right, bottom] = edges.unwrap_or([x, y, x + 1, y + 1]);
                edges = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
            }
        }
        let [left, top, right, bottom] = edges
            .ok_or_else(|| {
                Error::input(
                    "mask-empty",
                    "a mask says that nothing may change",
                    "paint what may change white",
                )
            })?
            .map(|edge| edge as f32);
        let centre = [(left + right) / 2.0, (top + bottom) / 2.0];
        let side = (right - left).max(bottom - top);
        let part = Part::around(centre, side, mask.dimensions(), canvas, f32::INFINITY)?;
        let outside = Luma([0]);
        let allowed = GrayImage::from_fn(part.width, part.height, |x, y| {
            let at = (part.left + i64::from(x), part.top + i64::from(y));
            let pixel = u32::try_from(at.0).ok().zip(u32::try_from(at.1).ok());
            *pixel.and_then(|(x, y)| mask.get_pixel_checked(x, y)).unwrap_or(&outside)
        });
        let sigma = FEATHER * canvas[0].min(canvas[1]) as f32;
        let mask = Mask::from_gray(&allowed)?.resized(canvas[0], canvas[1])?.softened_inwards(sigma);
        Ok(Self { part, mask, allowed: Some(allowed) })
    }

    /// How much larger it is drawn than it is.
    pub fn enlargement(&self) -> f32 {
        self.mask.size().0 as f32 / self.part.width as f32
    }

    /// What of the canvas may change, white.
    pub fn mask(&self) -> GrayImage {
        self.mask.to_gray()
    }

    /// The part of the picture on the canvas; beyond the picture's edge its outermost pixels go on.
    pub fn cut(&self, picture: &RgbImage) -> RgbImage {
        let inside = |first: i64, i: u32, length: u32| {
            (first + i64::from(i)).clamp(0, i64::from(length.saturating_sub(1))) as u32
        };
        let part = RgbImage::from_fn(self.part.width, self.part.height, |x, y| {
            *picture.get_pixel(
                inside(self.part.left, x, picture.width()),
                inside(self.part.top, y, picture.height()),
            )
        });
        let (width, height) = self.mask.size();
        imageops::resize(&part, width as u32, height as u32, FilterType::CatmullRom)
    }

    /// Puts what was drawn on the canvas in the picture's place: inside the mask, with its colours shifted so that they fit along the
    /// mask's edge. Nothing else changes.
    pub fn paste(&self, picture: &mut RgbImage, drawn: &RgbImage) {
        let shift = SeamShift::new(&self.cut(picture), drawn, &self.mask);
        let drawn = imageops::resize(drawn, self.part.width, self.part.height, FilterType::CatmullRom);
        self.blend(picture, |x, y, _| {
            let at = [(x as f32 + 0.5) / self.part.width as f32, (y as f32 + 0.5) / self.part.height as f32];
            let Rgb(colour) = *drawn.get_pixel(x, y);
            let shift = shift.at(at);
            [0, 1, 2].map(|channel| f32::from(colour[channel]) + shift[channel])
        });
    }

    /// Puts another picture of the same size in the picture's place, inside the mask alone.
    pub fn take_over(&self, picture: &mut RgbImage, other: &RgbImage) {
        self.blend(picture, |_, _, at| other.get_pixel(at.0, at.1).0.map(f32::from));
    }

    /// Mixes `colour` into the picture as the mask says. It is asked for a pixel of the part, which is another of the picture.
    fn blend(&self, picture: &mut RgbImage, colour: impl Fn(u32, u32, (u32, u32)) -> [f32; 3]) {
        let mask =
            imageops::resize(&self.mask.to_gray(), self.part.width, self.part.height, FilterType::Triangle);
        for y in 0..self.part.height {
            for x in 0..self.part.width {
                let at = (self.part.left + i64::from(x), self.part.top + i64::from(y));
                let Some(at) = u32::try_from(at.0).ok().zip(u32::try_from(at.1).ok()) else { continue };
                let Some(pixel) = picture.get_pixel_mut_checked(at.0, at.1) else { continue };
                let limit = self.allowed.as_ref().map_or(255, |allowed| allowed.get_pixel(x, y).0[0]);
                let weight = f32::from(mask.get_pixel(x, y).0[0].min(limit)) / 255.0;
                if weight > 0.0 {
                    let new = colour(x, y, at);
                    for (channel, level) in pixel.0.iter_mut().enumerate() {
                        let mixed = f32::from(*level) * (1.0 - weight) + new[channel] * weight;
                        *level = mixed.round().clamp(0.0, 255.0) as u8;
                    }
                }
            }
        }
    }
}

/// By how much colours differ along a mask's edge, carried on over the rest: the nearer a piece of the edge, the more it counts.
struct SeamShift {
    /// Of [`CELLS`] × [`CELLS`] cells, row by row.
    cells: Vec<[f32; 3]>,
}

impl SeamShift {
    /// From a part as it was and as it was drawn, of one size.
    fn new(before: &RgbImage, drawn: &RgbImage, mask: &Mask) -> Self {
        let (width, height) = mask.size();
        let mut edge = vec![([0.0; 3], 0.0); CELLS * CELLS];
        for (p, value) in mask.values().iter().enumerate() {
            // Most where half is drawn and half is kept.
            let weight = 4.0 * value * (1.0 - value);
            let (x, y) = (p % width, p / width);
            let (sum, total) = &mut edge[y * CELLS / height * CELLS + x * CELLS / width];
            let (Rgb(old), Rgb(new)) =
                (before.get_pixel(x as u32, y as u32), drawn.get_pixel(x as u32, y as u32));
            for channel in 0..3 {
                sum[channel] += weight * (f32::from(old[channel]) - f32::from(new[channel]));
            }
            *total += weight;
        }
        let edge: Vec<(usize, [f32; 3], f32)> = edge
            .into_iter()
            .enumerate()
            .filter(|(_, (_, total))| *total > 0.0)
            .map(|(cell, (sum, total))| (cell, sum, total))
            .collect();
        let cells = (0..CELLS * CELLS).map(|cell| {
            let (mut shift, mut total) = ([0.0; 3], 1e-6);
            for (other, sum, weight) in &edge {
                let (dx, dy) =
                    ((cell % CELLS).abs_diff(other % CELLS), (cell / CELLS).abs_diff(other / CELLS));
                // Shepard's inverse distance weighting (1968), with the square of the squared distance.
                let near = ((dx * dx + dy * dy + 1) as f32).powi(-2);
                shift.iter_mut().zip(sum).for_each(|(shift, sum)| *shift += near * sum);
                total += near * weight;
            }
            shift.map(|sum| (sum / total).clamp(-MOST_SHIFT, MOST_SHIFT))
        });
        Self { cells: cells.collect() }
    }

    /// At a place in fractions of the sides, bilinear between the cells' middles.
    fn at(&self, place: [f32; 2]) -> [f32; 3] {
        let [(x0, x1, u), (y0, y1, v)] = place.map(|at| {
            let at = (at * CELLS as f32 - 0.5).clamp(0.0, (CELLS - 1) as f32);
            let first = at as usize;
            (first, (first + 1).min(CELLS - 1), at - first as f32)
        });
        let cell = |x: usize, y: usize| self.cells[y * CELLS + x];
        let [(a, b), (c, d)] = [y0, y1].map(|y| (cell(x0, y), cell(x1, y)));
        [0, 1, 2].map(|i| (a[i] * (1.0 - u) + b[i] * u) * (1.0 - v) + (c[i] * (1.0 - u) + d[i] * u) * v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x % 251) as u8, (y % 241) as u8, ((x + y) % 97) as u8]))
    }

    fn upright(face_box: [f32; 4]) -> Head {
        Head::new(face_box, None)
    }

    fn changed(before: &RgbImage, after: &RgbImage) -> Vec<(f32, f32)> {
        let pixels = before.enumerate_pixels().zip(after.pixels()).filter(|((_, _, a), b)| *a != *b);
        pixels.map(|((x, y, _), _)| (x as f32 + 0.5, y as f32 + 0.5)).collect()
    }

    #[test]
    fn a_head_turns_with_its_face() {
        let face = [40.0, 40.0, 60.0, 70.0];
        let plain = upright(face);
        // Hair is above an upright face, and to its side once it lies on it.
        assert!(plain.contains([50.0, 28.0], 0.0) && !plain.contains([50.0, 80.0], 0.0));
        let eyes = |a: [f32; 2], b: [f32; 2]| -> Landmarks { [a, b, [50.0; 2], [50.0; 2], [50.0; 2]] };
        assert_eq!(Head::new(face, Some(&eyes([45.0, 50.0], [55.0, 50.0]))), plain);
        assert_eq!(Head::new(face, Some(&eyes([50.0; 2], [50.0; 2]))), plain);
        let lying = Head::new([35.0, 45.0, 65.0, 65.0], Some(&eyes([45.0, 50.0], [45.0, 60.0])));
        assert!(lying.contains([72.0, 55.0], 0.0) && !lying.contains([25.0, 55.0], 0.0));
        let around = Head::new(face, Some(&eyes([55.0, 60.0], [45.0, 60.0])));
        assert!(around.contains([50.0, 82.0], 0.0) && !around.contains([50.0, 30.0], 0.0));
    }

    #[test]
    fn nothing_outside_the_mask_changes_wherever_the_head_is() {
        let picture = photo(160, 120);
        for (face, canvas) in [
            ([60.0, 40.0, 90.0, 80.0], [64, 64]),
            ([2.0, 1.0, 30.0, 40.0], [128, 64]),
            ([140.0, 100.0, 158.0, 119.0], [64, 96]),
            ([10.0, -30.0, 150.0, 140.0], [64, 64]),
            ([80.0, 60.0, 84.0, 65.0], [256, 256]),
        ] {
            let head = upright(face);
            let patch = Patch::of_head(&head, &[], picture.dimensions(), canvas, f32::INFINITY).unwrap();
            assert_eq!(patch.cut(&picture).dimensions(), (canvas[0] as u32, canvas[1] as u32));
            let mut after = picture.clone();
            patch.paste(
                &mut after,
                &RgbImage::from_pixel(canvas[0] as u32, canvas[1] as u32, Rgb([255, 0, 255])),
            );
            let changed = changed(&picture, &after);
            // A pixel of the canvas, and one of the picture, for what is between two of them.
            let [across, down] = patch.part.scale(canvas);
            let margin = FEATHER * canvas[0].min(canvas[1]) as f32 * across + across.max(down) + 1.0;
            assert!(changed.iter().all(|at| head.contains([at.0, at.1], margin)), "{face:?}");
            let inside = picture
                .enumerate_pixels()
                .filter(|(x, y, _)| head.contains([*x as f32 + 0.5, *y as f32 + 0.5], 0.0));
            let inside = inside.count();
            assert!(changed.len() * 10 > inside * 9, "{face:?}: {} of {inside}", changed.len());
        }
    }

    #[test]
    fn a_given_mask_is_kept_to_the_pixel() {
        let picture = photo(90, 70);
        let mask = GrayImage::from_fn(90, 70, |x, y| {
            Luma([if (30..61).contains(&x) && (20..53).contains(&y) && (x + y) % 31 > 2 { 255 } else { 0 }])
        });
        for canvas in [[32, 32], [256, 256]] {
            let patch = Patch::of_mask(&mask, canvas).unwrap();
            let mut after = picture.clone();
            patch.paste(
                &mut after,
                &RgbImage::from_pixel(canvas[0] as u32, canvas[1] as u32, Rgb([255, 0, 255])),
            );
            let changed = changed(&picture, &after);
            assert!(changed.len() > 300);
            assert!(changed.iter().all(|(x, y)| mask.get_pixel(*x as u32, *y as u32).0[0] == 255));
        }
        assert_eq!(Patch::of_mask(&GrayImage::new(9, 9), [32, 32]).unwrap_err().code, "mask-empty");
    }

    #[test]
    fn what_is_put_back_as_it_was_cut_changes_nothing_much() {
        let picture = RgbImage::from_fn(120, 120, |x, y| Rgb([(x * 2) as u8, (y * 2) as u8, 80]));
        let head = upright([50.0, 45.0, 75.0, 80.0]);
        let patch = Patch::of_head(&head, &[], picture.dimensions(), [128, 128], f32::INFINITY).unwrap();
        let mut after = picture.clone();
        patch.paste(&mut after, &patch.cut(&picture));
        let worst = picture.as_raw().iter().zip(after.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(2), "{worst:?}");
    }

    #[test]
    fn a_cast_is_taken_away_and_another_thing_is_not() {
        let picture = RgbImage::from_fn(120, 120, |x, _| Rgb([(100 + x / 3) as u8, 120, 90]));
        let head = upright([50.0, 45.0, 75.0, 80.0]);
        let patch = Patch::of_head(&head, &[], picture.dimensions(), [96, 96], f32::INFINITY).unwrap();
        let worst = |change: &dyn Fn(u8) -> u8| {
            let mut drawn = patch.cut(&picture);
            drawn.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(change));
            let mut after = picture.clone();
            patch.paste(&mut after, &drawn);
            picture.as_raw().iter().zip(after.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
        };
        assert!(worst(&|level| level + 15) <= 2);
        assert!(worst(&|level| level - 12) <= 2);
        assert!(worst(&|level| level - 80) >= 50);
    }

    #[test]
    fn the_nearer_face_keeps_its_pixels() {
        let (left, right) = (upright([30.0, 40.0, 60.0, 80.0]), upright([65.0, 40.0, 95.0, 80.0]));
        let picture = photo(128, 128);
        let patch = Patch::of_head(&left, &[right], picture.dimensions(), [128, 128], f32::INFINITY).unwrap();
        let mut after = picture.clone();
        patch.paste(&mut after, &RgbImage::new(128, 128));
        let changed = changed(&picture, &after);
        assert!(!changed.is_empty() && changed.iter().all(|(x, _)| *x < 64.5));
    }

    #[test]
    fn a_part_far_beyond_the_picture_is_refused() {
        let long = upright([0.0, 0.0, 16_000.0, 900.0]);
        let error = Patch::of_head(&long, &[], (16_000, 1_000), [64, 64], f32::INFINITY).unwrap_err();
        assert_eq!(error.code, "image-too-large");
    }

    #[test]
    fn small_heads_are_enlarged_so_far_and_no_further() {
        let enlarged = |side: f32, largest| {
            let head = upright([100.0, 100.0, 100.0 + side, 100.0 + side]);
            Patch::of_head(&head, &[], (400, 400), [128, 128], largest).unwrap().enlargement()
        };
        assert!(enlarged(4.0, f32::INFINITY) > 8.0);
        assert!((enlarged(4.0, 4.0) - 4.0).abs() < 0.1);
        let own = enlarged(30.0, 4.0);
        assert!((own - HEAD_SHARE * 128.0 / (30.0 * 1.76)).abs() < 0.05, "{own}");
    }
}
