//! Several people in one picture: does each region show its own person? With one attention a region (paper, section 3.4),
//! and with plain cross-attention on the average of all.

use serde::Serialize;

use super::drawing::{Drawing, STYLE_PEOPLE, Sitter, Staged, in_turn};
use super::lab::Lab;
use super::likeness::Face;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, share_of, share_of_groups};
use facestudio::error::Result;

/// Numbers of people.
const COUNTS: [usize; 2] = [2, 3];
/// Rows of the grids.
const SHOWN: usize = 5;

/// The people of trial `i`, from left to right.
fn people(count: usize, i: usize) -> Vec<u64> {
    (0..count).map(|k| (i * count + k) as u64).collect()
}

fn style(count: usize, i: usize) -> Staged {
    let scene = (1000 * count + i) as u64;
    let shows = (0..count).map(|k| STYLE_PEOPLE + 10 * scene + k as u64).collect();
    Staged { scene, shows, style: in_turn(i), yaw: None, subject: None }
}

/// One person a column.
fn by_regions(options: &EvalOptions, count: usize, i: usize) -> Drawing {
    let people = people(count, i).into_iter().map(|who| vec![Sitter::new(who, 1)]).collect();
    Drawing { people, style: Some(style(count, i)), ..Drawing::trial(options, i) }
}

/// The average of all everywhere.
fn plain(options: &EvalOptions, count: usize, i: usize) -> Drawing {
    let people = vec![people(count, i).into_iter().map(|who| Sitter::new(who, 1)).collect()];
    Drawing { people, style: Some(style(count, i)), ..Drawing::trial(options, i) }
}

type Way = fn(&EvalOptions, usize, usize) -> Drawing;
const WAYS: [(&str, Way); 2] = [("regions", by_regions), ("plain", plain)];

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    let trials = |count: usize| (0..options.half()).map(move |i| (count, i));
    let all = COUNTS.into_iter().flat_map(trials);
    all.flat_map(|(count, i)| WAYS.map(|(_, way)| way(options, count, i))).collect()
}

/// The largest face whose middle is in each of `count` columns.
fn by_column(faces: &[Face], count: usize) -> Vec<Option<&Face>> {
    let column = |face: &Face| {
        let middle = 0.5 * (face.face_box[0] + face.face_box[2]);
        ((middle * count as f64) as usize).min(count - 1)
    };
    (0..count).map(|k| faces.iter().find(|face| column(face) == k)).collect()
}

/// What the regions of one picture show.
struct Regions {
    /// Own person nearest of those in the picture; none without a face.
    right: Vec<Option<bool>>,
    /// Cosine to the own person less the mean of those to the others; 0 without a face.
    margins: Vec<f64>,
}

fn look(lab: &Lab, drawing: &Drawing, people: &[u64]) -> Result<Regions> {
    let faces = lab.faces(drawing)?;
    let mut regions = Regions { right: Vec::new(), margins: Vec::new() };
    for (k, face) in by_column(&faces, people.len()).into_iter().enumerate() {
        let Some(face) = face else {
            regions.right.push(None);
            regions.margins.push(0.0);
            continue;
        };
        let to =
            people.iter().map(|who| lab.similarity(&face.embedding, *who)).collect::<Result<Vec<_>>>()?;
        regions.right.push(Some((0..to.len()).all(|j| j == k || to[j] < to[k])));
        let others = (to.iter().sum::<f64>() - to[k]) / (to.len() - 1).max(1) as f64;
        regions.margins.push(to[k] - others);
    }
    Ok(regions)
}

/// The share of right regions.
fn regions_right(pictures: &[Regions]) -> Estimate {
    let all = pictures.iter().flat_map(|picture| &picture.right);
    let right = all.clone().filter(|right| **right == Some(true)).count();
    share_of_groups(right, all.count(), pictures.len())
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    counts: Vec<OfCount>,
}

/// Pictures of so many people.
#[derive(Serialize)]
struct OfCount {
    count: usize,
    ways: Vec<OfWay>,
    pictures: Pictures,
}

/// Of one way to guide.
#[derive(Serialize)]
struct OfWay {
    key: &'static str,
    /// Right regions.
    right: Estimate,
    /// Right ones of those with a face.
    found: Estimate,
    /// Pictures whose regions are all right.
    whole: Estimate,
    margin: Estimate,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(options.trials)?;
    let scale = levels.means(&(0..options.trials).collect::<Vec<_>>());
    let of_way = |count: usize, key: &'static str, way: Way| {
        let pictures = (0..n)
            .map(|i| look(lab, &way(options, count, i), &people(count, i)))
            .collect::<Result<Vec<_>>>()?;
        let margins: Vec<f64> =
            pictures.iter().map(|picture| picture.margins.iter().sum::<f64>() / count as f64).collect();
        Ok(OfWay {
            key,
            right: regions_right(&pictures),
            found: share_of(pictures.iter().flat_map(|picture| picture.right.iter().flatten().copied())),
            whole: share_of(pictures.iter().map(|p| p.right.iter().all(|right| *right == Some(true)))),
            margin: mean(&margins).scaled(1.0 / (scale.0 - scale.1).max(1e-6), 0.0),
        })
    };
    let row = |count: usize, i: usize| {
        let mut row: Vec<_> = people(count, i).into_iter().map(Picture::reference).collect();
        row.push(Some(Picture::Staged(style(count, i))));
        row.extend(WAYS.map(|(_, way)| Picture::drawing(way(options, count, i))));
        row
    };
    let of_count = |count: usize| {
        let ways = WAYS.into_iter().map(|(key, way)| of_way(count, key, way)).collect::<Result<_>>()?;
        Ok(OfCount { count, ways, pictures: (0..n.min(SHOWN)).map(|i| row(count, i)).collect() })
    };
    Ok(Figures { n, counts: COUNTS.into_iter().map(of_count).collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_belong_to_the_column_of_their_middle() {
        let face = |left: f64, right: f64| Face {
            face_box: [left, 0.2, right, 0.6],
            landmarks: [[0.0; 2]; 5],
            embedding: Vec::new(),
        };
        // Largest first, as `Lab::faces` gives them.
        let faces = [face(0.3, 0.8), face(0.05, 0.4), face(0.0, 0.2)];
        let columns = by_column(&faces, 2);
        assert_eq!(columns[1].unwrap().face_box[0], 0.3);
        assert_eq!(columns[0].unwrap().face_box[0], 0.05);
        assert!(by_column(&faces, 3)[2].is_none());
    }
}
