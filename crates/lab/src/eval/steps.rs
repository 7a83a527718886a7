//! Quality against the number of denoising steps.

use super::drawing::{Drawing, Photo, REFERENCE};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Cell, Grid, Plot, PlotKind, Section, Shown, Table, Unit};
use super::statistics::{mean, median, share_of};
use super::styles;
use super::table_1::with_image;
use facestudio::error::Result;

const STEPS: [usize; 4] = [5, 10, 25, 50];
/// Rows of the grid.
const SHOWN: usize = 6;

fn drawing(options: &EvalOptions, i: usize, steps: usize) -> Drawing {
    Drawing { steps, ..with_image(options, i) }
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.half()).flat_map(|i| STEPS.map(|steps| drawing(options, i, steps))).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let text = format!(
        "The same people, style images and seeds with 5 to 50 steps of {} (the paper's: EulerAncestralDiscreteScheduler): \
         relative similarity to the person, style found by the linear probe, cosine of CLIP's embeddings of picture and \
         style image, and seconds a picture.",
        options.sampler.scheduler_class()
    );
    let mut section = Section::new([text.as_str()]);
    let mut rows = Vec::new();
    let (mut likeness_line, mut clip_line) = (Vec::new(), Vec::new());
    for steps in STEPS {
        let drawings: Vec<Drawing> = (0..n).map(|i| drawing(options, i, steps)).collect();
        let relative = levels.relative(&lab.likenesses(&drawings)?);
        let styles = share_of(styles::found(lab, &drawings)?);
        let mut agreement = Vec::new();
        for drawing in &drawings {
            let style =
                drawing.style.as_ref().map(|style| lab.clip_picture(&lab.render(style))).transpose()?;
            if let Some((picture, style)) = lab.clip_drawing(drawing)?.zip(style) {
                agreement.push(cosine(&picture, &style));
            }
        }
        let agreement = mean(&agreement);
        rows.push((
            steps.to_string(),
            vec![
                Cell::Estimate(relative, Unit::Plain),
                Cell::Estimate(styles, Unit::Share),
                Cell::Estimate(agreement, Unit::Plain),
                Cell::Number(median(&lab.seconds(&drawings)?), Unit::Seconds),
            ],
        ));
        let label = format!("relative similarity, {steps} steps");
        section.figure(&format!("similarity-{steps}"), &label, relative, Unit::Plain);
        likeness_line.push(relative);
        clip_line.push(agreement);
    }
    section.tables.push(Table {
        caption: format!("{n} pictures each"),
        head: ["steps", "relative similarity", "right style", "CLIP, style image", "seconds"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    });
    section.plots.push(Plot {
        caption: "Quality by steps".to_owned(),
        unit: Unit::Plain,
        kind: PlotKind::Lines {
            axis: "steps".to_owned(),
            places: STEPS.iter().map(|steps| *steps as f64).collect(),
            lines: vec![
                ("similarity to the person".to_owned(), likeness_line),
                ("CLIP, style image".to_owned(), clip_line),
            ],
        },
        marks: Vec::new(),
    });
    section.grids.push(Grid {
        caption: "By number of steps".to_owned(),
        head: ["photo", "style image", "5", "10", "25", "50"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                let mut row = vec![
                    Some(Shown::Photo(Photo::new(i as u64, REFERENCE))),
                    with_image(options, i).style.map(Shown::Staged),
                ];
                row.extend(STEPS.map(|steps| Shown::drawing(drawing(options, i, steps))));
                row
            })
            .collect(),
    });
    Ok(section)
}
