//! Identities that are not human: animals' heads in the place of people's (paper, its figure of non-human pictures).

use super::drawing::{
    CREATURES, Drawing, PHOTO, Photo, REFERENCE, STYLE_PEOPLE, Sitter, Staged, TARGETS, in_turn,
};
use super::lab::Lab;
use super::likeness::{cosine, intersection_over_union};
use super::options::EvalOptions;
use super::section::{Cell, Grid, Section, Shown, Table, Unit, number};
use super::statistics::{mean, share_of};
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
    Drawing { style: Some(style(i)), ..Drawing::trial(options, i).of(vec![Sitter::new(who(i), 1)]) }
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).map(|i| drawing(options, i)).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.trials;
    let levels = lab.levels_of(who(0)..who(n))?;
    let mut section = Section::new([
        "Cats, dogs, bears and rabbits with coats of their own, dressed as people. One photo conditions, the style image shows \
         another animal; similarity is on the judge's scale from photos of two animals (0) to two photos of one (1). It says \
         something only as far as the judge knows animals: the cosines of both ends are in the table, and it should have been \
         trained on animals (`train face --preset mini-eval --creatures`), as `scripts/creatures.sh` does. A photo in which the \
         model's detector finds no face has similarity 0.",
    ]);
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
    let drawn = share_of(cosines.iter().map(Option::is_some));
    let (similarity, margin) = (levels.relative(&cosines), levels.difference(&margins));
    let (found, nearest) = (mean(&found), share_of(nearest));
    section.figure("found", "faces that the model's detector finds in photos", found, Unit::Share);
    section.figure("similarity", "similarity from one photo", similarity, Unit::Plain);
    section.figure("nearest", "nearest of all animals is the photo's", nearest, Unit::Share);
    section.figure("margin", "margin to the style image's animal", margin, Unit::Plain);
    let everybody: Vec<usize> = (0..n).collect();
    let (same, other) = levels.means(&everybody);
    section.tables.push(Table {
        caption: format!(
            "{n} animals; the judge's cosine of two photos of one {}, of two {}",
            number(same, Unit::Plain),
            number(other, Unit::Plain)
        ),
        head: ["", "photos: face found", "pictures: face found", "similarity", "nearest", "margin"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![(
            "from a style image".to_owned(),
            vec![
                Cell::Estimate(found, Unit::Share),
                Cell::Estimate(drawn, Unit::Share),
                Cell::Estimate(similarity, Unit::Plain),
                Cell::Estimate(nearest, Unit::Share),
                Cell::Estimate(margin, Unit::Plain),
            ],
        )],
    });
    section.grids.push(Grid {
        caption: "Photo, style image, picture".to_owned(),
        head: ["photo", "style image", "picture"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                let photo = Some(Shown::Photo(Photo::new(who(i), REFERENCE)));
                vec![photo, Some(Shown::Staged(style(i))), Shown::drawing(drawing(options, i))]
            })
            .collect(),
    });
    Ok(section)
}
