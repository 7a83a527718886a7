//! Does a prompt get what it asks for: colour of hair, glasses, colour of clothes, background?

use serde::Serialize;

use super::drawing::{Drawing, noun};
use super::judge::{Attribute, attribute_prompt};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, share_of, share_of_groups};
use facestudio::error::Result;
use facestudio_synth::Rng;

/// Rows of the grid.
const SHOWN: usize = 8;

/// What trial `i` asks for, in the order of [`Attribute::ALL`].
pub fn values(i: usize) -> [usize; 4] {
    let mut rng = Rng::new(0xA77, i as u64);
    Attribute::ALL.map(|attribute| rng.below(attribute.values().len()))
}

fn prompt(i: usize) -> String {
    attribute_prompt(noun(i as u64), values(i))
}

fn of_nobody(options: &EvalOptions, i: usize) -> Drawing {
    Drawing::trial(options, i).nobody().by_prompt(prompt(i))
}

fn of_someone(options: &EvalOptions, i: usize) -> Drawing {
    Drawing::trial(options, i).by_prompt(prompt(i))
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| [of_nobody(options, i), of_someone(options, i)]).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    /// Right values of all attributes.
    all: Estimate,
    /// The same of renders.
    ceiling: Estimate,
    attributes: Vec<OfAttribute>,
    prompts: Vec<String>,
    pictures: Pictures,
}

/// Right values of one attribute.
#[derive(Serialize)]
struct OfAttribute {
    key: String,
    chance: f64,
    probe_on_renders: Estimate,
    words_on_renders: Estimate,
    probe_on_decoded: Estimate,
    probe: Estimate,
    words: Estimate,
    /// By the probe, with a photo; none where the photo decides.
    with_photo: Option<Estimate>,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = options.trials;
    let questions = lab.attributes()?;
    // [attribute][trial]: right by probe and by words.
    let judge = |drawing: fn(&EvalOptions, usize) -> Drawing| -> Result<Vec<Vec<[bool; 2]>>> {
        let mut right = vec![Vec::new(); questions.len()];
        for i in 0..n {
            let embedding = lab.describe_drawing(&drawing(options, i))?;
            for (k, question) in questions.iter().enumerate() {
                let answer = embedding.as_ref().map(|embedding| question.answer(embedding));
                right[k]
                    .push(answer.map_or([false; 2], |a| [a.probe == values(i)[k], a.words == values(i)[k]]));
            }
        }
        Ok(right)
    };
    let (nobody, someone) = (judge(of_nobody)?, judge(of_someone)?);
    let share = |right: &[[bool; 2]], way: usize| share_of(right.iter().map(|right| right[way]));
    let attribute = |(k, attribute): (usize, Attribute)| {
        let question = &questions[k];
        let asked = matches!(attribute, Attribute::Clothing | Attribute::Background);
        OfAttribute {
            key: format!("{attribute:?}").to_lowercase(),
            chance: 1.0 / question.words.len() as f64,
            probe_on_renders: question.probe_on_renders,
            words_on_renders: question.words_on_renders,
            probe_on_decoded: question.probe_on_decoded,
            probe: share(&nobody[k], 0),
            words: share(&nobody[k], 1),
            with_photo: asked.then(|| share(&someone[k], 0)),
        }
    };
    let right = nobody.iter().flatten().filter(|right| right[0]).count();
    let ceilings: Vec<f64> = questions.iter().map(|question| question.probe_on_renders.value).collect();
    let ceiling = ceilings.iter().sum::<f64>() / ceilings.len() as f64;
    let tested = questions.first().map_or(0, |question| question.probe_on_renders.n);
    let row = |i: usize| {
        let pictures = [of_nobody(options, i), of_someone(options, i)].map(Picture::drawing).into_iter();
        pictures.chain([Picture::reference(i as u64)]).collect()
    };
    Ok(Figures {
        n,
        all: share_of_groups(right, n * questions.len(), n),
        ceiling: Estimate { value: ceiling, low: ceiling, high: ceiling, n: tested },
        attributes: Attribute::ALL.into_iter().enumerate().map(attribute).collect(),
        prompts: (0..n.min(SHOWN)).map(prompt).collect(),
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
