//! Identity similarity and seconds, from one reference and from eleven, with the style from an image or from words, and
//! without an identity (paper, table 1).

use serde::Serialize;

use super::drawing::{Drawing, REFERENCES, Sitter, Staged, in_turn, noun, style_words};
use super::lab::Lab;
use super::likeness::Levels;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, mean, median};
use facestudio::error::Result;
use facestudio_synth::Background;

/// A way to draw each person: its key, and whether a prompt decides it.
struct Way {
    key: &'static str,
    words: bool,
    drawing: fn(&EvalOptions, usize) -> Drawing,
}

const WAYS: [Way; 5] = [
    Way { key: "image-1", words: false, drawing: with_image },
    Way {
        key: "image-11",
        words: false,
        drawing: |options, i| with_image(options, i).with_person(vec![Sitter::new(i as u64, REFERENCES)]),
    },
    Way { key: "text-1", words: true, drawing: with_text },
    Way {
        key: "text-11",
        words: true,
        drawing: |options, i| with_text(options, i).with_person(vec![Sitter::new(i as u64, REFERENCES)]),
    },
    Way { key: "nobody", words: false, drawing: without_identity },
];

/// Rows of the grid.
const SHOWN: usize = 8;

/// Trial `i` with its style image.
pub fn with_image(options: &EvalOptions, i: usize) -> Drawing {
    Drawing::trial(options, i)
}

/// Trial `i` from words.
pub fn with_text(options: &EvalOptions, i: usize) -> Drawing {
    Drawing::trial(options, i).by_prompt(prompt(i))
}

/// Trial `i` with its style image and nobody's face.
pub fn without_identity(options: &EvalOptions, i: usize) -> Drawing {
    Drawing::trial(options, i).nobody()
}

/// The words of trial `i`.
pub fn prompt(i: usize) -> String {
    prompt_of(i, noun(i as u64))
}

/// The words of trial `i` for a person whom they call `noun`: its style and a place, in turn.
pub fn prompt_of(i: usize, noun: &str) -> String {
    const PLACES: [(Background, &str); 4] = [
        (Background::Plain, "grey background"),
        (Background::Forest, "in a forest"),
        (Background::Beach, "on a beach"),
        (Background::Room, "in a room"),
    ];
    let place = PLACES[i / 8 % PLACES.len()].1;
    format!("{} of {noun}, {place}", style_words(in_turn(i)))
}

/// The scene of trial `i` as the renderer draws it with the trial's own person in it: a perfect answer.
fn perfect(options: &EvalOptions, i: usize) -> Option<Staged> {
    let style = with_image(options, i).style?;
    Some(Staged { shows: vec![i as u64], ..style })
}

fn ways(options: &EvalOptions) -> Vec<&'static Way> {
    options.drawn(WAYS.iter().map(|way| (way.words, way)))
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    ways(options).iter().flat_map(|way| (0..options.trials).map(|i| (way.drawing)(options, i))).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    n: usize,
    /// The judge's cosine of two photos of one person.
    same: f64,
    /// Of two people.
    other: f64,
    ways: Vec<OfWay>,
    /// The renderer's own pictures.
    renderer: Likeness,
    /// The same after the autoencoder.
    autoencoder: Likeness,
    gains: Vec<Gain>,
    pictures: Pictures,
}

/// Pictures of one way.
#[derive(Serialize)]
struct OfWay {
    key: &'static str,
    #[serde(flatten)]
    likeness: Likeness,
    seconds: f64,
}

/// How alike pictures are to their people.
#[derive(Serialize)]
struct Likeness {
    similarity: Estimate,
    cosine: Estimate,
    faceless: usize,
}

impl Likeness {
    fn new(levels: &Levels, cosines: &[Option<f64>]) -> Self {
        let found: Vec<f64> = cosines.iter().flatten().copied().collect();
        let faceless = cosines.len() - found.len();
        Self { similarity: levels.relative(cosines), cosine: mean(&found), faceless }
    }
}

/// What eleven references give beyond one.
#[derive(Serialize)]
struct Gain {
    key: &'static str,
    gain: Estimate,
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let (n, asked) = (options.trials, ways(options));
    let levels = lab.levels(n)?;
    let (same, other) = levels.means(&(0..n).collect::<Vec<_>>());
    let (mut measured, mut cosines) = (Vec::new(), Vec::new());
    for way in &asked {
        let drawings: Vec<Drawing> = (0..n).map(|i| (way.drawing)(options, i)).collect();
        let found = lab.likenesses(&drawings)?;
        let seconds = median(&lab.seconds(&drawings)?);
        measured.push(OfWay { key: way.key, likeness: Likeness::new(&levels, &found), seconds });
        cosines.push(found);
    }
    let mut renders = [Vec::with_capacity(n), Vec::with_capacity(n)];
    for staged in (0..n).filter_map(|i| perfect(options, i)) {
        let picture = lab.render(&staged);
        let coded = lab.through_vae(&picture)?;
        for (cosines, picture) in renders.iter_mut().zip([&picture, &coded]) {
            let face = lab.faces_in(picture)?.into_iter().next();
            cosines.push(face.map(|face| lab.similarity(&face.embedding, staged.shows[0])).transpose()?);
        }
    }
    let [renderer, autoencoder] = renders.map(|cosines| Likeness::new(&levels, &cosines));
    let cosines_of = |key: &str, references: usize| {
        let at = asked.iter().position(|way| way.key == format!("{key}-{references}"))?;
        Some(cosines[at].iter().map(|cosine| cosine.unwrap_or(other)).collect::<Vec<f64>>())
    };
    let gain = |key: &'static str| {
        let (more, one) = cosines_of(key, REFERENCES).zip(cosines_of(key, 1))?;
        let gain: Vec<f64> = more.iter().zip(one).map(|(more, one)| more - one).collect();
        Some(Gain { key, gain: levels.difference(&gain) })
    };
    let row = |i: usize| {
        let mut row = vec![Picture::reference(i as u64), with_image(options, i).style.map(Picture::Staged)];
        row.extend(asked.iter().map(|way| Picture::drawing((way.drawing)(options, i))));
        row.push(perfect(options, i).map(Picture::Staged));
        row
    };
    Ok(Figures {
        n,
        same,
        other,
        ways: measured,
        renderer,
        autoencoder,
        gains: ["image", "text"].into_iter().filter_map(gain).collect(),
        pictures: (0..n.min(SHOWN)).map(row).collect(),
    })
}
