//! What a checkpoint says of itself beside its weights: what its denoiser predicts, whether its noise schedule ends in noise
//! alone, and which architecture it is.
//!
//! Sources: the tensors `v_pred` and `ztsnr`, which trainers add for their names alone and ComfyUI reads; the header's
//! `modelspec.…` keys (Stability AI's ModelSpec) and kohya's `ss_…`; a YAML file of the original latent-diffusion code beside
//! the checkpoint; the scheduler beside a UNet in diffusers' folder.

use std::path::Path;

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::{ldm, scheduler, small_file};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// Tensors that are there for their names alone.
const V_PREDICTION: &str = "v_pred";
/// See [`V_PREDICTION`].
const ZERO_SNR: &str = "ztsnr";
/// Tensors of models that are sampled as EDM (Karras et al. 2022) is.
const EDM: [&str; 4] = ["edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"];
/// Parts of ModelSpec's names of architectures that cannot be converted. A name that is not known is no reason to refuse: the
/// tensors say the rest.
const OTHERS: [&str; 14] = [
    "xl",
    "v3",
    "sd3",
    "flux",
    "cascade",
    "pixart",
    "hunyuan",
    "lumina",
    "aura",
    "kandinsky",
    "wan",
    "qwen",
    "chroma",
    "ltx",
];

/// The name of a bias that is larger in Stable Diffusion 2's models at 768 pixels, which predict velocities, than in those at
/// 512, which predict noise; and the deviation that parts them (ComfyUI's rule).
const TELLING: &str = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
/// See [`TELLING`].
const TELLING_DEVIATION: f64 = 0.09;

/// What is said of a denoiser.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// diffusers' `prediction_type`.
    pub prediction_type: Option<&'static str>,
    /// diffusers' `rescale_betas_zero_snr`: the last training step is noise alone.
    pub zero_snr: bool,
    /// Whether its scheduler lies beside it.
    pub scheduled: bool,
}

/// Whether a tensor is no weight, but says something by its name.
pub fn is_mark(name: &str) -> bool {
    [V_PREDICTION, ZERO_SNR].contains(&name)
}

impl Declared {
    /// What the checkpoint at `path` says of its denoiser; `folder` is the one in diffusers' layout that it lies in, if any, and
    /// `given` is what the user says that it predicts, which settles that.
    ///
    /// Fails with `checkpoint-declares` where it contradicts itself, or says something that is not supported.
    pub fn read(
        checkpoint: &Checkpoint,
        path: &Path,
        folder: Option<&Path>,
        given: Option<&'static str>,
    ) -> Result<Self> {
        refuse_edm(checkpoint)?;
        let beside = folder.map(schedule).transpose()?.flatten();
        let prediction_type = match given {
            Some(given) => Some(given),
            None => agreed(&said(checkpoint, path, folder, beside.as_ref())?)?,
        };
        let prediction_type = prediction_type.map_or_else(|| by_weights(checkpoint), |of| Ok(Some(of)))?;
        let zero_snr = checkpoint.shape(ZERO_SNR).is_some()
            || raised(checkpoint, ZERO_SNR)
            || raised(checkpoint, "ss_zero_terminal_snr");
        if zero_snr && prediction_type.is_none_or(|of| of == "epsilon") {
            return Err(Error::weights(
                "checkpoint-declares",
                "its noise schedule ends in noise alone (zero terminal SNR), where predicting noise says nothing of the picture",
                "say what it predicts: --prediction-type v_prediction",
            ));
        }
        let scheduled = beside.is_some();
        let zero_snr = zero_snr || beside.is_some_and(|config| config["rescale_betas_zero_snr"] == true);
        Ok(Self { prediction_type, zero_snr, scheduled })
    }
}

/// Each statement of what a denoiser predicts, and where it stands.
fn said(
    checkpoint: &Checkpoint,
    path: &Path,
    folder: Option<&Path>,
    beside: Option<&Value>,
) -> Result<Vec<(&'static str, String)>> {
    let mut said = Vec::new();
    // The second is ComfyUI's.
    for key in ["modelspec.prediction_type", "modelspec.predict_key", "prediction_type"] {
        if let Some(text) = stated(checkpoint, key) {
            said.push((prediction_type(text, key)?, format!("its header's {key} '{text}'")));
        }
    }
    if let Some(text) = stated(checkpoint, "modelspec.architecture").filter(|text| text.ends_with("-v")) {
        said.push(("v_prediction", format!("its header's modelspec.architecture '{text}'")));
    }
    for key in [V_PREDICTION, "ss_v_parameterization"] {
        if raised(checkpoint, key) {
            said.push(("v_prediction", format!("its header's {key}")));
        }
    }
    if checkpoint.shape(V_PREDICTION).is_some() {
        said.push(("v_prediction", format!("its tensor '{V_PREDICTION}'")));
    }
    if folder.is_none() {
        said.extend(yaml(path)?);
    }
    if let Some(config) = beside {
        let text = config["prediction_type"].as_str().unwrap_or("epsilon");
        let key = "prediction_type in the scheduler_config.json beside it";
        said.push((prediction_type(text, key)?, format!("{key}, '{text}'")));
    }
    Ok(said)
}

/// The one thing that is said, if any.
fn agreed(said: &[(&'static str, String)]) -> Result<Option<&'static str>> {
    let Some(((one, from), rest)) = said.split_first() else { return Ok(None) };
    match rest.iter().find(|(other, _)| other != one) {
        None => Ok(Some(*one)),
        Some((other, elsewhere)) => Err(Error::weights(
            "checkpoint-declares",
            format!("it predicts {one} by {from}, and {other} by {elsewhere}"),
            "say which it is with --prediction-type",
        )),
    }
}

fn stated<'a>(checkpoint: &'a Checkpoint, key: &str) -> Option<&'a str> {
    checkpoint.metadata(key).filter(|text| !text.is_empty())
}

/// Whether the header says yes under a key. Python's words count: kohya's values are its `str`.
fn raised(checkpoint: &Checkpoint, key: &str) -> bool {
    let no = |text: &str| ["false", "0", "none", "no"].iter().any(|no| text.eq_ignore_ascii_case(no));
    stated(checkpoint, key).is_some_and(|text| !no(text))
}

/// Fails with `checkpoint-declares` where the header names an architecture that cannot be converted.
pub fn refuse_architecture(checkpoint: &Checkpoint) -> Result<()> {
    match checkpoint.metadata("modelspec.architecture") {
        Some(name) if OTHERS.iter().any(|other| name.to_lowercase().contains(other)) => Err(Error::weights(
            "checkpoint-declares",
            format!("its header's modelspec.architecture is '{name}'"),
            "use a Stable Diffusion 1 or 2",
        )),
        _ => Ok(()),
    }
}

fn refuse_edm(checkpoint: &Checkpoint) -> Result<()> {
    match EDM.iter().find(|name| checkpoint.shape(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(Error::weights(
            "checkpoint-declares",
            format!("its tensor '{name}' says that it is sampled as EDM is"),
            "use a model that predicts noise or velocities",
        )),
    }
}

/// diffusers' name of what ModelSpec and others call it.
fn prediction_type(text: &str, key: &str) -> Result<&'static str> {
    Ok(match text.trim().to_lowercase().replace('-', "_").as_str() {
        "epsilon" | "eps" => "epsilon",
        "v" | "v_prediction" | "v_pred" | "velocity" => "v_prediction",
        "sample" | "x0" => "sample",
        _ => {
            return Err(Error::weights(
                "checkpoint-declares",
                format!("its {key} is '{text}', which is not supported"),
                "use a model that predicts noise (epsilon), velocities (v_prediction) or samples, or say which it is with \
                 --prediction-type",
            ));
        }
    })
}

/// `parameterization` of the original code's YAML file of the same name beside a checkpoint.
fn yaml(path: &Path) -> Result<Option<(&'static str, String)>> {
    let file = path.with_extension("yaml");
    if !file.is_file() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&small_file(&file)?).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("parameterization:"));
    let Some(value) =
        line.map(|value| value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']))
    else {
        return Ok(None);
    };
    let from = format!("parameterization of {}", file.display());
    Ok(Some((prediction_type(value, &from)?, from)))
}

/// The config of the same model's scheduler, where a UNet's folder lies in one.
fn schedule(unet: &Path) -> Result<Option<Value>> {
    // Canonical, so that `.` has a folder around it.
    let unet = if unet.as_os_str().is_empty() { Path::new(".") } else { unet };
    let unet = unet.canonicalize().unwrap_or_else(|_| unet.to_owned());
    let file = unet.parent().map(|model| model.join("scheduler/scheduler_config.json"));
    let there = file.filter(|file| file.is_file());
    there.map(|file| scheduler::parse(&small_file(&file)?).map_err(|e| e.context(file.display()))).transpose()
}

/// What a Stable Diffusion 2 predicts, told by its weights; `None` for others, and where they do not tell.
fn by_weights(checkpoint: &Checkpoint) -> Result<Option<&'static str>> {
    let Some(prefix) = ldm::unet_prefix(checkpoint) else { return Ok(None) };
    let bias = format!("{prefix}{TELLING}");
    if !ldm::is_v2(checkpoint) || checkpoint.shape(&bias).is_none() {
        return Ok(None);
    }
    let values = checkpoint.read(&bias)?;
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    Ok(Some(if variance.sqrt() > TELLING_DEVIATION { "v_prediction" } else { "epsilon" }))
}
