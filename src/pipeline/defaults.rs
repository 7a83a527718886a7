//! What a model's pictures are made with where a request does not say.

use serde::Deserialize;

use super::folder::ModelFolder;
use super::index::KleinIndex;
use crate::error::{Error, Result};
use crate::request::Defaults;
use crate::sampling::SchedulerConfig;
use crate::weights::{Files, without_mark};

/// The file directly in a model folder.
pub const NAME: &str = "defaults.json";

/// `defaults.json`: what `scheduler_config.json` has no place for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultsFile {
    steps: Option<usize>,
    guidance_scale: Option<f32>,
}

/// Reads a model folder's defaults, without its weights.
///
/// The sampler is that of `scheduler/scheduler_config.json`. Steps and guidance scale are those of `defaults.json`, as far as
/// there is one and it says; else those of [`Defaults::with_sampler`], or of a FLUX.2 klein by what `model_index.json` says.
///
/// Fails with `component-missing` without a scheduler, and with `config` or `config-range` on a file that makes no sense.
pub fn defaults(files: &dyn Files) -> Result<Defaults> {
    let checked = files.checked();
    let files = checked.as_ref().map_or(files, |checked| checked);
    let folder = ModelFolder::new(files)?;
    let sampler = folder.load("scheduler", SchedulerConfig::from_component)?.default_sampler()?;
    let usual = Defaults::with_sampler(sampler);
    let usual = if sampler.is_of_flow_matching() { KleinIndex::read(files)?.defaults(usual) } else { usual };
    if !files.list("")?.iter().any(|name| name == NAME) {
        return Ok(usual);
    }
    let remedy = "write { \"steps\": 4, \"guidance_scale\": 1 }, or remove the file";
    let file: DefaultsFile = serde_json::from_slice(without_mark(&files.read(NAME)?))
        .map_err(|e| Error::weights("config", format!("{NAME}: {e}"), remedy))?;
    let defaults = Defaults {
        steps: file.steps.unwrap_or(usual.steps),
        guidance_scale: file.guidance_scale.unwrap_or(usual.guidance_scale),
        ..usual
    };
    defaults
        .validate()
        .map_err(|e| Error::weights("config-range", format!("{NAME}: {}", e.message), remedy))?;
    Ok(defaults)
}
