//! How a converted model samples: `scheduler/scheduler_config.json`, and `defaults.json` for what that has no place for.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::declared::Declared;
use super::{Output, Plan, pretty, small_file};
use facestudio::error::{Error, Result};
use facestudio::internal::without_mark;
use facestudio::request::Defaults;
use facestudio::sampling::{Sampler, SchedulerConfig, TimestepSpacing};

/// What distilled models need that their files do not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// The sampler that it was distilled for, in place of the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// Which training steps are visited, in place of what the base says: diffusers' `timestep_spacing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Steps of a request that does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Guidance scale of a request that does not say; 1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f32>,
}

/// Writes both files, each where there is something to say; `declared` is what the UNet that was converted says of itself.
///
/// Fails with `steps-range` or `guidance-scale-range`, and with `convert-config` where there is no base whose schedule could
/// be changed.
pub fn write(plan: &Plan, declared: Option<&Declared>, out: &dyn Output) -> Result<()> {
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
    if plan.base.is_none() && (sampler.is_some() || timestep_spacing.is_some()) {
        return Err(Error::input(
            "convert-config",
            "there is no schedule to change: it comes from the base",
            "give --base as well",
        ));
    }
    if plan.prediction_type.is_some() && declared.is_none() {
        return Err(Error::input(
            "convert-config",
            "what a UNet predicts is asked for, and no UNet is converted",
            "give --base or --unet as well, or leave --prediction-type out",
        ));
    }
    let file = plan.base.as_ref().filter(|base| base.is_dir());
    let file = file.map(|base| base.join("scheduler/scheduler_config.json"));
    // A UNet alone comes without a schedule, unless it needs another than the usual and has none beside it.
    let unusual =
        |declared: &Declared| declared.zero_snr || declared.prediction_type.is_some_and(|of| of != "epsilon");
    let brings = declared.is_some_and(|declared| unusual(declared) && !declared.scheduled);
    if plan.base.is_none() && plan.prediction_type.is_none() && !brings {
        return Ok(());
    }
    let stated = file.as_ref().map(|file| small_file(file)).transpose()?;
    let mut config = match (&stated, &file) {
        (Some(bytes), Some(file)) => parse(bytes).map_err(|e| e.context(file.display()))?,
        // Stable Diffusion's training, as `v1-inference.yaml` has it: linear_start, linear_end, timesteps.
        _ => json!({
            "_class_name": Sampler::EulerAncestral.scheduler_class(), "num_train_timesteps": 1000,
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
        }),
    };
    let before = config.clone();
    if let Some(declared) = declared {
        declare(&mut config, declared);
    }
    change(&mut config, sampler, timestep_spacing);
    let bytes = stated.filter(|_| config == before).map_or_else(|| pretty(&config), Ok)?;
    out.write("scheduler/scheduler_config.json", &bytes)
}

/// The text of a `scheduler_config.json`. Python writes the default of `lambda_min_clipped` as -Infinity, which JSON does not
/// know.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    let text = String::from_utf8_lossy(without_mark(bytes)).replace("-Infinity", "null");
    serde_json::from_str(&text)
        .map(Value::Object)
        .map_err(|e| Error::weights("config", e.to_string(), "use the config of a supported scheduler"))
}

/// What the UNet says of itself, in the place of what the schedule says.
fn declare(config: &mut Value, declared: &Declared) {
    if let Some(prediction_type) = declared.prediction_type
        && config["prediction_type"].as_str().unwrap_or("epsilon") != prediction_type
    {
        config["prediction_type"] = json!(prediction_type);
    }
    if declared.zero_snr && config["rescale_betas_zero_snr"] != true {
        config["rescale_betas_zero_snr"] = json!(true);
        // It begins at the last training step, which no other spacing visits (Lin et al. 2023, section 3.3).
        config["timestep_spacing"] = json!("trailing");
    }
}

/// As diffusers' `from_config`: the class changes, and whatever the config states stays.
pub(super) fn change(
    config: &mut Value,
    sampler: Option<Sampler>,
    timestep_spacing: Option<TimestepSpacing>,
) {
    if let Some(sampler) = sampler {
        config["_class_name"] = json!(sampler.scheduler_class());
        if SchedulerConfig::clips_unless_told(sampler) && config.get("clip_sample").is_none() {
            // The class would clip latents to ±1, which is meant for pixels.
            config["clip_sample"] = json!(false);
        }
    }
    if let Some(spacing) = timestep_spacing {
        config["timestep_spacing"] = json!(spacing);
    }
}
