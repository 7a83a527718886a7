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
            let contest = contest(
                &model.discriminator,
                encoded.images.clone(),
                decoded.clone(),
                step.number >= DECEIT_FROM,
                dtype,
            );
            Ok(encoded.reconstruction(decoded) + contest)
        };
        let optimizer = AdamWConfig { beta_1: ADVERSARIAL_BETA, ..run.optimizer };
        let run = run::Options { optimizer, ..run.clone() };
        let show = |model: &Adversaries, folder: &Path| show(&model.autoencoder, folder);
        run::train(&run, model, objective, show, log)?.averaged.autoencoder
    } else {
        let objective = |model: &AutoencoderDc, step: &Step| {
            let encoded = encode(model, step);
            let size = encoded.latents.clone().square().mean() * LATENT_WEIGHT;
            Ok(encoded.reconstruction(decode(model, &encoded)) + size)
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
mod tests {
    use super::*;
    use crate::train::data::{Meta, OwnedPicture};

    #[test]
    fn a_shifted_edge_costs_more_than_the_same_error_spread_out() {
        let device = Device::flex();
        let flat = Tensor::<4>::full([1, 3, 8, 8], 0.125, &device);
        let mut values = vec![0.0; 192];
        (0..192).step_by(8).for_each(|i| values[i + 3] = 1.0);
        let edge = Tensor::<4>::from_data(TensorData::new(values, [1, 3, 8, 8]), &device);
        let loss = |error| reconstruction_loss(error).into_scalar::<f32>();
        assert!(loss(edge) > 1.2 * loss(flat));
    }

    #[test]
    fn a_contest_teaches_both_and_deceit_the_decoder_alone() {
        let device = Device::flex().autodiff();
        let discriminator = Discriminator::new(&device);
        let picture = |stream| {
            let values = crate::train::rng::Rng::new(5, stream).normals(3 * 32 * 32);
            Tensor::<4>::from_data(TensorData::new(values, [1, 3, 32, 32]), &device)
        };
        let gradients = |deceive| {
            let decoded = picture(1).require_grad();
            let loss = contest(&discriminator, picture(0), decoded.clone(), deceive, DType::F32);
            let gradients = loss.backward();
            let weight = discriminator.weights().remove(0).grad(&gradients).unwrap();
            [decoded.grad(&gradients).unwrap().into_data(), weight.into_data()]
        };
        let ([decoder, own], [deceiving, same]) = (gradients(false), gradients(true));
        assert_ne!(decoder, deceiving);
        assert_eq!(own, same);
    }

    #[test]
    fn faces_weigh_more_and_follow_a_mirrored_picture() {
        let picture = OwnedPicture {
            rgb: vec![0; 12],
            people: vec![0; 4],
            faces: vec![1, 0, 0, 0],
            meta: Meta::default(),
        };
        let pictures = Pictures::of(2, &[picture]);
        let whole = View::whole(2);
        let corner = View { side: 1, ..whole };
        let of = |views: &[View]| -> Vec<f32> {
            face_weights(&pictures, &[0, 0], views, &Device::flex()).try_into_vec_as().unwrap()
        };
        let face = 1.0 + FACE_WEIGHT;
        let mirrored = View { mirrored: true, ..whole };
        assert_eq!(of(&[whole, mirrored]), [face, 1.0, 1.0, 1.0, 1.0, face, 1.0, 1.0]);
        assert_eq!(of(&[corner, View { left: 1, ..corner }]), [face, 1.0]);
    }

    #[test]
    fn an_error_in_a_face_costs_as_much_more_as_it_weighs() {
        let device = Device::flex();
        let halves = |left: f32, right: f32, channels: usize| {
            let values = (0..16 * channels).map(|p| if p % 4 < 2 { left } else { right }).collect();
            Tensor::<4>::from_data(TensorData::new::<f32, _>(values, [1, channels, 4, 4]), &device)
        };
        let images = halves(0.0, 0.0, 3);
        let weight = halves(1.0 + FACE_WEIGHT, 1.0, 1);
        let encoded = Encoded { noisy: images.clone(), latents: images.clone(), images, weight };
        let loss = |left, right| encoded.reconstruction(halves(left, right, 3)).into_scalar::<f32>();
        assert!((loss(0.1, 0.0) / loss(0.0, 0.1) - 1.0 - FACE_WEIGHT).abs() < 1e-3);
    }

    #[test]
    fn noise_is_a_share_of_each_channels_own_spread() {
        let device = Device::flex();
        let values = crate::train::rng::Rng::new(7, 7).normals(4 * 2 * 64);
        let values = values.chunks(64).enumerate().flat_map(|(plane, chunk)| {
            let [mean, deviation] = [[5.0, 0.01], [-1.0, 20.0]][plane % 2];
            chunk.iter().map(move |v| mean + deviation * v).collect::<Vec<_>>()
        });
        let latents = Tensor::<4>::from_data(TensorData::new(values.collect(), [4, 2, 8, 8]), &device);
        let noisy = noisy(latents.clone(), &mut Rng::new(1, 2));
        let change = (noisy - latents).square().mean_dims(&[0, 2, 3]).sqrt();
        let change: Vec<f32> = change.try_into_vec_as().unwrap();
        // A share τ moves a value by τ · √2 standard deviations; its root mean square over [0, 0.3] is 0.3 · √(2 / 3).
        let expected = LATENT_NOISE * (2.0f32 / 3.0).sqrt();
        for (change, deviation) in change.iter().zip([0.01, 20.0]) {
            let ratio = change / deviation / expected;
            assert!((0.5..1.5).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn scaled_latents_have_unit_variance_together_and_keep_their_order() {
        let deviations = [0.5, 1.0, 4.0, 8.0];
        let scaled: Vec<f64> = deviations.iter().zip(root_scaled(&deviations)).map(|(d, s)| d / s).collect();
        assert!(scaled.is_sorted(), "{scaled:?}");
        let variance = scaled.iter().map(|d| d * d).sum::<f64>() / 4.0;
        assert!((variance - 1.0).abs() < 1e-12, "{variance}");
        assert!((scaled[3] / scaled[1] - 8f64.sqrt()).abs() < 1e-12, "{scaled:?}");
    }

    #[test]
    fn psnr_of_a_known_error() {
        let device = Device::flex();
        let zeros = Tensor::<4>::zeros([1, 3, 4, 4], &device);
        // An error of 0.2 of a range of 2 is 20 dB.
        assert!((psnr(zeros.clone() + 0.2, zeros).unwrap() - 20.0).abs() < 1e-3);
    }

    #[test]
    fn the_loss_is_that_of_values_gradients_and_coarser_scales() {
        let error: Vec<f32> = (0..16).map(|i| ((i * 7) % 11) as f32 - 4.5).collect();
        let at = |y: usize, x: usize| error[4 * y + x];
        let places = |height, width| (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)));
        let mean = |values: Vec<f32>| values.iter().map(|v| v.abs()).sum::<f32>() / values.len() as f32;
        let across = mean(places(4, 3).map(|(y, x)| at(y, x + 1) - at(y, x)).collect());
        let down = mean(places(3, 4).map(|(y, x)| at(y + 1, x) - at(y, x)).collect());
        let block = |y: usize, x: usize, side: usize| {
            let sum: f32 = places(side, side).map(|(v, u)| at(side * y + v, side * x + u)).sum();
            sum / (side * side) as f32
        };
        let half = mean(places(2, 2).map(|(y, x)| block(y, x, 2)).collect());
        let quarter = mean(vec![block(0, 0, 4)]);
        let expected = mean(error.clone()) + 0.5 * (across + down) + 0.25 * (half + quarter);
        let error = Tensor::<4>::from_data(TensorData::new(error, [1, 1, 4, 4]), &Device::flex());
        let loss = reconstruction_loss(error).into_scalar::<f32>();
        assert!((loss - expected).abs() < 1e-5, "{loss}, not {expected}");
    }

    /// `(1 − τ) z + τ n`, τ even in [0, 0.1], `n` normal with each channel's mean and deviation.
    #[test]
    fn noisy_latents_are_a_mix_with_noise_of_their_own_mean_and_spread() {
        const PLANE: usize = 16;
        let values: Vec<f32> = Rng::new(4, 4).normals(3 * 2 * PLANE).chunks(PLANE).enumerate().fold(
            Vec::new(),
            |mut all, (i, v)| {
                let [mean, deviation] = [[5.0, 0.5], [-1.0, 3.0]][i % 2];
                all.extend(v.iter().map(|v| mean + deviation * v));
                all
            },
        );
        let latents = Tensor::<4>::from_data(TensorData::new(values.clone(), [3, 2, 4, 4]), &Device::flex());
        let found: Vec<f32> = noisy(latents, &mut Rng::new(1, 2)).try_into_vec_as().unwrap();
        let mut rng = Rng::new(1, 2);
        let shares: Vec<f32> = (0..3).map(|_| 0.1 * rng.uniform()).collect();
        let noise = rng.normals(values.len());
        let channel = |c: usize| (0..values.len()).filter(move |i| i / PLANE % 2 == c);
        for c in 0..2 {
            let mean = channel(c).map(|i| values[i]).sum::<f32>() / (3 * PLANE) as f32;
            let square = channel(c).map(|i| (values[i] - mean).powi(2)).sum::<f32>() / (3 * PLANE) as f32;
            for i in channel(c) {
                let share = shares[i / PLANE / 2];
                let expected = (1.0 - share) * values[i] + share * (mean + square.sqrt() * noise[i]);
                assert!((found[i] - expected).abs() < 1e-4, "{i}: {}, not {expected}", found[i]);
            }
        }
    }

    /// More pictures than are encoded at once, of which the last is not looked at.
    #[test]
    fn statistics_are_those_of_each_latent_channel() {
        let json = serde_json::json!({
            "latent_channels": 2, "scaling_factor": 1.0,
            "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock",
            "encoder_block_out_channels": [4, 4], "decoder_block_out_channels": [4, 4],
            "encoder_layers_per_block": [0, 1], "decoder_layers_per_block": [0, 1],
        });
        let config: AutoencoderDcConfig = serde_json::from_value(json).unwrap();
        let device = Device::flex();
        let model = config.init(&device).unwrap();
        let mut rng = Rng::new(6, 6);
        let pictures: Vec<OwnedPicture> = (0..19)
            .map(|_| OwnedPicture {
                rgb: (0..3 * 64).map(|_| rng.below(256) as u8).collect(),
                people: vec![0; 64],
                faces: vec![0; 64],
                meta: Meta::default(),
            })
            .collect();
        let pictures = Pictures::of(8, &pictures);
        let (mean, std) = latent_statistics(&model, &pictures, 18, DType::F32, &device).unwrap();
        let all: Vec<usize> = (0..18).collect();
        let latents = model.encode(pictures.tensor(&all, &device));
        let [_, channels, height, width] = latents.dims();
        assert_eq!((channels, mean.len(), std.len()), (2, 2, 2));
        let values: Vec<f32> = latents.try_into_vec_as().unwrap();
        for c in 0..channels {
            let plane = height * width;
            let of: Vec<f64> = (0..values.len())
                .filter(|i| i / plane % channels == c)
                .map(|i| f64::from(values[i]))
                .collect();
            let expected = of.iter().sum::<f64>() / of.len() as f64;
            let square = of.iter().map(|v| (v - expected).powi(2)).sum::<f64>() / of.len() as f64;
            assert!((mean[c] - expected).abs() < 1e-5, "{} {expected}", mean[c]);
            assert!(square > 1e-3 && (std[c] - square.sqrt()).abs() < 1e-5, "{} {}", std[c], square.sqrt());
        }
    }
}
