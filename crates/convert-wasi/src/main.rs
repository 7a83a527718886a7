//! The converter as a program of WASI: a page runs it in a worker, over files that it keeps itself. It makes what `facestudio convert`
//! makes, a component at a time, so that a page can drop a source as soon as nothing needs it any more.
//!
//! ```text
//! facestudio-convert-wasi SOURCES MODEL steps        which components there are, and what each is made of
//! facestudio-convert-wasi SOURCES MODEL make K       makes the component of that number, from 0
//! facestudio-convert-wasi SOURCES MODEL finish       makes what lies beside the components, and the manifest
//! facestudio-convert-wasi SOURCES MODEL recognize FILE   says what a file in SOURCES is
//! ```
//!
//! `SOURCES/request.json` is a [`Request`]; a part's files lie below its repository's name there. What happens is said on standard
//! output, a JSON object a line ([`Said`]); where it fails, the last line is the error, and the exit status 1.

#![warn(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use facestudio::error::{Error, Result};
use facestudio::weights::{Folder, Quantization, read_text, sha256};
use facestudio_convert::kind::{Recognized, recognize};
use facestudio_convert::presets::Preset;
use facestudio_convert::{Output, Plan, Watch};
use serde::{Deserialize, Serialize};

/// What is to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// A recipe's document (docs/recipes.md).
    recipe: serde_json::Value,
    /// How weights are stored: `f16`, `q8` or `q4`.
    dtype: String,
}

/// A line of standard output.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Said<'a> {
    /// What `make` can make, in order.
    Steps(Vec<Step>),
    /// A tensor is written.
    Tensor { component: &'a str, name: &'a str },
    /// A file of the model folder was written.
    File { path: &'a str, bytes: u64, sha256: String },
    /// What a file is.
    Recognized(Recognized),
    /// It failed.
    Error { code: &'a str, message: &'a str, remedy: &'a str },
}

/// One component.
#[derive(Serialize)]
struct Step {
    component: String,
    /// Files and folders below SOURCES.
    reads: Vec<String>,
}

fn say(said: &Said) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::internal("output", e.to_string());
    let line = serde_json::to_string(said).map_err(|e| failed(&e))?;
    writeln!(stdout(), "{line}").map_err(|e| failed(&e))
}

/// The model folder: its files are written at once, and said.
struct Model(PathBuf);

impl Output for Model {
    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let file = self.0.join(path);
        let folder = file.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder).and_then(|()| fs::write(&file, bytes)).map_err(|e| Error::io(path, &e))?;
        say(&Said::File { path, bytes: bytes.len() as u64, sha256: sha256(bytes) })
    }

    fn files(&self) -> Folder {
        Folder(self.0.clone())
    }
}

/// The plan of the request in a folder of sources.
fn plan(sources: &Path) -> Result<Plan> {
    let text = read_text(&sources.join("request.json"))?;
    let invalid = |e: &dyn std::fmt::Display| {
        Error::input(
            "preset-invalid",
            format!("the request cannot be read: {e}"),
            "give a recipe and a dtype",
        )
    };
    let Request { recipe, dtype } = serde_json::from_str(&text).map_err(|e| invalid(&e))?;
    let quantization = [Quantization::F16, Quantization::Q8, Quantization::Q4];
    let quantization = quantization.into_iter().find(|known| known.name() == dtype);
    let quantization =
        quantization.ok_or_else(|| invalid(&format!("'{dtype}' is none of f16, q8 and q4")))?;
    let preset = Preset::parse(recipe.to_string().as_bytes())?;
    let folders: Vec<PathBuf> = preset.parts.iter().map(|part| sources.join(&part.repository)).collect();
    Ok(preset.plan(&folders, quantization))
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [sources, model, rest @ ..] = words.as_slice() else { return Err(usage()) };
    let (sources, model) = (Path::new(sources), Model(PathBuf::from(model)));
    match rest {
        ["steps"] => {
            let plan = plan(sources)?;
            plan.check_beside()?;
            let below =
                |path: &PathBuf| path.strip_prefix(sources).unwrap_or(path).to_string_lossy().into_owned();
            let steps = plan.steps()?.into_iter().map(|step| Step {
                reads: step.reads.iter().map(below).collect(),
                component: step.component,
            });
            say(&Said::Steps(steps.collect()))
        }
        ["make", number] => {
            let plan = plan(sources)?;
            let steps = plan.steps()?;
            let step = number.parse().ok().and_then(|number: usize| steps.get(number)).ok_or_else(usage)?;
            let failed = RefCell::new(Ok(()));
            let tell = |component: &str, name: &str| {
                let said = say(&Said::Tensor { component, name });
                if said.is_err() {
                    *failed.borrow_mut() = said;
                }
            };
            let never = AtomicBool::new(false);
            plan.make(step, &model, Watch { stop: &never, tell: &tell }, &mut |_, _| Ok(()))?;
            failed.into_inner()
        }
        ["finish"] => plan(sources)?.finish(&model),
        ["recognize", file] => say(&Said::Recognized(recognize(&sources.join(file))?)),
        _ => Err(usage()),
    }
}

fn usage() -> Error {
    Error::input(
        "usage",
        "the converter was started in another way than it knows",
        "give SOURCES MODEL and steps, make K, finish, or recognize FILE",
    )
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error { code, message, remedy, .. }) => {
            // Where standard output is gone, nobody hears why.
            let _ = say(&Said::Error { code, message: &message, remedy: &remedy });
            ExitCode::FAILURE
        }
    }
}
