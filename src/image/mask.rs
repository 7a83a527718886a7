//! Masks: where a person, a face or a change is, as numbers in [0, 1] at any size.

use ::image::{GrayImage, Rgb, RgbImage};

use crate::condition::covered_cells;
use crate::error::{Error, Result};
use crate::request::RelativeBox;

/// What fills the face in a style image (see [`hide`]): the middle of the range, with neither skin nor light in it.
/// The paper masks the face in training and does not say with what.
pub const FACE_FILL: Rgb<u8> = Rgb([127, 127, 127]);
/// How far a head reaches beyond its face's box: to each side in widths, above and below in heights. Seen on this
/// project's portraits: hides all hair but what falls on the shoulders, and leaves clothes and background.
const HEAD: [f32; 3] = [0.38, 0.55, 0.08];

/// How people are drawn after their faces, in the box's widths and heights; adults' mean measures (ANSUR II, 2012): the
/// shoulders are 3.5 face breadths wide (bideltoid over bizygomatic breadth) and half a face height below the chin.
const SHOULDERS: [f32; 2] = [3.5 / 2.0, 0.5];
/// Half a neck's width.
const NECK: f32 = 0.45;
/// From the chin to the feet (stature less menton-to-top height over a face's height).
const FEET: f32 = 8.5;

/// The box around a head, given its upright face's; both `[left, top, right, bottom]`.
pub fn head_edges([left, top, right, bottom]: [f32; 4]) -> [f32; 4] {
    let (w, h) = (right - left, bottom - top);
    let [side, above, below] = HEAD;
    [left - side * w, top - above * h, right + side * w, bottom + below * h]
}

/// How much of each position is inside, 0 to 1, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Mask {
    /// A mask from its values. Fails with `mask-size` where there are not `width × height` of them, and with
    /// `mask-range` outside [0, 1].
    pub fn new(width: usize, height: usize, values: Vec<f32>) -> Result<Self> {
        if width == 0 || height == 0 || width.checked_mul(height) != Some(values.len()) {
            return Err(Error::input(
                "mask-size",
                format!("{} values do not make a {width}×{height} mask", values.len()),
                "make the mask the size of the picture",
            ));
        }
        if values.iter().any(|value| !(0.0..=1.0).contains(value)) {
            return Err(Error::input(
                "mask-range",
                "the mask has values outside [0, 1]",
                "scale the mask to [0, 1]",
            ));
        }
        Ok(Self { width, height, values })
    }

    /// White is inside. Fails with `mask-size` on an empty picture.
    pub fn from_gray(picture: &GrayImage) -> Result<Self> {
        let values = picture.as_raw().iter().map(|byte| f32::from(*byte) / 255.0).collect();
        Self::new(picture.width() as usize, picture.height() as usize, values)
    }

    /// A box, with the exact share of the positions that its edges cut.
    pub fn from_box(area: &RelativeBox, width: usize, height: usize) -> Self {
        let share = |start: f32, length: f32, count: usize| -> Vec<f32> {
            let (start, end) = (start * count as f32, (start + length) * count as f32);
            (0..count).map(|i| (end.min(i as f32 + 1.0) - start.max(i as f32)).clamp(0.0, 1.0)).collect()
        };
        let columns = share(area.x, area.width, width);
        let rows = share(area.y, area.height, height);
        let values = rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect();
        Self { width, height, values }
    }

    /// The ellipse in a box, `[left, top, right, bottom]` in pixels, with an edge one pixel soft: a face's outline
    /// in its box.
    pub fn oval(edges: [f32; 4], width: usize, height: usize) -> Self {
        let [left, top, right, bottom] = edges;
        let (centre_x, centre_y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        let (radius_x, radius_y) = (((right - left) / 2.0).max(1e-3), ((bottom - top) / 2.0).max(1e-3));
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let (u, v) = ((x as f32 + 0.5 - centre_x) / radius_x, (y as f32 + 0.5 - centre_y) / radius_y);
                let squared = u * u + v * v;
                // Distance to the edge in pixels, to first order: the implicit function over its gradient's length.
                let gradient = 2.0 * (u / radius_x).hypot(v / radius_y);
                values.push((0.5 - (squared - 1.0) / gradient.max(1e-6)).clamp(0.0, 1.0));
            }
        }
        Self { width, height, values }
    }

    /// The oval that hides a head, given its face's box, `[left, top, right, bottom]` in pixels: hair and ears as well.
    ///
    /// The paper masks "the face region" (section 3.1) and leaves its outline open. A mask of the face alone would leave
    /// the hair in the style input, and whose hair a picture shows would then be the style image's say, not the face's.
    pub fn head(face_box: [f32; 4], width: usize, height: usize) -> Self {
        Self::oval(head_edges(face_box), width, height)
    }

    /// Where people are, given their faces' boxes, `[left, top, right, bottom]` in pixels: each one's head (see
    /// [`Mask::head`]) and, below it, an upright body of usual proportions, down to the feet or the picture's edge. What
    /// two of them claim is the one's whose face is nearer, in sides of that face: the larger face stands in front.
    pub fn people(face_boxes: &[[f32; 4]], width: usize, height: usize) -> Vec<Self> {
        let mut masks: Vec<Self> = face_boxes.iter().map(|face| Self::person(*face, width, height)).collect();
        for p in 0..width * height {
            let (x, y) = ((p % width) as f32 + 0.5, (p / width) as f32 + 0.5);
            let distance = |[left, top, right, bottom]: [f32; 4]| {
                let side = (right - left).max(bottom - top).max(1.0);
                ((left + right) / 2.0 - x).hypot((top + bottom) / 2.0 - y) / side
            };
            let claims =
                masks.iter().zip(face_boxes).enumerate().filter(|(_, (mask, _))| mask.values[p] > 0.0);
            let nearest = claims.min_by(|(_, (_, a)), (_, (_, b))| distance(**a).total_cmp(&distance(**b)));
            if let Some(nearest) = nearest.map(|(i, _)| i) {
                masks
                    .iter_mut()
                    .enumerate()
                    .filter(|(i, _)| *i != nearest)
                    .for_each(|(_, mask)| mask.values[p] = 0.0);
            }
        }
        masks
    }

    fn person(face_box: [f32; 4], width: usize, height: usize) -> Self {
        let [left, _, right, chin] = face_box;
        let (w, h) = ((right - left).max(1e-3), (chin - face_box[1]).max(1e-3));
        let [half_width, drop] = SHOULDERS;
        let mut person = Self::head(face_box, width, height);
        for (p, value) in person.values.iter_mut().enumerate() {
            let (x, y) = ((p % width) as f32 + 0.5, (p / width) as f32 + 0.5);
            let below = (y - chin) / h;
            if (0.0..=FEET).contains(&below) {
                let half = (NECK + (half_width - NECK) * (below / drop).min(1.0)) * w;
                // An edge one pixel soft.
                let inside = (half - (x - (left + right) / 2.0).abs() + 0.5).clamp(0.0, 1.0);
                *value = value.max(inside);
            }
        }
        person
    }

    /// `(width, height)`.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, row-major.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// How much of the picture is inside, 0 to 1.
    pub fn coverage(&self) -> f32 {
        (self.values.iter().map(|value| f64::from(*value)).sum::<f64>() / self.values.len() as f64) as f32
    }

    /// The middle of what is inside, as a share of the width; the picture's own middle where nothing is.
    pub fn centre_x(&self) -> f32 {
        let (mut sum, mut total) = (0.0, 0.0);
        for (p, value) in self.values.iter().enumerate() {
            sum += f64::from(*value) * ((p % self.width) as f64 + 0.5);
            total += f64::from(*value);
        }
        if total > 0.0 { (sum / total / self.width as f64) as f32 } else { 0.5 }
    }

    /// The mask at another size, for example the latents': the average of what each position covers. Keeps the
    /// coverage. Fails with `mask-size` on a size of zero.
    pub fn resized(&self, width: usize, height: usize) -> Result<Self> {
        let rows = covered_cells(self.height, height);
        let columns = covered_cells(self.width, width);
        let mut values = Vec::with_capacity(width * height);
        for row in &rows {
            for column in &columns {
                let mut sum = 0.0;
                for (y, row_weight) in row {
                    for (x, column_weight) in column {
                        sum += row_weight * column_weight * self.values[y * self.width + x];
                    }
                }
                // Weights sum to 1 but for rounding.
                values.push(sum.clamp(0.0, 1.0));
            }
        }
        Self::new(width, height, values)
    }

    /// The mask with its edge softened by a Gaussian of standard deviation `sigma` in positions; what is constant
    /// stays. A `sigma` of zero or less changes nothing.
    pub fn feathered(&self, sigma: f32) -> Self {
        if !(sigma > 0.0 && sigma.is_finite()) {
            return self.clone();
        }
        // Beyond three deviations a Gaussian has 0.3 % of its weight; a longer reach than the mask changes nothing.
        let reach = ((3.0 * sigma).ceil() as usize).min(self.width.max(self.height));
        let weight = |k: usize| (-((k as f32 / sigma).powi(2)) / 2.0).exp();
        let kernel: Vec<f32> = (0..=2 * reach).map(|k| weight(k.abs_diff(reach))).collect();
        let total: f32 = kernel.iter().sum();
        let blur = |count: usize, at: &dyn Fn(usize) -> f32, i: usize| -> f32 {
            let sum: f32 = kernel
                .iter()
                .enumerate()
                .map(|(k, w)| w * at((i + k).saturating_sub(reach).min(count - 1)))
                .sum();
            (sum / total).clamp(0.0, 1.0)
        };
        let (width, height) = (self.width, self.height);
        let across: Vec<f32> = (0..width * height)
            .map(|p| blur(width, &|x| self.values[p / width * width + x], p % width))
            .collect();
        let values = (0..width * height)
            .map(|p| blur(height, &|y| across[y * width + p % width], p / width))
            .collect();
        Self { width, height, values }
    }

    /// The mask with its edge softened as by [`feathered`](Self::feathered), inwards alone: what is outside stays outside.
    pub fn softened_inwards(&self, sigma: f32) -> Self {
        // On a straight edge half of what a Gaussian sees is inside.
        let soft = self.feathered(sigma).into_values();
        let values =
            soft.iter().zip(&self.values).map(|(soft, own)| (2.0 * soft - 1.0).clamp(0.0, *own)).collect();
        Self { values, ..*self }
    }

    /// What is outside.
    pub fn inverted(&self) -> Self {
        Self { values: self.values.iter().map(|value| 1.0 - value).collect(), ..*self }
    }

    /// What is inside either. Fails with `mask-size` where their sizes differ.
    pub fn union(&self, other: &Self) -> Result<Self> {
        if self.size() != other.size() {
            return Err(Error::input(
                "mask-size",
                format!("masks of {:?} and {:?} positions cannot be joined", self.size(), other.size()),
                "make all masks the size of the picture",
            ));
        }
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a.max(*b)).collect();
        Ok(Self { values, ..*self })
    }

    /// Black and white.
    pub fn to_gray(&self) -> GrayImage {
        GrayImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            ::image::Luma([(self.values[y as usize * self.width + x as usize] * 255.0).round() as u8])
        })
    }
}

/// Paints `mask` in one colour: with [`FACE_FILL`] and the face's mask, a picture becomes the style input that
/// training sees, which shows everything about the picture but whose face it is.
///
/// Fails with `mask-size` where the mask's size is not the picture's.
pub fn hide(picture: &RgbImage, mask: &Mask, colour: Rgb<u8>) -> Result<RgbImage> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if mask.size() != (width, height) {
        return Err(Error::input(
            "mask-size",
            format!("a mask of {:?} positions cannot hide part of a {width}×{height} picture", mask.size()),
            "make the mask the size of the picture",
        ));
    }
    let mut hidden = picture.clone();
    for (pixel, weight) in hidden.pixels_mut().zip(mask.values()) {
        for (byte, fill) in pixel.0.iter_mut().zip(colour.0) {
            *byte = (f32::from(*byte) * (1.0 - weight) + f32::from(fill) * weight).round() as u8;
        }
    }
    Ok(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reaches_beyond_its_face() {
        let (face, head) =
            (Mask::oval([40.0, 40.0, 60.0, 70.0], 100, 100), Mask::head([40.0, 40.0, 60.0, 70.0], 100, 100));
        assert!(face.values().iter().zip(head.values()).all(|(face, head)| face <= head));
        let at = |mask: &Mask, x: usize, y: usize| mask.values()[100 * y + x];
        // Hair above the forehead and beside the cheeks; neither shoulders nor background.
        for (x, y) in [(50, 26), (36, 50), (64, 50)] {
            assert_eq!((at(&face, x, y), at(&head, x, y)), (0.0, 1.0));
        }
        for (x, y) in [(50, 80), (20, 50), (50, 10)] {
            assert_eq!(at(&head, x, y), 0.0);
        }
    }

    fn area(x: f32, y: f32, width: f32, height: f32) -> RelativeBox {
        RelativeBox { x, y, width, height }
    }

    #[test]
    fn a_box_covers_its_share_at_any_size() {
        let third = area(0.25, 0.1, 1.0 / 3.0, 0.7);
        for (w, h) in [(64, 64), (5, 3), (1, 1), (7, 40)] {
            let coverage = Mask::from_box(&third, w, h).coverage();
            assert!((coverage - 0.7 / 3.0).abs() < 1e-4, "{w}×{h}: {coverage}");
        }
        let left = Mask::from_box(&area(0.0, 0.0, 0.5, 1.0), 4, 1);
        assert_eq!(left.values(), [1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn an_oval_has_an_ellipse_s_area_and_place() {
        let oval = Mask::oval([10.0, 20.0, 50.0, 80.0], 64, 96);
        let expected = std::f32::consts::PI * 20.0 * 30.0 / (64.0 * 96.0);
        assert!((oval.coverage() / expected - 1.0).abs() < 0.01, "{}", oval.coverage());
        assert_eq!(oval.values()[50 * 64 + 30], 1.0);
        assert_eq!(oval.values()[22 * 64 + 12], 0.0, "the box's corner is outside");
    }

    #[test]
    fn resizing_keeps_the_coverage() {
        let mask = Mask::oval([3.0, 3.0, 40.0, 29.0], 48, 32);
        for (w, h) in [(6, 4), (7, 5), (96, 64), (48, 32), (1, 1)] {
            let resized = mask.resized(w, h).unwrap();
            assert_eq!(resized.size(), (w, h));
            assert!((resized.coverage() - mask.coverage()).abs() < 1e-4, "{w}×{h}");
        }
        assert_eq!(mask.resized(0, 4).unwrap_err().code, "mask-size");
    }

    #[test]
    fn feathering_softens_the_edge_alone() {
        let half = Mask::from_box(&area(0.0, 0.0, 0.5, 1.0), 40, 10);
        let soft = half.feathered(2.0);
        let row = &soft.values()[5 * 40..6 * 40];
        assert!((row[19] + row[20] - 1.0).abs() < 1e-4, "symmetric about the edge");
        assert!(row.windows(2).all(|pair| pair[0] >= pair[1]), "falls all the way");
        assert!(row[2] > 0.999 && row[37] < 0.001);
        let full = Mask::from_box(&area(0.0, 0.0, 1.0, 1.0), 9, 9);
        assert!(full.feathered(50.0).values().iter().all(|v| (v - 1.0).abs() < 1e-5));
        assert_eq!(half.feathered(0.0), half);
        assert_eq!(half.feathered(f32::NAN), half);
    }

    #[test]
    fn hiding_changes_what_is_inside_alone() {
        let picture = RgbImage::from_fn(20, 20, |x, y| Rgb([x as u8 * 10, y as u8 * 10, 5]));
        let face = Mask::oval([5.0, 5.0, 15.0, 15.0], 20, 20);
        let hidden = hide(&picture, &face, FACE_FILL).unwrap();
        for (p, weight) in face.values().iter().enumerate() {
            let (x, y) = (p as u32 % 20, p as u32 / 20);
            if *weight == 0.0 {
                assert_eq!(hidden.get_pixel(x, y), picture.get_pixel(x, y));
            } else if *weight == 1.0 {
                assert_eq!(hidden.get_pixel(x, y), &FACE_FILL);
            }
        }
        let small = Mask::oval([0.0, 0.0, 4.0, 4.0], 4, 4);
        assert_eq!(hide(&picture, &small, FACE_FILL).unwrap_err().code, "mask-size");
    }

    #[test]
    fn masks_combine() {
        let left = Mask::from_box(&area(0.0, 0.0, 0.5, 1.0), 8, 2);
        let right = left.inverted();
        assert_eq!(left.union(&right).unwrap().coverage(), 1.0);
        assert_eq!(Mask::from_gray(&left.to_gray()).unwrap(), left);
        assert_eq!(left.union(&Mask::oval([0.0; 4], 3, 3)).unwrap_err().code, "mask-size");
    }

    #[test]
    fn unusable_masks_are_errors() {
        assert_eq!(Mask::new(2, 2, vec![0.0; 3]).unwrap_err().code, "mask-size");
        assert_eq!(Mask::new(usize::MAX, 2, vec![]).unwrap_err().code, "mask-size");
        assert_eq!(Mask::new(1, 2, vec![0.5, f32::NAN]).unwrap_err().code, "mask-range");
        assert_eq!(Mask::from_gray(&GrayImage::new(0, 3)).unwrap_err().code, "mask-size");
    }

    #[test]
    fn people_are_drawn_below_their_faces_and_share_nothing() {
        // A large face, and a small one beside it whose body it hides in part.
        let faces = [[40.0, 20.0, 60.0, 44.0], [70.0, 30.0, 80.0, 42.0]];
        let [large, small] = <[Mask; 2]>::try_from(Mask::people(&faces, 120, 100)).unwrap();
        let at = |mask: &Mask, x: usize, y: usize| mask.values()[y * 120 + x];
        for (x, y) in [(50, 30), (50, 48), (50, 99), (20, 80)] {
            assert_eq!((at(&large, x, y), at(&small, x, y)), (1.0, 0.0), "{x},{y}");
        }
        for (x, y) in [(75, 35), (75, 50), (88, 60)] {
            assert_eq!((at(&large, x, y), at(&small, x, y)), (0.0, 1.0), "{x},{y}");
        }
        // Above the heads, beside the neck, beside the shoulders.
        for (x, y) in [(50, 2), (5, 46), (5, 99), (110, 90)] {
            assert_eq!(at(&large, x, y) + at(&small, x, y), 0.0, "{x},{y}");
        }
        assert!(large.values().iter().zip(small.values()).all(|(a, b)| a * b == 0.0));
    }

    /// `½ − (d² − r²) / 2d` for a circle of radius `r`, `d` from the middle: the implicit function over its gradient.
    #[test]
    fn the_edge_of_an_oval_is_one_pixel_soft() {
        let circle = Mask::oval([6.0, 7.0, 26.0, 27.0], 40, 32);
        let mut soft = 0;
        for (p, value) in circle.values().iter().enumerate() {
            let (x, y) = ((p % 40) as f32 + 0.5, (p / 40) as f32 + 0.5);
            let distance = (x - 16.0).hypot(y - 17.0);
            let expected = 0.5 - (distance * distance - 100.0) / (2.0 * distance);
            assert!((value - expected.clamp(0.0, 1.0)).abs() < 1e-4, "{x},{y}: {value}");
            soft += usize::from((0.01..0.99).contains(value));
        }
        assert!(soft > 40, "{soft}");
        // Twice as wide as high: the edge lies where the axes end.
        let wide = Mask::oval([0.0, 10.0, 40.0, 30.0], 40, 40);
        let at = |x: usize, y: usize| wide.values()[40 * y + x];
        assert!(at(20, 10) > 0.9 && at(20, 9) < 0.1 && at(0, 20) > 0.9, "{} {}", at(20, 10), at(20, 9));
    }

    #[test]
    fn a_box_has_the_share_of_each_position_that_it_covers() {
        let mask = Mask::from_box(&area(0.125, 0.25, 0.5, 0.5), 4, 2);
        assert_eq!(mask.values(), [0.25, 0.5, 0.25, 0.0, 0.25, 0.5, 0.25, 0.0]);
    }

    #[test]
    fn the_middle_of_a_mask_is_that_of_what_is_inside() {
        let mask = Mask::new(4, 2, vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.5]).unwrap();
        // (2.5 + 3.5 + ½ · 3.5) / 2.5 of 4.
        assert!((mask.centre_x() - 0.775).abs() < 1e-6, "{}", mask.centre_x());
        assert_eq!(Mask::new(4, 1, vec![0.0; 4]).unwrap().centre_x(), 0.5);
    }

    #[test]
    fn what_is_half_hidden_is_half_painted() {
        let mask = Mask::new(2, 1, vec![0.25, 0.75]).unwrap();
        let hidden = hide(&RgbImage::from_pixel(2, 1, Rgb([200, 0, 127])), &mask, FACE_FILL).unwrap();
        assert_eq!(hidden.into_raw(), [182, 32, 127, 145, 95, 127]);
    }

    /// A dot, softened: the Gaussian cut at three deviations, whose weights sum to 1; beyond the border the last value repeats.
    #[test]
    fn feathering_is_a_gaussian() {
        let mut values = vec![0.0; 7 * 9];
        values[2 * 9 + 3] = 1.0;
        let soft = Mask::new(9, 7, values).unwrap().feathered(0.9);
        let weight = |k: f64| (-k * k / (2.0 * 0.81)).exp();
        let total: f64 = (-3..=3).map(|k| weight(f64::from(k))).sum();
        // Where it is seen from the border, it is seen from beyond it as well.
        let seen = |from: i32, dot: i32, last: i32| -> f64 {
            (-3..=3).filter(|k| (from + k).clamp(0, last) == dot).map(|k| weight(f64::from(k)) / total).sum()
        };
        for (p, value) in soft.values().iter().enumerate() {
            let expected = seen(p as i32 % 9, 3, 8) * seen(p as i32 / 9, 2, 6);
            assert!((f64::from(*value) - expected).abs() < 1e-6, "{p}: {value}, not {expected}");
        }
        let edge = Mask::new(3, 1, vec![1.0, 0.0, 0.0]).unwrap().feathered(0.9);
        let expected: f64 = (-3..=0).map(|k| weight(f64::from(k)) / total).sum();
        assert!((f64::from(edge.values()[0]) - expected).abs() < 1e-6, "{edge:?}");
    }

    /// Of a face 20 wide and high, whose chin is at 30: the neck is 18 wide, the shoulders 70, half a face below the chin; the feet
    /// are 8.5 faces below it.
    #[test]
    fn a_body_has_a_neck_shoulders_and_feet() {
        let body = Mask::people(&[[40.0, 10.0, 60.0, 30.0]], 120, 260).remove(0);
        let row = |y: usize| -> f32 { body.values()[120 * y..120 * (y + 1)].iter().sum() };
        // At the chin, half way down to the shoulders, below them.
        for (y, half) in
            [(32, 9.0 + 26.0 * 0.25), (35, 9.0 + 26.0 * 0.55), (40, 35.0), (150, 35.0), (199, 35.0)]
        {
            assert!((row(y) - 2.0 * half).abs() < 1e-3, "row {y} is {} wide, not {}", row(y), 2.0 * half);
        }
        assert_eq!(row(200), 0.0);
        let middle = body.values()[120 * 100..120 * 101].iter().enumerate();
        let middle: f32 = middle.map(|(x, value)| (x as f32 + 0.5) * value).sum::<f32>() / 70.0;
        assert!((middle - 50.0).abs() < 1e-3, "{middle}");
    }

    #[test]
    fn what_two_claim_is_the_nearer_ones_in_sides_of_its_face() {
        let faces = [[10.0, 10.0, 30.0, 25.0], [38.0, 10.0, 52.0, 24.0]];
        let [large, small] = <[Mask; 2]>::try_from(Mask::people(&faces, 100, 100)).unwrap();
        let at = |mask: &Mask, x: usize, y: usize| mask.values()[100 * y + x];
        // 46 pixels from the large face, 2.3 of its sides; 45 from the small one, 3.2 of its.
        assert_eq!((at(&large, 35, 60), at(&small, 35, 60)), (1.0, 0.0));
        // 28 pixels and 1.4 sides; 15 and 1.0.
        assert_eq!((at(&large, 44, 31), at(&small, 44, 31)), (0.0, 1.0));
    }

    #[test]
    fn a_mask_is_drawn_in_the_nearest_grey() {
        let mask = Mask::new(3, 2, vec![0.0, 0.25, 0.5, 0.75, 1.0, 0.1]).unwrap();
        let drawn = mask.to_gray();
        assert_eq!((drawn.dimensions(), drawn.into_raw()), ((3, 2), vec![0, 64, 128, 191, 255, 26]));
    }
}
