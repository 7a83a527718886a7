//! One person learnt from photos by tuning a model that has no identity input: what the paper's baselines have in common.
//!
//! Their base is a text-to-image model. Ours is the model itself without an identity: prompt → text encoder → prior → shared
//! Linear, with zeros for the identity, → UNet. The loss is the base's own, with timesteps drawn evenly as in both baselines'
//! code, at a constant rate and without averaged weights, as theirs.

use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::Backend;
use super::denoiser::{Denoiser, DenoiserConfig};
use super::diffusion::{Question, picture_side, squared_errors};
use super::encoded::{Encoded, at_once};
use super::optim::{AdamW, AdamWConfig};
use super::rng::Rng;
use crate::read_back::{read_back, read_scalar};
use facestudio::condition::{Added, Condition};
use facestudio::error::{Error, Result};
use facestudio::guidance::fusion::{Fusion, FusionConfig};
use facestudio::image::preprocess::{resize_to_cover, signed_tensor};
use facestudio::sampling::{Prediction, SchedulerConfig};
use facestudio::vae::{Vae, VaeConfig};
use facestudio::weights::{Component, Files, MemoryFiles, Quantization, Tensors, encode};

/// Whom to learn, on what, and where.
pub struct Subject<'a> {
    /// The model folder.
    pub files: &'a dyn Files,
    /// Photos of one person, of any size.
    pub photos: &'a [RgbImage],
    /// What the person is, in a word: `woman`.
    pub class: &'a str,
    /// Updates.
    pub steps: usize,
    /// Decides every random number.
    pub seed: u64,
    /// Where to compute.
    pub backend: Backend,
}

/// What was learnt.
pub struct Learnt {
    /// Folders of the model that are others now, whole: to be laid [over](facestudio::weights::Overlay) its files.
    pub folders: MemoryFiles,
    /// Seconds from the photos to these weights, with the networks loaded.
    pub seconds: f64,
    /// The loss of each step.
    pub losses: Vec<f32>,
}

/// Hears of every step, counted from 1; `Break` cancels.
pub type Watch<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

impl Subject<'_> {
    /// Fails with `no-photo`, `class-missing`, `steps-range` or `component-missing`.
    pub(super) fn check(&self) -> Result<()> {
        if self.photos.is_empty() {
            let message = "there is no photo to learn a person from";
            return Err(Error::input("no-photo", message, "add a photo of the face"));
        }
        if self.class.trim().is_empty() {
            let message = "there is no word for what the person is";
            return Err(Error::input("class-missing", message, "name the class, such as 'woman'"));
        }
        if self.steps == 0 {
            return Err(Error::input(
                "steps-range",
                "a person is learnt in at least one step",
                "ask for 1 step or more",
            ));
        }
        let folders = self.files.folders("")?;
        let denoiser = DenoiserConfig::folder_of(self.files)?;
        for needed in ["guidance", "prior", "text_encoder", "tokenizer", denoiser, "vae", "scheduler"] {
            if !folders.iter().any(|folder| folder == needed) {
                return Err(Error::weights(
                    "component-missing",
                    format!("the model has no component '{needed}', which learning a person needs"),
                    "use a model that draws from prompts through a prior, as mini",
                ));
            }
        }
        Ok(())
    }
}

/// The networks behind the text branch, and what the loss needs of them.
pub(super) struct Base {
    pub denoiser: Denoiser,
    /// The denoiser's in the model.
    pub folder: &'static str,
    pub fusion: Fusion,
    vae: Vae,
    /// Side of the pictures that the denoiser was made for.
    side: usize,
    id_embed_dim: usize,
    /// Channels of the denoiser's finest level.
    pub width: usize,
    prediction: Prediction,
    alphas_cumprod: Vec<f64>,
    /// Records gradients.
    pub device: Device,
    /// Of the activations.
    pub dtype: DType,
}

impl Base {
    pub fn load(subject: &Subject) -> Result<Self> {
        let device = subject.backend.device()?;
        let component = |folder| Component::new(subject.files, folder);
        let load = |folder: &'static str| move |e: Error| e.context(folder);
        let folder = DenoiserConfig::folder_of(subject.files)?;
        let config = DenoiserConfig::read(folder, &component(folder).json("config.json")?)?;
        let random = config.init(&device)?;
        let fusion_config: FusionConfig = component("guidance").json("config.json")?;
        let vae_config = VaeConfig::from_component(&component("vae"))?;
        let scheduler = SchedulerConfig::from_component(&component("scheduler"))?;
        Ok(Self {
            denoiser: random.with(component(folder).tensors()?.as_ref()).map_err(load(folder))?,
            folder,
            fusion: Fusion::load(&component("guidance"), &device).map_err(load("guidance"))?,
            vae: Vae::load(&component("vae"), &device.clone().without_autodiff()).map_err(load("vae"))?,
            side: picture_side(&config, &vae_config)?,
            id_embed_dim: fusion_config.id_embed_dim,
            width: config.width(),
            prediction: scheduler.prediction_type.unwrap_or_default(),
            alphas_cumprod: scheduler.alphas_cumprod()?,
            device,
            dtype: subject.backend.dtype(),
        })
    }

    /// The latents of pictures of any size.
    pub fn latents(&self, pictures: &[RgbImage]) -> Result<Latents> {
        let device = self.device.clone().without_autodiff();
        let mut out = Latents { values: Vec::new(), dims: [0; 3] };
        for pictures in pictures.chunks(at_once(self.side)) {
            let square = |picture| resize_to_cover(picture, self.side, self.side);
            let pictures = pictures.iter().map(square).collect::<Result<Vec<_>>>()?;
            let pixels = signed_tensor(&pictures.iter().collect::<Vec<_>>(), &device)?;
            let latents = self.vae.encode_latents(pixels.cast(self.dtype))?;
            let [_, c, h, w] = latents.dims();
            out.dims = [c, h, w];
            out.values.extend(read_back(latents, "latents")?);
        }
        Ok(out)
    }

    /// Squared errors of what `denoiser` says about noised `latents`, `[n, c, h, w]` both, drawn from `image_embeds`,
    /// `[n, image_embed_dim]`, of nobody.
    pub fn errors(
        &self,
        denoiser: &Denoiser,
        fusion: &Fusion,
        image_embeds: Tensor<2>,
        latents: Tensor<4>,
        rng: &mut Rng,
    ) -> Result<Tensor<4>> {
        let n = latents.dims()[0];
        let nobody = Tensor::zeros([n, self.id_embed_dim], &self.device);
        let added = denoiser.adds_style().then(|| Added::ClassLabels(image_embeds.clone()));
        let tokens = fusion.forward(image_embeds, nobody).cast(self.dtype);
        let condition = Condition::single(tokens).adding(added);
        let timesteps: Vec<usize> = (0..n).map(|_| rng.below(self.alphas_cumprod.len())).collect();
        let noise = rng.normals(latents.shape().num_elements());
        let Question { noised, steps, target } =
            Question::new(self.prediction, latents, noise, &timesteps, &self.alphas_cumprod);
        Ok(squared_errors(denoiser.forward(noised.cast(self.dtype), steps, &condition)?, target))
    }
}

/// Latents of several pictures on the host.
pub(super) struct Latents {
    values: Vec<f32>,
    /// `[channels, height, width]`.
    dims: [usize; 3],
}

impl Latents {
    pub fn len(&self) -> usize {
        self.values.len() / self.dims.iter().product::<usize>().max(1)
    }

    /// `[indices, channels, height, width]`.
    pub fn pick(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        let [c, h, w] = self.dims;
        Encoded::rows(&self.values, c * h * w, indices, device).reshape([indices.len(), c, h, w])
    }
}

/// Updates `model` by the gradient of `objective`, the loss of one step's batch (f32, `[1]`), at a constant rate.
pub(super) fn tune<M: Module>(
    mut model: M,
    subject: &Subject,
    optimizer: AdamWConfig,
    lr: f64,
    mut objective: impl FnMut(&M, &mut Rng) -> Result<Tensor<1>>,
    watch: &mut Watch,
) -> Result<(M, Vec<f32>)> {
    let mut optimizer = AdamW::new(optimizer);
    let mut losses = Vec::with_capacity(subject.steps);
    for step in 0..subject.steps {
        let loss = objective(&model, &mut Rng::new(subject.seed, step as u64))?;
        let gradients = loss.backward();
        losses.push(read_scalar(loss, "the loss")?);
        optimizer.gather(&model, gradients)?;
        (model, _) = optimizer.step(model, 1, lr);
        if watch(step + 1).is_break() {
            return Err(Error::cancelled());
        }
    }
    Ok((model, losses))
}

/// A folder of the model with other weights, in f32; its other files are kept.
pub(super) fn put(
    folders: &mut MemoryFiles,
    files: &dyn Files,
    folder: &str,
    weights: &Tensors,
) -> Result<()> {
    // Configs and tokenizers; what else lies there is not read, as checkpoints in other formats.
    let is_text = |name: &String| name.ends_with(".json") || name.ends_with(".txt");
    for name in files.list(folder)?.into_iter().filter(is_text) {
        let path = format!("{folder}/{name}");
        folders.0.insert(path.clone(), files.read(&path)?);
    }
    let bytes = encode(weights, Quantization::None, &Default::default())?;
    folders.0.insert(format!("{folder}/model.safetensors"), bytes);
    Ok(())
}
