//! Many pictures from one file, and a machine's share of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use facestudio::Error;
use facestudio::request::MAX_COUNT;
use facestudio::weights::{check_output, read_text};
use serde_json::{Map, Value};

use crate::generate::Job;
use crate::picture;

/// Every `count`th job from the `index`th on.
#[derive(Debug, Clone, Copy)]
pub struct Shard {
    pub index: usize,
    pub count: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

/// `I/N`, I below N.
pub fn parse_shard(text: &str) -> std::result::Result<Shard, String> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((index, count)) if index < count => Ok(Shard { index, count }),
        _ => Err("write it as I/N with I from 0 to N - 1".to_owned()),
    }
}

/// A job's flags, parsed like those of the command line.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    job: Job,
}

/// The shard's jobs with the numbers of their lines, from 1. All lines are checked, whosever they are, before anything is made.
pub fn read(file: &Path, shard: Shard) -> Result<Vec<(usize, Job)>> {
    let text = read_text(file)?;
    let mut jobs = Vec::new();
    let mut writers: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut folders = BTreeSet::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let job = parse(line).map_err(|reason| invalid(file, i + 1, &reason))?;
        // Before its outputs are listed.
        for (name, value) in [("count", job.count), ("candidates", job.candidates)] {
            if !(1..=MAX_COUNT).contains(&value) {
                let reason = format!("\"{name}\" is {value}; it must be 1 to {MAX_COUNT}");
                return Err(invalid(file, i + 1, &reason).into());
            }
        }
        for path in job.outputs() {
            if folders.insert(path.parent().map(Path::to_owned)) || path.exists() {
                check_output(&path).map_err(|e| e.context(place(file, i + 1)))?;
            }
            if let Some(other) = writers.insert(real(&path), i + 1) {
                let reason = format!("{} is also written by line {other}", path.display());
                return Err(invalid(file, i + 1, &reason).into());
            }
        }
        jobs.push((i + 1, job));
    }
    Ok(jobs.into_iter().skip(shard.index).step_by(shard.count).collect())
}

/// The place that a path leads to, whichever way it goes there.
fn real(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let there = path
        .canonicalize()
        .or_else(|_| Ok(parent.canonicalize()?.join(path.file_name().unwrap_or_default())));
    there.unwrap_or_else(|_: std::io::Error| path.to_owned())
}

/// What a run has written.
#[derive(Default)]
pub struct Written(BTreeMap<PathBuf, usize>);

impl Written {
    /// Notes what the job in this line has made.
    pub fn note(&mut self, line: usize, job: &Job) {
        self.0.extend(job.outputs().iter().map(|path| (real(path), line)));
    }

    /// Whether the job's pictures are all there from before. What is no whole picture does not count.
    ///
    /// Fails where one of them is there because another line of this run has written it: there are disks on which two names that
    /// differ in case are one.
    pub fn is_made(&self, file: &Path, line: usize, job: &Job) -> facestudio::Result<bool> {
        let outputs = job.outputs();
        for path in &outputs {
            if let Some(other) = self.0.get(&real(path)) {
                return Err(invalid(file, line, &format!("{} was written by line {other}", path.display())));
            }
        }
        Ok(outputs.iter().all(|path| picture::is_there(path)))
    }
}

/// Where a job stands, for people.
pub fn place(file: &Path, line: usize) -> String {
    format!("{}, line {line}", file.display())
}

fn invalid(file: &Path, line: usize, reason: &str) -> Error {
    Error::input(
        "job-format",
        format!("{}: {reason}", place(file, line)),
        "write one JSON object a line, with the flags of `facestudio generate` as keys and an `out` of its own",
    )
}

fn parse(line: &str) -> std::result::Result<Job, String> {
    let fields: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if !fields.contains_key("out") {
        return Err("it has no \"out\"".to_owned());
    }
    let mut arguments = Vec::new();
    for (key, value) in fields {
        let flag = format!("--{}", key.replace('_', "-"));
        let values = match value {
            Value::Array(values) => values,
            one => vec![one],
        };
        for value in values {
            match value {
                Value::Bool(true) => arguments.push(flag.clone()),
                Value::Bool(false) | Value::Null => {}
                Value::String(text) => arguments.push(format!("{flag}={text}")),
                Value::Number(number) => arguments.push(format!("{flag}={number}")),
                _ => return Err(format!("\"{key}\" is neither a text nor a number, nor a list of them")),
            }
        }
    }
    // clap tells the usage as well, which nobody asked for here.
    let first_line = |e: clap::Error| e.to_string().lines().next().unwrap_or_default().replace("error: ", "");
    Line::try_parse_from(arguments).map(|line| line.job).map_err(first_line)
}
