//! The report as one page that stands alone: inline styles, inline SVG, pictures as data. No script.

use std::collections::BTreeMap;

use ::image::codecs::jpeg::JpegEncoder;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::json;

use super::experiments::{Experiment, Run};
use super::lab::Lab;
use super::plot::{self, Drawn};
use super::section::{Cell, Figure, Grid, Picture, Section, Table, Target, Unit, number};
use super::statistics::Estimate;
use crate::chart::render;
use facestudio::error::{Error, Result};

/// Of the pictures in the page; the PNGs beside it are lossless.
const JPEG_QUALITY: u8 = 88;

/// The whole page.
pub fn page(run: &Run, sections: &[(&'static Experiment, Section)], lab: &Lab) -> Result<String> {
    let mut pictures = Pictures { lab, encoded: BTreeMap::new() };
    let mut experiments = Vec::new();
    let mut targets = Vec::new();
    for (experiment, section) in sections {
        targets.extend(section.figures.iter().filter_map(|figure| Aim::new(experiment.name, figure)));
        let grids = section.grids.iter().map(|grid| GridOfPage::new(grid, &mut pictures));
        let plots = section.plots.iter().map(|plot| Ok((plot.caption.as_str(), plot::draw(plot)?)));
        let figure = |figure: &Figure| {
            json!({
                "label": figure.label,
                "value": Written::new(figure.estimate, figure.unit),
                "renders": figure.renders.map(|renders| number(renders.value, figure.unit)),
            })
        };
        let table = |table: &Table| {
            let row = |(label, cells): &(String, Vec<Cell>)| -> (String, Vec<Written>) {
                (label.clone(), cells.iter().map(Written::cell).collect())
            };
            let rows: Vec<_> = table.rows.iter().map(row).collect();
            json!({"caption": table.caption, "head": table.head, "rows": rows})
        };
        experiments.push(json!({
            "name": experiment.name,
            "title": experiment.title,
            "text": section.text,
            "figures": section.figures.iter().map(figure).collect::<Vec<_>>(),
            "plots": plots.collect::<Result<Vec<(&str, Drawn)>>>()?,
            "tables": section.tables.iter().map(table).collect::<Vec<_>>(),
            "grids": grids.collect::<Result<Vec<_>>>()?,
        }));
    }
    let page = json!({
        "run": run,
        "targets": targets,
        "experiments": experiments,
        "sampler": run.options.sampler.scheduler_class(),
        "guidance_scale": run.options.guidance_scale.to_string(),
        "style": include_str!("report.css"),
    });
    render("page.html", include_str!("templates/page.html"), &page)
}

/// A figure as people read it.
#[derive(Serialize)]
struct Written {
    value: String,
    /// The ends of its interval, where it has some.
    interval: Option<[String; 2]>,
}

impl Written {
    fn new(Estimate { value, low, high, .. }: Estimate, unit: Unit) -> Self {
        let interval = value.is_finite() && low != high;
        Self {
            value: number(value, unit),
            interval: interval.then(|| [low, high].map(|end| number(end, unit))),
        }
    }

    fn cell(cell: &Cell) -> Self {
        match cell {
            Cell::Estimate(estimate, unit) => Self::new(*estimate, *unit),
            Cell::Number(value, unit) => Self { value: number(*value, *unit), interval: None },
            Cell::Text(text) => Self { value: text.clone(), interval: None },
        }
    }
}

/// A figure that has a target.
#[derive(Serialize)]
struct Aim {
    experiment: &'static str,
    label: String,
    value: Written,
    bound: String,
    met: bool,
    /// Whether the interval spans the target.
    open: bool,
    renders: String,
}

impl Aim {
    fn new(experiment: &'static str, figure: &Figure) -> Option<Self> {
        let (target, unit, estimate) = (figure.target?, figure.unit, figure.estimate);
        let bound = match target {
            Target::AtLeast(value) => format!("≥ {}", number(value, unit)),
            Target::AtMost(value) => format!("≤ {}", number(value, unit)),
        };
        Some(Self {
            experiment,
            label: figure.label.clone(),
            value: Written::new(estimate, unit),
            bound: bound.replace(' ', "\u{a0}"),
            met: target.met(estimate.value),
            open: target.met(estimate.low) != target.met(estimate.high),
            renders: number(figure.renders.map_or(f64::NAN, |renders| renders.value), unit),
        })
    }
}

/// A grid with its pictures as data.
#[derive(Serialize)]
struct GridOfPage {
    caption: String,
    head: Vec<String>,
    rows: Vec<(Option<String>, Vec<Option<Image>>)>,
}

impl GridOfPage {
    fn new(grid: &Grid, pictures: &mut Pictures) -> Result<Self> {
        let heads = &grid.head[usize::from(!grid.labels.is_empty()).min(grid.head.len())..];
        let mut row = |(i, row): (usize, &Vec<Option<Picture>>)| {
            let cells = row.iter().zip(heads);
            let cells = cells
                .map(|(cell, head)| cell.as_ref().map(|picture| pictures.image(picture, head)).transpose());
            Ok((grid.labels.get(i).cloned(), cells.collect::<Result<_>>()?))
        };
        let rows = grid.rows.iter().enumerate().map(&mut row).collect::<Result<_>>()?;
        Ok(Self { caption: grid.caption.clone(), head: grid.head.clone(), rows })
    }
}

/// A picture of the page.
#[derive(Serialize)]
struct Image {
    alt: String,
    /// Base64 of a JPEG, width and height; none where there is no picture.
    jpeg: Option<(String, u32, u32)>,
}

/// Pictures as data, each encoded once.
struct Pictures<'a> {
    lab: &'a Lab,
    encoded: BTreeMap<String, Option<(String, u32, u32)>>,
}

impl Pictures<'_> {
    fn image(&mut self, picture: &Picture, head: &str) -> Result<Image> {
        let key = serde_json::to_string(picture).map_err(|e| Error::internal("json", e.to_string()))?;
        let jpeg = match self.encoded.get(&key) {
            Some(jpeg) => jpeg.clone(),
            None => self.encoded.entry(key).or_insert(encode(self.lab, picture)?).clone(),
        };
        let what = match picture {
            Picture::Photo(photo) => format!("person {}", photo.who),
            Picture::Staged(staged) => format!("rendered scene {}", staged.scene),
            Picture::Drawing(drawing) if drawing.prompt.is_empty() => "generated picture".to_owned(),
            Picture::Drawing(drawing) => format!("generated picture, “{}”", drawing.prompt),
        };
        Ok(Image { alt: format!("{head}: {what}"), jpeg })
    }
}

fn encode(lab: &Lab, picture: &Picture) -> Result<Option<(String, u32, u32)>> {
    let Some(picture) = lab.show(picture)? else { return Ok(None) };
    let mut bytes = Vec::new();
    picture
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))
        .map_err(|e| Error::internal("jpeg", e.to_string()))?;
    Ok(Some((BASE64_STANDARD.encode(bytes), picture.width(), picture.height())))
}
