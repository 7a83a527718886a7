//! Image-to-image: is the layout of the picture that one starts from kept while its person becomes another? (Paper, its
//! figure of image-to-image.)

use super::drawing::{Drawing, Photo, REFERENCE, Staged, in_turn};
use super::lab::Lab;
use super::likeness::intersection_over_union;
use super::options::EvalOptions;
use super::psnr::psnr;
use super::section::{Cell, Grid, Plot, PlotKind, Section, Shown, Table, Unit};
use super::statistics::{mean, share_of};
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

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let mut section = Section::new([
        "A picture of a stranger is noised to a strength and drawn on from there as the photo's person; it is also the \
         style image. Strength 1 is the same from pure noise: what is kept there, the style image alone has kept. The \
         layout is kept if the largest face of picture and start overlap by at least half (intersection over union, \
         both found by the model's detector); behind the person the picture is compared with the start pixel by pixel \
         (PSNR). The identity is changed if the picture is more similar to the photo's person than to the start's.",
    ]);
    let mut table = Table {
        caption: format!("{n} pictures a strength"),
        head: [
            "strength",
            "face kept in place",
            "overlap of faces",
            "background",
            "identity changed",
            "similarity to the photo's person",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: Vec::new(),
    };
    let (mut kept_line, mut changed_line) = (Vec::new(), Vec::new());
    for strength in STRENGTHS {
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
        let kept = share_of(overlaps.iter().map(|overlap| *overlap >= 0.5));
        let changed = share_of(changed);
        table.rows.push((
            format!("{strength}"),
            vec![
                Cell::Estimate(kept, Unit::Share),
                Cell::Estimate(mean(&overlaps), Unit::Plain),
                Cell::Estimate(mean(&behind), Unit::Decibel),
                Cell::Estimate(changed, Unit::Share),
                Cell::Estimate(levels.relative(&likenesses), Unit::Plain),
            ],
        ));
        if strength == 0.6 {
            section.figure("kept", "face kept in place at strength 0.6", kept, Unit::Share);
            section.figure("background", "background at strength 0.6", mean(&behind), Unit::Decibel);
        }
        kept_line.push(kept);
        changed_line.push(changed);
    }
    for (strength, changed) in STRENGTHS.iter().zip(&changed_line).filter(|(strength, _)| **strength < 1.0) {
        let (key, label) =
            (format!("changed-{strength}"), format!("identity changed at strength {strength}"));
        section.figure(&key, &label, *changed, Unit::Share);
    }
    section.tables.push(table);
    section.plots.push(Plot {
        caption: "Kept and changed".to_owned(),
        unit: Unit::Share,
        kind: PlotKind::Lines {
            axis: "strength".to_owned(),
            places: STRENGTHS.iter().map(|strength| f64::from(*strength)).collect(),
            lines: vec![
                ("face kept in place".to_owned(), kept_line),
                ("identity changed".to_owned(), changed_line),
            ],
        },
        marks: Vec::new(),
    });
    section.grids.push(Grid {
        caption: "The start, drawn on as the photo's person".to_owned(),
        head: ["photo", "start", "0.4", "0.6", "0.8", "1"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                let photo = Some(Shown::Photo(Photo::new(i as u64, REFERENCE)));
                let mut row = vec![photo, Some(Shown::Staged(init(i)))];
                row.extend(STRENGTHS.iter().map(|strength| Shown::drawing(drawing(options, i, *strength))));
                row
            })
            .collect(),
    });
    Ok(section)
}
