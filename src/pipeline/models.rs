//! The parts of a model folder, and whether they fit each other.

use std::sync::Arc;

use burn::tensor::Device;

use super::adapters::ADAPTERS;
use super::arc2face::ARC2FACE;
use super::defaults::defaults;
use super::family::{Configs, Family, Kind, Target};
use super::folder::{ModelFolder, check_width, missing, model_id};
use super::fused::FUSED;
use super::readers::{Readers, RequiredReaders};
use super::resident::{Reloadable, Resident};
use crate::encoders::face::FaceEncoderConfig;
use crate::error::{Error, Result};
use crate::request::{Defaults, ModelId};
use crate::sampling::SchedulerConfig;
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::vae::Vae;
use crate::weights::Files;

/// A model's components.
#[derive(Debug)]
pub struct Models {
    /// What reads photos, style images and texts.
    pub readers: Readers,
    /// What makes guidance of that; it comes and goes as most readers do.
    pub family: Resident<Box<dyn Family>>,
    /// Whether a prior draws what prompts become, by the seed.
    pub draws: bool,
    /// Whether prompts can be drawn from.
    pub reads_words: bool,
    /// Whether style images can be drawn from.
    pub reads_styles: bool,
    /// Which model it is, those components that come and go among them.
    pub id: ModelId,
    /// `unet/`.
    pub unet: Arc<UNet2DConditionModel>,
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

/// The families. A folder is the first one's whose folder it has, and the first one's if it has none.
const FAMILIES: [Kind; 3] = [FUSED, ARC2FACE, ADAPTERS];

impl Models {
    /// Loads every component of a model folder onto `device`.
    ///
    /// Fails with `component-missing`, or with `model-mismatch` where two components do not fit each other.
    pub fn load(files: &dyn Files, device: &Device) -> Result<Self> {
        let folder = ModelFolder::new(files)?;
        // Configs first: what does not fit is found before any weights are read.
        let Plan { kind, configs, reads } = Plan::read(&folder)?;
        let mut unet = folder.load_compact("unet", |c| UNet2DConditionModel::load(c, device))?;
        let own = ModelFolder::new(files)?;
        let first = (kind.open)(&own, Target::Fresh(&mut unet), device)?;
        let (draws, reads_words, reads_styles) = (first.draws(), first.reads_words(), first.reads_styles());
        let unet = Arc::new(unet);
        let fitted = unet.clone();
        let again =
            move |folder: &ModelFolder, device: &Device| (kind.open)(folder, Target::Fitted(&fitted), device);
        let family = Resident::opened(kind.folder, &own, first, again)?;
        let readers = Readers::load(files, &folder, &reads, configs.face.is_some(), device)?;
        let vae = folder.load("vae", |c| Vae::load(c, device))?;
        check_width(
            "the unet's input",
            configs.unet.in_channels,
            "the vae's latents",
            vae.latent_channels(),
        )?;
        let tiny_vae = if folder.has("tiny_vae") {
            Some(folder.load("tiny_vae", |c| Vae::load(c, device))?)
        } else {
            None
        };
        if let Some(tiny) = &tiny_vae {
            check_width("the vae's latents", vae.latent_channels(), "tiny_vae's", tiny.latent_channels())?;
        }
        let scheduler = folder.load("scheduler", SchedulerConfig::of_latents)?;
        let mut folders = folder.loaded();
        folders.extend(readers.residents().flat_map(|resident| resident.folders().iter().cloned()));
        folders.extend(family.folders().iter().cloned());
        Ok(Self {
            id: model_id(files, &folders)?,
            readers,
            family,
            draws,
            reads_words,
            reads_styles,
            unet,
            sample_size: configs.unet.sample_sides(),
            vae,
            tiny_vae,
            scheduler,
            defaults: defaults(files)?,
        })
    }

    /// What comes and goes.
    pub fn residents(&self) -> impl Iterator<Item = &dyn Reloadable> {
        self.readers.residents().chain(std::iter::once(&self.family as &dyn Reloadable))
    }
}

/// What a folder's configs say, of which the parts fit each other.
struct Plan {
    kind: Kind,
    configs: Configs,
    reads: RequiredReaders,
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
        check_width("the unet's input", unet.in_channels, "the unet's output", unet.out_channels)?;
        let face: Option<FaceEncoderConfig> = if folder.has("face_encoder") || kind.needs_face_encoder {
            Some(folder.load("face_encoder", |c| c.json("config.json"))?)
        } else {
            None
        };
        let configs = Configs { unet, face };
        if configs.unet.class_labels().is_some() && !kind.makes_class_labels {
            return Err(Error::weights(
                "model-mismatch",
                format!(
                    "the unet takes class labels (class_embed_type), which '{}' does not make",
                    kind.folder
                ),
                "use a unet without class_embed_type",
            ));
        }
        let reads = (kind.fits)(folder, &configs)?;
        Ok(Self { kind, configs, reads })
    }
}
