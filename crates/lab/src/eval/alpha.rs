//! Hybrid guidance, `e_g = α e_i + (1 − α) e_p`: does a picture go from its prompt to its style image as α grows? (Paper,
//! section 3.3 and its figure of text and style hybrids.)

use serde::Serialize;

use super::drawing::{Drawing, in_turn, noun, style_words};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, share_of};
use facestudio::error::Result;
use facestudio_synth::Style;

const ALPHAS: [f32; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// The prompt's style lies so many places after the style image's.
const APART: usize = 3;
/// Rows of the grid.
const SHOWN: usize = 6;

fn prompt(i: usize) -> String {
    format!("{} of {}", style_words(in_turn(i + APART)), noun(i as u64))
}

fn drawing(options: &EvalOptions, i: usize, alpha: f32) -> Drawing {
    Drawing::trial(options, i).between(&prompt(i), alpha)
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.half()).flat_map(|i| ALPHAS.map(|alpha| drawing(options, i, alpha))).collect()
}

/// What is measured; one value an α, unless it says otherwise.
#[derive(Serialize)]
pub struct Figures {
    alphas: [f32; ALPHAS.len()],
    /// Trials closer to the style image at the last α than at the first.
    style_rises: Estimate,
    /// Trials closer to the prompt at the first α than at the last.
    prompt_falls: Estimate,
    /// Pictures that the probe finds in the style image's style.
    as_style: Vec<Estimate>,
    /// Pictures that it finds in the prompt's.
    as_prompt: Vec<Estimate>,
    /// CLIP's cosine with the style image.
    with_style: Vec<Estimate>,
    /// CLIP's cosine with the prompt.
    with_prompt: Vec<Estimate>,
    similarity: Vec<Estimate>,
    pictures: Pictures,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let question = lab.styles()?;
    let mut with_style = vec![Vec::new(); ALPHAS.len()];
    let mut with_prompt = with_style.clone();
    let (mut as_style, mut as_prompt) = (vec![Vec::new(); ALPHAS.len()], vec![Vec::new(); ALPHAS.len()]);
    let mut likenesses = vec![Vec::new(); ALPHAS.len()];
    for i in 0..n {
        let text = lab.clip_text(&prompt(i))?;
        let style = drawing(options, i, 1.0).style.map(|style| lab.render(&style));
        let style = style.map(|style| lab.clip_picture(&style)).transpose()?.unwrap_or_default();
        for (k, alpha) in ALPHAS.iter().enumerate() {
            let drawing = drawing(options, i, *alpha);
            likenesses[k].push(lab.likeness(&drawing, i as u64)?);
            let Some(embedding) = lab.clip_drawing(&drawing)? else { continue };
            with_style[k].push(cosine(&embedding, &style));
            with_prompt[k].push(cosine(&embedding, &text));
            let answer = Style::ALL[question.answer(&embedding).probe];
            as_style[k].push(answer == in_turn(i));
            as_prompt[k].push(answer == in_turn(i + APART));
        }
    }
    let last = ALPHAS.len() - 1;
    let ends = |values: &[Vec<f64>]| -> Vec<(f64, f64)> {
        values[0].iter().copied().zip(values[last].iter().copied()).collect()
    };
    let means = |values: &[Vec<f64>]| -> Vec<Estimate> { values.iter().map(|v| mean(v)).collect() };
    let shares = |values: &[Vec<bool>]| -> Vec<Estimate> {
        values.iter().map(|values| share_of(values.iter().copied())).collect()
    };
    let row = |i: usize| {
        let pictures = ALPHAS.map(|alpha| Picture::drawing(drawing(options, i, alpha))).into_iter();
        pictures.chain([drawing(options, i, 1.0).style.map(Picture::Staged)]).collect()
    };
    Ok(Figures {
        alphas: ALPHAS,
        style_rises: share_of(ends(&with_style).into_iter().map(|(from, to)| to > from)),
        prompt_falls: share_of(ends(&with_prompt).into_iter().map(|(from, to)| to < from)),
        as_style: shares(&as_style),
        as_prompt: shares(&as_prompt),
        with_style: means(&with_style),
        with_prompt: means(&with_prompt),
        similarity: likenesses.iter().map(|cosines| levels.relative(cosines)).collect(),
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
