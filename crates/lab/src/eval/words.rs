//! An experiment's figures in words: its template holds every sentence, name and target, and says what becomes a headline
//! figure, a table, a plot or a row of pictures.
//!
//! What a template writes is the section's text, a paragraph up to each empty line. What it calls adds the rest:
//! `figure(key, label, cell, at_least=, at_most=, renders=)`; `table(caption, head)` and then each `row(label, cells…)`;
//! `bars(caption, unit, marks)` and each `bar(label, estimate)`; `lines(caption, unit, axis, places)` and each
//! `line(name, estimates)`; `grid(caption, head, pictures, labels)`. The filters `plain`, `share`, `seconds` and `decibel`
//! make cells, and `number` writes a number into a sentence. A name that there is not is an error.

use minijinja::value::{Kwargs, Rest, Serde, Value};
use minijinja::{Environment, ErrorKind, State};
use serde::Deserialize;

use super::section::{Cell, Figure, Grid, Pictures, Plot, PlotKind, Section, Table, Target, Unit, number};
use super::statistics::Estimate;
use crate::chart;
use facestudio::error::{Error, Result};

type Done = std::result::Result<&'static str, minijinja::Error>;

/// The section that `template` makes of an experiment's figures.
pub fn section(name: &str, template: &str, figures: &serde_json::Value) -> Result<Section> {
    let write = || -> std::result::Result<Section, minijinja::Error> {
        let environment = environment()?;
        let template = environment.template_from_named_str(name, template)?;
        let mut written = template.render_captured(Value::from(Serde(figures)))?;
        let section =
            written.with_state_mut(|state| std::mem::take(state.get_or_insert_extension(Section::default())));
        Ok(Section { text: paragraphs(written.output()), ..section })
    };
    write().map_err(|e| Error::internal("template", format!("{name}: {e:#}")))
}

/// What templates of words can call.
fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = chart::environment()?;
    environment.add_filter("number", |value: Option<f64>, unit: Option<Serde<Unit>>| {
        number(value.unwrap_or(f64::NAN), unit.map_or(Unit::Plain, |unit| unit.0))
    });
    for (name, unit) in [
        ("plain", Unit::Plain),
        ("share", Unit::Share),
        ("seconds", Unit::Seconds),
        ("decibel", Unit::Decibel),
    ] {
        environment.add_filter(name, move |value: Value| cell(value, unit));
    }
    environment.add_function("figure", figure);
    environment.add_function("table", |state: &mut State, caption: String, head: Vec<String>| {
        added(state).tables.push(Table { caption, head, rows: Vec::new() });
        ""
    });
    environment.add_function("row", row);
    environment.add_function(
        "bars",
        |state: &mut State, caption: String, unit: Serde<Unit>, marks: Serde<Vec<(String, f64)>>| {
            let kind = PlotKind::Bars { bars: Vec::new(), marks: marks.0 };
            added(state).plots.push(Plot { caption, unit: unit.0, kind });
            ""
        },
    );
    environment.add_function("bar", |state: &mut State, label: String, estimate: Serde<Estimate>| -> Done {
        match added(state).plots.last_mut().map(|plot| &mut plot.kind) {
            Some(PlotKind::Bars { bars, .. }) => bars.push((label, estimate.0)),
            _ => return Err(misplaced("a bar without `bars`")),
        }
        Ok("")
    });
    environment.add_function(
        "lines",
        |state: &mut State, caption: String, unit: Serde<Unit>, axis: String, places: Serde<Vec<f64>>| {
            let kind = PlotKind::Lines { axis, places: places.0, lines: Vec::new() };
            added(state).plots.push(Plot { caption, unit: unit.0, kind });
            ""
        },
    );
    environment.add_function(
        "line",
        |state: &mut State, name: String, estimates: Serde<Vec<Estimate>>| -> Done {
            match added(state).plots.last_mut().map(|plot| &mut plot.kind) {
                Some(PlotKind::Lines { lines, .. }) => lines.push((name, estimates.0)),
                _ => return Err(misplaced("a line without `lines`")),
            }
            Ok("")
        },
    );
    environment.add_function(
        "grid",
        |state: &mut State,
         caption: String,
         head: Vec<String>,
         rows: Serde<Pictures>,
         labels: Option<Vec<String>>| {
            added(state).grids.push(Grid { caption, head, labels: labels.unwrap_or_default(), rows: rows.0 });
            ""
        },
    );
    Ok(environment)
}

/// What the template has added up to now.
fn added<'a>(state: &'a mut State) -> &'a mut Section {
    state.get_or_insert_extension_with(Section::default)
}

fn misplaced(what: &'static str) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, what)
}

/// A table's cell: a dash where there is nothing.
fn cell(value: Value, unit: Unit) -> std::result::Result<Value, minijinja::Error> {
    let cell = match f64::try_from(value.clone()) {
        _ if value.is_none() => Cell::Text("–".to_owned()),
        Ok(number) => Cell::Number(number, unit),
        Err(_) => Cell::Estimate(Estimate::deserialize(value)?, unit),
    };
    Ok(Value::from(Serde(cell)))
}

fn figure(state: &mut State, key: String, label: String, cell: Serde<Cell>, more: Kwargs) -> Done {
    let Cell::Estimate(estimate, unit) = cell.0 else {
        return Err(misplaced("a headline figure needs an interval"));
    };
    let target = match (more.get::<Option<f64>>("at_least")?, more.get::<Option<f64>>("at_most")?) {
        (Some(bound), None) => Some(Target::AtLeast(bound)),
        (None, Some(bound)) => Some(Target::AtMost(bound)),
        (None, None) => None,
        (Some(_), Some(_)) => return Err(misplaced("a figure has one target")),
    };
    let renders = more.get::<Option<Value>>("renders")?.map(Estimate::deserialize).transpose()?;
    more.assert_all_used()?;
    added(state).figures.push(Figure { key, label, estimate, unit, target, renders });
    Ok("")
}

fn row(state: &mut State, label: String, cells: Rest<Value>) -> Done {
    let cells = cells.iter().map(|cell| match cell.as_str() {
        Some(text) => Ok(Cell::Text(text.to_owned())),
        None => Cell::deserialize(cell.clone()),
    });
    let cells = cells.collect::<std::result::Result<_, _>>()?;
    let table = added(state).tables.last_mut().ok_or_else(|| misplaced("a row without a table"))?;
    table.rows.push((label, cells));
    Ok("")
}

/// Text up to empty lines, each paragraph on one line.
fn paragraphs(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_says_what_is_shown() {
        let estimate = serde_json::json!({"value": 0.5, "low": 0.25, "high": 0.75, "n": 4});
        let figures = serde_json::json!({"n": 4, "right": estimate, "none": null});
        let template = "One\nline {{ none | number }}.\n\n{% do table(n ~ \" pictures\", [\"\", \"right\"]) %}\n\
                        {% do row(\"all\", right | share, none | plain, 2.5 | seconds, \"-\") %}\n\
                        {% do figure(\"right\", \"right ones\", right | share, at_least=0.4, renders=none) %}\n\nTwo.\n";
        let section = section("test", template, &figures).unwrap();
        assert_eq!(section.text, ["One line –.", "Two."]);
        let figure = &section.figures[0];
        assert_eq!((figure.target, figure.estimate.high), (Some(Target::AtLeast(0.4)), 0.75));
        assert_eq!((figure.unit, figure.renders), (Unit::Share, None));
        let table = &section.tables[0];
        assert_eq!((table.caption.as_str(), table.rows[0].1.len()), ("4 pictures", 4));
        assert!(matches!(table.rows[0].1[1], Cell::Text(_)));
        assert!(matches!(table.rows[0].1[2], Cell::Number(value, Unit::Seconds) if value == 2.5));
    }

    #[test]
    fn what_a_template_gets_wrong_is_said() {
        let figures = serde_json::json!({});
        for template in [
            "{{ missing }}",
            "{% do row(\"a\") %}",
            "{% do bar(\"a\", {\"value\": 1, \"low\": 1, \"high\": 1, \"n\": 1}) %}",
            "{% do figure(\"a\", \"b\", 1 | plain) %}",
            "{% if %}",
        ] {
            assert_eq!(section("test", template, &figures).unwrap_err().code, "template", "{template}");
        }
    }
}
