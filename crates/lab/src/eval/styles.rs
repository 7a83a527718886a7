//! Is the picture drawn in the style that was asked for, of the eight that the renderer knows?

use super::drawing::{Drawing, in_turn, style_words};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Cell, Plot, PlotKind, Section, Table, Target, Unit};
use super::statistics::share_of;
use super::table_1::{with_image, with_text};
use facestudio::error::Result;
use facestudio_synth::Style;

/// Trials of each style, styles in turn, under the styles' names.
pub fn by_style<T: Copy>(trials: &[T]) -> Vec<(String, Vec<T>)> {
    Style::ALL
        .iter()
        .enumerate()
        .map(|(k, style)| {
            let own = trials.iter().skip(k).step_by(Style::ALL.len()).copied().collect();
            (style_words(*style).to_owned(), own)
        })
        .filter(|(_, trials): &(_, Vec<T>)| !trials.is_empty())
        .collect()
}

/// Whether each picture's style is that of its trial, as the probe sees it and as the words do; a picture that there is not
/// is wrong.
fn right(lab: &Lab, drawings: &[Drawing]) -> Result<Vec<[bool; 2]>> {
    let question = lab.styles()?;
    let truth = |i: usize| Style::ALL.iter().position(|style| *style == in_turn(i));
    let answer = |(i, drawing): (usize, &Drawing)| {
        let answer = lab.clip_drawing(drawing)?.map(|embedding| question.answer(&embedding));
        Ok(answer.map_or([false; 2], |a| [truth(i) == Some(a.probe), truth(i) == Some(a.words)]))
    };
    drawings.iter().enumerate().map(answer).collect()
}

/// Whether the probe finds each trial's style in its picture.
pub fn found(lab: &Lab, drawings: &[Drawing]) -> Result<Vec<bool>> {
    Ok(right(lab, drawings)?.into_iter().map(|[probe, _]| probe).collect())
}

type Case = (&'static str, &'static str, fn(&EvalOptions, usize) -> Drawing);

fn cases(options: &EvalOptions) -> Vec<Case> {
    options.drawn([
        (false, ("image", "from a style image", with_image as fn(&EvalOptions, usize) -> Drawing)),
        (true, ("text", "from words", with_text)),
    ])
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    let cases = cases(options);
    (0..options.trials)
        .flat_map(|i| cases.iter().map(move |(_, _, way)| way(options, i)).collect::<Vec<_>>())
        .collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let question = lab.styles()?;
    let mut section = Section::new([
        "Style images and prompts take the renderer's eight styles in turn. CLIP says which of them each picture is drawn \
         in, in two ways: by a linear probe that was fitted to renders of other people, and by the nearest of eight \
         prompts (zero-shot). How often each is right on renders of held-out people is its ceiling; after the model's \
         autoencoder they are what a perfect denoiser would draw. Chance is one in eight.",
        "Where it is the model's own CLIP, it turns style images into guidance as well, and may overlook what it never \
         learnt to see. Intervals are Wilson's (95 %).",
    ]);
    let mut rows = vec![
        (
            "renders (ceiling)".to_owned(),
            vec![
                Cell::Estimate(question.probe_on_renders, Unit::Share),
                Cell::Estimate(question.words_on_renders, Unit::Share),
            ],
        ),
        (
            "renders, after the autoencoder".to_owned(),
            vec![Cell::Estimate(question.probe_on_decoded, Unit::Share), Cell::Text("–".to_owned())],
        ),
    ];
    let mut styles = Vec::new();
    for (key, label, drawing) in cases(options) {
        let drawings: Vec<Drawing> = (0..options.trials).map(|i| drawing(options, i)).collect();
        let right = right(lab, &drawings)?;
        let [probe, words] = [0, 1].map(|k: usize| share_of(right.iter().map(|right| right[k])));
        let cells = vec![Cell::Estimate(probe, Unit::Share), Cell::Estimate(words, Unit::Share)];
        rows.push((format!("pictures {label}"), cells));
        section.aimed(key, &format!("right style, {label}"), probe, Unit::Share, Target::AtLeast(0.9));
        section.of_renders(question.probe_on_renders);
        let probe: Vec<bool> = right.iter().map(|right| right[0]).collect();
        styles.push((label, by_style(&probe)));
    }
    section.figure("ceiling", "right style, renders", question.probe_on_renders, Unit::Share);
    let label = "right style, renders after the autoencoder";
    section.figure("autoencoder", label, question.probe_on_decoded, Unit::Share);
    section.tables.push(Table {
        caption: "Right style of eight".to_owned(),
        head: ["", "linear probe", "zero-shot"].map(str::to_owned).to_vec(),
        rows,
    });
    for (label, by_style) in styles {
        let rows = by_style.into_iter().map(|(style, right)| (style, share_of(right))).collect();
        section.plots.push(Plot {
            caption: format!("Right style {label}, by style (linear probe)"),
            unit: Unit::Share,
            kind: PlotKind::Rows(rows),
            marks: vec![("chance".to_owned(), 1.0 / Style::ALL.len() as f64)],
        });
    }
    Ok(section)
}
