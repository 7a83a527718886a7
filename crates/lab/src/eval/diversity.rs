//! Are pictures of one request with other seeds different pictures?

use serde::Serialize;

use super::drawing::{Drawing, Staged};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean};
use super::table_1::{with_image, with_text};
use facestudio::error::Result;

/// Pictures of one request.
const SEEDS: u64 = 4;
/// Between the seeds of one request; those of the trials follow each other.
const APART: u64 = 1000;

type Way = fn(&EvalOptions, usize) -> Drawing;
const WAYS: [(&str, Way); 2] = [("image", with_image), ("text", with_text)];
/// Rows of the grids.
const SHOWN: usize = 4;

fn trials(options: &EvalOptions) -> usize {
    (options.trials / 4).max(2)
}

fn series(options: &EvalOptions, way: Way, i: usize) -> Vec<Drawing> {
    let one = |k: u64| {
        let drawing = way(options, i);
        Drawing { seed: drawing.seed.wrapping_add(APART * k), ..drawing }
    };
    (0..SEEDS).map(one).collect()
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    let n = trials(options);
    let series = WAYS.iter().flat_map(|(_, way)| (0..n).flat_map(move |i| series(options, *way, i)));
    series.chain((n..2 * n).map(|i| with_image(options, i))).collect()
}

/// One less the cosine, over all pairs.
fn mean_distance(embeddings: &[Vec<f32>]) -> f64 {
    let pairs = (0..embeddings.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let distances: Vec<f64> = pairs.map(|(i, j)| 1.0 - cosine(&embeddings[i], &embeddings[j])).collect();
    distances.iter().sum::<f64>() / distances.len().max(1) as f64
}

/// What is measured: mean distances.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    seeds: u64,
    ways: Vec<OfWay>,
    /// Between renders of one person and style.
    renders: Estimate,
    /// Between pictures of different requests.
    between: Estimate,
}

/// Of pictures of one request.
#[derive(Serialize)]
struct OfWay {
    key: &'static str,
    distance: Estimate,
    pictures: Pictures,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = trials(options);
    // Mean distance between the pictures of each trial that has some.
    let distances = |drawings: &dyn Fn(usize) -> Vec<Drawing>| -> Result<Estimate> {
        let of_trial = |i: usize| {
            let drawings = drawings(i);
            let embeddings = drawings.iter().map(|drawing| lab.clip_drawing(drawing));
            let embeddings = embeddings.collect::<Result<Vec<_>>>()?;
            Ok(mean_distance(&embeddings.into_iter().flatten().collect::<Vec<_>>()))
        };
        Ok(mean(&(0..n).map(of_trial).collect::<Result<Vec<f64>>>()?))
    };
    let of_way = |(key, way): (&'static str, Way)| {
        let row = |i: usize| {
            let photo = Some(Picture::Photo(way(options, i).people[0][0].photos[0].clone()));
            std::iter::once(photo).chain(series(options, way, i).into_iter().map(Picture::drawing)).collect()
        };
        let distance = distances(&|i| series(options, way, i))?;
        Ok(OfWay { key, distance, pictures: (0..n.min(SHOWN)).map(row).collect() })
    };
    let renders = (0..n)
        .map(|i| {
            let style = with_image(options, i).style;
            let embeddings = (0..SEEDS)
                .filter_map(|k| {
                    Some(Staged {
                        scene: 6000 + SEEDS * i as u64 + k,
                        shows: vec![i as u64],
                        ..style.clone()?
                    })
                })
                .map(|staged| lab.clip_picture(&lab.render(&staged)))
                .collect::<Result<Vec<_>>>()?;
            Ok(mean_distance(&embeddings))
        })
        .collect::<Result<Vec<f64>>>()?;
    Ok(Figures {
        n,
        seeds: SEEDS,
        ways: WAYS.into_iter().map(of_way).collect::<Result<_>>()?,
        renders: mean(&renders),
        between: distances(&|i| vec![with_image(options, i), with_image(options, i + n)])?,
    })
}
