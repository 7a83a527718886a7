//! The autoencoder stage: a deep-compression autoencoder.
//!
//! First on reconstruction alone: sharpness comes from comparing the pictures' gradients beside their values, and faces count
//! more than what surrounds them. The decoder sees slightly noisy latents, so that it forgives what a denoiser leaves over.
//!
//! Then the decoder alone ([`Start::Decoder`]), against a discriminator as well: what reconstruction leaves blurred are
//! local details, and the latents, with them a UNet, stay as they are (as in the third phase of Chen et al. 2024, DC-AE, arXiv
//! 2410.10733, section 3.2, where the decoder's last layers alone learn). No network that was trained on photographs has a part
//! in it.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::data::{Pictures, View, pictures_of, trained};
use super::deepen;
use super::discriminator::{Discriminator, deceived, hinge, matched};
use super::export::export;
use super::optim::AdamWConfig;
use super::rng::Rng;
use super::run::{Defaults, Event, Step};
use super::{Setup, Source, plot, portraits, run};
use crate::read_back::{read_back, read_scalar};
use facestudio::error::{Error, Result};
use facestudio::vae::{AutoencoderDc, AutoencoderDcConfig};
use facestudio::weights::{CheckedFolder, Component, apply};

/// Side of the training pictures.
const SIZE: usize = 256;
/// Side of the random crops of them that a step sees: the networks are convolutions, which learn the same from a quarter of the
/// pixels, and more pictures make a batch.
const CROP: usize = 128;
/// Pictures kept from training, to measure on.
const HELD_OUT: usize = 64;
/// Weight of the picture gradients' L1.
const EDGE_WEIGHT: f64 = 0.5;
/// Weight of the L1 between pictures at a half and a quarter of the size.
const COARSE_WEIGHT: f64 = 0.25;
/// Weight of the latents' mean square: keeps their scale bounded.
const LATENT_WEIGHT: f64 = 3e-4;
/// What a face's pixel weighs beyond any other's 1: faces are a tenth of a picture, and what people look at.
const FACE_WEIGHT: f32 = 2.0;
/// Largest share of noise in the latents that the decoder learns from: they are `(1 − τ) z + τ n`, τ even in [0, this] for each
/// picture, `n` normal with each channel's own mean and standard deviation. A denoiser leaves errors, and latents that are read
/// through noise are easier for it (Yang et al. 2025, l-DeTok, arXiv 2507.15856, section 3.2).
const LATENT_NOISE: f32 = 0.1;
/// Weight of the discriminator's scores in the decoder's loss.
const DECEIT_WEIGHT: f64 = 0.05;
/// Weight of the distance of its layers' outputs.
const MATCH_WEIGHT: f64 = 0.5;
/// Step from which the discriminator's scores count: until then it says nothing yet.
const DECEIT_FROM: u64 = 200;
/// Decay of the first moment where two networks learn from each other (usual since Radford et al. 2016, arXiv 1511.06434).
const ADVERSARIAL_BETA: f32 = 0.5;
/// Pictures over which the latents' statistics are taken.
const STATISTICS: usize = 1000;

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 8, lr: 6e-4 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// What to learn from.
    pub source: Source,
    /// Which weights it starts from, and which of them it trains.
    pub start: Start,
}

/// What an autoencoder's training starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Random weights of `mini`'s sizes.
    Random,
    /// The weights and sizes of a model folder.
    Base(PathBuf),
    /// Those of a model folder, whose decoder alone is trained, against a discriminator.
    Decoder(PathBuf),
    /// Those of a model folder, and one level more, whose latents have so many channels ([`deepen`]).
    Deeper(PathBuf, usize),
}

/// The sizes of `mini`.
fn config() -> Result<AutoencoderDcConfig> {
    let json = serde_json::json!({
        "_class_name": "AutoencoderDC",
        "in_channels": 3,
        "latent_channels": 32,
        "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": [16, 32, 64, 128, 256],
        "decoder_block_out_channels": [16, 32, 64, 128, 256],
        "encoder_layers_per_block": [0, 1, 1, 2, 1],
        "decoder_layers_per_block": [0, 1, 2, 2, 1],
        "downsample_block_type": "pixel_unshuffle",
        "upsample_block_type": "pixel_shuffle",
        "scaling_factor": 1.0,
    });
    serde_json::from_value(json).map_err(|e| Error::internal("preset", e.to_string()))
}

/// Trains the autoencoder and writes `vae/` of the model folder.
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, source, start } = options;
    let run = &setup.run;
    let decoder_only = matches!(start, Start::Decoder(_));
    let base = match start {
        Start::Random => None,
        Start::Base(folder) | Start::Decoder(folder) | Start::Deeper(folder, _) => {
            Some(CheckedFolder::new(folder.clone()))
        }
    };
    let base = base.as_ref().map(|files| Component::new(files, "vae"));
    let mut config = base.as_ref().map_or_else(config, |base| base.json("config.json"))?;
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let mut model = config.init(&device)?;
    // What does not fit is found before the pictures are made.
    let deeper = match start {
        Start::Deeper(_, channels) => {
            let deeper = deepen::config(&config, *channels)?;
            Some((deeper.init(&device)?, deeper))
        }
        _ => None,
    };
    let pictures = portraits::portraits(setup, source, SIZE, log)?;
    let trained = trained(pictures.len(), HELD_OUT)?;
    if let Some(base) = &base {
        model = apply(model, base.tensors()?.as_ref(), "")?;
    }
    if let Some((deep, deeper)) = deeper {
        let channels = deeper.latent_channels;
        let tensors = deepen::weights(&config, &model.valid(), &pictures, trained, channels, dtype)?;
        (model, config) = (apply(deep, &tensors, "")?, deeper);
    }
    log(Event::Note(format!("{} parameters, {trained} pictures", model.num_params())));

    let encode = |model: &AutoencoderDc, step: &Step| {
        let mut rng = step.rng();
        let indices = pictures.draw(&mut rng, run.batch, trained);
        let views: Vec<View> = indices.iter().map(|_| View::draw(pictures.size(), CROP, &mut rng)).collect();
        let images = pictures.views(&indices, &views, &device);
        let latents = model.encode(images.clone().cast(dtype)).cast(DType::F32);
        let noisy = noisy(latents.clone(), &mut rng);
        let weight = face_weights(&pictures, &indices, &views, &device);
        Encoded { images, noisy, latents, weight }
    };
    let decode = |model: &AutoencoderDc, encoded: &Encoded| {
        model.decode(encoded.noisy.clone().cast(dtype)).cast(DType::F32)
    };
    let show = |model: &AutoencoderDc, folder: &Path| show(model, &pictures, trained, dtype, folder);
    let averaged = if decoder_only {
        let model =
            Adversaries { autoencoder: model.freeze_encoder(), discriminator: Discriminator::new(&device) };
        let objective = |model: &Adversaries, step: &Step| {
            let encoded = encode(&model.autoencoder, step);
            let decoded = decode(&model.autoencoder, &encoded);
            Ok(encoded.decoder_loss(decoded, &model.discriminator, step.number, dtype))
        };
        let optimizer = AdamWConfig { beta_1: ADVERSARIAL_BETA, ..run.optimizer };
        let run = run::Options { optimizer, ..run.clone() };
        let show = |model: &Adversaries, folder: &Path| show(&model.autoencoder, folder);
        run::train(&run, model, objective, show, log)?.averaged.autoencoder
    } else {
        let objective = |model: &AutoencoderDc, step: &Step| {
            let encoded = encode(model, step);
            Ok(encoded.loss(decode(model, &encoded)))
        };
        run::train(run, model, objective, show, log)?.averaged
    };

    let device = run.backend.device()?.without_autodiff();
    if !decoder_only {
        let (mean, std) = latent_statistics(&averaged, &pictures, trained.min(STATISTICS), dtype, &device)?;
        log(Event::Note(format!("latents' mean {mean:.2?}, standard deviation {std:.2?}")));
        config.latents_mean = Some(mean);
        config.latents_std = Some(root_scaled(&std));
    }
    export(&setup.out, |export| {
        export.json("vae/config.json", &config)?;
        export.weights("vae/diffusion_pytorch_model.safetensors", &averaged)
    })
}

/// The decoder that is to draw, and who tells its pictures from true ones: one step teaches both.
#[derive(Module, Debug)]
struct Adversaries {
    autoencoder: AutoencoderDc,
    discriminator: Discriminator,
}

/// A step's pictures, and what the decoder gets of them.
struct Encoded {
    images: Tensor<4>,
    latents: Tensor<4>,
    /// The latents, slightly wrong.
    noisy: Tensor<4>,
    /// What each pixel weighs, `[n, 1, size, size]`.
    weight: Tensor<4>,
}

impl Encoded {
    /// The loss of what was decoded, `[n, 3, size, size]`, in which faces weigh more.
    fn reconstruction(&self, decoded: Tensor<4>) -> Tensor<1> {
        reconstruction_loss((decoded - self.images.clone()) * self.weight.clone())
    }

    /// The whole autoencoder's loss.
    fn loss(&self, decoded: Tensor<4>) -> Tensor<1> {
        self.reconstruction(decoded) + self.latents.clone().square().mean() * LATENT_WEIGHT
    }

    /// The loss of a decoder that learns against a discriminator, and the discriminator's, at a step of the run.
    fn decoder_loss(
        &self,
        decoded: Tensor<4>,
        discriminator: &Discriminator,
        step: u64,
        dtype: DType,
    ) -> Tensor<1> {
        let deceive = step >= DECEIT_FROM;
        let contest = contest(discriminator, self.images.clone(), decoded.clone(), deceive, dtype);
        self.reconstruction(decoded) + contest
    }
}

/// What both learn from the other: the decoder from the discriminator's view of its pictures (of their scores only if `deceive`),
/// the discriminator from pictures that it cannot change. `[n, 3, size, size]` each.
fn contest(
    discriminator: &Discriminator,
    images: Tensor<4>,
    decoded: Tensor<4>,
    deceive: bool,
    dtype: DType,
) -> Tensor<1> {
    // First, since it makes the weights where they are not yet: a clone without gradients would make them without, for both.
    let truth = discriminator.forward(images, dtype);
    let theirs = discriminator.forward(decoded.clone().detach(), dtype);
    let ours = discriminator.clone().no_grad().forward(decoded, dtype);
    let learnt = hinge(&truth, &theirs) + matched(&truth, &ours) * MATCH_WEIGHT;
    if deceive { learnt + deceived(&ours) * DECEIT_WEIGHT } else { learnt }
}

/// Latents `[n, c, h, w]` with a share of noise ([`LATENT_NOISE`]). No gradient goes through the noise's statistics.
fn noisy(latents: Tensor<4>, rng: &mut Rng) -> Tensor<4> {
    let [n, c, h, w] = latents.dims();
    let device = latents.device();
    let shares: Vec<f32> = (0..n).map(|_| rng.uniform() * LATENT_NOISE).collect();
    let shares = Tensor::<4>::from_data(TensorData::new(shares, [n, 1, 1, 1]), &device);
    let noise = Tensor::<4>::from_data(TensorData::new(rng.normals(n * c * h * w), [n, c, h, w]), &device);
    let values = latents.clone().detach();
    let mean = values.clone().mean_dims(&[0, 2, 3]);
    let deviation = (values - mean.clone()).square().mean_dims(&[0, 2, 3]).sqrt();
    latents * (shares.clone().neg() + 1.0) + (noise * deviation + mean) * shares
}

/// What each pixel of the pictures' views weighs, `[n, 1, side, side]`.
fn face_weights(pictures: &Pictures, indices: &[usize], views: &[View], device: &Device) -> Tensor<4> {
    let side = views.first().map_or(0, |view| view.side);
    let weight = |face: &u8| if *face > 0 { 1.0 + FACE_WEIGHT } else { 1.0 };
    let mut weights = Vec::with_capacity(indices.len() * side * side);
    for (i, view) in indices.iter().zip(views) {
        for row in pictures.get(*i).faces.chunks_exact(pictures.size()).skip(view.top).take(side) {
            let row = &row[view.left..view.left + side];
            if view.mirrored {
                weights.extend(row.iter().rev().map(weight));
            } else {
                weights.extend(row.iter().map(weight));
            }
        }
    }
    Tensor::from_data(TensorData::new(weights, [indices.len(), 1, side, side]), device)
}

/// L1 of values, of gradients and of two coarser scales of the error `[n, 3, h, w]`.
pub fn reconstruction_loss(error: Tensor<4>) -> Tensor<1> {
    let [_, _, h, w] = error.dims();
    let across = error.clone().narrow(3, 1, w - 1) - error.clone().narrow(3, 0, w - 1);
    let down = error.clone().narrow(2, 1, h - 1) - error.clone().narrow(2, 0, h - 1);
    let half = halved(error.clone());
    let quarter = halved(half.clone());
    error.abs().mean()
        + (across.abs().mean() + down.abs().mean()) * EDGE_WEIGHT
        + (half.abs().mean() + quarter.abs().mean()) * COARSE_WEIGHT
}

/// `[n, c, h, w]` → `[n, c, h/2, w/2]`, means of 2×2 pixels; `h` and `w` are even.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h / 2, 2, w / 2, 2]).mean_dims(&[3, 5]).reshape([n, c, h / 2, w / 2])
}

/// Peak signal-to-noise ratio in dB of pictures in [-1, 1].
pub fn psnr(decoded: Tensor<4>, images: Tensor<4>) -> Result<f32> {
    let error = read_scalar((decoded.clamp(-1.0, 1.0) - images).square().mean(), "a measure")?;
    Ok(10.0 * (4.0 / error.max(1e-12)).log10())
}

/// Reconstructs the held-out pictures: a sheet with each above its copy, and the mean PSNR.
fn show(
    model: &AutoencoderDc,
    pictures: &Pictures,
    from: usize,
    dtype: DType,
    folder: &Path,
) -> Result<String> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let held_out: Vec<usize> = (from..pictures.len()).collect();
    let (mut total, mut count) = (0.0, 0);
    let (mut face_square, mut face_pixels) = (0f64, 0f64);
    let mut sheet = Vec::new();
    for indices in held_out.chunks(16) {
        let images = pictures.tensor(indices, &device);
        let latents = model.encode(images.clone().cast(dtype));
        let decoded = model.decode(latents).cast(DType::F32);
        total += psnr(decoded.clone(), images.clone())? * indices.len() as f32;
        count += indices.len();
        let face =
            (face_weights(pictures, indices, &vec![View::whole(pictures.size()); indices.len()], &device)
                - 1.0)
                / FACE_WEIGHT;
        let square = (decoded.clone().clamp(-1.0, 1.0) - images.clone()).square().mean_dim(1) * face.clone();
        face_square += f64::from(read_scalar(square.sum(), "a measure")?);
        face_pixels += f64::from(read_scalar(face.sum(), "a measure")?);
        if sheet.is_empty() {
            for (image, copy) in pictures_of(images)?.chunks(8).zip(pictures_of(decoded)?.chunks(8)) {
                sheet.extend_from_slice(image);
                sheet.extend_from_slice(copy);
            }
        }
    }
    plot::sheet(&folder.join("samples.png"), &sheet, 8)?;
    let faces = 10.0 * (4.0 / (face_square / face_pixels.max(1.0)).max(1e-12)).log10();
    Ok(format!("held-out PSNR {:.2} dB, in faces {faces:.2} dB", total / count.max(1) as f32))
}

/// What each channel is divided by: the geometric mean of its own standard deviation and of all channels' mean one. The scaled
/// latents' variance is 1 on average, and a channel that says more about the picture keeps more of it: a denoiser's loss then counts an
/// error about as the picture shows it, where whitening would count the faintest channel like the strongest.
fn root_scaled(deviations: &[f64]) -> Vec<f64> {
    let mean = deviations.iter().sum::<f64>() / deviations.len().max(1) as f64;
    deviations.iter().map(|deviation| (deviation * mean).sqrt()).collect()
}

/// Mean and standard deviation of each latent channel over the first `count` pictures.
fn latent_statistics(
    model: &AutoencoderDc,
    pictures: &Pictures,
    count: usize,
    dtype: DType,
    device: &Device,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let indices: Vec<usize> = (0..count).collect();
    let (mut sums, mut squares, mut seen) = (Vec::new(), Vec::new(), 0usize);
    for chunk in indices.chunks(16) {
        let latents = model.encode(pictures.tensor(chunk, device).cast(dtype));
        let [n, channels, h, w] = latents.dims();
        let values = read_back(latents, "latents")?;
        sums.resize(channels, 0f64);
        squares.resize(channels, 0f64);
        for (i, plane) in values.chunks_exact(h * w).enumerate() {
            sums[i % channels] += plane.iter().map(|v| f64::from(*v)).sum::<f64>();
            squares[i % channels] += plane.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        }
        seen += n * h * w;
    }
    let count = seen.max(1) as f64;
    let mean = sums.iter().map(|sum| sum / count).collect();
    let std = sums
        .iter()
        .zip(&squares)
        .map(|(sum, square)| (square / count - (sum / count).powi(2)).max(1e-6).sqrt());
    let std = std.collect();
    Ok((mean, std))
}

#[cfg(test)]
mod tests;
