//! Pictures without people: things stay things, and nobody appears in them.

use serde::Serialize;

use super::drawing::{Drawing, Staged, in_turn, style_words};
use super::judge::subject_words;
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, share_of};
use facestudio::error::Result;
use facestudio_synth::Subject;

/// Rows of the grid.
const SHOWN: usize = 8;

fn subject(i: usize) -> usize {
    i % Subject::ALL.len()
}

/// Styles shift with every round of things, so that each thing meets several.
fn style(i: usize) -> Staged {
    let style = in_turn(i + i / Subject::ALL.len());
    let subject = Some(Subject::ALL[subject(i)]);
    Staged { scene: 5000 + i as u64, shows: Vec::new(), style, yaw: None, subject }
}

fn with_image(options: &EvalOptions, i: usize) -> Drawing {
    Drawing { style: Some(style(i)), ..Drawing::trial(options, i).nobody() }
}

fn prompt(i: usize) -> String {
    format!("{} of {}", style_words(style(i).style), subject_words(Subject::ALL[subject(i)]))
}

fn with_text(options: &EvalOptions, i: usize) -> Drawing {
    Drawing::trial(options, i).nobody().by_prompt(prompt(i))
}

type Way = fn(&EvalOptions, usize) -> Drawing;
const WAYS: [(&str, Way); 2] = [("image", with_image), ("text", with_text)];

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| WAYS.map(|(_, way)| way(options, i))).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    probe_on_renders: Estimate,
    words_on_renders: Estimate,
    ways: Vec<OfWay>,
    pictures: Pictures,
}

/// Pictures of one way to ask.
#[derive(Serialize)]
struct OfWay {
    key: &'static str,
    no_face: Estimate,
    /// The right thing, by the probe.
    probe: Estimate,
    /// By the nearest words.
    words: Estimate,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.trials;
    let question = lab.subjects()?;
    let of_way = |(key, way): (&'static str, Way)| {
        let (mut without, mut probe, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n {
            let drawing = way(options, i);
            without.push(lab.faces(&drawing)?.is_empty());
            let answer = lab.clip_drawing(&drawing)?.map(|embedding| question.answer(&embedding));
            probe.push(answer.is_some_and(|answer| answer.probe == subject(i)));
            words.push(answer.is_some_and(|answer| answer.words == subject(i)));
        }
        let [no_face, probe, words] = [without, probe, words].map(share_of);
        Ok(OfWay { key, no_face, probe, words })
    };
    let row = |i: usize| {
        let drawn = WAYS.map(|(_, way)| Picture::drawing(way(options, i)));
        std::iter::once(Some(Picture::Staged(style(i)))).chain(drawn).collect()
    };
    Ok(Figures {
        n,
        probe_on_renders: question.probe_on_renders,
        words_on_renders: question.words_on_renders,
        ways: WAYS.into_iter().map(of_way).collect::<Result<_>>()?,
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
