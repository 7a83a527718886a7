//! Identity similarity and seconds, from one reference and from eleven, with the style from an image or from words, and
//! without an identity (paper, table 1).

use super::drawing::{Drawing, REFERENCES, Sitter, Staged, in_turn, noun, style_words};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Cell, Grid, Plot, PlotKind, Section, Shown, Table, Target, Unit, number};
use super::statistics::{Estimate, mean, median};
use facestudio::error::Result;
use facestudio_synth::Background;

/// A row of the table: its key, its label, the paper's cosine and this project's target.
struct Row {
    key: &'static str,
    label: &'static str,
    paper: Option<f64>,
    target: Option<Target>,
    /// Whether a prompt decides it.
    words: bool,
    drawing: fn(&EvalOptions, usize) -> Drawing,
}

const ROWS: [Row; 5] = [
    Row {
        key: "image-1",
        label: "with image, 1 reference",
        paper: Some(0.86),
        target: Some(Target::AtLeast(0.86)),
        words: false,
        drawing: with_image,
    },
    Row {
        key: "image-11",
        label: "with image, 11 references",
        paper: Some(0.74),
        target: None,
        words: false,
        drawing: |options, i| with_image(options, i).of(vec![Sitter::new(i as u64, REFERENCES)]),
    },
    Row {
        key: "text-1",
        label: "with text, 1 reference",
        paper: Some(0.71),
        target: Some(Target::AtLeast(0.71)),
        words: true,
        drawing: with_text,
    },
    Row {
        key: "text-11",
        label: "with text, 11 references",
        paper: Some(0.61),
        target: None,
        words: true,
        drawing: |options, i| with_text(options, i).of(vec![Sitter::new(i as u64, REFERENCES)]),
    },
    Row {
        key: "nobody",
        label: "without identity input",
        paper: Some(0.47),
        target: Some(Target::AtMost(0.5)),
        words: false,
        drawing: without_identity,
    },
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

fn rows(options: &EvalOptions) -> Vec<&'static Row> {
    options.drawn(ROWS.iter().map(|row| (row.words, row)))
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    rows(options).iter().flat_map(|row| (0..options.trials).map(|i| (row.drawing)(options, i))).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let (n, asked) = (options.trials, rows(options));
    let levels = lab.levels(n)?;
    let everybody: Vec<usize> = (0..n).collect();
    let (same, other) = levels.means(&everybody);
    let mut section = Section::new([
        "Each of the held-out people is drawn from photos, in the scene of a style image that shows someone else (with \
         image) or of a prompt (with text). An identity encoder compares the largest face of each picture with two \
         photos of the person that conditioned nothing.",
        "Relative similarity puts the mean cosine on the encoder's own scale: 1 is what it gives two photos of one \
         person, 0 what it gives photos of two people. A picture in which no face is found counts as 0. Intervals are \
         bootstraps over people (95 %, percentile). The paper's column is its cosine of ArcFace on photographs: the \
         order of the rows can be compared, the numbers cannot.",
        "Two rows say what could be reached: the renderer's own picture of that person in the style image's scene, at \
         the model's size, and the same after the model's autoencoder.",
    ]);
    let mut table = Table {
        caption: format!(
            "{n} people; cosine of two photos of one person {}, of two people {}",
            number(same, Unit::Plain),
            number(other, Unit::Plain)
        ),
        head: ["", "relative similarity", "cosine", "no face", "seconds", "paper"]
            .map(str::to_owned)
            .to_vec(),
        rows: Vec::new(),
    };
    let mut bars = Vec::new();
    let mut relative_of = |label: &str, cosines: &[Option<f64>], seconds: Option<f64>, paper: Option<f64>| {
        let relative = levels.relative(cosines);
        let found: Vec<f64> = cosines.iter().flatten().copied().collect();
        let or_dash = |value: Option<f64>, unit| {
            value.map_or_else(|| Cell::Text("–".to_owned()), |value| Cell::Number(value, unit))
        };
        table.rows.push((
            label.to_owned(),
            vec![
                Cell::Estimate(relative, Unit::Plain),
                Cell::Estimate(mean(&found), Unit::Plain),
                Cell::Text(format!("{} of {n}", n - found.len())),
                or_dash(seconds, Unit::Seconds),
                or_dash(paper, Unit::Plain),
            ],
        ));
        bars.push((label.to_owned(), relative));
        relative
    };
    let mut cosines = Vec::new();
    let mut relatives: Vec<Estimate> = Vec::new();
    for row in &asked {
        let drawings: Vec<Drawing> = (0..n).map(|i| (row.drawing)(options, i)).collect();
        let found = lab.likenesses(&drawings)?;
        let seconds = median(&lab.seconds(&drawings)?);
        relatives.push(relative_of(row.label, &found, Some(seconds), row.paper));
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
    let drawn = relative_of("the renderer's own picture", &renders[0], None, None);
    let coded = relative_of("the same, after the autoencoder", &renders[1], None, None);

    for (row, relative) in asked.iter().zip(&relatives) {
        section.figure(row.key, &format!("similarity, {}", row.label), *relative, Unit::Plain);
        if let Some(figure) = section.figures.last_mut() {
            figure.target = row.target;
            figure.renders = Some(drawn).filter(|_| matches!(row.target, Some(Target::AtLeast(_))));
        }
    }
    let cosines_of = |key: &str| {
        let at = asked.iter().position(|row| row.key == key)?;
        Some(cosines[at].iter().map(|cosine| cosine.unwrap_or(other)).collect::<Vec<f64>>())
    };
    for (key, label) in [("image", "with image"), ("text", "with text")] {
        let both = [11, 1].map(|references| cosines_of(&format!("{key}-{references}")));
        if let [Some(more), Some(one)] = both {
            let gain: Vec<f64> = more.iter().zip(one).map(|(more, one)| more - one).collect();
            let label = format!("gain of 11 references over 1, {label}");
            let target = Target::AtLeast(0.0);
            section.aimed(&format!("{key}-gain"), &label, levels.difference(&gain), Unit::Plain, target);
        }
    }
    section.figure("renderer", "similarity, the renderer's own picture", drawn, Unit::Plain);
    section.figure("autoencoder", "similarity, the same after the autoencoder", coded, Unit::Plain);
    section.tables.push(table);
    section.plots.push(Plot {
        caption: "Relative similarity".to_owned(),
        unit: Unit::Plain,
        kind: PlotKind::Rows(bars),
        marks: vec![("another person".to_owned(), 0.0), ("the same person".to_owned(), 1.0)],
    });
    let photo = |i: usize| with_image(options, i).people[0][0].photos[0].clone();
    let row = |i: usize| {
        let mut row = vec![Some(Shown::Photo(photo(i))), with_image(options, i).style.map(Shown::Staged)];
        row.extend(asked.iter().map(|row| Shown::drawing((row.drawing)(options, i))));
        row.push(perfect(options, i).map(Shown::Staged));
        row
    };
    section.grids.push(Grid {
        caption: "Photo, style image, and what the model makes of them; last the renderer's own answer"
            .to_owned(),
        head: ["photo", "style image"]
            .into_iter()
            .chain(asked.iter().map(|row| row.label))
            .chain(["renderer"])
            .map(str::to_owned)
            .collect(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN)).map(row).collect(),
    });
    Ok(section)
}
