//! The parts of a model folder, and whether they fit each other.

use std::sync::Arc;

use burn::tensor::Device;

use super::adapters::{ADAPTER, AdapterGuidance};
use super::arc2face::{ARC2FACE, Arc2FaceGuidance};
use super::cache::{self, Cache};
use super::fused::FusedGuidance;
use super::regions::Finder;
use crate::encoders::detector::Detector;
use crate::encoders::face::{FaceEncoder, FaceEncoderConfig};
use crate::encoders::segmenter::Segmenter;
use crate::error::{Error, Notice, Result};
use crate::guidance::fusion::FusionConfig;
use crate::request::{Defaults, GenerateRequest};
use crate::sampling::SchedulerConfig;
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::vae::Vae;
use crate::weights::{Component, Files};

/// The networks that every picture needs from its first step to its last, and the detector.
#[derive(Debug)]
pub struct Models {
    /// `detector/`.
    pub detector: Arc<Detector>,
    /// What the encoders made of earlier pictures; it outlives them.
    pub cache: Arc<Cache>,
    /// Whether a prior draws what prompts become, by the seed.
    pub has_prior: bool,
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
    /// The model's.
    pub detector: Arc<Detector>,
    /// The model's.
    pub cache: Arc<Cache>,
    /// `segmenter/`: finds the outlines of people in photographs.
    segmenter: Option<Segmenter>,
    /// `face_encoder/`; a model whose adapters read pictures of faces may lack it.
    face_encoder: Option<FaceEncoder>,
    /// What the UNet attends to, and how it is made.
    pub guidance: Guidance,
}

/// Folders that are no part of [`Encoders`].
const NO_ENCODERS: [&str; 5] = ["unet", "vae", "tiny_vae", "detector", "scheduler"];

/// The UNet that encoders are made for.
pub(super) enum Target<'a> {
    /// It takes the adapters' layers.
    Fresh(&'a mut UNet2DConditionModel),
    /// It has them already.
    Fitted(&'a UNet2DConditionModel),
}

impl Target<'_> {
    pub(super) fn unet(&self) -> &UNet2DConditionModel {
        match self {
            Self::Fresh(unet) => unet,
            Self::Fitted(unet) => unet,
        }
    }
}

/// The families of models, by what their UNet attends to.
#[derive(Debug)]
#[cfg_attr(
    not(target_pointer_width = "32"),
    expect(clippy::large_enum_variant, reason = "a program holds one")
)]
pub enum Guidance {
    /// FaceStudio's guidance tokens.
    Fused(FusedGuidance),
    /// A text's tokens, and those of adapters beside them.
    Adapters(AdapterGuidance),
    /// Faces in the place of a text's word.
    Arc2Face(Arc2FaceGuidance),
}

impl Guidance {
    /// Whether prompts can be drawn from.
    fn reads_words(&self) -> bool {
        match self {
            Self::Fused(fused) => fused.reads_words(),
            Self::Adapters(_) => true,
            Self::Arc2Face(_) => false,
        }
    }

    /// Whether style images can be drawn from.
    fn reads_styles(&self) -> bool {
        match self {
            Self::Fused(_) => true,
            Self::Adapters(adapters) => adapters.reads_styles(),
            Self::Arc2Face(_) => false,
        }
    }

    /// What a request's texts lose on their way to the pictures.
    pub fn notices(&self, request: &GenerateRequest) -> Result<Vec<Notice>> {
        match self {
            Self::Fused(fused) => fused.notices(request),
            Self::Adapters(adapters) => adapters.notices(request),
            Self::Arc2Face(_) => Ok(Vec::new()),
        }
    }

    /// Refuses a request that the family gives no meaning to.
    pub fn check(&self, request: &GenerateRequest) -> Result<()> {
        match self {
            Self::Fused(_) => request.validate_subject(),
            Self::Adapters(adapters) => adapters.check(request),
            Self::Arc2Face(arc2face) => arc2face.check(request),
        }
    }
}

/// Beginnings of the folders of networks whose weights may be held as they are stored: the large ones.
const COMPACT: [&str; 5] = ["unet", "text_encoder", "vision_encoder", "prior", "ip_adapter"];

/// A model folder and the components that it has.
pub(super) struct ModelFolder<'a> {
    files: &'a dyn Files,
    folders: Vec<String>,
}

impl<'a> ModelFolder<'a> {
    pub(super) fn new(files: &'a dyn Files) -> Result<Self> {
        Ok(Self { files, folders: files.folders("")? })
    }

    pub(super) fn has(&self, folder: &str) -> bool {
        self.folders.iter().any(|name| name == folder)
    }

    /// Bytes of the files in the folders that are `asked` for.
    fn size(&self, asked: impl Fn(&str) -> bool) -> Result<u64> {
        let mut size = 0;
        for folder in self.folders.iter().filter(|folder| asked(folder)) {
            for file in self.files.list(folder)? {
                size += self.files.size(&format!("{folder}/{file}"))?;
            }
        }
        Ok(size)
    }

    /// What `load` makes of a component; fails with `component-missing` where the model has no such folder, and names
    /// the component in any error.
    pub(super) fn load<T>(&self, folder: &str, load: impl FnOnce(&Component) -> Result<T>) -> Result<T> {
        if !self.has(folder) {
            return Err(missing(folder));
        }
        let component = Component::new(self.files, folder);
        let compact = COMPACT.iter().any(|start| folder.starts_with(start));
        let component = if compact { component.compact() } else { component };
        load(&component).map_err(|e| e.context(folder))
    }
}

impl Models {
    /// Loads every component of a model folder onto `device`.
    ///
    /// Fails with `component-missing`, or with `model-mismatch` where two components do not fit each other.
    pub fn load(files: &dyn Files, device: &Device) -> Result<(Self, Encoders)> {
        let folder = ModelFolder::new(files)?;
        // Configs first: what does not fit is found before any weights are read.
        let plan = Plan::read(&folder)?;
        let mut unet = folder.load("unet", |c| UNet2DConditionModel::load(c, device))?;
        let detector = Arc::new(folder.load("detector", |c| Detector::load(c, device))?);
        let shared = (detector.clone(), Arc::new(Cache::new(cache::PICTURES)));
        let encoders = Encoders::load(&folder, &plan, Target::Fresh(&mut unet), shared, device)?;
        let vae = folder.load("vae", |c| Vae::load(c, device))?;
        same("the unet's input", plan.unet.in_channels, "the vae's latents", vae.latent_channels())?;
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
            cache: encoders.cache.clone(),
            has_prior: folder.has("prior") && matches!(encoders.guidance, Guidance::Fused(_)),
            reads_words: encoders.guidance.reads_words(),
            reads_styles: encoders.guidance.reads_styles(),
            encoders_size: folder.size(|name| !NO_ENCODERS.contains(&name))?,
            unet,
            sample_size: plan.unet.sample_sides(),
            vae,
            tiny_vae,
            scheduler: folder.load("scheduler", SchedulerConfig::of_latents)?,
            defaults: super::defaults(files)?,
        };
        Ok((models, encoders))
    }

    /// Loads the encoders again.
    pub fn encoders(&self, files: &dyn Files, device: &Device) -> Result<Encoders> {
        let folder = ModelFolder::new(files)?;
        let plan = Plan::read(&folder)?;
        let shared = (self.detector.clone(), self.cache.clone());
        Encoders::load(&folder, &plan, Target::Fitted(&self.unet), shared, device)
    }
}

/// What a folder's configs say, of which the parts fit each other.
struct Plan {
    unet: UNet2DConditionConfig,
    /// Of FaceStudio's own family.
    fusion: Option<FusionConfig>,
    arc2face: bool,
    face: Option<FaceEncoderConfig>,
}

impl Plan {
    fn read(folder: &ModelFolder) -> Result<Self> {
        let fused = folder.has("guidance");
        let arc2face = folder.has(ARC2FACE) && !fused;
        let adapters = folder.has(ADAPTER) && !fused;
        if arc2face && adapters {
            return Err(Error::weights(
                "model-mismatch",
                format!("'{ARC2FACE}' draws from faces alone, so that '{ADAPTER}' would never act"),
                "remove one of the two folders",
            ));
        }
        let fusion: Option<FusionConfig> = if adapters || arc2face {
            None
        } else {
            Some(folder.load("guidance", |c| c.json("config.json"))?)
        };
        let unet: UNet2DConditionConfig = folder.load("unet", |c| c.json("config.json"))?;
        same("the unet's input", unet.in_channels, "the unet's output", unet.out_channels)?;
        let face: Option<FaceEncoderConfig> = if folder.has("face_encoder") || !adapters {
            Some(folder.load("face_encoder", |c| c.json("config.json"))?)
        } else {
            None
        };
        if let (Some(fusion), Some(face)) = (&fusion, &face) {
            let tokens = fusion.cross_attention_dim;
            same("guidance tokens", tokens, "the unet's tokens", unet.cross_attention_dim)?;
            same("guidance's identities", fusion.id_embed_dim, "face_encoder's", face.embedding_size)?;
        }
        Ok(Self { unet, fusion, arc2face, face })
    }
}

impl Encoders {
    fn load(
        folder: &ModelFolder,
        plan: &Plan,
        unet: Target,
        (detector, cache): (Arc<Detector>, Arc<Cache>),
        device: &Device,
    ) -> Result<Self> {
        let width = plan.unet.cross_attention_dim;
        let id_embed_dim = plan.face.as_ref().map(|face| face.embedding_size);
        let guidance = match &plan.fusion {
            Some(fusion) => Guidance::Fused(FusedGuidance::load(folder, fusion, device)?),
            None if plan.arc2face => {
                // This family never goes without.
                let id_embed_dim = id_embed_dim.unwrap_or(0);
                Guidance::Arc2Face(Arc2FaceGuidance::load(folder, width, id_embed_dim, device)?)
            }
            None => Guidance::Adapters(AdapterGuidance::load(folder, unet, width, id_embed_dim, device)?),
        };
        let face_encoder = match &plan.face {
            Some(_) => Some(folder.load("face_encoder", |c| FaceEncoder::load(c, device))?),
            None => None,
        };
        let segmenter = if folder.has("segmenter") {
            Some(folder.load("segmenter", |c| Segmenter::load(c, device))?)
        } else {
            None
        };
        Ok(Self { detector, cache, segmenter, face_encoder, guidance })
    }

    /// What finds the people of a content image.
    pub fn finder(&self) -> Finder<'_> {
        Finder { detector: &self.detector, segmenter: self.segmenter.as_ref() }
    }

    /// The identity encoder; fails with `component-missing` where the model has none.
    pub fn face_encoder(&self) -> Result<&FaceEncoder> {
        self.face_encoder.as_ref().ok_or_else(|| missing("face_encoder"))
    }
}

/// The model lacks a folder.
fn missing(folder: &str) -> Error {
    Error::weights(
        "component-missing",
        format!("the model has no component '{folder}'"),
        "point to a whole model folder, or train or convert the missing component",
    )
}

/// Fails with `model-mismatch` unless two components agree on a width.
pub(super) fn same(first: &str, first_width: usize, second: &str, second_width: usize) -> Result<()> {
    if first_width == second_width {
        return Ok(());
    }
    Err(Error::weights(
        "model-mismatch",
        format!("components do not fit: {first} {first_width} wide, {second} {second_width}"),
        "use components that were trained together",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_both_components() {
        let error = same("the prior", 96, "the vision encoders together", 80).unwrap_err();
        assert_eq!(error.code, "model-mismatch");
        assert!(error.message.contains("prior 96") && error.message.contains("together 80"), "{error}");
    }
}
