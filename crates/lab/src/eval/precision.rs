//! What is lost by storing weights in fewer bits: the same pictures from another model folder.

use serde::Serialize;

use super::drawing::{Drawing, ModelRole};
use super::lab::Lab;
use super::options::EvalOptions;
use super::psnr::psnr;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, median};
use super::table_1::with_image;
use facestudio::error::Result;

/// Rows of the grid.
const SHOWN: usize = 6;

fn against(options: &EvalOptions, i: usize) -> Drawing {
    Drawing { model: ModelRole::Against, ..with_image(options, i) }
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| [with_image(options, i), against(options, i)]).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    /// Similarity that the model has less than the other.
    lost: Estimate,
    psnr: Estimate,
    model: OfModel,
    against: OfModel,
    pictures: Pictures,
}

/// Pictures of one model.
#[derive(Serialize)]
struct OfModel {
    similarity: Estimate,
    seconds: f64,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.trials;
    let levels = lab.levels(n)?;
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
    let of_model = |k: usize| -> Result<OfModel> {
        let seconds = median(&lab.seconds(&drawings[k])?);
        Ok(OfModel { similarity: levels.relative(&cosines[k]), seconds })
    };
    let row = |i: usize| {
        vec![
            Picture::reference(i as u64),
            with_image(options, i).style.map(Picture::Staged),
            Picture::drawing(with_image(options, i)),
            Picture::drawing(against(options, i)),
        ]
    };
    Ok(Figures {
        n,
        lost: levels.difference(&lost),
        psnr: mean(&difference),
        model: of_model(0)?,
        against: of_model(1)?,
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
