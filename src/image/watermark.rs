//! An invisible mark that says "generated", and its detector; `docs/watermark.md` has the design and the measured rates.
//!
//! The mark is a fixed, public noise tile of [`TILE`] pixels a side, repeated over the picture and added to its
//! brightness: little where the picture is flat, more where texture hides it. All its energy lies in a ring of spatial
//! frequencies that survive both halving and JPEG. Needs no weights and gives the same pixels on every platform.

mod detect;
mod fourier;
#[cfg(test)]
mod tests;

use ::image::RgbImage;

use detect::Detail;
use fourier::{Complex, Fourier, Plane};

pub use detect::{Detection, FALSE_POSITIVE_RATE, MIN_SIDE, detect};

/// Side of the repeated tile in pixels. Smaller, there are too few frequencies; larger, a 128-pixel picture fills none.
const TILE: usize = 128;
/// The mark's frequencies in cycles per pixel: above most of a picture's own energy, and below what is left of a
/// picture of half the size (0.25) after JPEG.
const BAND: [f32; 2] = [0.06, 0.18];
/// Strength in flat areas of small pictures: standard deviation of the change, in levels of 255.
const FLAT: f32 = 1.6;
/// How much strength grows with the mean detail around a pixel.
const MASKING: f32 = 0.5;
/// Most strength at one pixel.
const STRONGEST: f32 = 5.0;
/// Most strength over the whole picture (root mean square): 38.5 dB.
const STRENGTH: f32 = 3.0;
/// Side in pixels up to which a picture is marked with full strength; larger ones hold more of the tile and need less.
const FULL_STRENGTH_SIDE: f32 = 128.0;
/// Least part of the full strength.
const WEAKEST: f32 = 0.5;

/// Marks a picture.
///
/// The tile is fitted to the picture in one step, see [`Pattern::corrected`]: what the detector sees after plainly adding
/// it says which frequencies need more.
///
/// Works on every size. What is smaller than about 96 pixels holds too little of the mark for it to be found reliably.
pub fn embed(picture: &mut RgbImage) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if picture.is_empty() {
        return;
    }
    let luma = luma(picture);
    let strength = strength(&luma, width, height);
    let pattern = Pattern::new();
    let change = |tile: &[f32]| -> Vec<f32> {
        let place = |i: usize| (i / width % TILE) * TILE + i % width % TILE;
        strength.iter().enumerate().map(|(i, strength)| strength * tile[place(i)]).collect()
    };
    let first = change(&pattern.tile(&pattern.phases()));
    let marked: Vec<f32> = luma.iter().zip(&first).map(|(luma, change)| luma + change).collect();
    let seen = pattern.spectrum(Detail::of(&marked, width).folded(1.0));
    let mut change = change(&pattern.tile(&pattern.corrected(&seen)));
    limit(&mut change, root_mean_square(&strength));
    for (pixel, change) in picture.pixels_mut().zip(change) {
        pixel.0 = pixel.0.map(|level| (f32::from(level) + change).round().clamp(0.0, 255.0) as u8);
    }
}

/// Strength at every pixel: the standard deviation of the change there.
fn strength(luma: &[f32], width: usize, height: usize) -> Vec<f32> {
    let smooth = blur(luma, width, height, 2);
    let detail: Vec<f32> = luma.iter().zip(&smooth).map(|(value, mean)| (value - mean).abs()).collect();
    let detail = blur(&detail, width, height, 1);
    // The least detail of the pixel and its neighbours, so that nothing spills over an edge into a flat area.
    let least = |x: usize, y: usize| {
        let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)].map(|y| y * width);
        let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
        let beside = detail[rows[1] + columns[0]].min(detail[rows[1] + columns[2]]);
        let above_and_below = detail[rows[0] + x].min(detail[rows[2] + x]);
        beside.min(above_and_below).min(detail[rows[1] + x])
    };
    let area = (width * height) as f32;
    let part = (FULL_STRENGTH_SIDE / area.sqrt()).sqrt().clamp(WEAKEST, 1.0);
    let masked = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let masked: Vec<f32> =
        masked.map(|(x, y)| part * (FLAT + MASKING * least(x, y)).min(STRONGEST)).collect();
    let mut strength = blur(&masked, width, height, 1);
    limit(&mut strength, part * STRENGTH);
    strength
}

fn root_mean_square(values: &[f32]) -> f32 {
    (values.iter().map(|value| value * value).sum::<f32>() / values.len().max(1) as f32).sqrt()
}

/// Scales values down to a root mean square of at most `most`.
fn limit(values: &mut [f32], most: f32) {
    let part = most / root_mean_square(values);
    if part < 1.0 {
        values.iter_mut().for_each(|value| *value *= part);
    }
}

/// The public key: a phase for every frequency of the tile that lies in [`BAND`].
struct Pattern {
    fourier: Fourier,
    frequencies: Vec<Frequency>,
    /// Number of rows `v` that hold frequencies.
    rows: usize,
}

/// A frequency of the tile: `u` cycles to the right and `v` down, each modulo [`TILE`].
///
/// Only half of the plane is kept, `v ≥ 0`: the spectrum of a real tile is conjugate at `(−u, −v)`.
struct Frequency {
    u: usize,
    v: usize,
    phase: Complex,
}

impl Pattern {
    fn new() -> Self {
        let side = TILE as i32;
        let rows = (BAND[1] * TILE as f32) as i32 + 1;
        let mut frequencies = Vec::new();
        for v in 0..rows {
            for u in 1 - rows..rows {
                let cycles = ((u * u + v * v) as f32).sqrt() / TILE as f32;
                if (v > 0 || u > 0) && (BAND[0]..=BAND[1]).contains(&cycles) {
                    let (u, v) = (u.rem_euclid(side) as usize, v as usize);
                    let phase = Complex::turned(std::f32::consts::TAU * random((v * TILE + u) as u64));
                    frequencies.push(Frequency { u, v, phase });
                }
            }
        }
        Self { fourier: Fourier::new(TILE), frequencies, rows: rows as usize }
    }

    fn phases(&self) -> Vec<Complex> {
        self.frequencies.iter().map(|frequency| frequency.phase).collect()
    }

    /// The pattern's phases, pushed further where the detector sees too little of them: where the picture itself has
    /// another phase, the shortest way to the right one is across it, and the weaker the picture the less it takes.
    fn corrected(&self, seen: &[Complex]) -> Vec<Complex> {
        let lengths: Vec<f32> = seen.iter().map(|value| value.length()).collect();
        let usual = lengths.iter().sum::<f32>() / lengths.len() as f32;
        let push = |((frequency, seen), length): ((&Frequency, &Complex), &f32)| {
            let (phase, direction) = (frequency.phase, seen.direction());
            let along = phase.times(direction.conjugate()).re;
            let part = (0.5 * usual / length.max(f32::MIN_POSITIVE)).min(1.0);
            Complex {
                re: phase.re + part * (phase.re - along * direction.re),
                im: phase.im + part * (phase.im - along * direction.im),
            }
        };
        self.frequencies.iter().zip(seen).zip(&lengths).map(push).collect()
    }

    /// The tile of the given values, with zero mean and unit variance.
    fn tile(&self, values: &[Complex]) -> Vec<f32> {
        let squares: f32 = values.iter().map(|value| value.length().powi(2)).sum();
        let scale = 1.0 / (2.0 * squares).sqrt();
        self.values_of(values).into_iter().map(|value| value * scale).collect()
    }

    /// What a tile holds at the pattern's frequencies.
    fn spectrum(&self, mut tile: Plane) -> Vec<Complex> {
        self.fourier.columns(&mut tile);
        let mut turned = Plane::new(self.rows, TILE);
        for x in 0..TILE {
            (0..self.rows).for_each(|v| turned.set(v, x, tile.at(x, v)));
        }
        self.fourier.columns(&mut turned);
        self.frequencies.iter().map(|frequency| turned.at(frequency.v, frequency.u)).collect()
    }

    /// The tile whose spectrum is `values` at the pattern's frequencies and zero elsewhere, times its area.
    fn values_of(&self, values: &[Complex]) -> Vec<f32> {
        // The forward transform of the conjugate is the conjugate of the inverse one, and a real tile is its own.
        let mut turned = Plane::new(self.rows, TILE);
        for (&Frequency { u, v, .. }, value) in self.frequencies.iter().zip(values) {
            turned.set(v, u, value.conjugate());
            if v == 0 {
                turned.set(0, TILE - u, *value);
            }
        }
        self.fourier.columns(&mut turned);
        let mut tile = Plane::new(TILE, TILE);
        for x in 0..TILE {
            tile.set(x, 0, turned.at(0, x));
            for v in 1..self.rows {
                tile.set(x, v, turned.at(v, x));
                tile.set(x, TILE - v, turned.at(v, x).conjugate());
            }
        }
        self.fourier.columns(&mut tile);
        std::mem::take(tile.re())
    }
}

/// Uniform in [0, 1) for each index: two rounds of SplitMix64's finaliser.
fn random(index: u64) -> f32 {
    let mix = |x: u64| {
        let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (mix(mix(index)) >> 40) as f32 / 16_777_216.0
}

/// Brightness (ITU-R BT.601, as in JPEG).
fn luma(picture: &RgbImage) -> Vec<f32> {
    let luma = |[r, g, b]: [u8; 3]| 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
    picture.pixels().map(|pixel| luma(pixel.0)).collect()
}

/// The mean over a square of `2 · radius + 1` pixels a side, or over what of it lies inside.
fn blur(plane: &[f32], width: usize, height: usize, radius: usize) -> Vec<f32> {
    let inside = |i: usize, side: usize| i.saturating_sub(radius)..(i + radius + 1).min(side);
    let mut rows = Vec::with_capacity(plane.len());
    for row in plane.chunks_exact(width) {
        rows.extend((0..width).map(|x| {
            let near = &row[inside(x, width)];
            near.iter().sum::<f32>() / near.len() as f32
        }));
    }
    let mut blurred = vec![0.0; plane.len()];
    for (y, out) in blurred.chunks_exact_mut(width).enumerate() {
        let near = inside(y, height);
        let share = 1.0 / near.len() as f32;
        for row in near {
            out.iter_mut().zip(&rows[row * width..]).for_each(|(sum, value)| *sum += share * value);
        }
    }
    blurred
}
