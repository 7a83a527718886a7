//! Identity mixing, `e_f = Σ β_i e_f^i` (paper, section 3.2): does the person go from one to the other as β grows?

use serde::Serialize;

use super::drawing::{Drawing, Sitter};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, share_of};
use facestudio::error::Result;

const BETAS: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Rows of the grid.
const SHOWN: usize = 6;

/// The other person of trial `i`.
fn other(options: &EvalOptions, i: usize) -> usize {
    i + options.half()
}

/// Trial `i`'s person at β, the other at 1 − β; who has no weight is left out, so that the end is another experiment's
/// picture.
fn drawing(options: &EvalOptions, i: usize, beta: f32) -> Drawing {
    let sitters = [(i, beta), (other(options, i), 1.0 - beta)];
    let mixed = sitters.iter().all(|(_, beta)| *beta > 0.0);
    let sitters = sitters.iter().filter(|(_, beta)| *beta > 0.0);
    let sitters = sitters
        .map(|(who, beta)| Sitter { beta: if mixed { *beta } else { 1.0 }, ..Sitter::new(*who as u64, 1) });
    Drawing::trial(options, i).with_person(sitters.collect())
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.half()).flat_map(|i| BETAS.map(|beta| drawing(options, i, beta))).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    betas: [f32; BETAS.len()],
    /// Pairs in which every step of β rises.
    monotone: Estimate,
    /// Single steps that rise.
    steps: Estimate,
    /// Pairs whose ends are in order.
    ends: Estimate,
    /// Halves between both.
    between: Estimate,
    /// Similarity to the first person at each β.
    first: Vec<Estimate>,
    /// To the second.
    second: Vec<Estimate>,
    pictures: Pictures,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(2 * n)?;
    // [β][pair]
    let mut to_first = vec![Vec::new(); BETAS.len()];
    let mut to_second = to_first.clone();
    for (k, beta) in BETAS.iter().enumerate() {
        for i in 0..n {
            let drawing = drawing(options, i, *beta);
            to_first[k].push(lab.likeness(&drawing, i as u64)?);
            to_second[k].push(lab.likeness(&drawing, other(options, i) as u64)?);
        }
    }
    let difference = |k: usize, i: usize| Some(to_first[k][i]? - to_second[k][i]?);
    let rises = |k: usize, i: usize| difference(k, i).zip(difference(k + 1, i)).is_some_and(|(a, b)| b > a);
    let steps = BETAS.len() - 1;
    let monotone = share_of((0..n).map(|i| (0..steps).all(|k| rises(k, i))));
    let risen = share_of((0..n).flat_map(|i| (0..steps).map(move |k| (k, i))).map(|(k, i)| rises(k, i)));
    let ends =
        share_of((0..n).map(|i| difference(0, i).zip(difference(steps, i)).is_some_and(|(a, b)| b > a)));
    let between = share_of((0..n).map(|i| {
        let inside = |to: &[Vec<Option<f64>>]| {
            let (Some(none), Some(half), Some(whole)) = (to[0][i], to[steps / 2][i], to[steps][i]) else {
                return false;
            };
            none.min(whole) <= half && half <= none.max(whole)
        };
        inside(&to_first) && inside(&to_second)
    }));
    let people = |offset: usize| levels.select(&(offset..offset + n).collect::<Vec<_>>());
    let line = |to: &[Vec<Option<f64>>], offset: usize| -> Vec<Estimate> {
        to.iter().map(|cosines| people(offset).relative(cosines)).collect()
    };
    let row = |i: usize| {
        let mut row = vec![Picture::reference(other(options, i) as u64)];
        row.extend(BETAS.map(|beta| Picture::drawing(drawing(options, i, beta))));
        row.push(Picture::reference(i as u64));
        row
    };
    Ok(Figures {
        betas: BETAS,
        monotone,
        steps: risen,
        ends,
        between,
        first: line(&to_first, 0),
        second: line(&to_second, n),
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
