//! Are pictures of one request with other seeds different pictures?

use super::drawing::{Drawing, Staged};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Cell, Grid, Section, Shown, Table, Unit};
use super::statistics::{Estimate, mean};
use super::table_1::{with_image, with_text};
use facestudio::error::Result;

/// Pictures of one request.
const SEEDS: u64 = 4;
/// Between the seeds of one request; those of the trials follow each other.
const APART: u64 = 1000;

type Way = fn(&EvalOptions, usize) -> Drawing;
const WAYS: [(&str, &str, Way); 2] = [("image", "style image", with_image), ("text", "prompt", with_text)];

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
    let series = WAYS.iter().flat_map(|(_, _, way)| (0..n).flat_map(move |i| series(options, *way, i)));
    series.chain((n..2 * n).map(|i| with_image(options, i))).collect()
}

/// One less the cosine, over all pairs.
fn mean_distance(embeddings: &[Vec<f32>]) -> f64 {
    let pairs = (0..embeddings.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let distances: Vec<f64> = pairs.map(|(i, j)| 1.0 - cosine(&embeddings[i], &embeddings[j])).collect();
    distances.iter().sum::<f64>() / distances.len().max(1) as f64
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = trials(options);
    let mut section = Section::new([
        "Mean distance (one less the cosine of CLIP's embeddings) between pictures of one request that differ in their seed \
         alone. 0 would be copies. For scale: the distance between renders of one person in one style in different scenes, \
         as different as a prompt that names neither clothes nor background could make them; and between pictures of \
         different requests. A style image says much more than a prompt, so its pictures should differ less.",
    ]);
    let mut rows = Vec::new();
    let mut row = |label: &str, estimate: Estimate| {
        rows.push((label.to_owned(), vec![Cell::Estimate(estimate, Unit::Plain)]));
    };
    for (key, label, way) in WAYS {
        let distances = (0..n)
            .map(|i| {
                let embeddings = series(options, way, i)
                    .iter()
                    .map(|drawing| lab.clip_drawing(drawing))
                    .collect::<Result<Vec<_>>>()?;
                Ok(mean_distance(&embeddings.into_iter().flatten().collect::<Vec<_>>()))
            })
            .collect::<Result<Vec<f64>>>()?;
        let distance = mean(&distances);
        section.figure(key, &format!("distance between seeds, one {label}"), distance, Unit::Plain);
        row(&format!("pictures of one {label}, other seeds"), distance);
    }
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
    let renders = mean(&renders);
    section.figure("renders", "distance between renders of one person and style", renders, Unit::Plain);
    row("renders of one person in one style, other scenes", renders);
    let between = (0..n)
        .map(|i| {
            let pair = [with_image(options, i), with_image(options, i + n)];
            let embeddings = pair.iter().map(|d| lab.clip_drawing(d)).collect::<Result<Vec<_>>>()?;
            Ok(mean_distance(&embeddings.into_iter().flatten().collect::<Vec<_>>()))
        })
        .collect::<Result<Vec<f64>>>()?;
    row("pictures of different requests", mean(&between));
    section.tables.push(Table {
        caption: format!("{n} requests, {SEEDS} pictures each"),
        head: ["", "mean distance"].map(str::to_owned).to_vec(),
        rows,
    });
    let head = |first: &str| -> Vec<String> {
        std::iter::once(first.to_owned()).chain((1..=SEEDS).map(|k| format!("seed {k}"))).collect()
    };
    for (_, label, way) in WAYS {
        section.grids.push(Grid {
            caption: format!("One {label}, other seeds"),
            head: head("photo"),
            labels: Vec::new(),
            rows: (0..n.min(4))
                .map(|i| {
                    let photo = Some(Shown::Photo(way(options, i).people[0][0].photos[0].clone()));
                    let pictures = series(options, way, i).into_iter().map(Shown::drawing);
                    std::iter::once(photo).chain(pictures).collect()
                })
                .collect(),
        });
    }
    Ok(section)
}
