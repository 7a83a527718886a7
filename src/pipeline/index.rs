//! `model_index.json`: what diffusers' pipelines say of a model folder as a whole.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::request::Defaults;
use crate::weights::{Files, without_mark};

/// The file directly in a model folder.
const NAME: &str = "model_index.json";
/// The pipelines of FLUX.2 klein. `Flux2KleinKVPipeline` is none of them: its weights are trained for references that see nothing
/// but themselves.
const PIPELINES: [&str; 2] = ["Flux2KleinPipeline", "Flux2KleinInpaintPipeline"];

/// What `model_index.json` says of a FLUX.2 klein.
#[derive(Debug, Clone, Copy)]
pub struct KleinIndex {
    /// Whether it draws in few steps, without guidance.
    pub distilled: bool,
}

impl KleinIndex {
    /// Fails with `file-missing` where there is none, with `config` where it cannot be read, and with `config-unsupported` where it
    /// is another pipeline's.
    pub fn read(files: &dyn Files) -> Result<Self> {
        #[derive(Deserialize)]
        struct Index {
            #[serde(rename = "_class_name")]
            class_name: String,
            #[serde(default)]
            is_distilled: bool,
        }
        let remedy = "use the one of the folder that the weights are from";
        let index: Index = serde_json::from_slice(without_mark(&files.read(NAME)?))
            .map_err(|e| Error::weights("config", format!("{NAME}: {e}"), remedy))?;
        if !PIPELINES.contains(&index.class_name.as_str()) {
            return Err(Error::weights(
                "config-unsupported",
                format!("{NAME}: the pipeline '{}' is not supported with a transformer", index.class_name),
                format!("use a model of {}", PIPELINES[0]),
            ));
        }
        Ok(Self { distilled: index.is_distilled })
    }

    /// Steps and guidance scale that such a model is made for: the publisher's of distilled ones, those of diffusers' pipeline of
    /// others.
    pub fn defaults(self, usual: Defaults) -> Defaults {
        let (steps, guidance_scale) = if self.distilled { (4, 1.0) } else { (50, 4.0) };
        Defaults { steps, guidance_scale, ..usual }
    }
}
