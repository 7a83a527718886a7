//! `report.json` for programs and `index.html` for people.

use std::path::Path;

use serde::Serialize;

use super::experiments::{Experiment, Run};
use super::html;
use super::lab::Lab;
use super::section::{Figure, Section, Table};
use facestudio::error::{Error, Result};
use facestudio::weights::write_file;

/// All results of one model: `report.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What decided them.
    pub run: Run,
    /// One entry an experiment.
    pub experiments: Vec<Findings>,
}

/// One experiment's numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// As `--experiments` names it.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What was measured, and how.
    pub text: Vec<String>,
    /// The headline figures.
    pub figures: Vec<Figure>,
    /// All others.
    pub tables: Vec<Table>,
}

impl Report {
    /// A headline figure by experiment and key.
    pub fn figure(&self, experiment: &str, key: &str) -> Option<&Figure> {
        let findings = self.experiments.iter().find(|findings| findings.name == experiment)?;
        findings.figures.iter().find(|figure| figure.key == key)
    }
}

/// Writes both files into `out`.
pub fn write(
    out: &Path,
    run: &Run,
    sections: &[(&'static Experiment, Section)],
    lab: &Lab,
) -> Result<Report> {
    let findings = |(experiment, section): &(&'static Experiment, Section)| Findings {
        name: experiment.name,
        title: experiment.title,
        text: section.text.clone(),
        figures: section.figures.clone(),
        tables: section.tables.clone(),
    };
    let report = Report { run: run.clone(), experiments: sections.iter().map(findings).collect() };
    let json = serde_json::to_vec_pretty(&report).map_err(|e| Error::internal("json", e.to_string()))?;
    write_file(&out.join("report.json"), &json)?;
    write_file(&out.join("index.html"), html::page(run, sections, lab)?.as_bytes())?;
    Ok(report)
}
