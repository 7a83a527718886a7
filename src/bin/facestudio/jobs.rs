//! Many pictures from one file, and a machine's share of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use facestudio::Error;
use serde_json::{Map, Value};

use crate::generate::Job;

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
    let text = std::fs::read_to_string(file).map_err(|e| Error::io(file.display(), &e))?;
    let mut jobs = Vec::new();
    let mut writers: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let job = parse(line).map_err(|reason| invalid(file, i + 1, &reason))?;
        for path in job.outputs() {
            if let Some(other) = writers.insert(path.clone(), i + 1) {
                let reason = format!("{} is also written by line {other}", path.display());
                return Err(invalid(file, i + 1, &reason).into());
            }
        }
        jobs.push((i + 1, job));
    }
    Ok(jobs.into_iter().skip(shard.index).step_by(shard.count).collect())
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
    let told = |e: clap::Error| e.to_string().lines().next().unwrap_or_default().replace("error: ", "");
    Line::try_parse_from(arguments).map(|line| line.job).map_err(told)
}
