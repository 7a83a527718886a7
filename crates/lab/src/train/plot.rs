//! What a run draws as it goes: the loss curve, and sheets of sample pictures.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::chart::{Line, Lines, Point};
use facestudio::error::{Error, Result};
use facestudio::weights::write_file;

/// Of the loss curve in pixels.
const SIZE: [f64; 2] = [640.0, 360.0];
/// Its look.
const STYLE: &str = ".ground { fill: #fff } text { fill: #282c34; font: 12px sans-serif } .grid { stroke: #dee0e4 } \
                     .line { fill: none; stroke: #186ec8 }";

/// Draws `(step, loss)` on a logarithmic loss axis as SVG, with the values of the axes' ends and quarters.
pub fn curve(path: &Path, points: &[(u64, f32)]) -> Result<()> {
    let points: Vec<(u64, f32)> = points.iter().copied().filter(|(_, v)| v.is_finite() && *v > 0.0).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
    let low = points.iter().map(|p| p.1).fold(f32::INFINITY, f32::min).ln() - 0.02;
    let high = points.iter().map(|p| p.1).fold(0.0, f32::max).ln() + 0.02;
    let steps = (last.0 - first.0).max(1) as f32;
    const PARTS: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
    let place = |part: f32| (f64::from(part * steps), number((first.0 + (part * steps) as u64) as f32));
    let tick = |part: f32| {
        let value = low + part * (high - low);
        (f64::from(value), number(value.exp()))
    };
    let point = |(step, loss): &(u64, f32)| Point {
        place: (step - first.0) as f64,
        value: f64::from(loss.ln()),
        interval: None,
    };
    let line = Line {
        name: "loss",
        ends: [number(first.1), number(last.1)],
        points: points.iter().map(point).collect(),
    };
    let chart = Lines {
        size: SIZE,
        axis: "step",
        places: PARTS.map(place).into(),
        ticks: PARTS.map(tick).into(),
        lines: vec![line],
        dots: false,
    };
    write_file(path, chart.svg(Some(STYLE))?.as_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_falls_as_its_loss_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        curve(&path, &[]).unwrap();
        assert!(!path.exists());
        curve(&path, &[(1, 2.0), (501, f32::NAN), (1001, 0.5), (2001, 0.5)]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let numbers: Vec<f64> = points.split(' ').map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 6);
        assert!(numbers[1] < 20.0 && numbers[3] > 300.0 && numbers[3] == numbers[5], "{points}");
        assert_eq!([numbers[0], numbers[2], numbers[4]], [44.0, 336.0, 628.0]);
        assert!(svg.contains(">2001<") && svg.contains("xmlns"), "{svg}");
    }
}
