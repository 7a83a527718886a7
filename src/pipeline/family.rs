//! [`Family`]: what a kind of model makes of what is known of a request.

use std::fmt::Debug;
use std::ops::Range;

use burn::tensor::Device;

use super::evidence::{Evidence, Needs};
use super::folder::ModelFolder;
use super::readers::RequiredReaders;
use crate::condition::{Condition, Places};
use crate::encoders::face::FaceEncoderConfig;
use crate::error::Result;
use crate::request::{GenerateRequest, Person};
use crate::transformer::Flux2Transformer2DConfig;
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};

/// A kind of model, by what its denoiser attends to. It reads no picture, waits for nothing and remembers nothing.
pub trait Family: Debug + Send + Sync {
    /// Whether prompts can be drawn from.
    fn reads_words(&self) -> bool;

    /// Whether style images can be drawn from.
    fn reads_styles(&self) -> bool;

    /// Whether it sees pictures themselves, that which is started from among them, and is told what each is.
    fn sees_references(&self) -> bool {
        false
    }

    /// Whether what texts become is drawn by the seed.
    fn draws(&self) -> bool {
        false
    }

    /// Refuses a request that the family gives no meaning to.
    fn check(&self, request: &GenerateRequest) -> Result<()>;

    /// What it wants to know of a request whose people act in these places.
    fn needs<'a>(&self, request: &'a GenerateRequest, places: Option<&Places>) -> Needs<'a>;

    /// What each picture's denoiser attends to, from what it needed to know; each person acts in their place, if there are any.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        places: Option<&Places>,
        device: &Device,
    ) -> Result<Vec<Guided>>;
}

/// The parts of the steps in which the same people act, each with whether each of them does.
pub fn parts(people: &[Person]) -> Vec<(Range<f32>, Vec<bool>)> {
    let mut cuts: Vec<f32> = people.iter().flat_map(|person| [person.start, person.end]).collect();
    cuts.extend([0.0, 1.0]);
    cuts.sort_by(f32::total_cmp);
    cuts.dedup();
    let acts =
        |part: &Range<f32>| people.iter().map(|person| person.acts().1.contains(&part.start)).collect();
    cuts.windows(2).map(|cut| cut[0]..cut[1]).map(|part| (part.clone(), acts(&part))).collect()
}

/// What one picture's denoiser attends to; with a guidance scale, the condition's batch holds the null half first.
#[derive(Debug, Clone)]
pub struct Guided {
    /// Of one picture, or of both halves.
    pub condition: Condition,
    /// Classifier-free guidance; `None` without.
    pub guidance_scale: Option<f32>,
}

/// A family as a model folder holds it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The folder that tells it.
    pub folder: &'static str,
    /// Whether it cannot do without `face_encoder/`.
    pub needs_face_encoder: bool,
    /// What it makes guidance for.
    pub denoises: Denoises,
}

/// The network that a family makes guidance for.
#[derive(Clone, Copy)]
pub enum Denoises {
    /// `unet/`, or `transformer/` of PixArt's architecture: what attends to guidance tokens alone.
    Guided {
        /// As a UNet's.
        fits: fn(&ModelFolder, &GuidedConfigs) -> Result<RequiredReaders>,
        /// Loads its own networks, for a denoiser that takes the style beside the timestep as well, or not.
        open: fn(&ModelFolder, bool, &Device) -> Result<Box<dyn Family>>,
    },
    /// `unet/`, with a family's own layers in it.
    Unet {
        /// What the family reads with; reads no weights. Fails with `model-mismatch` where the configs of its components do not fit
        /// each other.
        fits: fn(&ModelFolder, &Configs) -> Result<RequiredReaders>,
        /// Loads its own networks, which make guidance of what was read.
        open: fn(&ModelFolder, Target, &Device) -> Result<Box<dyn Family>>,
    },
    /// `transformer/`, which sees reference pictures and reads a chat.
    Flux2 {
        /// As a UNet's; what reads is the same in all folders.
        fits: fn(&ModelFolder, &Flux2Transformer2DConfig) -> Result<()>,
        /// Reads what the folder says; such a family has no networks of its own.
        open: fn(&ModelFolder) -> Result<Box<dyn Family>>,
    },
}

/// What the configs of the components say that a family of guidance tokens has.
pub struct GuidedConfigs {
    /// What the denoiser is called in errors.
    pub denoiser: &'static str,
    /// Channels of its tokens.
    pub token_channels: usize,
    /// Numbers of its class labels, where it takes any.
    pub class_labels: Option<usize>,
    /// `face_encoder/`, where there is one.
    pub face: Option<FaceEncoderConfig>,
}

/// What the configs of the components say that every family of a UNet has.
pub struct Configs {
    /// `unet/`.
    pub unet: UNet2DConditionConfig,
    /// `face_encoder/`, where there is one.
    pub face: Option<FaceEncoderConfig>,
}

/// The UNet that a family's networks are made for.
pub enum Target<'a> {
    /// It takes the adapters' layers.
    Fresh(&'a mut UNet2DConditionModel),
    /// It has them already.
    Fitted(&'a UNet2DConditionModel),
}

impl Target<'_> {
    pub fn unet(&self) -> &UNet2DConditionModel {
        match self {
            Self::Fresh(unet) => unet,
            Self::Fitted(unet) => unet,
        }
    }
}

/// Made-up evidence, on which families are tested without a model's files.
#[cfg(test)]
pub(super) mod made_up {
    use burn::tensor::{Device, Tensor};

    use crate::condition::{Places, Regions};
    use crate::encoders::vision::VisionOutput;
    use crate::request::{GenerateRequest, Person};
    use ::image::RgbImage;

    /// Numbers between −1 and 1, others for each `phase`.
    pub fn waves<const D: usize>(phase: f32, shape: [usize; D]) -> Tensor<D> {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i: usize| (phase + 1.7 * i as f32).sin()).collect();
        Tensor::<1>::from_floats(&values[..], &Device::flex()).reshape(shape)
    }

    /// What a vision encoder might say.
    pub fn seen(phase: f32, embed_dim: usize, states: Option<[usize; 3]>) -> VisionOutput {
        VisionOutput {
            image_embeds: waves(phase, [1, embed_dim]),
            last_hidden_state: None,
            penultimate_hidden_state: states.map(|shape| waves(phase + 0.3, shape)),
        }
    }

    /// A request for a style image and words, of so many people.
    pub fn request(people: usize) -> GenerateRequest {
        GenerateRequest {
            people: vec![Person::of(Vec::new()); people],
            style: Some(RgbImage::new(1, 1)),
            prompt: "a man".to_owned(),
            alpha: 0.25,
            guidance_scale: 3.0,
            ..GenerateRequest::default()
        }
    }

    /// The left half is the first's, the right the second's.
    pub fn halves() -> Places {
        Places::Regions(Regions::new(1, 2, vec![vec![1.0, 0.0], vec![0.0, 1.0]], 0).unwrap())
    }

    /// Of which the halves of a batch are made: rows `0` and `1` are apart.
    pub fn row(tokens: &Tensor<3>, row: usize) -> Tensor<3> {
        tokens.clone().narrow(0, row, 1)
    }

    /// Whether two hold the same numbers, but for rounding, and these are no zeros.
    #[track_caller]
    pub fn assert_same<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
        assert_eq!(a.dims(), b.dims());
        let (off, most): (f32, f32) =
            ((a - b.clone()).abs().max().into_scalar(), b.abs().max().into_scalar());
        assert!(off < 1e-5 && most > 1e-2, "{off} of {most}");
    }
}
