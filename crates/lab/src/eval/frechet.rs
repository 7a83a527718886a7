//! Fréchet distance between generated pictures and renders (Heusel et al. 2017, FID), on our own features.

use serde::Serialize;

use super::drawing::{Drawing, Staged, in_turn};
use super::lab::Lab;
use super::options::EvalOptions;
use super::statistics::Estimate;
use super::table_1::{with_image, with_text, without_identity};
use crate::matrix::eigen;
use facestudio::error::Result;

/// Renders that everything is compared with.
const REFERENCE: usize = 400;
/// Fresh sets of renders, as many pictures each as there are generated ones.
const FRESH: usize = 5;

type Way = fn(&EvalOptions, usize) -> Drawing;
const WAYS: [(&str, Way); 3] = [("image", with_image), ("text", with_text), ("nobody", without_identity)];

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| WAYS.map(|(_, way)| way(options, i))).collect()
}

/// `‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)` of two sets of vectors of one width, two or more each.
///
/// The trace of the root comes from the smaller of the Gram matrices: with centred rows `A` and `B`, scaled by
/// 1/√(n − 1), `Σ₁ Σ₂ = AᵀA BᵀB` has the nonzero eigenvalues of `(A Bᵀ)(A Bᵀ)ᵀ`.
fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let (mean_a, a) = centred(a);
    let (mean_b, b) = centred(b);
    let (a, b) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let means: f64 = mean_a.iter().zip(&mean_b).map(|(x, y)| (x - y).powi(2)).sum();
    let trace = |rows: &[Vec<f64>]| rows.iter().flatten().map(|x| x * x).sum::<f64>();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let products: Vec<Vec<f64>> = a.iter().map(|x| b.iter().map(|y| dot(x, y)).collect()).collect();
    let gram: Vec<f64> = products.iter().flat_map(|x| products.iter().map(|y| dot(x, y))).collect();
    let (values, _) = eigen(&gram, a.len());
    // Rounding leaves specks of the size of this where zeros should be, and their roots would be no specks.
    let speck = values.iter().copied().fold(0.0, f64::max) * f64::EPSILON * a.len() as f64;
    let roots: f64 = values.into_iter().filter(|value| *value > speck).map(f64::sqrt).sum();
    means + trace(&a) + trace(&b) - 2.0 * roots
}

/// The mean, and the rows without it over √(n − 1).
fn centred(rows: &[Vec<f32>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let count = rows.len() as f64;
    let width = rows.first().map_or(0, Vec::len);
    let mean: Vec<f64> =
        (0..width).map(|k| rows.iter().map(|row| f64::from(row[k])).sum::<f64>() / count).collect();
    let scale = 1.0 / (count - 1.0).max(1.0).sqrt();
    let centre =
        |row: &Vec<f32>| row.iter().zip(&mean).map(|(x, mean)| (f64::from(*x) - mean) * scale).collect();
    let centred = rows.iter().map(centre).collect();
    (mean, centred)
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    /// Renders that everything is compared with.
    reference: usize,
    distances: Vec<OfSet>,
}

/// A set of pictures: its distance to the renders, with its range where there are several such sets.
#[derive(Serialize)]
struct OfSet {
    key: &'static str,
    distance: Estimate,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.trials;
    let render = |from: u64, count: usize| -> Vec<Staged> {
        (0..count).map(|i| Staged::one(from + i as u64, in_turn(i))).collect()
    };
    let embed = |pictures: Vec<::image::RgbImage>| -> Result<Vec<Vec<f32>>> {
        pictures.iter().map(|picture| lab.clip_picture(picture)).collect()
    };
    let reference = embed(lab.renders(&render(20_000, REFERENCE)))?;
    let (mut fresh, mut coded) = (Vec::new(), Vec::new());
    for k in 0..FRESH {
        let renders = lab.renders(&render(30_000 + (k * n) as u64, n));
        let through = renders.iter().map(|render| lab.through_vae(render)).collect::<Result<Vec<_>>>()?;
        fresh.push(distance(&embed(renders)?, &reference));
        coded.push(distance(&embed(through)?, &reference));
    }
    let range = |key: &'static str, values: &[f64]| {
        let distance = Estimate {
            value: values.iter().sum::<f64>() / values.len() as f64,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            n,
        };
        OfSet { key, distance }
    };
    let mut distances = vec![range("fresh", &fresh), range("autoencoder", &coded)];
    for (key, way) in WAYS {
        let drawings: Vec<Drawing> = (0..n).map(|i| way(options, i)).collect();
        distances.push(range(key, &[distance(&embed(lab.pictures(&drawings)?)?, &reference)]));
    }
    Ok(Figures { n, reference: REFERENCE, distances })
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio_synth::Rng;

    #[test]
    fn normal_distributions_have_the_distance_of_the_formula() {
        let mut rng = Rng::new(5, 5);
        // Independent axes: ‖Δμ‖² + Σ (σ₁ − σ₂)².
        let mut draw = |mean: [f32; 3], spread: [f32; 3], count: usize| -> Vec<Vec<f32>> {
            (0..count).map(|_| (0..3).map(|k| mean[k] + spread[k] * rng.normal()).collect()).collect()
        };
        let a = draw([0.0, 0.0, 0.0], [1.0, 2.0, 0.5], 300);
        let b = draw([1.0, 0.0, 0.0], [1.0, 1.0, 1.0], 400);
        let expected = 1.0 + 1.0 + 0.25;
        assert!((distance(&a, &b) - expected).abs() < 0.35, "{}", distance(&a, &b));
        assert!((distance(&a, &b) - distance(&b, &a)).abs() < 1e-9);
        assert!(distance(&a, &a).abs() < 1e-9);
    }
}
