//! The parts of a model folder, and whether they fit each other.

use std::sync::Arc;

use burn::tensor::Device;

use super::adapters::ADAPTERS;
use super::arc2face::ARC2FACE;
use super::cache::{self, Cache};
use super::defaults::defaults;
use super::family::{Configs, Family, Kind, Opened, Target};
use super::folder::{ModelFolder, missing, same};
use super::fused::FUSED;
use super::readers::Readers;
use crate::encoders::detector::Detector;
use crate::encoders::face::{FaceEncoder, FaceEncoderConfig};
use crate::encoders::segmenter::Segmenter;
use crate::encoders::vision::VisionEnsemble;
use crate::error::{Error, Result};
use crate::request::Defaults;
use crate::sampling::SchedulerConfig;
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::vae::Vae;
use crate::weights::Files;

/// The networks that every picture needs from its first step to its last, and the detector.
#[derive(Debug)]
pub struct Models {
    /// `detector/`.
    pub detector: Arc<Detector>,
    /// What the encoders made of earlier pictures; it outlives them.
    pub cache: Arc<Cache>,
    /// Whether a prior draws what prompts become, by the seed.
    pub draws: bool,
    /// Whether prompts can be drawn from.
    pub reads_words: bool,
    /// Whether style images can be drawn from.
    pub reads_styles: bool,
    /// Bytes of the files behind [`Encoders`].
    pub encoders_size: u64,
    /// `unet/`.
    pub unet: UNet2DConditionModel,
    /// `[height, width]` of the latents that the UNet was trained on, where its config says.
    pub sample_size: Option<[usize; 2]>,
    /// `vae/`.
    pub vae: Vae,
    /// `tiny_vae/`: decodes previews.
    pub tiny_vae: Option<Vae>,
    /// `scheduler/`.
    pub scheduler: SchedulerConfig,
    /// `defaults.json`, and what follows from the scheduler.
    pub defaults: Defaults,
}

/// The networks that turn a request into what the UNet attends to: a picture needs them before its first step only.
#[derive(Debug)]
pub struct Encoders {
    /// What the family has read.
    pub readers: Readers,
    /// What it makes of that.
    pub family: Box<dyn Family>,
    /// Bytes of the files behind them.
    size: u64,
}

/// The families. A folder is the first one's whose folder it has, and the first one's if it has none.
const FAMILIES: [Kind; 3] = [FUSED, ARC2FACE, ADAPTERS];

impl Models {
    /// Loads every component of a model folder onto `device`.
    ///
    /// Fails with `component-missing`, or with `model-mismatch` where two components do not fit each other.
    pub fn load(files: &dyn Files, device: &Device) -> Result<(Self, Encoders)> {
        let folder = ModelFolder::new(files)?;
        // Configs first: what does not fit is found before any weights are read.
        let plan = Plan::read(&folder)?;
        let mut unet = folder.load_compact("unet", |c| UNet2DConditionModel::load(c, device))?;
        let detector = Arc::new(folder.load("detector", |c| Detector::load(c, device))?);
        let shared = (detector.clone(), Arc::new(Cache::new(cache::PICTURES)));
        let encoders = Encoders::load(files, &plan, Target::Fresh(&mut unet), shared, device)?;
        let vae = folder.load("vae", |c| Vae::load(c, device))?;
        same("the unet's input", plan.configs.unet.in_channels, "the vae's latents", vae.latent_channels())?;
        let tiny_vae = if folder.has("tiny_vae") {
            Some(folder.load("tiny_vae", |c| Vae::load(c, device))?)
        } else {
            None
        };
        if let Some(tiny) = &tiny_vae {
            same("the vae's latents", vae.latent_channels(), "tiny_vae's", tiny.latent_channels())?;
        }
        let models = Self {
            detector,
            cache: encoders.readers.cache.clone(),
            draws: encoders.family.draws(),
            reads_words: encoders.family.reads_words(),
            reads_styles: encoders.family.reads_styles(),
            encoders_size: encoders.size,
            unet,
            sample_size: plan.configs.unet.sample_sides(),
            vae,
            tiny_vae,
            scheduler: folder.load("scheduler", SchedulerConfig::of_latents)?,
            defaults: defaults(files)?,
        };
        Ok((models, encoders))
    }

    /// Loads the encoders again.
    pub fn encoders(&self, files: &dyn Files, device: &Device) -> Result<Encoders> {
        let plan = Plan::read(&ModelFolder::new(files)?)?;
        let shared = (self.detector.clone(), self.cache.clone());
        Encoders::load(files, &plan, Target::Fitted(&self.unet), shared, device)
    }
}

/// What a folder's configs say, of which the parts fit each other.
struct Plan {
    kind: Kind,
    configs: Configs,
}

impl Plan {
    fn read(folder: &ModelFolder) -> Result<Self> {
        let [fused, rest @ ..] = FAMILIES;
        let kind = if folder.has(fused.folder) {
            fused
        } else {
            let mut there = rest.into_iter().filter(|kind| folder.has(kind.folder));
            let kind = there.next().ok_or_else(|| missing(fused.folder))?;
            if let Some(other) = there.next() {
                return Err(Error::weights(
                    "model-mismatch",
                    format!(
                        "'{}' draws from faces alone, so that '{}' would never act",
                        kind.folder, other.folder
                    ),
                    "remove one of the two folders",
                ));
            }
            kind
        };
        let unet: UNet2DConditionConfig = folder.load("unet", |c| c.json("config.json"))?;
        same("the unet's input", unet.in_channels, "the unet's output", unet.out_channels)?;
        let face: Option<FaceEncoderConfig> = if folder.has("face_encoder") || kind.needs_face_encoder {
            Some(folder.load("face_encoder", |c| c.json("config.json"))?)
        } else {
            None
        };
        let configs = Configs { unet, face };
        (kind.fits)(folder, &configs)?;
        Ok(Self { kind, configs })
    }
}

impl Encoders {
    fn load(
        files: &dyn Files,
        Plan { kind, configs }: &Plan,
        unet: Target,
        (detector, cache): (Arc<Detector>, Arc<Cache>),
        device: &Device,
    ) -> Result<Self> {
        let folder = ModelFolder::new(files)?;
        let Opened { family, vision, text } = (kind.open)(&folder, unet, configs, device)?;
        let face_encoder = match &configs.face {
            Some(_) => Some(folder.load("face_encoder", |c| FaceEncoder::load(c, device))?),
            None => None,
        };
        let segmenter = if folder.has("segmenter") {
            Some(folder.load("segmenter", |c| Segmenter::load(c, device))?)
        } else {
            None
        };
        let vision = VisionEnsemble { encoders: vision };
        let readers = Readers { detector, cache, segmenter, face_encoder, vision, text };
        Ok(Self { readers, family, size: folder.loaded_size()? })
    }
}
