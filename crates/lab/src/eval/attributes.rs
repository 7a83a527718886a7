//! Does a prompt get what it asks for: colour of hair, glasses, colour of clothes, background?

use super::drawing::{Drawing, Photo, REFERENCE, noun};
use super::judge::{Attribute, attribute_prompt};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Cell, Grid, Plot, PlotKind, Section, Shown, Table, Target, Unit};
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

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.trials;
    let questions = lab.attributes()?;
    let mut section = Section::new([
        "Each prompt asks for one value of all four attributes, drawn at random. What a picture shows is said by a linear \
         probe and by the nearest prompt (zero-shot). The probe was fitted to renders of other people with known values; it \
         reads CLIP's embedding of the picture and the identity encoder's of its largest face. Zero-shot is CLIP alone. How \
         often each is right on renders of held-out people is its ceiling: no model can be measured above it; after the \
         model's autoencoder they are what a perfect denoiser would draw. Without an \
         identity input the words decide everything; with a photo, hair and glasses are the person's, so that only clothes \
         and background are the prompt's to decide. The interval over all attributes takes a prompt for one trial.",
    ]);
    let mut table = Table {
        caption: format!("Right values of {n} prompts"),
        head: [
            "",
            "chance",
            "renders, probe",
            "renders, zero-shot",
            "renders after the autoencoder, probe",
            "pictures, probe",
            "pictures, zero-shot",
            "with a photo, probe",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: Vec::new(),
    };
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
    let mut bars = Vec::new();
    for (k, (attribute, question)) in Attribute::ALL.into_iter().zip(questions).enumerate() {
        let with_photo = match attribute {
            Attribute::Clothing | Attribute::Background => Cell::Estimate(share(&someone[k], 0), Unit::Share),
            Attribute::Hair | Attribute::Glasses => Cell::Text("the person's".to_owned()),
        };
        let probe = share(&nobody[k], 0);
        table.rows.push((
            attribute.name().to_owned(),
            vec![
                Cell::Number(1.0 / question.words.len() as f64, Unit::Share),
                Cell::Estimate(question.probe_on_renders, Unit::Share),
                Cell::Estimate(question.words_on_renders, Unit::Share),
                Cell::Estimate(question.probe_on_decoded, Unit::Share),
                Cell::Estimate(probe, Unit::Share),
                Cell::Estimate(share(&nobody[k], 1), Unit::Share),
                with_photo,
            ],
        ));
        bars.push((format!("{}: pictures", attribute.name()), probe));
        bars.push((format!("{}: renders", attribute.name()), question.probe_on_renders));
    }
    let right = nobody.iter().flatten().filter(|right| right[0]).count();
    let all = share_of_groups(right, n * questions.len(), n);
    section.aimed("all", "right values, all attributes", all, Unit::Share, Target::AtLeast(0.85));
    let ceilings: Vec<f64> = questions.iter().map(|question| question.probe_on_renders.value).collect();
    let ceiling = ceilings.iter().sum::<f64>() / ceilings.len() as f64;
    let tested = questions.first().map_or(0, |question| question.probe_on_renders.n);
    section.of_renders(Estimate { value: ceiling, low: ceiling, high: ceiling, n: tested });
    for (k, attribute) in Attribute::ALL.into_iter().enumerate() {
        let key = format!("{attribute:?}").to_lowercase();
        section.figure(&key, attribute.name(), share(&nobody[k], 0), Unit::Share);
        section.of_renders(questions[k].probe_on_renders);
        let label = format!("{}, renders after the autoencoder", attribute.name());
        section.figure(&format!("{key}-autoencoder"), &label, questions[k].probe_on_decoded, Unit::Share);
    }
    section.tables.push(table);
    section.plots.push(Plot {
        caption: "Right values (linear probe): pictures without an identity input, and renders".to_owned(),
        unit: Unit::Share,
        kind: PlotKind::Rows(bars),
        marks: vec![("target".to_owned(), 0.85)],
    });
    section.grids.push(Grid {
        caption: "What was asked for, without an identity input and with a photo".to_owned(),
        head: ["", "words alone", "with the photo", "photo"].map(str::to_owned).to_vec(),
        labels: (0..n.min(SHOWN)).map(prompt).collect(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                let photo = Some(Shown::Photo(Photo::new(i as u64, REFERENCE)));
                vec![Shown::drawing(of_nobody(options, i)), Shown::drawing(of_someone(options, i)), photo]
            })
            .collect(),
    });
    Ok(section)
}
