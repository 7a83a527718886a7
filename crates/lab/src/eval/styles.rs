//! Is the picture drawn in the style that was asked for, of the eight that the renderer knows?

use serde::Serialize;

use super::drawing::{Drawing, in_turn, style_words};
use super::lab::Lab;
use super::options::EvalOptions;
use super::statistics::{Estimate, share_of};
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

type Way = fn(&EvalOptions, usize) -> Drawing;

fn ways(options: &EvalOptions) -> Vec<(&'static str, Way)> {
    options.drawn([(false, ("image", with_image as Way)), (true, ("text", with_text))])
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    let ways = ways(options);
    (0..options.trials)
        .flat_map(|i| ways.iter().map(move |(_, way)| way(options, i)).collect::<Vec<_>>())
        .collect()
}

/// What is measured: how often the style is right.
#[derive(Serialize)]
pub struct Figures {
    probe_on_renders: Estimate,
    words_on_renders: Estimate,
    probe_on_decoded: Estimate,
    ways: Vec<OfWay>,
}

/// Of pictures of one way to ask.
#[derive(Serialize)]
struct OfWay {
    key: &'static str,
    probe: Estimate,
    words: Estimate,
    /// By the probe, for each style.
    by_style: Vec<(String, Estimate)>,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let question = lab.styles()?;
    let of_way = |(key, way): (&'static str, Way)| {
        let right = right(lab, &(0..options.trials).map(|i| way(options, i)).collect::<Vec<_>>())?;
        let [probe, words] = [0, 1].map(|k: usize| right.iter().map(|right| right[k]).collect::<Vec<_>>());
        let styles = by_style(&probe).into_iter().map(|(style, right)| (style, share_of(right)));
        Ok(OfWay { key, by_style: styles.collect(), probe: share_of(probe), words: share_of(words) })
    };
    Ok(Figures {
        probe_on_renders: question.probe_on_renders,
        words_on_renders: question.words_on_renders,
        probe_on_decoded: question.probe_on_decoded,
        ways: ways(options).into_iter().map(of_way).collect::<Result<_>>()?,
    })
}
