//! Hybrid guidance, `e_g = α e_i + (1 − α) e_p`: does a picture go from its prompt to its style image as α grows? (Paper,
//! section 3.3 and its figure of text and style hybrids.)

use super::drawing::{Drawing, in_turn, noun, style_words};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Grid, Plot, PlotKind, Section, Shown, Unit};
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

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let question = lab.styles()?;
    let mut section = Section::new([
        "Style image and prompt ask for two different styles of the same person; α says how much the style image counts. \
         Agreement with each is measured twice: by the cosine of CLIP's embeddings (picture and style image, picture and \
         prompt), and by the share of pictures that the linear probe finds in the one style or the other. Seed and \
         person stay the same along α, so that rising and falling can be counted trial by trial.",
        "Cosines with pictures and with texts are not on one scale: only their course along α means something.",
    ]);
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
    let rises = share_of(ends(&with_style).into_iter().map(|(from, to)| to > from));
    let falls = share_of(ends(&with_prompt).into_iter().map(|(from, to)| to < from));
    section.figure("style-rises", "closer to the style image at α = 1 than at 0", rises, Unit::Share);
    section.figure("prompt-falls", "closer to the prompt at α = 0 than at 1", falls, Unit::Share);
    let means = |values: &[Vec<f64>]| -> Vec<Estimate> { values.iter().map(|v| mean(v)).collect() };
    let shares = |values: &[Vec<bool>]| -> Vec<Estimate> {
        values.iter().map(|values| share_of(values.iter().copied())).collect()
    };
    let alphas: Vec<f64> = ALPHAS.iter().map(|alpha| f64::from(*alpha)).collect();
    let plot = |caption: &str, unit: Unit, lines: Vec<(&str, Vec<Estimate>)>| Plot {
        caption: caption.to_owned(),
        unit,
        kind: PlotKind::Lines {
            axis: "α".to_owned(),
            places: alphas.clone(),
            lines: lines.into_iter().map(|(name, values)| (name.to_owned(), values)).collect(),
        },
        marks: Vec::new(),
    };
    section.plots = vec![
        plot(
            "Share of pictures in the style of …",
            Unit::Share,
            vec![("the style image", shares(&as_style)), ("the prompt", shares(&as_prompt))],
        ),
        plot(
            "CLIP's cosine of the picture with …",
            Unit::Plain,
            vec![("the style image", means(&with_style)), ("the prompt", means(&with_prompt))],
        ),
        plot(
            "Relative similarity to the photo's person",
            Unit::Plain,
            vec![("the person", likenesses.iter().map(|cosines| levels.relative(cosines)).collect())],
        ),
    ];
    section.grids.push(Grid {
        caption: "From the prompt (left) to the style image (right)".to_owned(),
        head: ["α = 0", "0.25", "0.5", "0.75", "1", "style image"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                let mut row: Vec<_> =
                    ALPHAS.iter().map(|alpha| Shown::drawing(drawing(options, i, *alpha))).collect();
                row.push(drawing(options, i, 1.0).style.map(Shown::Staged));
                row
            })
            .collect(),
    });
    Ok(section)
}
