//! One vision encoder of either architecture, and several side by side: the paper's `CLIP_V`.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ClipResNet, ClipResNetConfig, ClipVit, ClipVitConfig, VisionOutput};
use crate::encoders::refuse_others;
use crate::error::{Error, Result};
use crate::image::processor::Preprocessing;
use crate::weights::{self, Component, TensorSource, Tensors};

/// The file that says how pictures become a vision encoder's input.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// The file that holds it under `image_processor`.
const PROCESSOR: &str = "processor_config.json";
/// Where diffusers' pipelines keep it, beside the encoder's folder.
const PIPELINES: [&str; 2] = ["feature_extractor", "image_processor"];

/// What `preprocessor_config.json` of an encoder's folder says, or that of the pipeline that the folder is in.
///
/// Fails with `preprocessor` where a `processor_config.json` beside it says otherwise.
pub fn preprocessor_config(component: &Component) -> Result<Option<Map<String, Value>>> {
    let own = if component.contains(PREPROCESSOR)? { Some(component.json(PREPROCESSOR)?) } else { None };
    let whole = processor_config(component)?;
    if let (Some(own), Some(whole)) = (&own, &whole) {
        let size = VisionConfig::read(component)?.image_size();
        let [says, other] = [own, whole].map(|config| Preprocessing::from_config(config, size));
        if let Some(entry) = says?.difference(&other.map_err(|e| e.context(PROCESSOR))?) {
            return Err(Error::weights(
                "preprocessor",
                format!("{PREPROCESSOR} and {PROCESSOR} beside it differ in {entry}"),
                "remove the file that is not the encoder's own",
            ));
        }
    }
    if own.is_some() || whole.is_some() {
        return Ok(own.or(whole));
    }
    for folder in PIPELINES {
        if let Some(beside) = component.beside(folder)?
            && beside.contains(PREPROCESSOR)?
        {
            return beside.json(PREPROCESSOR).map(Some);
        }
    }
    Ok(None)
}

/// The image processor of a whole processor, as transformers 5 saves one.
fn processor_config(component: &Component) -> Result<Option<Map<String, Value>>> {
    if !component.contains(PROCESSOR)? {
        return Ok(None);
    }
    let mut config: Map<String, Value> = component.json(PROCESSOR)?;
    match config.remove("image_processor") {
        Some(Value::Object(config)) => Ok(Some(config)),
        _ => Ok(None),
    }
}

/// How pictures become the input of an encoder of `size` pixels: as its [`preprocessor_config`] says, or CLIP's way where
/// there is none.
pub fn preprocessing(component: &Component, size: usize) -> Result<Preprocessing> {
    match preprocessor_config(component)? {
        Some(config) => Preprocessing::from_config(&config, size),
        None => Ok(Preprocessing::clip(size)),
    }
}

/// The config of either architecture, told apart by `model_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum VisionConfig {
    /// A vision transformer.
    #[serde(rename = "clip_vision_model")]
    Vit(ClipVitConfig),
    /// CLIP's modified ResNet.
    #[serde(rename = "clip_resnet")]
    ResNet(ClipResNetConfig),
}

impl VisionConfig {
    /// Reads `config.json`, either an encoder's own or a whole CLIP's with a nested `vision_config`.
    pub fn read(component: &Component) -> Result<Self> {
        #[derive(Deserialize)]
        struct ClipConfig {
            model_type: Option<String>,
            vision_config: Option<ClipVitConfig>,
            /// Of old versions of transformers; it counts where there are both.
            vision_config_dict: Option<ClipVitConfig>,
            projection_dim: Option<usize>,
        }
        let clip: ClipConfig = component.json("config.json")?;
        refuse_others(clip.model_type.as_deref(), &["clip", "clip_vision_model", "clip_resnet"])?;
        let Some(mut config) = clip.vision_config_dict.or(clip.vision_config) else {
            return component.json("config.json");
        };
        // The whole model's own width wins, as in `CLIPModel`.
        config.projection_dim = clip.projection_dim.unwrap_or(config.projection_dim);
        Ok(Self::Vit(config))
    }

    /// Side of the square input in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Vit(config) => config.image_size,
            Self::ResNet(config) => config.image_size,
        }
    }

    /// Width of `image_embeds`.
    pub fn embed_dim(&self) -> usize {
        match self {
            Self::Vit(config) => config.projection_dim,
            Self::ResNet(config) => config.embed_dim,
        }
    }

    /// Creates the network with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<VisionNetwork> {
        Ok(match self {
            Self::Vit(config) => VisionNetwork::Vit(config.init(device)?),
            Self::ResNet(config) => VisionNetwork::ResNet(config.init(device)?),
        })
    }
}

/// A vision encoder's network, of either architecture.
///
/// As a module it puts the variant's name into parameter paths; [`VisionNetwork::apply`] and
/// [`VisionNetwork::collect`] use the checkpoint's names.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds a handful of encoders, and few move")]
pub enum VisionNetwork {
    /// A vision transformer.
    Vit(ClipVit),
    /// CLIP's modified ResNet.
    ResNet(ClipResNet),
}

impl VisionNetwork {
    /// `pixel_values`: `[n, 3, image_size, image_size]`, normalised → `image_embeds` `[n, embed_dim]`.
    ///
    /// # Panics
    /// On pictures of another size than the config's.
    pub fn forward(&self, pixel_values: Tensor<4>) -> VisionOutput {
        match self {
            Self::Vit(network) => network.forward(pixel_values),
            Self::ResNet(network) => network.forward(pixel_values),
        }
    }

    /// Loads every parameter from `source`, where names start with `prefix`.
    pub fn apply(self, source: &dyn TensorSource, prefix: &str) -> Result<Self> {
        Ok(match self {
            Self::Vit(network) => Self::Vit(weights::apply(network, source, prefix)?),
            Self::ResNet(network) => Self::ResNet(weights::apply(network, source, prefix)?),
        })
    }

    /// Collects every parameter, its name after `prefix`.
    pub fn collect(&self, prefix: &str) -> Result<Tensors> {
        match self {
            Self::Vit(network) => weights::collect(network, prefix),
            Self::ResNet(network) => weights::collect(network, prefix),
        }
    }
}

/// A loaded vision encoder with the preprocessing it was trained with.
#[derive(Debug, Clone)]
pub struct VisionEncoder {
    network: VisionNetwork,
    preprocessing: Preprocessing,
    embed_dim: usize,
}

impl VisionEncoder {
    /// Loads the encoder of a component folder. A ResNet's names may start with `visual.`, as in whole CLIPs.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config = VisionConfig::read(component)?;
        let network = config.init(device)?;
        let preprocessing = preprocessing(component, config.image_size())?;
        let source = component.tensors()?;
        let prefix = match network {
            VisionNetwork::ResNet(_) if source.shape("visual.conv1.weight").is_some() => "visual.",
            _ => "",
        };
        Ok(Self {
            network: network.apply(source.as_ref(), prefix)?,
            preprocessing,
            embed_dim: config.embed_dim(),
        })
    }

    /// What its input must look like.
    pub fn preprocessing(&self) -> Preprocessing {
        self.preprocessing
    }

    /// Width of its `image_embeds`.
    pub fn embed_dim(&self) -> usize {
        self.embed_dim
    }

    /// `pixel_values`: `[n, 3, size, size]` after [`VisionEncoder::preprocessing`] → `image_embeds` `[n, embed_dim]`.
    /// Fails with `vision-input` on another shape.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Result<VisionOutput> {
        let size = self.preprocessing.size;
        let [_, channels, height, width] = pixel_values.dims();
        if [channels, height, width] != [3, size, size] {
            return Err(Error::input(
                "vision-input",
                format!("the vision encoder takes 3×{size}×{size} pictures, not {channels}×{height}×{width}"),
                "preprocess with the encoder's own size",
            ));
        }
        Ok(self.network.forward(pixel_values))
    }
}

/// Several vision encoders side by side: the paper's `CLIP_V` (section 3.2; ViT-L/14, RN101 and ViT-B/32).
#[derive(Debug, Clone)]
pub struct VisionEnsemble {
    /// In the order of their embeddings.
    pub encoders: Vec<VisionEncoder>,
}

impl VisionEnsemble {
    /// Width of the concatenated embedding.
    pub fn embed_dim(&self) -> usize {
        self.encoders.iter().map(VisionEncoder::embed_dim).sum()
    }

    /// Encodes the same pictures, preprocessed once for each encoder (`[n, 3, size_i, size_i]`) → `[n, embed_dim]`.
    ///
    /// Each embedding is brought to length √dim by [`unit_variance`] before they are concatenated.
    /// Fails with `vision-input` unless there is one input for each encoder, of its size.
    pub fn forward(&self, pixel_values: Vec<Tensor<4>>) -> Result<Tensor<2>> {
        if self.encoders.is_empty() || pixel_values.len() != self.encoders.len() {
            return Err(Error::input(
                "vision-input",
                format!("{} inputs for {} vision encoders", pixel_values.len(), self.encoders.len()),
                "preprocess the picture once for each encoder",
            ));
        }
        let embeds = self
            .encoders
            .iter()
            .zip(pixel_values)
            .map(|(encoder, pixels)| Ok(unit_variance(encoder.forward(pixels)?.image_embeds)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(embeds, 1))
    }
}

/// Scales each row of `[n, dim]` to length √dim, in f32, so that its features are of order 1.
///
/// CLIP's embeddings carry their meaning in their direction (the cosine is what was trained) while their lengths
/// differ from one encoder to the next; unscaled, the longest would dominate the Linear that reads them, and at
/// length 1 features would shrink with the width. A zero row stays zero.
pub fn unit_variance(embeds: Tensor<2>) -> Tensor<2> {
    let (dim, dtype) = (embeds.dims()[1], embeds.dtype());
    let embeds = embeds.cast(DType::F32);
    let length = embeds.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    (embeds / length * (dim as f64).sqrt()).cast(dtype)
}
