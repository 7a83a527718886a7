//! Novel views: is the person kept when the picture, or the photo, shows the face from the side? (Paper, its figure of
//! novel views.)

use serde::Serialize;

use super::drawing::{Drawing, Photo, REFERENCE, STYLE_PEOPLE, Sitter, Staged, in_turn};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Picture, Pictures};
use super::statistics::{Estimate, bootstrap, correlation, share_of};
use facestudio::error::Result;
use facestudio_synth::Style;

/// Degrees; positive turns the face to the picture's right. The renderer goes to 60.
const YAWS: [f32; 5] = [-50.0, -25.0, 0.0, 25.0, 50.0];
/// Rows of the grids.
const SHOWN: usize = 4;

fn trials(options: &EvalOptions) -> usize {
    (options.half() * 2 / 3).max(2)
}

/// A style image whose person faces so many degrees to the side. Scenes of other experiments are not turned, so these
/// have numbers of their own.
fn style(i: usize, yaw: f32) -> Staged {
    let scene = 4000 + i as u64;
    Staged { scene, shows: vec![STYLE_PEOPLE + scene], style: in_turn(i), yaw: Some(yaw), subject: None }
}

fn turned_style(options: &EvalOptions, i: usize, yaw: f32) -> Drawing {
    Drawing { style: Some(style(i, yaw)), ..Drawing::trial(options, i) }
}

fn photo(i: usize, yaw: f32) -> Photo {
    // The photo from the front is the ordinary one.
    Photo { yaw: Some(yaw).filter(|yaw| *yaw != 0.0), ..Photo::new(i as u64, REFERENCE) }
}

fn turned_photo(options: &EvalOptions, i: usize, yaw: f32) -> Drawing {
    turned_style(options, i, 0.0).with_person(vec![Sitter { photos: vec![photo(i, yaw)], beta: 1.0 }])
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    let all = |drawing: fn(&EvalOptions, usize, f32) -> Drawing| {
        (0..trials(options)).flat_map(move |i| YAWS.map(|yaw| drawing(options, i, yaw)))
    };
    all(turned_style).chain(all(turned_photo)).collect()
}

/// What is measured.
#[derive(Serialize)]
pub struct Figures {
    yaws: [f32; YAWS.len()],
    /// Similarity with a style image from the front.
    front: Estimate,
    style: Sweep,
    photo: Sweep,
    renders: Line,
    /// Correlation of the faces' turn with the angle.
    follows: Estimate,
    follows_renders: Estimate,
    /// Pictures with a face, where the style image turns.
    faces: Estimate,
}

/// Similarity at each angle.
#[derive(Serialize)]
struct Line {
    similarity: Vec<Estimate>,
    /// From the front to the sides.
    lost: f64,
}

/// What turns.
#[derive(Serialize)]
struct Sweep {
    #[serde(flatten)]
    line: Line,
    /// Similarity at both ends.
    at_ends: Estimate,
    pictures: Pictures,
}

/// A picture of trial `i` at an angle.
type Turns = fn(usize, f32) -> Picture;

impl Line {
    fn new(similarity: Vec<Estimate>) -> Self {
        let value = |k: usize| similarity[k].value;
        let lost = value(YAWS.len() / 2) - 0.5 * (value(0) + value(YAWS.len() - 1));
        Self { similarity, lost }
    }
}

pub fn measure(lab: &Lab) -> Result<Figures> {
    let options = &lab.options;
    let n = trials(options);
    let levels = lab.levels(n)?;
    let sweep =
        |drawing: fn(&EvalOptions, usize, f32) -> Drawing, turns: Turns, still: Turns| -> Result<Sweep> {
            let cosines = YAWS.map(|yaw| -> Result<Vec<Option<f64>>> {
                (0..n).map(|i| lab.likeness(&drawing(options, i, yaw), i as u64)).collect()
            });
            let cosines = cosines.into_iter().collect::<Result<Vec<_>>>()?;
            let both = [&cosines[0][..], &cosines[YAWS.len() - 1]].concat();
            let people: Vec<usize> = (0..n).chain(0..n).collect();
            let rows = |i: usize| {
                let turned = YAWS.map(|yaw| Some(turns(i, yaw))).into_iter();
                let drawn = YAWS.map(|yaw| Picture::drawing(drawing(options, i, yaw))).into_iter();
                [
                    std::iter::once(None).chain(turned).collect(),
                    std::iter::once(Some(still(i, 0.0))).chain(drawn).collect(),
                ]
            };
            Ok(Sweep {
                line: Line::new(cosines.iter().map(|cosines| levels.relative(cosines)).collect()),
                at_ends: levels.select(&people).relative(&both),
                pictures: (0..n.min(SHOWN)).flat_map(rows).collect(),
            })
        };
    let of_style: Turns = |i, yaw| Picture::Staged(style(i, yaw));
    let of_photo: Turns = |i, yaw| Picture::Photo(photo(i, yaw));
    let by_style = sweep(turned_style, of_style, of_photo)?;
    let by_photo = sweep(turned_photo, of_photo, of_style)?;
    let (mut turns, mut render_turns, mut renders) = (Vec::new(), Vec::new(), Vec::new());
    for yaw in YAWS {
        let mut cosines = Vec::new();
        for i in 0..n {
            let faces = lab.faces(&turned_style(options, i, yaw))?;
            turns.push(faces.first().map(|face| (f64::from(yaw), face.turn())));
            let perfect = Staged { shows: vec![i as u64], style: Style::Photo, ..style(i, yaw) };
            let face = lab.faces_in(&lab.render(&perfect))?.into_iter().next();
            render_turns.push(face.as_ref().map(|face| (f64::from(yaw), face.turn())));
            cosines.push(face.map(|face| lab.similarity(&face.embedding, i as u64)).transpose()?);
        }
        renders.push(levels.relative(&cosines));
    }
    let follows = |turns: &[Option<(f64, f64)>]| {
        let found: Vec<(f64, f64)> = turns.iter().flatten().copied().collect();
        bootstrap(found.len(), |trials| {
            let (yaws, turns): (Vec<f64>, Vec<f64>) = trials.iter().map(|i| found[*i]).unzip();
            correlation(&yaws, &turns)
        })
    };
    Ok(Figures {
        yaws: YAWS,
        front: by_style.line.similarity[YAWS.len() / 2],
        style: by_style,
        photo: by_photo,
        renders: Line::new(renders),
        follows: follows(&turns),
        follows_renders: follows(&render_turns),
        faces: share_of(turns.iter().map(Option::is_some)),
    })
}
