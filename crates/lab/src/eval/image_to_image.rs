//! Image-to-image: is the layout of the picture that one starts from kept while its person becomes another? (Paper, its
//! figure of image-to-image.)

use serde::Serialize;

use super::drawing::{Drawing, Staged, in_turn};
use super::lab::Lab;
use super::likeness::intersection_over_union;
use super::options::EvalOptions;
use super::psnr::psnr;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, share_of};
use facestudio::error::Result;

/// The last starts from noise: the style image alone says where things are.
const STRENGTHS: [f32; 4] = [0.4, 0.6, 0.8, 1.0];
/// Coverage from which a pixel is the person's.
const COVERED: u8 = 16;
/// Rows of the grid.
const SHOWN: usize = 6;

fn init(i: usize) -> Staged {
    Staged::one(2000 + i as u64, in_turn(i))
}

fn drawing(options: &EvalOptions, i: usize, strength: f32) -> Drawing {
    let init_image = (strength < 1.0).then(|| (init(i), strength));
    Drawing { style: Some(init(i)), init: init_image, ..Drawing::trial(options, i) }
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.half()).flat_map(|i| STRENGTHS.map(|strength| drawing(options, i, strength))).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    strengths: Vec<OfStrength>,
    pictures: Pictures,
}

/// At one strength.
#[derive(Serialize)]
struct OfStrength {
    strength: f32,
    name: String,
    /// Pictures whose face overlaps the start's by half or more.
    kept: Estimate,
    /// Intersection over union of the faces.
    overlap: Estimate,
    /// PSNR behind the person.
    background: Estimate,
    /// Pictures nearer to the photo's person than to the start's.
    changed: Estimate,
    /// To the photo's person.
    similarity: Estimate,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let of_strength = |strength: f32| {
        let (mut overlaps, mut behind, mut changed, mut likenesses) = (vec![], vec![], vec![], vec![]);
        for i in 0..n {
            let start = init(i).render(lab.size);
            let drawing = drawing(options, i, strength);
            let faces = lab.faces(&drawing)?;
            let before = lab.faces_in(&start.image)?;
            let overlap = before.first().zip(faces.first());
            let overlap = overlap.map(|(a, b)| intersection_over_union(a.face_box, b.face_box));
            overlaps.push(overlap.unwrap_or(0.0));
            if let (Some(made), Some(person)) = (lab.picture(&drawing)?, start.people.first()) {
                let outside = |x: u32, y: u32| person.mask.get_pixel(x, y).0[0] < COVERED;
                behind.extend(Some(psnr(&start.image, &made.image, outside)).filter(|psnr| psnr.is_finite()));
            }
            let own = lab.likeness(&drawing, i as u64)?;
            let stranger = lab.likeness(&drawing, init(i).shows[0])?;
            changed.push(own.zip(stranger).is_some_and(|(own, stranger)| own > stranger));
            likenesses.push(own);
        }
        Ok(OfStrength {
            strength,
            name: strength.to_string(),
            kept: share_of(overlaps.iter().map(|overlap| *overlap >= 0.5)),
            overlap: mean(&overlaps),
            background: mean(&behind),
            changed: share_of(changed),
            similarity: levels.relative(&likenesses),
        })
    };
    let row = |i: usize| {
        let mut row = vec![Picture::reference(i as u64), Some(Picture::Staged(init(i)))];
        row.extend(STRENGTHS.map(|strength| Picture::drawing(drawing(options, i, strength))));
        row
    };
    Ok(Figures {
        n,
        strengths: STRENGTHS.into_iter().map(of_strength).collect::<Result<_>>()?,
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
