//! Identities that are not human: animals' heads in the place of people's (paper, its figure of non-human pictures).

use serde::Serialize;

use super::drawing::{
    CREATURES, Drawing, PHOTO, Photo, REFERENCE, STYLE_PEOPLE, Sitter, Staged, TARGETS, in_turn,
};
use super::lab::Lab;
use super::likeness::{cosine, intersection_over_union};
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, share_of};
use facestudio::error::Result;

/// Rows of the grid.
const SHOWN: usize = 8;
/// Overlap from which a face is found.
const FOUND: f64 = 0.5;

fn who(i: usize) -> u64 {
    CREATURES + i as u64
}

/// A scene of another animal.
fn style(i: usize) -> Staged {
    let scene = 6000 + i as u64;
    let shows = vec![CREATURES + STYLE_PEOPLE + scene];
    Staged { scene, shows, style: in_turn(i), yaw: None, subject: None }
}

fn drawing(options: &EvalOptions, i: usize) -> Drawing {
    Drawing { style: Some(style(i)), ..Drawing::trial(options, i).with_person(vec![Sitter::new(who(i), 1)]) }
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).map(|i| drawing(options, i)).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    /// Photos in which the detector finds the face.
    found: Estimate,
    /// Pictures in which it finds one.
    drawn: Estimate,
    similarity: Estimate,
    /// Pictures that are nearest to the photo's animal.
    nearest: Estimate,
    /// To the style image's animal.
    margin: Estimate,
    /// The judge's cosine of two photos of one.
    same: f64,
    /// Of two.
    other: f64,
    pictures: Pictures,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.trials;
    let levels = lab.levels_of(who(0)..who(n))?;
    // A share of each animal's photos: they are not independent.
    let mut found = Vec::new();
    for i in 0..n {
        let mut of_photos = Vec::new();
        for shot in [REFERENCE, TARGETS[0], TARGETS[1]] {
            let photo = Photo::new(who(i), shot).render();
            let known =
                photo.people.first().map(|person| person.face_box.map(|v| f64::from(v) / f64::from(PHOTO)));
            let face = lab.faces_in(&photo.image)?.into_iter().next();
            let overlap = known.zip(face).map(|(known, face)| intersection_over_union(known, face.face_box));
            of_photos.push(if overlap.is_some_and(|overlap| overlap >= FOUND) { 1.0 } else { 0.0 });
        }
        found.push(of_photos.iter().sum::<f64>() / of_photos.len() as f64);
    }
    let (mut cosines, mut nearest, mut margins) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let drawing = drawing(options, i);
        let own = lab.likeness(&drawing, who(i))?;
        let other = drawing.style.as_ref().and_then(|style| style.shows.first().copied());
        margins.push(match (own, other) {
            (Some(own), Some(other)) => own - lab.likeness(&drawing, other)?.unwrap_or(own),
            _ => 0.0,
        });
        cosines.push(own);
        let Some(face) = lab.faces(&drawing)?.first().cloned() else {
            nearest.push(false);
            continue;
        };
        let to: Vec<f64> = (0..n)
            .map(|j| Ok(cosine(&face.embedding, &lab.photo(who(j), TARGETS[0])?)))
            .collect::<Result<_>>()?;
        nearest.push((0..n).all(|j| j == i || to[j] < to[i]));
    }
    let (same, other) = levels.means(&(0..n).collect::<Vec<_>>());
    let row = |i: usize| {
        vec![
            Picture::reference(who(i)),
            Some(Picture::Staged(style(i))),
            Picture::drawing(drawing(options, i)),
        ]
    };
    Ok(Figures {
        n,
        found: mean(&found),
        drawn: share_of(cosines.iter().map(Option::is_some)),
        similarity: levels.relative(&cosines),
        nearest: share_of(nearest),
        margin: levels.difference(&margins),
        same,
        other,
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
