//! DreamBooth (Ruiz et al. 2022, arXiv 2208.12242): UNet and Linear are tuned until "a photo of a sks woman" is the person, while
//! pictures that the model drew itself of "a photo of a woman" hold it to what it knew of the class (prior preservation).
//!
//! Text encoder and prior stay as they are, as the text encoder does in the paper. What a prompt becomes is drawn by the prior:
//! each of the class's pictures keeps the draw that it was made from, as in the original the text; the person's prompt gets as
//! many draws, in turn.

use std::time::Instant;

use ::image::RgbImage;
use burn::tensor::{DType, Tensor, TensorData};

use super::diffusion::DiffusionTrainee;
use super::encoded::Encoded;
use super::optim::AdamWConfig;
use super::rng::Rng;
use super::subject::{Base, Learnt, Subject, Watch, put, tune};
use crate::read_back::read_back;
use facestudio::error::{Error, Result};
use facestudio::pipeline::prompt::{PRIOR_STEPS, PRIOR_STREAM, TextBranch};
use facestudio::sampling::NoiseSource;
use facestudio::weights::{MemoryFiles, collect};

/// The rare word of diffusers' `examples/dreambooth`.
pub const WORD: &str = "sks";
/// Updates: the most that diffusers' authors advise for faces, 800 to 1,200 of two pictures with prior preservation (their
/// "Training Stable Diffusion with Dreambooth", 2022).
pub const STEPS: usize = 1200;
/// Pictures of the class (diffusers' `examples/dreambooth`).
pub const CLASS_PICTURES: usize = 200;
/// diffusers' example. (For faces its authors advise less, 1e-6, against overfitting.)
const RATE: f64 = 5e-6;
/// Channels of the finest level of the UNet that this rate is for, Stable Diffusion's. Adam's rate goes with one over the width
/// (Yang et al. 2022, arXiv 2203.03466, table 3).
const RATE_FOR: f64 = 320.0;
/// Pictures of the person, and of the class, in an update, as with [`STEPS`].
const BATCH: usize = 2;
/// Weight λ of the class's loss (paper, section 3.2).
const PRIOR_WEIGHT: f64 = 1.0;
/// Draws of the prior at once.
const DRAWS: usize = 50;

/// The prompt of the person.
pub fn prompt(class: &str) -> String {
    format!("a photo of a {WORD} {class}")
}

/// The prompt of the class, which the model draws the class's pictures from.
pub fn class_prompt(class: &str) -> String {
    format!("a photo of a {class}")
}

/// A picture that the model drew from [`class_prompt`].
pub struct ClassPicture {
    /// The pixels.
    pub image: RgbImage,
    /// The request's seed, which the prior drew with.
    pub seed: u64,
}

/// Learns the person as "[`WORD`] class"; `unet/` and `guidance/` of a copy of the model are what differs.
///
/// Fails with `class-missing` without pictures of the class.
pub fn learn(subject: &Subject, class: &[ClassPicture], watch: &mut Watch) -> Result<Learnt> {
    subject.check()?;
    if class.is_empty() {
        let message = "there are no pictures of the class to hold the model to";
        return Err(Error::input(
            "class-missing",
            message,
            "have the model draw some from the class's prompt",
        ));
    }
    let base = Base::load(subject)?;
    let text = TextBranch::open(subject.files, &base.device.clone().without_autodiff())?;

    let start = Instant::now();
    let photos = base.latents(subject.photos)?;
    let pictures = base.latents(&class.iter().map(|picture| picture.image.clone()).collect::<Vec<_>>())?;
    let dim = text.prior.transformer.embedding_dim();
    let mut rng = Rng::new(subject.seed, PRIOR_STREAM);
    let person =
        draws(&text, &prompt(subject.class), class.iter().map(|_| rng.normals(dim)).collect(), base.dtype)?;
    let drawn = |picture: &ClassPicture| NoiseSource::new(picture.seed).normal(PRIOR_STREAM, dim);
    // In full precision, as they were drawn.
    let others = draws(&text, &class_prompt(subject.class), class.iter().map(drawn).collect(), DType::F32)?;

    let model = DiffusionTrainee { denoiser: base.denoiser.clone(), guidance: base.fusion.clone() };
    let objective = |model: &DiffusionTrainee, rng: &mut Rng| {
        let mut pick = |count: usize| -> Vec<usize> { (0..BATCH).map(|_| rng.below(count)).collect() };
        let (shots, said, shown) = (pick(photos.len()), pick(class.len()), pick(class.len()));
        let device = &base.device;
        let latents = Tensor::cat(vec![photos.pick(&shots, device), pictures.pick(&shown, device)], 0);
        let embeds = [(&person, &said), (&others, &shown)];
        let embeds = embeds.map(|(values, indices)| Encoded::rows(values, dim, indices, device));
        let errors =
            base.errors(&model.denoiser, &model.guidance, Tensor::cat(embeds.to_vec(), 0), latents, rng)?;
        Ok(preserving(errors))
    };
    // PyTorch's defaults, clipped as in diffusers' example.
    let optimizer = AdamWConfig { beta_2: 0.999, max_grad_norm: 1.0, ..AdamWConfig::default() };
    let rate = RATE * RATE_FOR / base.width as f64;
    let (model, losses) = tune(model, subject, optimizer, rate, objective, watch)?;
    let weights = [(base.folder, model.denoiser.collect()?), ("guidance", collect(&model.guidance, "")?)];
    let seconds = start.elapsed().as_secs_f64();

    let mut folders = MemoryFiles::default();
    for (folder, weights) in &weights {
        put(&mut folders, subject.files, folder, weights)?;
    }
    Ok(Learnt { folders, seconds, losses })
}

/// The person's loss and, by λ, the class's (paper, equation 2), of squared errors of which the first half is the person's.
fn preserving(errors: Tensor<4>) -> Tensor<1> {
    let half = errors.dims()[0] / 2;
    let of_class = errors.clone().narrow(0, half, half).mean();
    errors.narrow(0, 0, half).mean() + of_class * PRIOR_WEIGHT
}

/// What the prior draws for a prompt from each of these noises, a row each.
fn draws(text: &TextBranch, prompt: &str, noises: Vec<Vec<f32>>, dtype: DType) -> Result<Vec<f32>> {
    let dim = text.prior.transformer.embedding_dim();
    let mut rows = Vec::with_capacity(noises.len() * dim);
    for noises in noises.chunks(DRAWS) {
        let said = text.reader.encode_with(&vec![prompt; noises.len()], None, dtype)?;
        let noise = TensorData::new(noises.concat(), [noises.len(), dim]);
        let noise = Tensor::from_data(noise, &said.proj_embedding.device());
        rows.extend(read_back(text.prior.draw(&said, noise, PRIOR_STEPS)?, "embeddings")?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_class_counts_as_much_as_the_person() {
        let errors = Tensor::<1>::from_floats([1.0, 3.0, 0.5, 0.0, 4.0, 6.0, 0.0, 2.0], &Device::flex());
        // Means of 1.125 and 3.
        assert_eq!(preserving(errors.reshape([4, 1, 1, 2])).into_scalar::<f32>(), 1.125 + 3.0);
    }
}
