//! The report as one page that stands alone: inline styles, inline SVG, pictures as data. No script.

use std::collections::BTreeMap;
use std::fmt::Write;

use ::image::codecs::jpeg::JpegEncoder;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::experiments::{Experiment, Run};
use super::lab::Lab;
use super::options::EvalOptions;
use super::plot;
use super::section::{Cell, Figure, Grid, Section, Shown, Table, Target, Unit, number};
use super::statistics::Estimate;
use facestudio::error::{Error, Result};

const STYLE: &str = include_str!("report.css");
/// Of the pictures in the page; the PNGs beside it are lossless.
const JPEG_QUALITY: u8 = 88;

/// The whole page.
pub fn page(run: &Run, sections: &[(&'static Experiment, Section)], lab: &Lab) -> Result<String> {
    let mut pictures = Pictures { lab, encoded: BTreeMap::new() };
    let mut body = String::new();
    for (experiment, section) in sections {
        body += &part(experiment, section, &mut pictures)?;
    }
    let links: String = sections
        .iter()
        .map(|(experiment, _)| {
            format!("<li><a href=\"#{}\">{}</a></li>", experiment.name, escape(experiment.title))
        })
        .collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>FaceStudio evaluation: {model}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <h1>How well does <em>{model}</em> keep a face?</h1>\n{about}</header>\n<main>\n{targets}\
         <nav aria-label=\"Experiments\"><ul>{links}</ul></nav>\n{body}</main>\n<footer><p>FaceStudio {version}. The paper \
         is <a href=\"https://arxiv.org/abs/2312.02663\">arXiv 2312.02663</a>. All people here are made up.</p></footer>\n\
         </body>\n</html>\n",
        model = escape(&run.model),
        about = about(run),
        targets = targets(sections),
        version = escape(&run.version),
    ))
}

fn about(run: &Run) -> String {
    let EvalOptions { trials, sampler, steps, guidance_scale, seed, .. } = &run.options;
    let sampler = sampler.scheduler_class();
    let judge = if run.encoder_conditions {
        "Faces are compared by the model's own identity encoder, the one that conditions it: it is a partial judge."
    } else {
        "Faces are compared by an identity encoder that conditions nothing: other weights, trained on other people."
    };
    let against = match &run.against {
        Some((name, _)) => format!(" It is compared with <em>{}</em>.", escape(name)),
        None => String::new(),
    };
    let clip = match &run.clip {
        Some((name, digest)) => {
            format!(" The CLIP of <em>{}</em> ({}) judges.", escape(name), escape(digest))
        }
        None => String::new(),
    };
    format!(
        "<p>The experiments of the FaceStudio paper on {trials} rendered people whom no network has seen in training, from \
         seed {seed} on, with {steps} steps of {sampler} at guidance scale {guidance_scale}. {judge}{against}{clip}</p>\n\
         <p class=\"quiet\">Small figures are 95 % intervals. Model {}, encoder {} ({}).</p>\n",
        escape(&run.model_digest),
        escape(&run.encoder),
        escape(&run.encoder_digest),
    )
}

/// Every figure that has a target.
fn targets(sections: &[(&'static Experiment, Section)]) -> String {
    let mut rows = String::new();
    let (mut met, mut all) = (0, 0);
    for (experiment, section) in sections {
        for (figure, target) in section.figures.iter().filter_map(|f| Some((f, f.target?))) {
            let reached = target.met(figure.estimate.value);
            met += usize::from(reached);
            all += 1;
            let spans = target.met(figure.estimate.low) != target.met(figure.estimate.high);
            let (class, word) = if reached { ("met", "reached") } else { ("missed", "not reached") };
            let renders =
                figure.renders.map_or_else(|| "–".to_owned(), |renders| number(renders.value, figure.unit));
            let doubt = if spans { " <small>interval spans it</small>" } else { "" };
            let _ = writeln!(
                rows,
                "<tr><th scope=\"row\"><a href=\"#{}\">{}</a></th><td>{}</td><td>{}</td><td class=\"{class}\">{word}{doubt}</td>\
                 <td>{renders}</td></tr>",
                experiment.name,
                escape(&figure.label),
                estimate(figure.estimate, figure.unit),
                bound(target, figure.unit),
            );
        }
    }
    if all == 0 {
        return String::new();
    }
    format!(
        "<section id=\"targets\"><h2>Targets: {met} of {all} reached</h2>\n{}</section>\n",
        scroll(
            "Targets",
            &format!(
                "<table class=\"targets\"><thead><tr><th scope=\"col\">figure</th><th scope=\"col\">measured</th>\
                 <th scope=\"col\">target</th><th scope=\"col\">verdict</th><th scope=\"col\">renders reach</th></tr></thead>\n<tbody>{rows}</tbody></table>"
            )
        )
    )
}

fn bound(target: Target, unit: Unit) -> String {
    let bound = match target {
        Target::AtLeast(value) => format!("≥ {}", number(value, unit)),
        Target::AtMost(value) => format!("≤ {}", number(value, unit)),
    };
    bound.replace(' ', "\u{a0}")
}

fn part(experiment: &Experiment, section: &Section, pictures: &mut Pictures) -> Result<String> {
    let mut out = format!("<section id=\"{}\">\n<h2>{}</h2>\n", experiment.name, escape(experiment.title));
    out += "<dl class=\"figures\">\n";
    out.extend(section.figures.iter().map(figure));
    out += "</dl>\n";
    if !section.plots.is_empty() {
        out += "<div class=\"plots\">\n";
        out.extend(section.plots.iter().map(plot::plot));
        out += "</div>\n";
    }
    out.extend(section.tables.iter().map(table));
    for grid in &section.grids {
        out += &self::grid(grid, pictures)?;
    }
    out += "<details><summary>What is measured, and how</summary>\n";
    out.extend(section.text.iter().map(|paragraph| format!("<p>{}</p>\n", escape(paragraph))));
    out += "</details>\n</section>\n";
    Ok(out)
}

fn figure(figure: &Figure) -> String {
    let Estimate { value, low, high, .. } = figure.estimate;
    let interval = if low == high {
        String::new()
    } else {
        format!("<span>{} to {}</span>", number(low, figure.unit), number(high, figure.unit))
    };
    let renders = figure.renders.map_or_else(String::new, |renders| {
        format!("<span>renders reach {}</span>", number(renders.value, figure.unit))
    });
    format!(
        "<div><dt>{}</dt><dd>{}{interval}{renders}</dd></div>\n",
        escape(&figure.label),
        number(value, figure.unit)
    )
}

fn estimate(estimate: Estimate, unit: Unit) -> String {
    let Estimate { value, low, high, .. } = estimate;
    if low == high || !value.is_finite() {
        return number(value, unit);
    }
    format!("{} <small>{} to {}</small>", number(value, unit), number(low, unit), number(high, unit))
}

/// Cells of a head; one that says nothing is no heading.
fn heads(heads: &[String]) -> String {
    let cell = |head: &String| match head.as_str() {
        "" => "<td></td>".to_owned(),
        head => format!("<th scope=\"col\">{}</th>", escape(head)),
    };
    heads.iter().map(cell).collect()
}

fn table(table: &Table) -> String {
    let head = heads(&table.head);
    let cell = |cell: &Cell| match cell {
        Cell::Estimate(figure, unit) => estimate(*figure, *unit),
        Cell::Number(value, unit) => number(*value, *unit),
        Cell::Text(text) => escape(text),
    };
    let row = |(label, cells): &(String, Vec<Cell>)| {
        let cells: String = cells.iter().map(|c| format!("<td>{}</td>", cell(c))).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(label))
    };
    let rows: String = table.rows.iter().map(row).collect();
    captioned(
        &table.caption,
        &format!("<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>"),
    )
}

/// A caption that stays where it is while the table under it scrolls.
fn captioned(caption: &str, table: &str) -> String {
    let caption = escape(caption);
    format!("<figure>\n<figcaption>{caption}</figcaption>\n{}</figure>\n", scroll(&caption, table))
}

/// What is wider than the page scrolls by itself, also by keyboard.
fn scroll(label: &str, inner: &str) -> String {
    format!("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\">{inner}</div>\n")
}

fn grid(grid: &Grid, pictures: &mut Pictures) -> Result<String> {
    let head = heads(&grid.head);
    let mut rows = String::new();
    let labelled = usize::from(!grid.labels.is_empty());
    for (i, row) in grid.rows.iter().enumerate() {
        rows += "<tr>";
        rows.extend(grid.labels.get(i).map(|label| format!("<th scope=\"row\">{}</th>", escape(label))));
        for (shown, head) in row.iter().zip(grid.head.iter().skip(labelled)) {
            rows += "<td>";
            if let Some(shown) = shown {
                rows += &pictures.tag(shown, head)?;
            }
            rows += "</td>";
        }
        rows += "</tr>\n";
    }
    let table =
        format!("<table class=\"pictures\"><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>");
    Ok(captioned(&grid.caption, &table))
}

/// Pictures as data, each encoded once.
struct Pictures<'a> {
    lab: &'a Lab,
    encoded: BTreeMap<String, Option<(String, u32, u32)>>,
}

impl Pictures<'_> {
    fn tag(&mut self, shown: &Shown, head: &str) -> Result<String> {
        let key = serde_json::to_string(shown).map_err(|e| Error::internal("json", e.to_string()))?;
        if !self.encoded.contains_key(&key) {
            let encoded = self.lab.show(shown)?.map(|picture| {
                let mut bytes = Vec::new();
                let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
                picture
                    .write_with_encoder(encoder)
                    .map(|()| (BASE64_STANDARD.encode(bytes), picture.width(), picture.height()))
                    .map_err(|e| Error::internal("jpeg", e.to_string()))
            });
            self.encoded.insert(key.clone(), encoded.transpose()?);
        }
        Ok(match self.encoded.get(&key).and_then(Option::as_ref) {
            Some((data, width, height)) => format!(
                "<img width=\"{width}\" height=\"{height}\" alt=\"{}\" src=\"data:image/jpeg;base64,{data}\">",
                escape(&described(shown, head))
            ),
            None => "<span class=\"none\">no face in the photo</span>".to_owned(),
        })
    }
}

fn described(shown: &Shown, head: &str) -> String {
    match shown {
        Shown::Photo(photo) => format!("{head}: person {}", photo.who),
        Shown::Staged(staged) => format!("{head}: rendered scene {}", staged.scene),
        Shown::Drawing(drawing) if drawing.prompt.is_empty() => format!("{head}: generated picture"),
        Shown::Drawing(drawing) => format!("{head}: generated picture, “{}”", drawing.prompt),
    }
}

/// Text for HTML, in attributes too.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<b> & \"c\""), "&lt;b&gt; &amp; &quot;c&quot;");
    }
}
