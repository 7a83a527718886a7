//! What the report shows of an experiment: words, figures, tables, plots and pictures, without a look.

use serde::{Deserialize, Serialize};

use super::drawing::{Drawing, Photo, REFERENCE, Staged};
use super::statistics::{Estimate, or_nan};

/// One experiment's part of the report.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// What is measured, how, and what it can and cannot say: one paragraph each.
    pub text: Vec<String>,
    /// The headline figures.
    pub figures: Vec<Figure>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Plots.
    pub plots: Vec<Plot>,
    /// Pictures.
    pub grids: Vec<Grid>,
}

/// A headline figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Stable, for programs: unique within its experiment.
    pub key: String,
    /// For people.
    pub label: String,
    /// The figure.
    pub estimate: Estimate,
    /// How it is written.
    pub unit: Unit,
    /// What this project asks of `mini`, where it asks for something.
    pub target: Option<Target>,
    /// What the same measure gives the renderer's own pictures, where that bounds it.
    pub renders: Option<Estimate>,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// A cosine, a relative similarity, a correlation or a distance: two decimals.
    Plain,
    /// A share: per cent.
    Share,
    /// Seconds.
    Seconds,
    /// Decibel.
    Decibel,
}

/// A bound for a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Target {
    /// The figure should be at least this.
    AtLeast(f64),
    /// The figure should be at most this.
    AtMost(f64),
}

impl Target {
    /// Whether the figure itself meets the target.
    pub fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// A table; the first column holds the rows' labels.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Heads of all columns.
    pub head: Vec<String>,
    /// Label and cells of each row.
    pub rows: Vec<(String, Vec<Cell>)>,
}

/// A cell of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Cell {
    /// A figure with its interval.
    Estimate(Estimate, Unit),
    /// A number without one.
    Number(#[serde(deserialize_with = "or_nan")] f64, Unit),
    /// Words.
    Text(String),
}

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it shows.
    pub caption: String,
    /// How values are written.
    pub unit: Unit,
    /// The kind.
    pub kind: PlotKind,
}

/// What a plot draws.
#[derive(Debug, Clone)]
pub enum PlotKind {
    /// One figure with its interval a line.
    Bars {
        /// Label and figure of each.
        bars: Vec<(String, Estimate)>,
        /// Marked values: label and value.
        marks: Vec<(String, f64)>,
    },
    /// Values along an axis.
    Lines {
        /// What the axis is.
        axis: String,
        /// Places on the axis, ascending.
        places: Vec<f64>,
        /// Name and values of each line.
        lines: Vec<(String, Vec<Estimate>)>,
    },
}

/// Pictures in rows.
#[derive(Debug, Clone)]
pub struct Grid {
    /// What it shows.
    pub caption: String,
    /// Heads of the columns, that of the labels first where there are labels.
    pub head: Vec<String>,
    /// One label a row, or none at all.
    pub labels: Vec<String>,
    /// The rows.
    pub rows: Pictures,
}

/// Pictures in rows; a place may be empty.
pub type Pictures = Vec<Vec<Option<Picture>>>;

/// A picture of the report, by what it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Picture {
    /// A generated picture.
    Drawing(Box<Drawing>),
    /// An identity photo.
    Photo(Photo),
    /// A rendered scene.
    Staged(Staged),
}

impl Picture {
    /// A generated picture's place in a grid.
    pub fn drawing(drawing: Drawing) -> Option<Self> {
        Some(Self::Drawing(Box::new(drawing)))
    }

    /// The place of the photo that conditions where there is one reference.
    pub fn reference(who: u64) -> Option<Self> {
        Some(Self::Photo(Photo::new(who, REFERENCE)))
    }
}

/// A number as people read it.
pub fn number(value: f64, unit: Unit) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = match unit {
        Unit::Plain => format!("{value:.2}"),
        Unit::Share => format!("{:.0} %", 100.0 * value),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Decibel => format!("{value:.1} dB"),
    };
    // A minus sign, and none before zero.
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().any(|c| ('1'..='9').contains(&c)) => format!("−{rest}"),
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(0.614, Unit::Plain), "0.61");
        assert_eq!(number(-0.25, Unit::Plain), "−0.25");
        assert_eq!(number(-0.001, Unit::Plain), "0.00");
        assert_eq!(number(0.954, Unit::Share), "95 %");
        assert_eq!(number(f64::NAN, Unit::Decibel), "–");
    }
}
