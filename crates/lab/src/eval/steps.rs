//! Quality against the number of denoising steps.

use serde::Serialize;

use super::drawing::Drawing;
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, median, share_of};
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

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    /// The sampler's class.
    sampler: &'static str,
    counts: Vec<OfCount>,
    pictures: Pictures,
}

/// Pictures of so many steps.
#[derive(Serialize)]
struct OfCount {
    steps: usize,
    similarity: Estimate,
    /// Right styles, by the probe.
    style: Estimate,
    /// CLIP's cosine with the style image.
    clip: Estimate,
    seconds: f64,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let of_count = |steps: usize| {
        let drawings: Vec<Drawing> = (0..n).map(|i| drawing(options, i, steps)).collect();
        let mut agreement = Vec::new();
        for drawing in &drawings {
            let style =
                drawing.style.as_ref().map(|style| lab.clip_picture(&lab.render(style))).transpose()?;
            if let Some((picture, style)) = lab.clip_drawing(drawing)?.zip(style) {
                agreement.push(cosine(&picture, &style));
            }
        }
        Ok(OfCount {
            steps,
            similarity: levels.relative(&lab.likenesses(&drawings)?),
            style: share_of(styles::found(lab, &drawings)?),
            clip: mean(&agreement),
            seconds: median(&lab.seconds(&drawings)?),
        })
    };
    let row = |i: usize| {
        let mut row = vec![Picture::reference(i as u64), with_image(options, i).style.map(Picture::Staged)];
        row.extend(STEPS.map(|steps| Picture::drawing(drawing(options, i, steps))));
        row
    };
    Ok(Figures {
        n,
        sampler: options.sampler.scheduler_class(),
        counts: STEPS.into_iter().map(of_count).collect::<Result<_>>()?,
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
