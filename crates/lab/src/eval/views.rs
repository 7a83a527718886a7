//! Novel views: is the person kept when the picture, or the photo, shows the face from the side? (Paper, its figure of
//! novel views.)

use super::drawing::{Drawing, Photo, REFERENCE, STYLE_PEOPLE, Sitter, Staged, in_turn};
use super::lab::Lab;
use super::options::EvalOptions;
use super::section::{Grid, Plot, PlotKind, Section, Shown, Unit};
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
    turned_style(options, i, 0.0).of(vec![Sitter { photos: vec![photo(i, yaw)], beta: 1.0 }])
}

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    let all = |drawing: fn(&EvalOptions, usize, f32) -> Drawing| {
        (0..trials(options)).flat_map(move |i| YAWS.map(|yaw| drawing(options, i, yaw)))
    };
    all(turned_style).chain(all(turned_photo)).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = trials(options);
    let levels = lab.levels(n)?;
    let mut section = Section::new([
        "The design has no input for the pose. What it supports is a style image of someone who faces to the side: its \
         face is hidden before it is encoded, but hair, shoulders and the place of the hidden oval still say where it \
         looked. So one sweep turns the person of the style image and asks how similar the picture stays to the photo's \
         person; the photo is frontal. The other turns the photo instead: what is left of a person who was seen from \
         the side only? The photos that pictures are compared with are frontal in both, which costs similarity by \
         itself: the line of renders says how much the encoder gives the renderer's own picture of that person, in that \
         scene and at that angle.",
        "Whether the pose was followed is measured on the landmarks of the face that was found: how far the nose lies to \
         the side of the eyes' middle. Its correlation with the angle asked for is given beside that on renders.",
    ]);
    let mut lines = Vec::new();
    let mut turns = Vec::new();
    let sweep = |drawing: fn(&EvalOptions, usize, f32) -> Drawing, yaw: f32| -> Result<Vec<Option<f64>>> {
        (0..n).map(|i| lab.likeness(&drawing(options, i, yaw), i as u64)).collect()
    };
    let mut by_style = Vec::new();
    let mut by_photo = Vec::new();
    let mut renders = Vec::new();
    let mut render_turns = Vec::new();
    for yaw in YAWS {
        by_style.push(levels.relative(&sweep(turned_style, yaw)?));
        by_photo.push(levels.relative(&sweep(turned_photo, yaw)?));
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
    let middle = YAWS.len() / 2;
    let ends = |values: &[Estimate]| 0.5 * (values[0].value + values[YAWS.len() - 1].value);
    let label = "similarity, style image from the front";
    section.figure("front", label, by_style[middle], Unit::Plain);
    let mut at_ends =
        |key: &str, label: &str, drawing: fn(&EvalOptions, usize, f32) -> Drawing| -> Result<()> {
            let (left, right) = (sweep(drawing, YAWS[0])?, sweep(drawing, YAWS[YAWS.len() - 1])?);
            let both: Vec<Option<f64>> = left.into_iter().chain(right).collect();
            let people: Vec<usize> = (0..n).chain(0..n).collect();
            section.figure(key, label, levels.of(&people).relative(&both), Unit::Plain);
            Ok(())
        };
    at_ends("style-50", "similarity, style image at ±50°", turned_style)?;
    at_ends("photo-50", "similarity, photo at ±50°", turned_photo)?;
    let follows = |turns: &[Option<(f64, f64)>]| {
        let found: Vec<(f64, f64)> = turns.iter().flatten().copied().collect();
        bootstrap(found.len(), |trials| {
            let (yaws, turns): (Vec<f64>, Vec<f64>) = trials.iter().map(|i| found[*i]).unzip();
            correlation(&yaws, &turns)
        })
    };
    section.figure("follows", "pose follows the style image (correlation)", follows(&turns), Unit::Plain);
    section.figure("follows-renders", "the same on renders", follows(&render_turns), Unit::Plain);
    let faces = share_of(turns.iter().map(Option::is_some));
    section.figure("faces", "pictures with a face, style image turned", faces, Unit::Share);
    section.text.push(format!(
        "From 0° to ±50° renders lose {:.2}, pictures of a turned style image {:.2}, pictures of a turned photo {:.2}.",
        renders[middle].value - ends(&renders),
        by_style[middle].value - ends(&by_style),
        by_photo[middle].value - ends(&by_photo),
    ));
    lines.push(("style image turned".to_owned(), by_style));
    lines.push(("photo turned".to_owned(), by_photo));
    lines.push(("renders".to_owned(), renders));
    section.plots.push(Plot {
        caption: "Relative similarity to the photo's person".to_owned(),
        unit: Unit::Plain,
        kind: PlotKind::Lines {
            axis: "yaw in degrees".to_owned(),
            places: YAWS.iter().map(|yaw| f64::from(*yaw)).collect(),
            lines,
        },
        marks: Vec::new(),
    });
    let head = |first: &str| -> Vec<String> {
        let yaws = YAWS.iter().map(|yaw| format!("{yaw:.0}°").replace('-', "−"));
        std::iter::once(first.to_owned()).chain(yaws).collect()
    };
    let mut by_style = Vec::new();
    let mut by_photo = Vec::new();
    for i in 0..n.min(SHOWN) {
        let styles = YAWS.iter().map(|yaw| Some(Shown::Staged(style(i, *yaw))));
        by_style.push(std::iter::once(None).chain(styles).collect());
        let mut row = vec![Some(Shown::Photo(photo(i, 0.0)))];
        row.extend(YAWS.iter().map(|yaw| Shown::drawing(turned_style(options, i, *yaw))));
        by_style.push(row);
        let photos = YAWS.iter().map(|yaw| Some(Shown::Photo(photo(i, *yaw))));
        by_photo.push(std::iter::once(None).chain(photos).collect());
        let mut row = vec![Some(Shown::Staged(style(i, 0.0)))];
        row.extend(YAWS.iter().map(|yaw| Shown::drawing(turned_photo(options, i, *yaw))));
        by_photo.push(row);
    }
    section.grids.push(Grid {
        caption: "Style images that turn, and below each the picture of the photo's person".to_owned(),
        head: head("photo"),
        labels: Vec::new(),
        rows: by_style,
    });
    section.grids.push(Grid {
        caption: "Photos that turn, and below each the picture".to_owned(),
        head: head("style image"),
        labels: Vec::new(),
        rows: by_photo,
    });
    Ok(section)
}
