//! What a run draws as it goes: the loss curve, and sheets of sample pictures.

use std::path::Path;

use image::{Rgb, RgbImage};

use facestudio::error::{Error, Result};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Room left of and below the curve for the numbers.
const MARGIN: u32 = 36;
const INK: Rgb<u8> = Rgb([40, 44, 52]);
const GRID: Rgb<u8> = Rgb([222, 224, 228]);
const LINE: Rgb<u8> = Rgb([24, 110, 200]);

/// Draws `(step, loss)` on a logarithmic loss axis, with the values of the axes' ends and middle.
pub fn curve(path: &Path, points: &[(u64, f32)]) -> Result<()> {
    let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([255; 3]));
    let points: Vec<(u64, f32)> = points.iter().copied().filter(|(_, v)| v.is_finite() && *v > 0.0).collect();
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        let low = points.iter().map(|p| p.1).fold(f32::INFINITY, f32::min).ln() - 0.02;
        let high = points.iter().map(|p| p.1).fold(0.0, f32::max).ln() + 0.02;
        let steps = (last.0 - first.0).max(1) as f32;
        let (right, bottom) = ((WIDTH - 8) as f32, (HEIGHT - 16) as f32);
        let x = |step: u64| MARGIN as f32 + (step - first.0) as f32 / steps * (right - MARGIN as f32);
        let y = |loss: f32| bottom - (loss.ln() - low) / (high - low) * (bottom - 8.0);
        for part in [0.0f32, 0.25, 0.5, 0.75, 1.0] {
            let row = bottom - part * (bottom - 8.0);
            line(&mut picture, (MARGIN as f32, row), (right, row), GRID);
            let value = (low + part * (high - low)).exp();
            text(&mut picture, 2, row as i32 - 3, &number(value));
            let step = first.0 + (part * steps) as u64;
            text(
                &mut picture,
                (x(step) as i32 - 12).min(WIDTH as i32 - 32),
                HEIGHT as i32 - 10,
                &number(step as f32),
            );
        }
        for pair in points.windows(2) {
            line(&mut picture, (x(pair[0].0), y(pair[0].1)), (x(pair[1].0), y(pair[1].1)), LINE);
        }
    }
    save(path, &picture)
}

/// Writes pictures of one size as a sheet of `columns`, row by row, on white.
pub fn sheet(path: &Path, pictures: &[RgbImage], columns: usize) -> Result<()> {
    let Some(first) = pictures.first() else { return Ok(()) };
    let (w, h) = first.dimensions();
    let columns = columns.clamp(1, pictures.len()) as u32;
    let rows = (pictures.len() as u32).div_ceil(columns);
    let gap = 2;
    let mut out = RgbImage::from_pixel(columns * (w + gap), rows * (h + gap), Rgb([255; 3]));
    for (i, picture) in pictures.iter().enumerate() {
        let (column, row) = (i as u32 % columns, i as u32 / columns);
        image::imageops::replace(&mut out, picture, (column * (w + gap)) as i64, (row * (h + gap)) as i64);
    }
    save(path, &out)
}

fn save(path: &Path, picture: &RgbImage) -> Result<()> {
    picture.save_with_format(path, image::ImageFormat::Png).map_err(|e| {
        Error::input(
            "picture-write",
            format!("{}: {e}", path.display()),
            "check the folder and the disk space",
        )
    })
}

fn line(picture: &mut RgbImage, from: (f32, f32), to: (f32, f32), colour: Rgb<u8>) {
    let count = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as u32;
    for i in 0..=count {
        let t = i as f32 / count as f32;
        let (x, y) = (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1));
        put(picture, x as i32, y as i32, colour);
    }
}

fn put(picture: &mut RgbImage, x: i32, y: i32, colour: Rgb<u8>) {
    if x >= 0 && y >= 0 && (x as u32) < picture.width() && (y as u32) < picture.height() {
        picture.put_pixel(x as u32, y as u32, colour);
    }
}

/// Four characters or so: `0.0123`, `1.53`, `12k`.
fn number(value: f32) -> String {
    match value {
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 10.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v if v >= 0.01 || v == 0.0 => format!("{v:.3}"),
        v => format!("{v:.5}"),
    }
}

/// Digits of 3×5 dots, one row of three bits each, top first.
const GLYPHS: [(char, [u8; 5]); 12] = [
    ('0', [7, 5, 5, 5, 7]),
    ('1', [2, 6, 2, 2, 7]),
    ('2', [7, 1, 7, 4, 7]),
    ('3', [7, 1, 7, 1, 7]),
    ('4', [5, 5, 7, 1, 1]),
    ('5', [7, 4, 7, 1, 7]),
    ('6', [7, 4, 7, 5, 7]),
    ('7', [7, 1, 2, 2, 2]),
    ('8', [7, 5, 7, 5, 7]),
    ('9', [7, 5, 7, 1, 7]),
    ('.', [0, 0, 0, 0, 2]),
    ('k', [4, 5, 6, 5, 5]),
];

fn text(picture: &mut RgbImage, x: i32, y: i32, text: &str) {
    for (i, c) in text.chars().enumerate() {
        let Some((_, rows)) = GLYPHS.iter().find(|(glyph, _)| *glyph == c) else { continue };
        for (dy, row) in rows.iter().enumerate() {
            for dx in 0..3 {
                if row >> (2 - dx) & 1 == 1 {
                    put(picture, x + i as i32 * 4 + dx, y + dy as i32, INK);
                }
            }
        }
    }
}
