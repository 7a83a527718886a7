//! Does the face come from the photo and not from the style image? Both show people; only one of them conditions.

use serde::Serialize;

use super::drawing::{Drawing, TARGETS};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, share, share_of};
use super::table_1::{with_image, without_identity};
use facestudio::error::Result;

/// Rows of the grid.
const SHOWN: usize = 6;

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| [with_image(options, i), without_identity(options, i)]).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    margin: Estimate,
    /// The margin without an identity input.
    control: Estimate,
    /// Pictures closer to the photo's person than to the style image's.
    wins: Estimate,
    control_wins: Estimate,
    /// Pictures closer to the photo's person than to a third.
    closer: Estimate,
    /// Pictures nearest to the photo's person of all.
    nearest: Estimate,
    no_face: Estimate,
    /// The wins of each style.
    by_style: Vec<(String, Estimate)>,
    pictures: Pictures,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.trials;
    let levels = lab.levels(n)?;
    let (mut margins, mut wins) = ([Vec::new(), Vec::new()], [0, 0]);
    let (mut closer, mut nearest, mut missing) = (0, 0, 0);
    for i in 0..n {
        let pair = [with_image(options, i), without_identity(options, i)];
        for (k, drawing) in pair.iter().enumerate() {
            let stranger = drawing.style.as_ref().and_then(|style| style.shows.first().copied());
            let margin = match (lab.likeness(drawing, i as u64)?, stranger) {
                (Some(own), Some(stranger)) => own - lab.likeness(drawing, stranger)?.unwrap_or(own),
                _ => 0.0,
            };
            margins[k].push(margin);
            wins[k] += usize::from(margin > 0.0);
        }
        let Some(face) = lab.faces(&pair[0])?.first().cloned() else {
            missing += 1;
            continue;
        };
        let to: Vec<f64> = (0..n as u64)
            .map(|who| Ok(cosine(&face.embedding, &lab.photo(who, TARGETS[0])?)))
            .collect::<Result<_>>()?;
        closer += usize::from(to[i] > to[(i + 1) % n]);
        nearest += usize::from((0..n).all(|j| j == i || to[j] < to[i]));
    }
    let positive = |margins: &[f64]| share_of(margins.iter().map(|margin| *margin > 0.0));
    let by_style = super::styles::by_style(&margins[0]).into_iter();
    let row = |i: usize| {
        let drawing = with_image(options, i);
        vec![
            Picture::reference(i as u64),
            drawing.style.clone().map(Picture::Staged),
            Picture::drawing(drawing),
            Picture::drawing(without_identity(options, i)),
        ]
    };
    Ok(Figures {
        n,
        margin: levels.difference(&margins[0]),
        control: levels.difference(&margins[1]),
        wins: share(wins[0], n),
        control_wins: share(wins[1], n),
        closer: share(closer, n),
        nearest: share(nearest, n),
        no_face: share(missing, n),
        by_style: by_style.map(|(style, margins)| (style, positive(&margins))).collect(),
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
