//! Whether what a plan would write can be drawn with, asked before any of it is written.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Plan, Slot, beside, flux2, open, read, scheduler, small_file};
use facestudio::encoders::detector::DetectorConfig;
use facestudio::encoders::face::FaceEncoderConfig;
use facestudio::encoders::qwen3::Qwen3Config;
use facestudio::encoders::segmenter::SegmenterConfig;
use facestudio::encoders::text::TextConfig;
use facestudio::encoders::vision::VisionConfig;
use facestudio::error::{Error, Result};
use facestudio::guidance::ip_adapter::IpAdapterConfig;
use facestudio::guidance::prior::PriorConfig;
use facestudio::pipeline::defaults;
use facestudio::request::Defaults;
use facestudio::sampling::{Sampler, SchedulerConfig};
use facestudio::transformer::Flux2Transformer2DConfig;
use facestudio::unet::UNet2DConditionConfig;
use facestudio::upscaler::UpscalerConfig;
use facestudio::vae::VaeConfig;
use facestudio::weights::{CheckedFolder, Component, MemoryFiles};

/// Fails where a component's config, or how a prior draws, is not supported.
pub fn check(plan: &Plan, slot: Slot, path: &Path) -> Result<()> {
    let checkpoint = open(slot, path)?;
    let (config, _) = read(slot, path, &checkpoint, plan)?;
    match network(slot, &config) {
        // Sizes are held against the tensors when the network is loaded; a file without a config does not tell them all.
        Err(error) if error.code != "config-range" => return Err(error.context(path.display())),
        _ => {}
    }
    if slot == Slot::Prior {
        let file = beside::prior_schedule(path).ok_or_else(|| {
            Error::input(
                "convert-config",
                format!("{} has no {SCHEDULER}: how the prior draws is not known", path.display()),
                "put the scheduler's config that the prior was trained with beside its config.json",
            )
        })?;
        let drawn = SchedulerConfig::from_json(&small_file(&file)?);
        drawn
            .and_then(|config| config.schedule(Sampler::Ddim, 1, None))
            .map_err(|e| match e.code {
                // Another sampler would be the base's: a prior draws with DDIM alone.
                "config-unsupported" => {
                    Error { remedy: "give a prior whose scheduler config is a DDIMScheduler's".into(), ..e }
                }
                _ => e,
            })
            .map_err(|e| e.context(file.display()))?;
    }
    Ok(())
}

/// Tokens of a picture of 1024 pixels: what a schedule that depends on them is tried with.
const FLUX2_TOKENS: usize = 64 * 64;
/// The file that says how pictures, or a prior's embeddings, are drawn.
pub const SCHEDULER: &str = "scheduler_config.json";

/// Fails unless the base's schedule gives as many steps as a request without any has.
pub fn schedule(plan: &Plan) -> Result<()> {
    let Some(base) = plan.base.as_ref().filter(|base| base.is_dir()) else { return Ok(()) };
    let file = base.join("scheduler").join(SCHEDULER);
    let klein = flux2::is_planned(plan);
    if klein {
        // Which pipeline it is of.
        defaults(&CheckedFolder::new(base.clone())).map_err(|e| e.context(base.display()))?;
    }
    let check = || {
        let bytes = small_file(&file)?;
        // Another sampler may run on it, but it must be a schedule that we know.
        let taken = |config: SchedulerConfig| match klein {
            true => Ok(config.for_image_tokens(FLUX2_TOKENS)),
            false => config.for_latents(),
        };
        taken(SchedulerConfig::from_json(&bytes)?)?;
        let mut config = scheduler::parse(&bytes)?;
        scheduler::change(&mut config, plan.sampling.sampler, plan.sampling.timestep_spacing);
        let config = taken(SchedulerConfig::from_json(config.to_string().as_bytes())?)?;
        let sampler = config.default_sampler()?;
        let usual = Defaults::with_sampler(sampler).steps;
        config.schedule(sampler, plan.sampling.steps.unwrap_or(usual), None)
    };
    check().map(|_| ()).map_err(|e| e.context(file.display()))
}

/// Fails unless a network of ours has this config.
fn network(slot: Slot, config: &Value) -> Result<()> {
    let files = MemoryFiles([("config.json".to_owned(), config.to_string().into_bytes())].into());
    let component = Component::new(&files, "");
    match slot {
        Slot::Unet => parsed::<UNet2DConditionConfig>(&component)?.check(),
        Slot::Vae | Slot::TinyVae => VaeConfig::from_component(&component)?.check(),
        Slot::Transformer => parsed::<Flux2Transformer2DConfig>(&component)?.check(),
        Slot::TextEncoder if config["model_type"] == "qwen3" => parsed::<Qwen3Config>(&component)?.check(),
        Slot::TextEncoder => TextConfig::read(&component).map(|_| ()),
        Slot::VisionEncoder => VisionConfig::read(&component).map(|_| ()),
        Slot::FaceEncoder => parsed::<FaceEncoderConfig>(&component).map(|_| ()),
        Slot::Detector => parsed::<DetectorConfig>(&component).map(|_| ()),
        Slot::Segmenter => parsed::<SegmenterConfig>(&component).map(|_| ()),
        Slot::Prior => parsed::<PriorConfig>(&component).map(|_| ()),
        Slot::Upscaler => parsed::<UpscalerConfig>(&component)?.check(),
        Slot::IpAdapter(_) => IpAdapterConfig::read(&component).map(|_| ()),
    }
}

fn parsed<T: DeserializeOwned>(component: &Component) -> Result<T> {
    component.json("config.json")
}
