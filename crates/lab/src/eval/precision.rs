//! What is lost by storing weights in fewer bits: the same pictures from another model folder.

use super::drawing::{Drawing, Photo, REFERENCE, Which};
use super::lab::Lab;
use super::options::EvalOptions;
use super::psnr::psnr;
use super::section::{Cell, Grid, Section, Shown, Table, Unit};
use super::statistics::{mean, median};
use super::table_1::with_image;
use facestudio::error::Result;

/// Rows of the grid.
const SHOWN: usize = 6;

fn against(options: &EvalOptions, i: usize) -> Drawing {
    Drawing { model: Which::Against, ..with_image(options, i) }
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| [with_image(options, i), against(options, i)]).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.trials;
    let levels = lab.levels(n)?;
    let mut section = Section::new([
        "The same requests to the model and to the one that it is compared with (usually the same weights in full \
         precision), from the same seeds. What is lost is the difference between the relative similarities of the two \
         pictures of each person, so that the people's own differences cancel. The pictures are compared pixel by pixel \
         as well (PSNR); pixels that differ need not be worse ones. Faces are found by the first model's detector in \
         both.",
    ]);
    let drawings = [with_image, against].map(|way| (0..n).map(|i| way(options, i)).collect::<Vec<Drawing>>());
    let cosines = [lab.likenesses(&drawings[0])?, lab.likenesses(&drawings[1])?];
    let (_, other) = levels.means(&(0..n).collect::<Vec<_>>());
    let value = |cosine: Option<f64>| cosine.unwrap_or(other);
    let lost: Vec<f64> = cosines[1].iter().zip(&cosines[0]).map(|(a, m)| value(*a) - value(*m)).collect();
    let mut difference = Vec::new();
    for (model, against) in drawings[0].iter().zip(&drawings[1]) {
        if let Some((model, against)) = lab.picture(model)?.zip(lab.picture(against)?) {
            let psnr = psnr(&model.image, &against.image, |_, _| true);
            difference.extend(Some(psnr).filter(|psnr| psnr.is_finite()));
        }
    }
    let lost = levels.difference(&lost);
    section.figure("lost", "relative similarity lost", lost, Unit::Plain);
    section.figure("psnr", "PSNR between the pictures", mean(&difference), Unit::Decibel);
    let mut rows = Vec::new();
    for (k, label) in ["the model", "the other model"].into_iter().enumerate() {
        let seconds = median(&lab.seconds(&drawings[k])?);
        let cells = vec![
            Cell::Estimate(levels.relative(&cosines[k]), Unit::Plain),
            Cell::Number(seconds, Unit::Seconds),
        ];
        rows.push((label.to_owned(), cells));
    }
    section.tables.push(Table {
        caption: format!("{n} pictures each"),
        head: ["", "relative similarity", "seconds"].map(str::to_owned).to_vec(),
        rows,
    });
    section.grids.push(Grid {
        caption: "The same request to both".to_owned(),
        head: ["photo", "style image", "the model", "the other"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                vec![
                    Some(Shown::Photo(Photo::new(i as u64, REFERENCE))),
                    with_image(options, i).style.map(Shown::Staged),
                    Shown::drawing(with_image(options, i)),
                    Shown::drawing(against(options, i)),
                ]
            })
            .collect(),
    });
    Ok(section)
}
