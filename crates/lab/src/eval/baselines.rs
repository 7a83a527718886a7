//! The paper's baselines beside ours, on one base: Textual Inversion and DreamBooth, tuned for each person, against one photo and
//! no tuning (paper, table 1 and figure 3).

use super::attributes;
use super::drawing::{Drawing, Method, Photo, REFERENCE, REFERENCES, Sitter, Tuned, class, noun};
use super::judge::Attribute;
use super::lab::Lab;
use super::likeness::{Levels, cosine};
use super::options::EvalOptions;
use super::section::{Cell, Grid, Plot, PlotKind, Section, Shown, Table, Target, Unit, number};
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

/// A row of the table. The paper's cosine and seconds of tuning are those of its table 1.
struct Row {
    key: &'static str,
    label: &'static str,
    way: Way,
    photos: usize,
    paper: Option<[f64; 2]>,
}

const fn row(key: &'static str, label: &'static str, way: Way, photos: usize, paper: [f64; 2]) -> Row {
    Row { key, label, way, photos, paper: Some(paper) }
}

const INVERSION: Way = Way::Tuned(Method::TextualInversion);
const BOOTH: Way = Way::Tuned(Method::DreamBooth);

/// Ours come first: others are compared with the one of as many photos.
const ROWS: [Row; 7] = [
    row("ours-1", "ours, 1 photo", Way::Ours, 1, [0.71, 0.0]),
    row("ours-11", "ours, 11 photos", Way::Ours, REFERENCES, [0.61, 0.0]),
    row("textual-inversion-1", "Textual Inversion, 1 photo", INVERSION, 1, [0.31, 3425.0]),
    row("textual-inversion-11", "Textual Inversion, 11 photos", INVERSION, REFERENCES, [0.27, 3425.0]),
    row("dreambooth-1", "DreamBooth, 1 photo", BOOTH, 1, [0.65, 405.0]),
    row("dreambooth-11", "DreamBooth, 11 photos", BOOTH, REFERENCES, [0.58, 405.0]),
    Row { key: "nobody", label: "words alone", way: Way::Nobody, photos: 0, paper: None },
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
        Way::Ours => (trial.of(vec![Sitter::new(who, row.photos)]), noun(who).to_owned()),
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

/// Ours less theirs.
struct Lead {
    likeness: Estimate,
    agreement: Estimate,
}

impl Lead {
    fn new(ours: &Measured, theirs: &Measured, levels: &Levels, other: f64) -> Self {
        let less = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        Self {
            likeness: levels.difference(&less(&ours.likeness(other), &theirs.likeness(other))),
            agreement: mean(&less(&ours.agreement, &theirs.agreement)),
        }
    }

    /// What can be said of likeness, and of prompts where ours is more like the person, as far as the intervals say.
    fn verdict(&self) -> &'static str {
        let Self { likeness, agreement } = self;
        if likeness.high < 0.0 {
            "theirs is more like the person"
        } else if likeness.low <= 0.0 {
            "neither is more like the person"
        } else if agreement.high < 0.0 {
            "ours is more like the person, theirs follows the prompt better"
        } else if agreement.low > 0.0 {
            "ours is more like the person, and follows the prompt better"
        } else {
            "ours is more like the person, and neither follows the prompt better"
        }
    }
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.half();
    let levels = lab.levels(n)?;
    let everybody: Vec<usize> = (0..n).collect();
    let (same, other) = levels.means(&everybody);
    let measured = ROWS.iter().map(|row| Measured::new(lab, row)).collect::<Result<Vec<_>>>()?;
    let mut section = Section::new([
        "The same photos, prompts, seeds and base for everyone. Ours is given the photos when it draws. Textual Inversion (Gal \
         et al. 2022) learns a word from them, DreamBooth (Ruiz et al. 2022) new weights for UNet and Linear that know the person \
         by a rare word; both draw without an identity input, from words alone. docs/eval.md has their recipes.",
        "Each person is drawn from two prompts: a style and a place (table 1's), and a photo with clothes and a background. \
         Similarity is as in table 1, the mean of both. Prompt agreement is the share of style, colour of clothes and background \
         that a linear probe finds as asked, CLIP the cosine of picture and prompt. Words alone, without the person, show how far \
         the base follows a prompt that nobody's face stands in the way of. Differences are between pictures of one person.",
    ]);
    let mut table = Table {
        caption: format!(
            "{n} people, {PROMPTS} prompts each; cosine of two photos of one person {}, of two people {}",
            number(same, Unit::Plain),
            number(other, Unit::Plain)
        ),
        head: [
            "",
            "relative similarity",
            "cosine",
            "no face",
            "prompt agreement",
            "CLIP",
            "tuning",
            "a picture",
            "loss, first and last tenth",
            "paper: cosine",
            "paper: tuning",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: Vec::new(),
    };
    let ceiling = {
        let [clothing, background] = ASKED.map(|attribute| attribute as usize);
        let questions = lab.attributes()?;
        let on_renders = [lab.styles()?, &questions[clothing], &questions[background]];
        let value = on_renders.iter().map(|question| question.probe_on_renders.value).sum::<f64>() / 3.0;
        Estimate { value, low: value, high: value, n: on_renders[0].probe_on_renders.n }
    };
    let mut bars = [Vec::new(), Vec::new()];
    for (row, measured) in ROWS.iter().zip(&measured) {
        let likeness = measured.likeness(other);
        let relative = levels.relative(&likeness.iter().copied().map(Some).collect::<Vec<_>>());
        let agreement = mean(&measured.agreement);
        let losses = |k: usize| {
            let sum: f64 = measured.losses.iter().map(|losses| losses[k]).sum();
            sum / measured.losses.len() as f64
        };
        let dash = || Cell::Text("–".to_owned());
        let (tuning, loss) = if measured.tuning.is_empty() {
            (dash(), dash())
        } else {
            let text = format!("{:.3} → {:.3}", losses(0), losses(1));
            (Cell::Number(median(&measured.tuning), Unit::Seconds), Cell::Text(text))
        };
        let paper = |k: usize, unit| row.paper.map_or_else(dash, |paper| Cell::Number(paper[k], unit));
        table.rows.push((
            row.label.to_owned(),
            vec![
                Cell::Estimate(relative, Unit::Plain),
                Cell::Estimate(mean(&likeness), Unit::Plain),
                Cell::Text(format!("{} of {}", measured.faceless(), PROMPTS * n)),
                Cell::Estimate(agreement, Unit::Share),
                Cell::Estimate(mean(&measured.clip), Unit::Plain),
                tuning,
                Cell::Number(median(&measured.seconds), Unit::Seconds),
                loss,
                paper(0, Unit::Plain),
                paper(1, Unit::Seconds),
            ],
        ));
        bars[0].push((row.label.to_owned(), relative));
        bars[1].push((row.label.to_owned(), agreement));
        let (key, label) = (row.key, row.label);
        section.figure(&format!("similarity-{key}"), &format!("similarity, {label}"), relative, Unit::Plain);
        let label = format!("prompt agreement, {label}");
        section.figure(&format!("agreement-{key}"), &label, agreement, Unit::Share);
        section.of_renders(ceiling);
        if !measured.tuning.is_empty() {
            let label = format!("seconds of tuning, {}", row.label);
            section.figure(&format!("tuning-{key}"), &label, mean(&measured.tuning), Unit::Seconds);
        }
    }
    let mut leads = Table {
        caption: "Ours less theirs, from as many photos".to_owned(),
        head: ["", "relative similarity", "prompt agreement", "verdict"].map(str::to_owned).to_vec(),
        rows: Vec::new(),
    };
    for (row, theirs) in ROWS.iter().zip(&measured).filter(|(row, _)| matches!(row.way, Way::Tuned(_))) {
        let same = |ours: &&(&Row, &Measured)| ours.0.way == Way::Ours && ours.0.photos == row.photos;
        let ours: Vec<(&Row, &Measured)> = ROWS.iter().zip(&measured).collect();
        let Some((_, ours)) = ours.iter().find(same) else { continue };
        let lead = Lead::new(ours, theirs, &levels, other);
        let (key, label) = (format!("lead-{}", row.key), format!("similarity, ours less {}", row.label));
        section.aimed(&key, &label, lead.likeness, Unit::Plain, Target::AtLeast(0.0));
        let label = format!("prompt agreement, ours less {}", row.label);
        section.figure(&format!("agreement-{key}"), &label, lead.agreement, Unit::Share);
        leads.rows.push((
            row.label.to_owned(),
            vec![
                Cell::Estimate(lead.likeness, Unit::Plain),
                Cell::Estimate(lead.agreement, Unit::Share),
                Cell::Text(lead.verdict().to_owned()),
            ],
        ));
    }
    section.text.push(told(lab, &leads)?);
    section.tables.extend([table, leads]);
    let [likeness, agreement] = bars.map(PlotKind::Rows);
    section.plots.push(Plot {
        caption: "Relative similarity".to_owned(),
        unit: Unit::Plain,
        kind: likeness,
        marks: vec![("another person".to_owned(), 0.0), ("the same person".to_owned(), 1.0)],
    });
    section.plots.push(Plot {
        caption: "Prompt agreement".to_owned(),
        unit: Unit::Share,
        kind: agreement,
        marks: vec![("the judge on renders".to_owned(), ceiling.value)],
    });
    for k in 0..PROMPTS {
        let shown = |i: usize| {
            let photo = Some(Shown::Photo(Photo::new(i as u64, REFERENCE)));
            let of = |row| Shown::drawing(drawings(options, row, i)[k].clone());
            std::iter::once(photo).chain(ROWS.iter().map(of)).collect()
        };
        section.grids.push(Grid {
            caption: "The photo that is always given, and what each way makes of the prompt".to_owned(),
            head: ["", "photo"].into_iter().chain(ROWS.map(|row| row.label)).map(str::to_owned).collect(),
            labels: (0..n.min(SHOWN)).map(|i| prompts(i, noun(i as u64))[k].clone()).collect(),
            rows: (0..n.min(SHOWN)).map(shown).collect(),
        });
    }
    Ok(section)
}

/// In words: where ours wins, where it does not, and where the tuning was done.
fn told(lab: &Lab, leads: &Table) -> Result<String> {
    let mut backends: Vec<String> = Vec::new();
    for drawing in all(&lab.options).filter(|drawing| drawing.tuned.is_some()) {
        let tuning = lab.picture(&drawing)?.and_then(|made| made.tuning);
        backends.extend(tuning.map(|tuning| tuning.backend.to_string()));
    }
    backends.sort();
    backends.dedup();
    let classes = lab.seconds(&class_pictures(&lab.options))?;
    let verdicts = leads.rows.iter().map(|(label, cells)| match cells.last() {
        Some(Cell::Text(verdict)) => format!("Against {label}: {verdict}."),
        _ => String::new(),
    });
    let verdicts: Vec<String> = verdicts.collect();
    let steps = match lab.options.tuning_steps {
        Some(steps) => format!(" Every copy was tuned in {steps} steps only, to try it out."),
        None => String::new(),
    };
    Ok(format!(
        "{} Tuned by {}; DreamBooth's {} pictures of the classes, which people share, took {} more to draw.{steps}",
        verdicts.join(" "),
        backends.join(" and "),
        classes.len(),
        number(classes.iter().sum(), Unit::Seconds)
    ))
}
