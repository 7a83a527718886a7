//! How a converted model samples: `scheduler/scheduler_config.json`, and `defaults.json` for what that has no place for.

use serde_json::{Value, json};

use super::{Plan, pretty, small_file};
use crate::error::{Error, Result};
use crate::request::{Defaults, Sampler};
use crate::weights::NewFolder;

/// What distilled models need that their files do not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sampling {
    /// The sampler that it was distilled for, in place of the base's.
    pub sampler: Option<Sampler>,
    /// Which training steps are visited, in place of what the base says: diffusers' `timestep_spacing`.
    pub timestep_spacing: Option<&'static str>,
    /// Steps of a request that does not say.
    pub steps: Option<usize>,
    /// Guidance scale of a request that does not say; 1 is none.
    pub guidance_scale: Option<f32>,
}

/// Writes both files, each where there is something to say.
///
/// Fails with `steps-range` or `guidance-scale-range`, and with `convert-config` where there is no base whose schedule could
/// be changed.
pub fn write(plan: &Plan, out: &NewFolder) -> Result<()> {
    let Sampling { sampler, timestep_spacing, steps, guidance_scale } = plan.sampling;
    if steps.or(guidance_scale.map(|_| 0)).is_some() {
        let usual = Defaults::default();
        let given = Defaults {
            steps: steps.unwrap_or(usual.steps),
            guidance_scale: guidance_scale.unwrap_or(usual.guidance_scale),
            ..usual
        };
        given.validate()?;
        let mut file = serde_json::Map::new();
        file.extend(steps.map(|steps| ("steps".to_owned(), json!(steps))));
        file.extend(guidance_scale.map(|scale| ("guidance_scale".to_owned(), json!(scale))));
        out.write("defaults.json", &pretty(&file.into())?)?;
    }
    let Some(base) = &plan.base else {
        if sampler.is_none() && timestep_spacing.is_none() {
            return Ok(());
        }
        return Err(Error::input(
            "convert-config",
            "there is no schedule to change: it comes from the base",
            "give --base as well",
        ));
    };
    let file = base.join("scheduler/scheduler_config.json");
    if base.is_dir() && sampler.is_none() && timestep_spacing.is_none() {
        return out.write("scheduler/scheduler_config.json", &small_file(&file)?);
    }
    let mut config = if base.is_dir() {
        serde_json::from_slice(&small_file(&file)?).map_err(|e| {
            let message = format!("{}: {e}", file.display());
            Error::weights("config", message, "use the config of a supported scheduler")
        })?
    } else {
        // Stable Diffusion's training, as `v1-inference.yaml` has it: linear_start, linear_end, timesteps.
        json!({
            "_class_name": Sampler::EulerAncestral.scheduler_class(), "num_train_timesteps": 1000,
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": plan.prediction_type, "timestep_spacing": "leading", "steps_offset": 1,
        })
    };
    change(&mut config, sampler, timestep_spacing);
    out.write("scheduler/scheduler_config.json", &pretty(&config)?)
}

/// As diffusers' `from_config`: the class changes, and whatever the config states stays.
fn change(config: &mut Value, sampler: Option<Sampler>, timestep_spacing: Option<&str>) {
    if let Some(sampler) = sampler {
        config["_class_name"] = json!(sampler.scheduler_class());
        if sampler == Sampler::Ddim && config.get("clip_sample").is_none() {
            // That class would clip latents to ±1, which is meant for pixels.
            config["clip_sample"] = json!(false);
        }
    }
    if let Some(spacing) = timestep_spacing {
        config["timestep_spacing"] = json!(spacing);
    }
}
