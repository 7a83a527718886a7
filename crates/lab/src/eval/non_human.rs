//! Pictures without people: things stay things, and nobody appears in them.

use super::drawing::{Drawing, Staged, in_turn, style_words};
use super::judge::subject_words;
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Cell, Grid, Section, Shown, Table, Unit};
use super::statistics::share_of;
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
const WAYS: [(&str, &str, Way); 2] =
    [("image", "from a style image", with_image), ("text", "from words", with_text)];

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| WAYS.map(|(_, _, way)| way(options, i))).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let question = lab.subjects()?;
    let mut section = Section::new([
        "Without an identity, from a style image or a prompt that shows one of the renderer's eight things. Nobody should \
         appear: the model's detector must find no face. CLIP says which thing it is, by a linear probe on renders of \
         other scenes and by the nearest of eight prompts; how often it is right on renders is its ceiling. Chance is one \
         in eight.",
    ]);
    let mut table = Table {
        caption: format!("{} pictures each", options.trials),
        head: ["", "no face", "right thing, linear probe", "right thing, zero-shot"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![(
            "renders (ceiling)".to_owned(),
            vec![
                Cell::Text("–".to_owned()),
                Cell::Estimate(question.probe_on_renders, Unit::Share),
                Cell::Estimate(question.words_on_renders, Unit::Share),
            ],
        )],
    };
    for (key, label, way) in WAYS {
        let (mut without, mut probe, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..options.trials {
            let drawing = way(options, i);
            without.push(lab.faces(&drawing)?.is_empty());
            let answer = lab.clip_drawing(&drawing)?.map(|embedding| question.answer(&embedding));
            probe.push(answer.is_some_and(|answer| answer.probe == subject(i)));
            words.push(answer.is_some_and(|answer| answer.words == subject(i)));
        }
        let [without, probe, words] = [without, probe, words].map(share_of);
        section.figure(&format!("no-face-{key}"), &format!("no face, {label}"), without, Unit::Share);
        section.figure(&format!("thing-{key}"), &format!("right thing, {label}"), probe, Unit::Share);
        section.of_renders(question.probe_on_renders);
        let cells = [without, probe, words].map(|share| Cell::Estimate(share, Unit::Share)).to_vec();
        table.rows.push((format!("pictures {label}"), cells));
    }
    section.tables.push(table);
    section.grids.push(Grid {
        caption: "Style images, pictures from them, and pictures from words alone".to_owned(),
        head: ["style image", "from it", "from words"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..options.trials.min(SHOWN))
            .map(|i| {
                let ways = WAYS.map(|(_, _, way)| Shown::drawing(way(options, i)));
                std::iter::once(Some(Shown::Staged(style(i)))).chain(ways).collect()
            })
            .collect(),
    });
    Ok(section)
}
