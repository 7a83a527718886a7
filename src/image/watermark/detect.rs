//! The detector: is the mark in a picture that may have been resized, cropped and compressed?
//!
//! A marked picture is the tile seen at an unknown scale and shift. For each scale the picture is brought back to the
//! original pixels and folded into one tile, and the phases of its spectrum are compared with the pattern's: at all
//! shifts at once, by one inverse transform. Only phases count, so that no strong regular texture (a halftone, a grid)
//! can outvote the rest.

use ::image::RgbImage;

use super::fourier::{Complex, Plane};
use super::{Pattern, TILE, blur, luma};
use crate::error::{Error, Result};

/// A mark counts as found where an unmarked picture would look as marked at most this often.
pub const FALSE_POSITIVE_RATE: f64 = 1e-4;
/// Smallest side of a picture in which a mark is looked for.
pub const MIN_SIDE: u32 = 32;

/// Most pixels along each side that are looked at, in the middle: enough for any mark, and it bounds the work.
const WINDOW: usize = 512;
/// Scales per doubling. Between two of them a tile drifts by half a pixel at most at the edge of a 128-pixel picture.
const SCALES_PER_OCTAVE: i32 = 64;
/// Number of scales.
const SCALES: f64 = (2 * SCALES_PER_OCTAVE + 1) as f64;
/// Farthest shifts in pixels of a picture that was not cropped (resizing programs round differently), was cropped a
/// little, or as much as you like. Each is searched at every scale and at the original one. Fewer guesses need less
/// evidence.
const REACHES: [usize; 3] = [1, 16, TILE / 2];
/// Searches that share [`FALSE_POSITIVE_RATE`].
const SEARCHES: f64 = 2.0 * REACHES.len() as f64;
/// Radius of the surroundings that a pixel is compared with, in pixels.
const RADIUS: usize = 2;
/// Detail below this many levels is noise.
const NOISE_FLOOR: f32 = 0.5;
/// Most that one pixel counts, in multiples of the mean detail around it.
const CLIP: f32 = 1.5;

/// What the detector found at the best scale and shift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Evidence in powers of ten: an unmarked picture reaches score `s` or more at most once in `10^s` times.
    pub score: f64,
    /// Size of this picture relative to the one that was marked. Means something only where a mark was found.
    pub scale: f32,
}

impl Detection {
    /// Whether the picture carries the mark, wrong for unmarked pictures at most at [`FALSE_POSITIVE_RATE`].
    pub fn found(&self) -> bool {
        self.score >= -FALSE_POSITIVE_RATE.log10()
    }
}

/// Looks for the mark of [`embed`](super::embed) at half to twice the original size, and at every shift.
///
/// Fails with `watermark-size` on a picture of fewer than [`MIN_SIDE`] pixels along a side.
pub fn detect(picture: &RgbImage) -> Result<Detection> {
    let (width, height) = picture.dimensions();
    if width.min(height) < MIN_SIDE {
        return Err(Error::input(
            "watermark-size",
            format!("the picture has {width}×{height} pixels, too few to tell a watermark from chance"),
            format!("use a picture of at least {MIN_SIDE} pixels along each side"),
        ));
    }
    let pattern = Pattern::new();
    let detail = Detail::of(&luma(picture), width as usize);
    let mut best = Detection { score: 0.0, scale: 1.0 };
    for step in -SCALES_PER_OCTAVE..=SCALES_PER_OCTAVE {
        let scale = libm::exp2f(step as f32 / SCALES_PER_OCTAVE as f32);
        let correlation = correlate(&pattern, detail.folded(scale));
        for reach in REACHES {
            let found = greatest(&correlation, reach);
            let shifts = (2 * reach + 1).min(TILE).pow(2) as f64;
            let unscaled = if step == 0 { score(found, shifts) } else { 0.0 };
            let score = unscaled.max(score(found, SCALES * shifts));
            if score > best.score {
                best = Detection { score, scale };
            }
        }
    }
    Ok(best)
}

/// The picture's detail in its middle, relative to the mean detail around each pixel: the mark's natural units.
pub(super) struct Detail {
    width: usize,
    height: usize,
    /// The middle's place in the picture.
    left: usize,
    top: usize,
    values: Vec<f32>,
}

impl Detail {
    /// Of a picture's brightness.
    pub(super) fn of(luma: &[f32], width: usize) -> Self {
        let whole = [width, luma.len() / width];
        let [width, height] = whole.map(|side| side.min(WINDOW));
        let [left, top] = [(whole[0] - width) / 2, (whole[1] - height) / 2];
        let rows = luma.chunks_exact(whole[0]).skip(top).take(height);
        let luma: Vec<f32> = rows.flat_map(|row| &row[left..left + width]).copied().collect();
        let blur = |plane: &[f32]| blur(plane, width, height, RADIUS);
        let smooth = blur(&blur(&luma));
        let detail: Vec<f32> = luma.iter().zip(&smooth).map(|(value, mean)| value - mean).collect();
        let around = blur(&detail.iter().map(|value| value.abs()).collect::<Vec<_>>());
        let relative = |(value, around): (&f32, &f32)| (value / (around + NOISE_FLOOR)).clamp(-CLIP, CLIP);
        Self { width, height, left, top, values: detail.iter().zip(&around).map(relative).collect() }
    }

    /// The detail at the pixels of the original, if the picture is it at `scale`, summed into one tile.
    pub(super) fn folded(&self, scale: f32) -> Plane {
        let columns = samples(self.left, self.width, scale);
        let rows = samples(self.top, self.height, scale);
        let mut tile = Plane::new(TILE, TILE);
        let sums = tile.re();
        for row in &rows {
            let [above, below] = [0, self.width].map(|down| &self.values[row.at * self.width + down..]);
            for column in &columns {
                let across = |values: &[f32]| {
                    values[column.at] + (values[column.at + 1] - values[column.at]) * column.part
                };
                let (a, b) = (across(above), across(below));
                sums[row.cell * TILE + column.cell] += a + (b - a) * row.part;
            }
        }
        tile
    }
}

/// Where one row or column of the original lies: in the tile, and between two of the picture.
struct Sample {
    cell: usize,
    at: usize,
    part: f32,
}

/// The original's rows or columns within `from..from + count` of the picture, whose pixels are `scale` times finer.
fn samples(from: usize, count: usize, scale: f32) -> Vec<Sample> {
    // Centres of pixels are at halves.
    let first = ((from as f32 + 0.5) / scale - 0.5).ceil().max(0.0) as usize;
    let place = |original: usize| (original as f32 + 0.5) * scale - 0.5 - from as f32;
    (first..)
        .map(|original| (original, place(original)))
        .take_while(|(_, place)| *place < (count - 1) as f32)
        .map(|(original, place)| {
            let place = place.max(0.0);
            Sample { cell: original % TILE, at: place as usize, part: place.fract() }
        })
        .collect()
}

/// Agreement of a tile's phases with the pattern's at every shift of the tile, in standard deviations.
///
/// The pattern's phases were drawn uniformly and know nothing of the picture. Whatever an unmarked picture shows, each
/// of the differences is then uniform as well, the sum of their cosines has variance ½ each, and is nearly normal.
fn correlate(pattern: &Pattern, tile: Plane) -> Vec<f32> {
    let spectrum = pattern.spectrum(tile);
    let phases = pattern.frequencies.iter().map(|frequency| frequency.phase);
    let agreement: Vec<Complex> = spectrum
        .into_iter()
        .zip(phases)
        .map(|(value, phase)| value.direction().times(phase.conjugate()))
        .collect();
    // A frequency and its mirror add twice the cosine.
    let deviation = 2.0 * (agreement.len() as f32 / 2.0).sqrt();
    pattern.values_of(&agreement).into_iter().map(|sum| sum / deviation).collect()
}

/// The greatest value at shifts of at most `reach` pixels in each direction.
fn greatest(correlation: &[f32], reach: usize) -> f32 {
    let near = |shift: usize| shift.min(TILE - shift) <= reach;
    let rows = correlation.chunks_exact(TILE).enumerate().filter(|(y, _)| near(*y));
    let values = rows.flat_map(|(_, row)| row.iter().enumerate().filter(|(x, _)| near(*x)));
    values.map(|(_, value)| *value).fold(f32::MIN, f32::max)
}

/// The score of the greatest of `tried` values, in one of [`SEARCHES`]; 0 where it is no evidence.
///
/// A value exceeds `z` with probability `Q(z) < exp(−z²/2) / (z √(2π))`; any of several with the sum of theirs at most.
fn score(greatest: f32, tried: f64) -> f64 {
    let z = f64::from(greatest).max(1.0);
    let tail = z * z / 2.0 + libm::log(z * libm::sqrt(std::f64::consts::TAU));
    ((tail - libm::log(SEARCHES * tried)) / std::f64::consts::LN_10).max(0.0)
}
