//! The diffusion stage: the shared Linear and the denoiser, by the paper's recipe (section 3.1 and 4.1).
//!
//! A picture is reconstructed from itself with its faces hidden (style) and from its largest face (identity), each
//! dropped independently for classifier-free guidance. Only the image branch is trained, so no captions are needed.
//!
//! Four things are ours. A picture whose identity is dropped, and a few others, keep their heads in the style. In a part of
//! the steps pictures of several people are reconstructed from all of their identities, each in its region, so that what the
//! paper only infers with (section 3.4) is trained for as well. Noise levels are drawn where the picture is decided (Esser et
//! al. 2024), not evenly over the timesteps. And errors in faces count more.
//!
//! The paper's loss is `‖ε − ε_θ(z_t, t, e_g)‖²`. `mini` predicts the velocity instead (Salimans and Ho 2022, section
//! 4): in terms of ε, an error in the clean latents counts ᾱ_t times as much, which is next to nothing at the noise
//! levels where colours and composition are decided, and a small model's short training is spent elsewhere. The
//! scheduler's config says what is predicted.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::batches::{BatchSampler, Drops, TrainingBatch, weighted};
use super::data::{Pictures, pictures_of, trained};
use super::denoiser::{Denoiser, DenoiserConfig};
use super::encoded::{Encoded, PEOPLE, at_once, encode_all};
use super::export::export;
use super::levels::Levels;
use super::memory::{Batch, Estimate};
use super::realign::realign;
use super::rng::Rng;
use super::run::{Defaults, Event, Gather, Step};
use super::{Setup, Source, plot, portraits, recompute, run};
use facestudio::condition::{Added, Condition};
use facestudio::error::{Error, Result};
use facestudio::guidance::classifier_free::guide;
use facestudio::guidance::fusion::{Fusion, FusionConfig};
use facestudio::request::MAX_SIDE;
use facestudio::sampling::{NoiseSource, Prediction, Sampler, Schedule, Scheduler, SchedulerConfig};
use facestudio::vae::{Vae, VaeConfig};
use facestudio::weights::{CheckedFolder, Component, apply};

/// Side of `mini`'s pictures.
const SIZE: usize = 256;
/// Pictures kept from training, to show.
pub(super) const HELD_OUT: usize = 64;
/// Logarithm of the noise-to-signal ratio: mean and standard deviation (Esser et al. 2024, arXiv 2403.03206, section 3.1: the logit of
/// the time, which is this logarithm, is normal). The mean is above their 0: at that, `mini`'s few tokens learnt where people and colours
/// are half as fast.
const NOISE: [f32; 2] = [0.4, 1.0];
/// Guidance tokens of `mini`, and of a base that has none of its own.
const TOKENS: usize = 4;
const BASE_TOKENS: usize = 16;
/// Channels of a guidance token of `mini`.
const TOKEN_CHANNELS: usize = 256;
/// Pictures, steps and guidance of a sample sheet.
const SHEET: usize = 16;
const SHEET_STEPS: usize = 20;
const SHEET_GUIDANCE: f32 = 2.0;

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 32, lr: 5e-4 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// What to learn from.
    pub source: Source,
    /// A model folder whose weights and sizes to start from, in place of random ones of `mini`'s sizes.
    pub base: Option<PathBuf>,
    /// How often a picture is told by less.
    pub drops: Drops,
    /// Guidance tokens of a new Linear; without a number 4 for `mini`, 16 for a base that has no Linear.
    pub n_tokens: Option<usize>,
    /// Whether the UNet's segments are computed again for their gradients ([`recompute`]), instead of all that they need for
    /// them being kept.
    pub gradient_checkpointing: bool,
}

/// What the stage trains.
#[derive(Module, Debug)]
pub struct DiffusionTrainee {
    /// The denoiser.
    pub denoiser: Denoiser,
    /// The shared Linear.
    pub guidance: Fusion,
}

/// The sizes of `mini`: few tokens of many channels. In an equal time this architecture learnt more than twice as much as a UNet
/// (docs/train.md has the table).
fn transformer_config(sample_size: usize, latent_channels: usize) -> serde_json::Value {
    serde_json::json!({
        "_class_name": "PixArtTransformer2DModel",
        "sample_size": sample_size, "patch_size": 1, "in_channels": latent_channels, "out_channels": latent_channels,
        "num_layers": 8, "num_attention_heads": 7, "attention_head_dim": 32, "cross_attention_dim": 7 * 32,
        "caption_channels": TOKEN_CHANNELS, "use_additional_conditions": false,
    })
}

/// Stable Diffusion's schedule (scaled linear β, 1000 steps), sampled by the paper's Euler ancestral. Its last step is noise alone (Lin
/// et al. 2023, arXiv 2305.08891, section 3.1): what is left of a picture at Stable Diffusion's own last step says its mean colour, which
/// is not there when a picture is drawn.
fn scheduler_json() -> serde_json::Value {
    serde_json::json!({
        "_class_name": "EulerAncestralDiscreteScheduler", "num_train_timesteps": 1000,
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": true,
        "prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 1,
    })
}

/// Trains the denoiser and the Linear, and writes `transformer/` or `unet/`, `guidance/` and `scheduler/` of the model folder.
///
/// Fails with `base-mismatch` where the base does not fit the folder's encoders and autoencoder, or `n_tokens` not its Linear.
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, source, base: base_folder, .. } = options;
    let run = &setup.run;
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let base = base_folder.clone().map(CheckedFolder::new);
    let base = match &base {
        Some(files) => {
            let folder = DenoiserConfig::folder_of(files)?;
            Some((folder, [folder, "guidance", "scheduler"].map(|folder| Component::new(files, folder))))
        }
        None => None,
    };
    let vae_config =
        VaeConfig::from_component(&Component::new(&CheckedFolder::new(setup.out.clone()), "vae"))?;
    let (folder, denoiser_json, scheduler_json) = match &base {
        Some((folder, [denoiser, _, scheduler])) => {
            (*folder, denoiser.json("config.json")?, scheduler.json("scheduler_config.json")?)
        }
        None => {
            let side = SIZE.div_ceil(vae_config.downsampling());
            ("transformer", transformer_config(side, vae_config.latent_channels()), scheduler_json())
        }
    };
    let denoiser_config = DenoiserConfig::read(folder, &denoiser_json)?;
    // A base without the shared Linear, as a converted Stable Diffusion, gets a new one.
    let trained_fusion = base
        .as_ref()
        .map(|(_, [_, guidance, _])| guidance)
        .filter(|g| g.contains("config.json").is_ok_and(|has| has));
    let trained_config: Option<FusionConfig> = trained_fusion.map(|g| g.json("config.json")).transpose()?;
    let n_tokens = match &trained_config {
        Some(config) if options.n_tokens.is_some_and(|n| n != config.n_tokens) => {
            return Err(Error::input(
                "base-mismatch",
                format!("the base's shared Linear has {} tokens", config.n_tokens),
                "leave --n-tokens out, or the base's guidance folder, for a new one",
            ));
        }
        Some(config) => config.n_tokens,
        None => options.n_tokens.unwrap_or(if base.is_some() { BASE_TOKENS } else { TOKENS }),
    };
    let denoiser = denoiser_config.init(&device)?;
    let side = picture_side(&denoiser_config, &vae_config)?;
    let size = [side.div_ceil(vae_config.downsampling()); 2];
    match &denoiser {
        Denoiser::UNet(unet) => {
            let largest = Batch { samples: run.batch, size, tokens: n_tokens, people: PEOPLE, dtype };
            log(Event::Note(Estimate::new(unet, &largest).to_string()));
        }
        Denoiser::PixArt(_) if options.gradient_checkpointing => {
            return Err(Error::input(
                "base-mismatch",
                "--gradient-checkpointing is for UNets; the denoiser is a transformer",
                "leave it out: `mini`'s transformer takes little memory",
            ));
        }
        Denoiser::PixArt(_) => {}
    }
    let pictures = portraits::portraits(setup, source, side, log)?;
    let encoded = encode_all(setup, &pictures, log)?;
    let trained = trained(encoded.len, HELD_OUT)?;
    let fusion_config = trained_config.unwrap_or(FusionConfig {
        image_embed_dim: encoded.image_embed_dim(),
        id_embed_dim: encoded.id_embed_dim(),
        n_tokens,
        cross_attention_dim: denoiser_config.token_channels(),
    });
    check_fits(setup, &denoiser_config, &fusion_config, &encoded)?;
    let scheduler = SchedulerConfig::from_json(scheduler_json.to_string().as_bytes())?;
    let alphas_cumprod = scheduler.alphas_cumprod()?;
    let mut model = DiffusionTrainee { denoiser, guidance: fusion_config.init(&device)? };
    if let Some((_, [denoiser, ..])) = &base {
        model.denoiser = model.denoiser.with(denoiser.tensors()?.as_ref())?;
    }
    if let (Some(guidance), Some(folder)) = (trained_fusion, base_folder) {
        let guidance = apply(model.guidance, guidance.tensors()?.as_ref(), "")?;
        model.guidance = realign(guidance, folder, setup, &pictures, &encoded, log)?;
    }
    log(Event::Note(format!("{} parameters, {trained} pictures", model.num_params())));

    let batches = BatchSampler::new(options.drops, &pictures, &encoded, trained)?;
    let ratios: Vec<f32> = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt().ln() as f32).collect();
    let objective = |model: &DiffusionTrainee, step: &Step, gather: Gather| {
        let mut rng = step.rng();
        let n = run.batch;
        let TrainingBatch { latents, condition, weight } =
            batches.draw(n, &model.guidance, model.denoiser.adds_style(), dtype, &device, &mut rng)?;
        let timesteps = timesteps(&ratios, n, &mut rng);
        let noise = rng.normals(latents.shape().num_elements());
        let prediction = scheduler.prediction_type.unwrap_or_default();
        let Question { noised, steps, target } =
            Question::new(prediction, latents, noise, &timesteps, &alphas_cumprod);
        let loss = |predicted: Tensor<4>| weighted(squared_errors(predicted, target), &weight);
        if options.gradient_checkpointing
            && let Denoiser::UNet(unet) = &model.denoiser
        {
            return recompute::backward(unet, noised.cast(dtype), steps, &condition, loss, gather);
        }
        let loss = loss(model.denoiser.forward(noised.cast(dtype), steps, &condition)?);
        gather(loss.backward())?;
        Ok(loss)
    };
    let sheet = Sheet::new(setup, &pictures, &encoded, trained)?;
    let levels = Levels::new(scheduler.prediction_type.unwrap_or_default(), &alphas_cumprod);
    let held_out: Vec<usize> = (trained..encoded.len).collect();
    let show = |model: &DiffusionTrainee, folder: &Path| {
        let schedule = scheduler.schedule(Sampler::EulerAncestral, SHEET_STEPS, None)?;
        sheet.draw(
            &model.denoiser,
            &model.guidance,
            &schedule,
            SHEET_GUIDANCE,
            &folder.join("samples.png"),
        )?;
        let adds_style = model.denoiser.adds_style();
        let condition =
            |indices: &[usize]| told(&encoded, indices, [adds_style, false], &model.guidance, dtype);
        let errors = levels.errors(&model.denoiser, &encoded, &held_out, condition, dtype)?;
        Ok(format!("held-out error by level of noise {errors:.4?}"))
    };
    let finished = run::train_in_parts(run, model, objective, show, log)?;

    let DiffusionTrainee { denoiser, guidance } = finished.averaged;
    export(&setup.out, |export| {
        denoiser.export(export, &denoiser_json)?;
        export.json("guidance/config.json", &fusion_config)?;
        export.weights("guidance/model.safetensors", &guidance)?;
        export.json("scheduler/scheduler_config.json", &scheduler_json)
    })
}

/// Fails with `base-mismatch` where the networks do not take what the encoders and the autoencoder give.
pub(super) fn check_fits(
    setup: &Setup,
    denoiser: &DenoiserConfig,
    fusion: &FusionConfig,
    encoded: &Encoded,
) -> Result<()> {
    let gives = [
        encoded.latent_dims[0],
        denoiser.token_channels(),
        encoded.image_embed_dim(),
        encoded.id_embed_dim(),
    ];
    let takes =
        [denoiser.in_channels(), fusion.cross_attention_dim, fusion.image_embed_dim, fusion.id_embed_dim];
    if takes == gives {
        return Ok(());
    }
    Err(Error::input(
        "base-mismatch",
        format!(
            "the base takes {takes:?} latent channels, token channels, style and identity values; the encoders and the \
             autoencoder of {} give {gives:?}",
            setup.out.display()
        ),
        "put the components that the base was trained with into the model folder",
    ))
}

/// Side of the training pictures: that of the pictures which the denoiser was made for.
pub(super) fn picture_side(denoiser: &DenoiserConfig, vae: &VaeConfig) -> Result<usize> {
    let Some([height, width]) = denoiser.sample_sides() else { return Ok(SIZE) };
    let side = height.min(width).saturating_mul(vae.downsampling());
    if (1..=MAX_SIDE).contains(&side) {
        return Ok(side);
    }
    Err(Error::weights(
        "config-range",
        format!("sample_size {height}×{width} means pictures of {side} pixels; it must be 1 to {MAX_SIDE}"),
        "use the config.json that belongs to the weights",
    ))
}

/// Timesteps of `n` samples, around the noise levels at which a picture is decided ([`NOISE`]).
fn timesteps(ratios: &[f32], n: usize, rng: &mut Rng) -> Vec<usize> {
    rng.normals(n).into_iter().map(|x| timestep(ratios, NOISE[0] + NOISE[1] * x)).collect()
}

/// The first timestep with at least this logarithm of the noise-to-signal ratio; `ratios` rises.
fn timestep(ratios: &[f32], ratio: f32) -> usize {
    ratios.partition_point(|r| *r < ratio).min(ratios.len() - 1)
}

/// What a denoiser is asked about latents, and what it is to say.
pub(super) struct Question {
    /// The latents at their timesteps' levels of noise, `[n, channels, height, width]`.
    pub noised: Tensor<4>,
    /// `[n]`.
    pub steps: Tensor<1>,
    /// The answer, in the shape of `noised`.
    pub target: Tensor<4>,
}

impl Question {
    /// About `latents`, `[n, channels, height, width]`, with as many numbers of `noise`, at a timestep each.
    pub fn new(
        prediction: Prediction,
        latents: Tensor<4>,
        noise: Vec<f32>,
        timesteps: &[usize],
        alphas_cumprod: &[f64],
    ) -> Self {
        let device = latents.device();
        let noise = Tensor::<4>::from_data(TensorData::new(noise, latents.dims()), &device);
        let target = target(prediction, &latents, &noise, timesteps, alphas_cumprod);
        let steps: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        Self {
            noised: noised(latents, noise, timesteps, alphas_cumprod),
            steps: Tensor::from_floats(steps.as_slice(), &device),
            target,
        }
    }
}

/// Squared errors of what a denoiser said, in any precision.
pub(super) fn squared_errors(predicted: Tensor<4>, target: Tensor<4>) -> Tensor<4> {
    (predicted.cast(DType::F32) - target).square()
}

/// `z_t = √ᾱ_t z + √(1 − ᾱ_t) ε` (Ho et al. 2020, eq. 4), one timestep a row.
pub(super) fn noised(
    latents: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
    alphas_cumprod: &[f64],
) -> Tensor<4> {
    let [alpha, sigma] = levels(timesteps, alphas_cumprod, &latents.device());
    latents * alpha + noise * sigma
}

/// What the denoiser is to say about [`noised`] latents.
pub(super) fn target(
    prediction: Prediction,
    latents: &Tensor<4>,
    noise: &Tensor<4>,
    timesteps: &[usize],
    alphas_cumprod: &[f64],
) -> Tensor<4> {
    match prediction {
        Prediction::Epsilon => noise.clone(),
        Prediction::VPrediction => {
            let [alpha, sigma] = levels(timesteps, alphas_cumprod, &latents.device());
            noise.clone() * alpha - latents.clone() * sigma
        }
        Prediction::Sample => latents.clone(),
        Prediction::Flow => noise.clone() - latents.clone(),
    }
}

/// `√ᾱ_t` and `√(1 − ᾱ_t)` of each timestep, `[n, 1, 1, 1]` both.
pub(super) fn levels(timesteps: &[usize], alphas_cumprod: &[f64], device: &Device) -> [Tensor<4>; 2] {
    [|a: f64| a.sqrt(), |a: f64| (1.0 - a).sqrt()].map(|f| {
        let values: Vec<f32> = timesteps.iter().map(|t| f(alphas_cumprod[*t]) as f32).collect();
        Tensor::from_data(TensorData::new(values, [timesteps.len(), 1, 1, 1]), device)
    })
}

/// What a run shows of itself: pictures that were never trained on, and below each what is drawn from its style and identity.
pub(super) struct Sheet<'a> {
    pictures: &'a Pictures,
    encoded: &'a Encoded,
    /// The first picture that is not trained on.
    first: usize,
    vae: Vae,
    dtype: DType,
}

impl<'a> Sheet<'a> {
    pub fn new(setup: &Setup, pictures: &'a Pictures, encoded: &'a Encoded, first: usize) -> Result<Self> {
        let backend = setup.run.backend;
        let files = CheckedFolder::new(setup.out.clone());
        let vae = Vae::load(&Component::new(&files, "vae"), &backend.device()?.without_autodiff())?;
        Ok(Self { pictures, encoded, first, vae, dtype: backend.dtype() })
    }

    /// Draws the sheet into a file.
    pub fn draw(
        &self,
        denoiser: &Denoiser,
        guidance: &Fusion,
        schedule: &Schedule,
        guidance_scale: f32,
        path: &Path,
    ) -> Result<()> {
        let shown: Vec<usize> = (self.first..self.encoded.len).take(SHEET).collect();
        let mut drawn = Vec::new();
        for indices in shown.chunks(at_once(self.pictures.size())) {
            let latents = self.latents(denoiser, guidance, indices, schedule, guidance_scale)?;
            drawn.extend(pictures_of(self.vae.decode_latents(latents.cast(self.dtype))?.cast(DType::F32))?);
        }
        let originals: Vec<_> = shown.iter().map(|i| super::style::rgb(&self.pictures.get(*i))).collect();
        let mut sheet = Vec::new();
        for (above, below) in originals.chunks(8).zip(drawn.chunks(8)) {
            sheet.extend_from_slice(above);
            sheet.extend_from_slice(below);
        }
        plot::sheet(path, &sheet, 8)
    }

    /// Latents of pictures `indices`, from their embeddings alone.
    fn latents(
        &self,
        denoiser: &Denoiser,
        guidance: &Fusion,
        indices: &[usize],
        schedule: &Schedule,
        guidance_scale: f32,
    ) -> Result<Tensor<4>> {
        let Self { encoded, dtype, .. } = self;
        let device = denoiser.devices().into_iter().next().unwrap_or_default();
        let n = indices.len();
        let condition = told(encoded, indices, [denoiser.adds_style(), true], guidance, *dtype);
        let noise = NoiseSource::new(indices.first().map_or(0, |first| *first as u64));
        let [c, h, w] = encoded.latent_dims;
        let numbers = |stream| noise.tensor(stream, [n, c, h, w], &device);
        let predict = |input: Tensor<4>, timestep| {
            let input = Tensor::cat(vec![input.clone(), input], 0).cast(*dtype);
            let timesteps = Tensor::<1>::full([2 * n], timestep, &device);
            Ok(guide(denoiser.forward(input, timesteps, &condition)?.cast(DType::F32), guidance_scale))
        };
        let latents = numbers(0) * schedule.init_noise_sigma();
        Scheduler::new(schedule.clone()).run(latents, predict, |i| Some(numbers(1 + i as u64)))
    }
}

/// What guides to pictures `indices`: their styles (beside the timestep as well if the denoiser `adds_style`) and largest faces, after as many
/// rows that say nothing if it is `guided` without a classifier.
fn told(
    encoded: &Encoded,
    indices: &[usize],
    [adds_style, guided]: [bool; 2],
    guidance: &Fusion,
    dtype: DType,
) -> Condition {
    let device = guidance.devices().into_iter().next().unwrap_or_default();
    let image_embeds = Encoded::rows(&encoded.image_embeds, encoded.image_embed_dim(), indices, &device);
    let id_embeds = encoded.identities(0, indices, &device);
    let with_null =
        |rows: Tensor<2>| if guided { Tensor::cat(vec![rows.zeros_like(), rows], 0) } else { rows };
    let (image_embeds, id_embeds) = (with_null(image_embeds), with_null(id_embeds));
    let tokens = guidance.forward(image_embeds.clone(), id_embeds).cast(dtype);
    Condition::single(tokens).adding(adds_style.then_some(Added::ClassLabels(image_embeds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio::sampling::NoiseLevel;
    use facestudio::unet::UNet2DConditionConfig;

    #[test]
    fn pictures_are_as_large_as_the_base_was_made_for() {
        let vae = VaeConfig::Kl(facestudio::vae::AutoencoderKlConfig {
            block_out_channels: vec![32; 4],
            ..Default::default()
        });
        let side = |sample_size: serde_json::Value| {
            let unet =
                UNet2DConditionConfig { sample_size: Some(sample_size), ..UNet2DConditionConfig::default() };
            picture_side(&DenoiserConfig::UNet(unet), &vae)
        };
        assert_eq!(side(64.into()).unwrap(), 512);
        assert_eq!(side(serde_json::json!([96, 64])).unwrap(), 512);
        assert_eq!(side(1_000_000.into()).unwrap_err().code, "config-range");
        assert_eq!(
            picture_side(&DenoiserConfig::UNet(UNet2DConditionConfig::default()), &vae).unwrap(),
            SIZE
        );
        assert_eq!((at_once(128), at_once(512), at_once(4096)), (32, 2, 1));
    }

    #[test]
    fn noise_levels_are_drawn_around_even_shares_of_picture_and_noise() {
        let config = SchedulerConfig::from_json(scheduler_json().to_string().as_bytes()).unwrap();
        let alphas = config.alphas_cumprod().unwrap();
        let ratios: Vec<f32> = alphas.iter().map(|a| ((1.0 - a) / a).sqrt().ln() as f32).collect();
        let middle = timestep(&ratios, 0.0);
        assert!((alphas[middle] - 0.5).abs() < 0.01, "{}", alphas[middle]);
        assert_eq!([timestep(&ratios, -100.0), timestep(&ratios, 100.0)], [0, 999]);

        // Their logits are normal: as many below each quantile as there should be.
        let mut drawn = timesteps(&ratios, 20_000, &mut Rng::new(2, 3));
        drawn.sort_unstable();
        let [mean, deviation] = NOISE;
        for (share, quantile) in [
            (0.0228, -2.0),
            (0.1587, -1.0),
            (0.3085, -0.5),
            (0.5, 0.0),
            (0.6915, 0.5),
            (0.8413, 1.0),
            (0.9772, 2.0),
        ] {
            let below = drawn.partition_point(|t| ratios[*t] < mean + deviation * quantile) as f32
                / drawn.len() as f32;
            assert!((below - share).abs() < 0.012, "{below} below {quantile}, not {share}");
        }
    }

    /// Of two samples at levels of 0.8 and 0.6, and 0.6 and 0.8; the second one's only position counts three times.
    #[test]
    fn the_loss_is_the_weighted_mean_square_of_what_is_wrong() {
        let device = Device::flex();
        let column = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device).reshape([2, 1, 1, 1]);
        let question = |prediction| {
            Question::new(prediction, column([2.0, -1.0]), vec![0.5, 1.5], &[1, 0], &[0.36, 0.64])
        };
        let found = |tensor: Tensor<4>| -> Vec<f32> { tensor.try_into_vec_as().unwrap() };
        let near = |found: Vec<f32>, expected: [f32; 2]| {
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
                "{found:?}, not {expected:?}"
            );
        };
        for (prediction, target) in [
            (Prediction::Epsilon, [0.5, 1.5]),
            // α ε − σ x.
            (Prediction::VPrediction, [0.8 * 0.5 - 0.6 * 2.0, 0.6 * 1.5 + 0.8]),
            (Prediction::Sample, [2.0, -1.0]),
            (Prediction::Flow, [-1.5, 2.5]),
        ] {
            let asked = question(prediction);
            near(found(asked.noised), [0.8 * 2.0 + 0.6 * 0.5, -0.6 + 0.8 * 1.5]);
            assert_eq!(asked.steps.try_into_vec_as::<f32>().unwrap(), [1.0, 0.0]);
            near(found(asked.target), target);
        }
        let errors = squared_errors(column([0.6, 0.9]), question(Prediction::Epsilon).target);
        near(found(errors.clone()), [0.01, 0.36]);
        let loss = weighted(errors, &column([1.0, 3.0])).into_scalar::<f32>();
        assert!((loss - (0.01 + 3.0 * 0.36) / 4.0).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn what_is_asked_for_is_what_the_sampler_takes_it_for() {
        let device = Device::flex();
        let [latents, noise] = [0, 1].map(|s| NoiseSource::new(0).tensor::<4>(s, [1, 2, 3, 4], &device));
        let alphas_cumprod = [0.9, 0.3];
        for prediction in [Prediction::Epsilon, Prediction::VPrediction, Prediction::Sample, Prediction::Flow]
        {
            let noised = noised(latents.clone(), noise.clone(), &[1], &alphas_cumprod);
            let target = target(prediction, &latents, &noise, &[1], &alphas_cumprod);
            let level = NoiseLevel { alpha: 0.3f64.sqrt(), sigma: 0.7f64.sqrt() };
            let error = prediction.original(level, &noised, &target) - latents.clone();
            assert!(error.abs().max().into_scalar::<f32>() < 1e-5, "{prediction:?}");
        }
    }
}
