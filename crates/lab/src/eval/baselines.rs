//! The paper's baselines beside ours, on one base: Textual Inversion and DreamBooth, tuned for each person, against one photo and
//! no tuning (paper, table 1 and figure 3).

use std::collections::BTreeSet;

use serde::Serialize;

use super::attributes;
use super::drawing::{Drawing, Method, REFERENCES, Sitter, Tuned, class, noun};
use super::judge::Attribute;
use super::lab::Lab;
use super::likeness::{Levels, cosine};
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, median};
use super::table_1;
use crate::train::{dreambooth, textual_inversion};
use facestudio::error::Result;
use facestudio_synth::Style;

/// What is told of the person.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Photos, at the time of drawing.
    Ours,
    /// Photos, by tuning a copy of the model.
    Tuned(Method),
    /// Nothing.
    Nobody,
}

/// A row of the table.
struct Row {
    key: &'static str,
    way: Way,
    photos: usize,
}

const fn row(key: &'static str, way: Way, photos: usize) -> Row {
    Row { key, way, photos }
}

const INVERSION: Way = Way::Tuned(Method::TextualInversion);
const BOOTH: Way = Way::Tuned(Method::DreamBooth);

/// Ours come first: others are compared with the one of as many photos.
const ROWS: [Row; 7] = [
    row("ours-1", Way::Ours, 1),
    row("ours-11", Way::Ours, REFERENCES),
    row("textual-inversion-1", INVERSION, 1),
    row("textual-inversion-11", INVERSION, REFERENCES),
    row("dreambooth-1", BOOTH, 1),
    row("dreambooth-11", BOOTH, REFERENCES),
    row("nobody", Way::Nobody, 0),
];

/// Prompts of a person: table 1's, whose style is judged, and one that dresses the person and says where.
const PROMPTS: usize = 2;
/// Attributes of the second prompt. What the photo shows of the person, hair and glasses, is not asked for.
const ASKED: [Attribute; 2] = [Attribute::Clothing, Attribute::Background];
/// Rows of the grids.
const SHOWN: usize = 8;

/// The prompts of trial `i` for a person whom they call `noun`.
fn prompts(i: usize, noun: &str) -> [String; PROMPTS] {
    let [clothing, background] = ASKED.map(|attribute| attribute.values()[value(i, attribute)]);
    [table_1::prompt_of(i, noun), format!("a photo of {noun} in a {clothing} t-shirt, {background}")]
}

/// What the second prompt of trial `i` asks for.
fn value(i: usize, attribute: Attribute) -> usize {
    attributes::values(i)[attribute as usize]
}

/// The pictures of trial `i`, one a prompt.
fn drawings(options: &EvalOptions, row: &Row, i: usize) -> [Drawing; PROMPTS] {
    let (who, trial) = (i as u64, Drawing::trial(options, i));
    let (drawing, noun) = match row.way {
        Way::Ours => (trial.with_person(vec![Sitter::new(who, row.photos)]), noun(who).to_owned()),
        Way::Nobody => (trial.nobody(), noun(who).to_owned()),
        Way::Tuned(method) => {
            let (steps, noun) = match method {
                Method::TextualInversion => (textual_inversion::STEPS, textual_inversion::WORD.to_owned()),
                Method::DreamBooth => (dreambooth::STEPS, format!("a {} {}", dreambooth::WORD, class(who))),
            };
            let tuned = Tuned {
                method,
                photos: Sitter::new(who, row.photos).photos,
                class: class(who).to_owned(),
                steps: options.tuning_steps.unwrap_or(steps),
            };
            (Drawing { tuned: Some(tuned), ..trial.nobody() }, noun)
        }
    };
    prompts(i, &noun).map(|prompt| drawing.clone().by_prompt(prompt))
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    class_pictures(options).into_iter().chain(all(options)).collect()
}

fn all(options: &EvalOptions) -> impl Iterator<Item = Drawing> {
    ROWS.iter().flat_map(|row| (0..options.half()).flat_map(|i| drawings(options, row, i)))
}

/// The pictures of every class that has to be drawn first.
fn class_pictures(options: &EvalOptions) -> Vec<Drawing> {
    let mut classes: Vec<Vec<Drawing>> = Vec::new();
    for class in all(options).map(|drawing| drawing.class_pictures()) {
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    classes.concat()
}

/// One way's measures, one value a person.
struct Measured {
    /// Cosine of each picture, where a face was found.
    cosines: Vec<[Option<f64>; PROMPTS]>,
    /// Share of what was asked for that is there.
    agreement: Vec<f64>,
    /// CLIP's cosine of picture and prompt.
    clip: Vec<f64>,
    /// Seconds of tuning.
    tuning: Vec<f64>,
    /// Seconds of each picture.
    seconds: Vec<f64>,
    /// Of the first steps and of the last.
    losses: Vec<[f64; 2]>,
}

impl Measured {
    fn new(lab: &Lab, row: &Row) -> Result<Self> {
        let (styles, attributes) = (lab.styles()?, lab.attributes()?);
        let mut out = Self {
            cosines: Vec::new(),
            agreement: Vec::new(),
            clip: Vec::new(),
            tuning: Vec::new(),
            seconds: Vec::new(),
            losses: Vec::new(),
        };
        for i in 0..lab.options.half() {
            let drawings = drawings(&lab.options, row, i);
            let [first, second] = &drawings;
            let likeness = |drawing| lab.likeness(drawing, i as u64);
            out.cosines.push([likeness(first)?, likeness(second)?]);
            let style = lab.clip_drawing(first)?.map(|picture| styles.answer(&picture).probe);
            let mut right = vec![style == Some(i % Style::ALL.len())];
            let described = lab.describe_drawing(second)?;
            right.extend(ASKED.map(|attribute| {
                let answer = |picture: &Vec<f32>| attributes[attribute as usize].answer(picture).probe;
                described.as_ref().map(answer) == Some(value(i, attribute))
            }));
            out.agreement.push(right.iter().filter(|right| **right).count() as f64 / right.len() as f64);
            // In words that every way's prompt stands for.
            let mut clip = 0.0;
            for (drawing, prompt) in drawings.iter().zip(prompts(i, noun(i as u64))) {
                let text = lab.clip_text(&prompt)?;
                clip += lab.clip_drawing(drawing)?.map_or(0.0, |picture| cosine(&text, &picture));
            }
            out.clip.push(clip / PROMPTS as f64);
            out.seconds.extend(lab.seconds(&drawings)?);
            if let Some(tuning) = lab.picture(first)?.and_then(|made| made.tuning) {
                out.tuning.push(tuning.seconds);
                out.losses.push(tuning.losses);
            }
        }
        Ok(out)
    }

    /// Mean cosine of each person's pictures; one without a face counts as another person's, `other`.
    fn likeness(&self, other: f64) -> Vec<f64> {
        let mean = |cosines: &[Option<f64>; PROMPTS]| {
            cosines.iter().map(|cosine| cosine.unwrap_or(other)).sum::<f64>() / PROMPTS as f64
        };
        self.cosines.iter().map(mean).collect()
    }

    fn faceless(&self) -> usize {
        self.cosines.iter().flatten().filter(|cosine| cosine.is_none()).count()
    }
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    prompts: usize,
    /// The judge's cosine of two photos of one person.
    same: f64,
    /// Of two people.
    other: f64,
    ways: Vec<OfWay>,
    leads: Vec<Lead>,
    /// How often the judge of prompts is right on renders.
    ceiling: Estimate,
    /// Where copies were tuned.
    backends: Vec<String>,
    /// Steps of every copy, where they are not the recipes' own.
    tuning_steps: Option<usize>,
    /// Pictures of the classes.
    class_pictures: usize,
    /// What they took to draw.
    class_seconds: f64,
    drawn: Vec<OfPrompt>,
}

/// Pictures of one way.
#[derive(Serialize)]
struct OfWay {
    key: &'static str,
    similarity: Estimate,
    cosine: Estimate,
    faceless: usize,
    agreement: Estimate,
    /// CLIP's cosine of picture and prompt.
    clip: Estimate,
    seconds: f64,
    tuning: Option<TuningOfWay>,
}

/// How copies were tuned.
#[derive(Serialize)]
struct TuningOfWay {
    seconds: Estimate,
    median: f64,
    /// Of the first tenth of the steps and of the last.
    losses: [f64; 2],
}

/// Pictures of one of the two prompts.
#[derive(Serialize)]
struct OfPrompt {
    prompts: Vec<String>,
    pictures: Pictures,
}

/// Ours less theirs.
#[derive(Serialize)]
struct Lead {
    key: &'static str,
    similarity: Estimate,
    agreement: Estimate,
    verdict: Verdict,
}

/// What can be said of likeness, and of prompts where ours is more like the person, as far as the intervals say.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Theirs is more like the person.
    Theirs,
    /// Neither is.
    Neither,
    /// Ours is, and theirs follows the prompt better.
    OursTheirPrompt,
    /// Ours is, and follows it better.
    OursOurPrompt,
    /// Ours is, and neither follows it better.
    Ours,
}

impl Lead {
    fn new(key: &'static str, ours: &Measured, theirs: &Measured, levels: &Levels, other: f64) -> Self {
        let less = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let similarity = levels.difference(&less(&ours.likeness(other), &theirs.likeness(other)));
        let agreement = mean(&less(&ours.agreement, &theirs.agreement));
        let verdict = if similarity.high < 0.0 {
            Verdict::Theirs
        } else if similarity.low <= 0.0 {
            Verdict::Neither
        } else if agreement.high < 0.0 {
            Verdict::OursTheirPrompt
        } else if agreement.low > 0.0 {
            Verdict::OursOurPrompt
        } else {
            Verdict::Ours
        };
        Self { key, similarity, agreement, verdict }
    }
}

impl OfWay {
    fn new(key: &'static str, measured: &Measured, levels: &Levels, other: f64) -> Self {
        let likeness = measured.likeness(other);
        let loss = |k: usize| {
            let sum: f64 = measured.losses.iter().map(|losses| losses[k]).sum();
            sum / measured.losses.len() as f64
        };
        Self {
            key,
            similarity: levels.relative(&likeness.iter().copied().map(Some).collect::<Vec<_>>()),
            cosine: mean(&likeness),
            faceless: measured.faceless(),
            agreement: mean(&measured.agreement),
            clip: mean(&measured.clip),
            seconds: median(&measured.seconds),
            tuning: (!measured.tuning.is_empty()).then(|| TuningOfWay {
                seconds: mean(&measured.tuning),
                median: median(&measured.tuning),
                losses: [loss(0), loss(1)],
            }),
        }
    }
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let (same, other) = levels.means(&(0..n).collect::<Vec<_>>());
    let measured = ROWS.iter().map(|row| Measured::new(lab, row)).collect::<Result<Vec<_>>>()?;
    let lead = |(row, theirs): (&Row, &Measured)| {
        let ours = ROWS.iter().position(|ours| ours.way == Way::Ours && ours.photos == row.photos)?;
        let tuned = matches!(row.way, Way::Tuned(_));
        tuned.then(|| Lead::new(row.key, &measured[ours], theirs, &levels, other))
    };
    let classes = class_pictures(options);
    let drawn = |k: usize| OfPrompt {
        prompts: (0..n.min(SHOWN)).map(|i| prompts(i, noun(i as u64))[k].clone()).collect(),
        pictures: (0..n.min(SHOWN))
            .map(|i| {
                let of = |row| Picture::drawing(drawings(options, row, i)[k].clone());
                std::iter::once(Picture::reference(i as u64)).chain(ROWS.iter().map(of)).collect()
            })
            .collect(),
    };
    Ok(Figures {
        n,
        prompts: PROMPTS,
        same,
        other,
        ways: ROWS.iter().zip(&measured).map(|(row, m)| OfWay::new(row.key, m, &levels, other)).collect(),
        leads: ROWS.iter().zip(&measured).filter_map(lead).collect(),
        ceiling: ceiling(lab)?,
        backends: backends(lab)?,
        tuning_steps: options.tuning_steps,
        class_pictures: classes.len(),
        class_seconds: lab.seconds(&classes)?.iter().sum(),
        drawn: (0..PROMPTS).map(drawn).collect(),
    })
}

fn ceiling(lab: &Lab) -> Result<Estimate> {
    let [clothing, background] = ASKED.map(|attribute| attribute as usize);
    let questions = lab.attributes()?;
    let on_renders = [lab.styles()?, &questions[clothing], &questions[background]];
    let value = on_renders.iter().map(|question| question.probe_on_renders.value).sum::<f64>() / 3.0;
    Ok(Estimate { value, low: value, high: value, n: on_renders[0].probe_on_renders.n })
}

/// Where the copies were tuned.
fn backends(lab: &Lab) -> Result<Vec<String>> {
    let mut backends = BTreeSet::new();
    for drawing in all(&lab.options).filter(|drawing| drawing.tuned.is_some()) {
        let tuning = lab.picture(&drawing)?.and_then(|made| made.tuning);
        backends.extend(tuning.map(|tuning| tuning.backend.to_string()));
    }
    Ok(backends.into_iter().collect())
}
