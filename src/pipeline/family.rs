//! [`Family`]: what a kind of model makes of what is known of a request.

use std::fmt::Debug;

use burn::tensor::Device;

use super::evidence::{Evidence, Needs};
use super::folder::ModelFolder;
use super::readers::Reads;
use crate::condition::{Condition, Regions};
use crate::encoders::face::FaceEncoderConfig;
use crate::error::Result;
use crate::request::GenerateRequest;
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};

/// A kind of model, by what its denoiser attends to. It reads no picture, waits for nothing and remembers nothing.
pub trait Family: Debug + Send + Sync {
    /// Whether prompts can be drawn from.
    fn reads_words(&self) -> bool;

    /// Whether style images can be drawn from.
    fn reads_styles(&self) -> bool;

    /// Whether what texts become is drawn by the seed.
    fn draws(&self) -> bool {
        false
    }

    /// Refuses a request that the family gives no meaning to.
    fn check(&self, request: &GenerateRequest) -> Result<()>;

    /// What it wants to know of a request.
    fn needs<'a>(&self, request: &'a GenerateRequest) -> Needs<'a>;

    /// What each picture's denoiser attends to, from what it needed to know.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        regions: Option<&Regions>,
        device: &Device,
    ) -> Result<Vec<Guided>>;
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
    /// What it reads with; reads no weights. Fails with `model-mismatch` where the configs of its components do not fit each
    /// other.
    pub fits: fn(&ModelFolder, &Configs) -> Result<Reads>,
    /// Loads its own networks, which make guidance of what was read.
    pub open: fn(&ModelFolder, Target, &Device) -> Result<Box<dyn Family>>,
}

/// What the configs of the components say that every family has.
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
