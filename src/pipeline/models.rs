//! The parts of a model folder, and whether they fit each other.

use std::sync::Arc;

use burn::tensor::Device;

use super::adapters::ADAPTERS;
use super::arc2face::ARC2FACE;
use super::defaults::defaults;
use super::family::{Configs, Denoises, Family, GuidedConfigs, Kind, Target};
use super::folder::{ModelFolder, check_width, missing, model_id};
use super::fused::FUSED;
use super::klein::KLEIN;
use super::network::Network;
use super::progress::Host;
use super::readers::{Readers, RequiredReaders};
use super::resident::{Reloadable, Resident};
use crate::encoders::face::FaceEncoderConfig;
use crate::error::{Error, Result};
use crate::pixart::{PixArtTransformer2DConfig, PixArtTransformer2DModel};
use crate::request::{Defaults, ModelId};
use crate::sampling::SchedulerConfig;
use crate::transformer::{Flux2Transformer2DConfig, Flux2Transformer2DModel};
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
    /// Whether pictures themselves are seen.
    pub sees_references: bool,
    /// Which model it is, those components that come and go among them.
    pub id: ModelId,
    denoiser: Denoiser,
    /// `[height, width]` of the latents that the denoiser was trained on, where its config or its pipeline says.
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

/// The network that denoises, as it is held.
#[derive(Debug)]
enum Denoiser {
    /// `unet/`, with the layers that its family gave it.
    Stays(Arc<dyn Network>),
    /// `transformer/`: it takes turns with what reads texts.
    TakesTurns(Arc<Resident<Flux2Transformer2DModel>>),
}

/// `[height, width]` of FLUX.2's latents where a request does not say: 1024 pixels, `default_sample_size` of diffusers' pipelines.
const FLUX2_SAMPLE_SIDES: [usize; 2] = [64; 2];

/// The families. A folder is the first one's whose folder it has, and the first one's if it has none.
const FAMILIES: [Kind; 4] = [FUSED, ARC2FACE, ADAPTERS, KLEIN];

/// A family and its denoiser, opened.
struct Opened {
    family: Resident<Box<dyn Family>>,
    about: About,
    denoiser: Denoiser,
    readers: RequiredReaders,
    /// What the denoiser's latents are called in errors, and their channels.
    input: (&'static str, usize),
    sample_size: Option<[usize; 2]>,
    scheduler: SchedulerConfig,
}

/// What a family says of itself, which may be let go of.
struct About {
    draws: bool,
    reads_words: bool,
    reads_styles: bool,
    sees_references: bool,
}

impl About {
    fn new(family: &dyn Family) -> Self {
        Self {
            draws: family.draws(),
            reads_words: family.reads_words(),
            reads_styles: family.reads_styles(),
            sees_references: family.sees_references(),
        }
    }
}

impl Models {
    /// Loads the components of a model folder onto `device`, but for those that take turns: of them the configs are read.
    ///
    /// Fails with `component-missing`, or with `model-mismatch` where two components do not fit each other.
    pub fn load(files: &dyn Files, device: &Device) -> Result<Self> {
        let folder = ModelFolder::new(files)?;
        let kind = kind_of(&folder)?;
        let face: Option<FaceEncoderConfig> = if folder.has("face_encoder") || kind.needs_face_encoder {
            Some(folder.load("face_encoder", |c| c.json("config.json"))?)
        } else {
            None
        };
        let has_face_encoder = face.is_some();
        let opened = match kind.denoises {
            Denoises::Guided { .. } => open_guided(kind, face, files, &folder, device)?,
            Denoises::Unet { .. } => open_unet(kind, face, files, &folder, device)?,
            Denoises::Flux2 { .. } => open_flux2(kind, files, &folder)?,
        };
        let Opened { family, about, denoiser, readers, input, sample_size, scheduler } = opened;
        let About { draws, reads_words, reads_styles, sees_references } = about;
        let transformer = match &denoiser {
            Denoiser::Stays(_) => None,
            Denoiser::TakesTurns(transformer) => Some(transformer),
        };
        let readers = Readers::load(files, &folder, &readers, has_face_encoder, transformer, device)?;
        let vae = folder.load("vae", |c| Vae::load(c, device))?;
        check_width(input.0, input.1, "the vae's latents", vae.latent_channels())?;
        let tiny_vae = if folder.has("tiny_vae") {
            Some(folder.load("tiny_vae", |c| Vae::load(c, device))?)
        } else {
            None
        };
        if let Some(tiny) = &tiny_vae {
            check_width("the vae's latents", vae.latent_channels(), "tiny_vae's", tiny.latent_channels())?;
        }
        let mut folders = folder.loaded();
        folders.extend(readers.residents().flat_map(|resident| resident.folders().iter().cloned()));
        folders.extend(family.folders().iter().cloned());
        if let Denoiser::TakesTurns(transformer) = &denoiser {
            folders.extend(transformer.folders().iter().cloned());
        }
        Ok(Self {
            id: model_id(files, &folders)?,
            readers,
            family,
            draws,
            reads_words,
            reads_styles,
            sees_references,
            denoiser,
            sample_size,
            vae,
            tiny_vae,
            scheduler,
            defaults: defaults(files)?,
        })
    }

    /// What comes and goes, and only the beginning of a picture needs. A family without networks of its own stays.
    pub fn residents(&self) -> impl Iterator<Item = &dyn Reloadable> {
        let family: &dyn Reloadable = &self.family;
        self.readers.residents().chain(Some(family).filter(|family| family.size() > 0))
    }

    /// Everything that comes and goes.
    pub fn reloadable(&self) -> impl Iterator<Item = &dyn Reloadable> {
        let transformer = match &self.denoiser {
            Denoiser::Stays(_) => None,
            Denoiser::TakesTurns(transformer) => Some(&**transformer as &dyn Reloadable),
        };
        self.residents().chain(transformer)
    }

    /// Whether what reads texts and the denoiser take turns.
    pub fn takes_turns(&self) -> bool {
        matches!(self.denoiser, Denoiser::TakesTurns(_))
    }

    /// The denoiser. Where one comes that takes turns, what reads texts goes.
    pub async fn network(&self, host: &mut impl Host, device: &Device) -> Result<Arc<dyn Network>> {
        match &self.denoiser {
            Denoiser::Stays(network) => Ok(network.clone()),
            Denoiser::TakesTurns(transformer) => {
                if !transformer.is_held() {
                    self.readers.release_chat();
                    device.memory_cleanup();
                }
                let network: Arc<dyn Network> = transformer.get(host).await?;
                Ok(network)
            }
        }
    }
}

/// The family that a folder is of.
fn kind_of(folder: &ModelFolder) -> Result<Kind> {
    let [fused, rest @ ..] = FAMILIES;
    if folder.has(fused.folder) {
        return Ok(fused);
    }
    let mut there = rest.into_iter().filter(|kind| folder.has(kind.folder));
    let kind = there.next().ok_or_else(|| missing(fused.folder))?;
    match there.next() {
        None => Ok(kind),
        Some(other) => Err(Error::weights(
            "model-mismatch",
            format!(
                "'{}' and '{}' are of two families of models, and one of them would never act",
                kind.folder, other.folder
            ),
            "remove one of the two folders",
        )),
    }
}

fn unet_config(folder: &ModelFolder) -> Result<UNet2DConditionConfig> {
    let unet: UNet2DConditionConfig = folder.load("unet", |c| c.json("config.json"))?;
    check_width("the unet's input", unet.in_channels, "the unet's output", unet.out_channels)?;
    Ok(unet)
}

/// Configs first: what does not fit is found before any weights are read.
fn open_guided(
    kind: Kind,
    face: Option<FaceEncoderConfig>,
    files: &dyn Files,
    folder: &ModelFolder,
    device: &Device,
) -> Result<Opened> {
    let Denoises::Guided { fits, open } = kind.denoises else {
        return Err(missing("unet"));
    };
    let scheduler = folder.load("scheduler", SchedulerConfig::of_latents)?;
    let (readers, denoiser, adds_style, input, sample_size): (_, Arc<dyn Network>, _, _, _) =
        if folder.has("transformer") {
            if folder.has("unet") {
                return Err(Error::weights(
                    "model-mismatch",
                    "'unet' and 'transformer' are two denoisers, and one of them would never act",
                    "remove one of the two folders",
                ));
            }
            let config: PixArtTransformer2DConfig = folder.load("transformer", |c| {
                let config: PixArtTransformer2DConfig = c.json("config.json")?;
                config.check()?;
                Ok(config)
            })?;
            let token_channels = config.token_channels();
            let configs = GuidedConfigs { denoiser: "transformer", token_channels, class_labels: None, face };
            let readers = fits(folder, &configs)?;
            let transformer =
                folder.load_compact("transformer", |c| PixArtTransformer2DModel::load(c, device))?;
            let input = ("the transformer's input", config.in_channels);
            (readers, Arc::new(transformer), false, input, Some([config.sample_size; 2]))
        } else {
            let unet = unet_config(folder)?;
            let (token_channels, class_labels) = (unet.cross_attention_dim, unet.class_labels());
            let configs = GuidedConfigs { denoiser: "unet", token_channels, class_labels, face };
            let readers = fits(folder, &configs)?;
            let network = folder.load_compact("unet", |c| UNet2DConditionModel::load(c, device))?;
            let input = ("the unet's input", unet.in_channels);
            (readers, Arc::new(network), class_labels.is_some(), input, unet.sample_sides())
        };
    let own = ModelFolder::new(files)?;
    let first = open(&own, adds_style, device)?;
    let about = About::new(&*first);
    let again = move |folder: &ModelFolder, device: &Device| open(folder, adds_style, device);
    Ok(Opened {
        family: Resident::opened(kind.folder, &own, Some(first), again)?,
        about,
        denoiser: Denoiser::Stays(denoiser),
        readers,
        input,
        sample_size,
        scheduler,
    })
}

/// Configs first: what does not fit is found before any weights are read.
fn open_unet(
    kind: Kind,
    face: Option<FaceEncoderConfig>,
    files: &dyn Files,
    folder: &ModelFolder,
    device: &Device,
) -> Result<Opened> {
    let Denoises::Unet { fits, open } = kind.denoises else {
        return Err(missing("unet"));
    };
    let unet = unet_config(folder)?;
    if unet.class_labels().is_some() {
        return Err(Error::weights(
            "model-mismatch",
            format!("the unet takes class labels (class_embed_type), which '{}' does not make", kind.folder),
            "use a unet without class_embed_type",
        ));
    }
    let configs = Configs { unet, face };
    let readers = fits(folder, &configs)?;
    let mut unet = folder.load_compact("unet", |c| UNet2DConditionModel::load(c, device))?;
    let own = ModelFolder::new(files)?;
    let first = open(&own, Target::Fresh(&mut unet), device)?;
    let about = About::new(&*first);
    let unet = Arc::new(unet);
    let fitted = unet.clone();
    let again = move |folder: &ModelFolder, device: &Device| open(folder, Target::Fitted(&fitted), device);
    Ok(Opened {
        family: Resident::opened(kind.folder, &own, Some(first), again)?,
        about,
        denoiser: Denoiser::Stays(unet),
        readers,
        input: ("the unet's input", configs.unet.in_channels),
        sample_size: configs.unet.sample_sides(),
        scheduler: folder.load("scheduler", SchedulerConfig::of_latents)?,
    })
}

/// Configs alone: the transformer's weights are read when there is something to draw.
fn open_flux2(kind: Kind, files: &dyn Files, folder: &ModelFolder) -> Result<Opened> {
    let Denoises::Flux2 { fits, open } = kind.denoises else { return Err(missing("transformer")) };
    let own = ModelFolder::new(files)?;
    let config: Flux2Transformer2DConfig = own.load("transformer", |c| {
        let config: Flux2Transformer2DConfig = c.json("config.json")?;
        config.check()?;
        Ok(config)
    })?;
    let out = config.out_channels.unwrap_or(config.in_channels);
    check_width("the transformer's input", config.in_channels, "the transformer's output", out)?;
    fits(folder, &config)?;
    let family = ModelFolder::new(files)?;
    let first = open(&family)?;
    let about = About::new(&*first);
    let read = |folder: &ModelFolder, device: &Device| {
        folder.load_compact("transformer", |c| Flux2Transformer2DModel::load(c, device))
    };
    Ok(Opened {
        family: Resident::opened(kind.folder, &family, Some(first), move |folder, _| open(folder))?,
        about,
        denoiser: Denoiser::TakesTurns(Arc::new(Resident::opened("transformer", &own, None, read)?)),
        readers: RequiredReaders::default(),
        input: ("the transformer's input", config.in_channels),
        sample_size: Some(FLUX2_SAMPLE_SIDES),
        scheduler: folder.load("scheduler", SchedulerConfig::of_flow_matching)?,
    })
}
