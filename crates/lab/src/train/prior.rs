//! The prior stage: from a prompt's embeddings to the vision embedding that its picture would have, heads and all, so that
//! words may say how a face and its hair are.
//!
//! A diffusion of embeddings (Ramesh et al. 2022, section 2.2): the transformer predicts the clean, normalised
//! embedding, and the loss is its mean squared error.

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use super::data::trained;
use super::encoded::{Encoded, encode_all};
use super::export::export;
use super::run::{Defaults, Event, Step};
use super::{Setup, Source, portraits, run};
use crate::read_back::read_scalar;
use facestudio::encoders::text::{TextConfig, TextEncoder};
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::error::{Error, Result};
use facestudio::guidance::prior::{PriorConfig, PriorTransformer};
use facestudio::sampling::SchedulerConfig;
use facestudio::weights::{CheckedFolder, Component, apply};

/// Side of the training pictures.
const SIZE: usize = 128;
/// Pictures kept from training, to measure on.
const HELD_OUT: usize = 256;

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 128, lr: 6e-4 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// What to learn from.
    pub source: Source,
    /// A model folder whose weights and sizes to start from, in place of random ones of `mini`'s sizes.
    pub base: Option<PathBuf>,
}

fn config(embedding_dim: usize, text: &TextConfig) -> Result<PriorConfig> {
    let json = serde_json::json!({
        "num_attention_heads": 4, "attention_head_dim": 40, "num_layers": 2,
        "embedding_dim": embedding_dim, "embedding_proj_dim": text.projection_dim,
        "encoder_hid_dim": text.hidden_size, "num_embeddings": text.max_position_embeddings,
    });
    serde_json::from_value(json).map_err(|e| Error::internal("preset", e.to_string()))
}

/// unCLIP's schedule for priors: cosine β, predicting the clean embedding.
fn scheduler_json() -> serde_json::Value {
    serde_json::json!({
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "sample", "clip_sample": false, "timestep_spacing": "trailing",
    })
}

/// Trains the prior and writes `prior/` of the model folder, its scheduler's config beside it.
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, source, base } = options;
    let run = &setup.run;
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let pictures = portraits::portraits(setup, source, SIZE, log)?;
    let encoded = encode_all(setup, &pictures, log)?;
    let trained = trained(encoded.len, HELD_OUT)?;

    let files = CheckedFolder::new(setup.out.clone());
    let text_config = TextConfig::read(&Component::new(&files, "text_encoder"))?;
    let text =
        TextEncoder::load(&Component::new(&files, "text_encoder"), &device.clone().without_autodiff())?;
    let tokenizer = Tokenizer::load(&Component::new(&files, "tokenizer"))?;
    let base = base.clone().map(CheckedFolder::new);
    let base = base.as_ref().map(|files| Component::new(files, "prior"));
    let config: PriorConfig = match &base {
        Some(base) => base.json("config.json")?,
        None => config(encoded.image_embed_dim(), &text_config)?,
    };
    let or_embedding = |dim: Option<usize>| dim.unwrap_or(config.embedding_dim);
    let takes = [
        config.embedding_dim,
        or_embedding(config.embedding_proj_dim),
        or_embedding(config.encoder_hid_dim),
        config.num_embeddings,
    ];
    let gives = [
        encoded.image_embed_dim(),
        text_config.projection_dim,
        text_config.hidden_size,
        text_config.max_position_embeddings,
    ];
    if takes != gives {
        return Err(Error::input(
            "base-mismatch",
            format!(
                "the base takes style and text embeddings, states and tokens of {takes:?}; the encoders of {} give \
                 {gives:?}",
                setup.out.display()
            ),
            "put the components that the base was trained with into the model folder",
        ));
    }
    let scheduler = SchedulerConfig::from_json(scheduler_json().to_string().as_bytes())?;
    let alphas_cumprod = scheduler.alphas_cumprod()?;
    let mut model = config.init(&device)?;
    if let Some(base) = &base {
        model = apply(model, base.tensors()?.as_ref(), "")?;
    }
    let (mean, std) = statistics(&encoded, trained);
    let buffer = |values: Vec<f32>| {
        let width = values.len();
        let tensor = Tensor::<2>::from_data(TensorData::new(values, [1, width]), &device);
        Param::from_tensor(tensor).set_require_grad(false)
    };
    model.clip_mean = buffer(mean);
    model.clip_std = buffer(std);
    log(Event::Note(format!("{} parameters, {trained} pictures", model.num_params())));

    let batch = |indices: &[usize], variant: u64| -> Result<Prompts> {
        let ids = indices
            .par_iter()
            .map(|i| {
                let caption = portraits::caption(source, run.seed, &pictures, *i, variant);
                tokenizer.encode(&caption, text_config.max_position_embeddings)
            })
            .collect::<Result<Vec<_>>>()?;
        Prompts::encode(&text, &ids, text_config.eos_token_id, dtype)
    };
    let loss = |model: &PriorTransformer,
                indices: &[usize],
                prompts: Prompts,
                timesteps: &[usize],
                noise: Vec<f32>| {
        let device = model.devices().into_iter().next().unwrap_or_default();
        let embeds = Encoded::rows(&encoded.whole_embeds, encoded.image_embed_dim(), indices, &device);
        let noise = Tensor::from_data(TensorData::new(noise, embeds.dims()), &device);
        loss(model, embeds, noise, timesteps, &alphas_cumprod, prompts, dtype)
    };
    let objective = |model: &PriorTransformer, step: &Step| {
        let mut rng = step.rng();
        let indices = pictures.draw(&mut rng, run.batch, trained);
        let prompts = batch(&indices, rng.next_u64())?;
        let timesteps: Vec<usize> = indices.iter().map(|_| rng.below(alphas_cumprod.len())).collect();
        let noise = rng.normals(indices.len() * encoded.image_embed_dim());
        loss(model, &indices, prompts, &timesteps, noise)
    };
    let show = |model: &PriorTransformer, _: &Path| {
        // From pure noise the prediction rests on the text alone: 1 is the error of guessing the mean.
        let indices: Vec<usize> = (trained..encoded.len).collect();
        let prompts = batch(&indices, 0)?;
        let timesteps = vec![alphas_cumprod.len() - 1; indices.len()];
        let noise = super::rng::Rng::new(1, 1).normals(indices.len() * encoded.image_embed_dim());
        let error = read_scalar(loss(model, &indices, prompts, &timesteps, noise)?, "a measure")?;
        Ok(format!("held-out error from text alone {error:.3}"))
    };
    let finished = run::train(run, model, objective, show, log)?;

    export(&setup.out, |export| {
        export.json("prior/config.json", &config)?;
        export.json("prior/scheduler_config.json", &scheduler_json())?;
        export.weights("prior/diffusion_pytorch_model.safetensors", &finished.averaged)
    })
}

/// `‖f(√ᾱ_t e + √(1 − ᾱ_t) ε, t, text) − e‖²` (Ramesh et al. 2022, section 2.2), the mean over all values, where `e` is `embeds`
/// normalised.
///
/// `embeds` and `noise`: `[n, embedding_dim]`, with a timestep and a prompt for each row; the transformer computes in `dtype`.
fn loss(
    model: &PriorTransformer,
    embeds: Tensor<2>,
    noise: Tensor<2>,
    timesteps: &[usize],
    alphas_cumprod: &[f64],
    prompts: Prompts,
    dtype: DType,
) -> Result<Tensor<1>> {
    let device = embeds.device();
    let clean = model.pre_process_latents(embeds);
    let column = |f: fn(f64) -> f64| {
        let values: Vec<f32> = timesteps.iter().map(|t| f(alphas_cumprod[*t]) as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, [timesteps.len(), 1]), &device)
    };
    let noised = clean.clone() * column(f64::sqrt) + noise * column(|a| (1.0 - a).sqrt());
    let steps: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
    let steps = Tensor::<1>::from_floats(steps.as_slice(), &device);
    let Prompts { text_embeds, states, mask } = prompts.on(&device);
    let predicted = model.forward(noised.cast(dtype), steps, text_embeds, Some(states), Some(mask))?;
    Ok((predicted.cast(DType::F32) - clean).square().mean())
}

/// What the text encoder says about a batch of prompts.
#[derive(Clone)]
struct Prompts {
    text_embeds: Tensor<2>,
    states: Tensor<3>,
    mask: Tensor<2>,
}

impl Prompts {
    fn encode(text: &TextEncoder, ids: &[Vec<u32>], end: u32, dtype: DType) -> Result<Self> {
        let output = text.forward(ids, dtype)?;
        let [n, tokens, _] = output.last_hidden_state.dims();
        let mask: Vec<f32> =
            ids.iter().flat_map(|row| facestudio::guidance::prior::text_mask(row, end)).collect();
        let mask = Tensor::from_data(TensorData::new(mask, [n, tokens]), &output.last_hidden_state.device());
        let text_embeds = output.text_embeds.unwrap_or(output.pooled);
        Ok(Self { text_embeds, states: output.last_hidden_state, mask })
    }

    /// Constants on a device that records gradients.
    fn on(self, device: &Device) -> Self {
        if device.is_autodiff() {
            Self {
                text_embeds: Tensor::from_inner(self.text_embeds),
                states: Tensor::from_inner(self.states),
                mask: Tensor::from_inner(self.mask),
            }
        } else {
            self
        }
    }
}

/// Mean and standard deviation of each feature over the first `count` rows.
fn statistics(encoded: &Encoded, count: usize) -> (Vec<f32>, Vec<f32>) {
    let width = encoded.image_embed_dim();
    let (mut sum, mut square) = (vec![0f64; width], vec![0f64; width]);
    for row in encoded.whole_embeds.chunks_exact(width).take(count) {
        for (i, v) in row.iter().enumerate() {
            sum[i] += f64::from(*v);
            square[i] += f64::from(*v).powi(2);
        }
    }
    let n = count.max(1) as f64;
    let mean: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
    let std =
        sum.iter().zip(&square).map(|(s, q)| ((q / n - (s / n).powi(2)).max(1e-6)).sqrt() as f32).collect();
    (mean, std)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two embeddings, each at its own level of noise, computed by hand but for the transformer's answer.
    #[test]
    fn the_loss_is_the_mean_square_of_what_is_wrong_in_the_clean_embedding() {
        const ALPHAS: [f64; 3] = [0.96, 0.64, 0.04];
        let device = Device::flex();
        let config: PriorConfig = serde_json::from_value(serde_json::json!({
            "num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "embedding_dim": 3,
            "embedding_proj_dim": 5, "encoder_hid_dim": 4, "num_embeddings": 2,
        }))
        .unwrap();
        let mut model = config.init(&device).unwrap();
        let (mean, std) = ([0.5f32, -1.0, 2.0], [2.0f32, 0.5, 4.0]);
        let buffer = |values: [f32; 3]| Param::from_tensor(Tensor::from_data([values], &device));
        (model.clip_mean, model.clip_std) = (buffer(mean), buffer(std));
        let embeds = [[1.5f32, -2.0, 0.0], [-0.5, 0.25, 6.0]];
        let noise = [[0.3f32, -0.7, 1.1], [-1.2, 0.4, 0.9]];
        let timesteps = [2, 1];
        let random = |stream: u64, count| super::super::rng::Rng::new(9, stream).normals(count);
        let prompts = Prompts {
            text_embeds: Tensor::from_data(TensorData::new(random(0, 10), [2, 5]), &device),
            states: Tensor::from_data(TensorData::new(random(1, 16), [2, 2, 4]), &device),
            mask: Tensor::from_data([[1.0, 1.0], [1.0, 0.0]], &device),
        };
        let levels = [[0.2f32, 0.96f32.sqrt()], [0.8, 0.6]];
        let clean = |row: usize, i: usize| (embeds[row][i] - mean[i]) / std[i];
        let noised = [0, 1]
            .map(|row| [0, 1, 2].map(|i| levels[row][0] * clean(row, i) + levels[row][1] * noise[row][i]));
        let Prompts { text_embeds, states, mask } = prompts.clone();
        let steps = Tensor::from_floats([2.0, 1.0], &device);
        let noised = Tensor::from_data(noised, &device);
        let said = model.forward(noised, steps, text_embeds, Some(states), Some(mask)).unwrap();
        let said: Vec<f32> = said.try_into_vec_as().unwrap();
        let wrong = (0..6).map(|i| (said[i] - clean(i / 3, i % 3)).powi(2));
        let expected = wrong.sum::<f32>() / 6.0;
        let [embeds, noise] = [embeds, noise].map(|rows| Tensor::from_data(rows, &device));
        let found = loss(&model, embeds, noise, &timesteps, &ALPHAS, prompts, DType::F32).unwrap();
        let found = found.into_scalar::<f32>();
        assert!((found - expected).abs() < 1e-5 * expected.max(1.0), "{found}, not {expected}");
    }

    #[test]
    fn statistics_are_those_of_each_feature_over_what_is_trained_on() {
        let encoded = Encoded {
            latents: Vec::new(),
            latent_dims: [0; 3],
            image_embeds: vec![0.0; 6],
            whole_embeds: vec![1.0, -2.0, 4.0, -2.0, 100.0, 100.0],
            id_embeds: Vec::new(),
            len: 3,
        };
        let (mean, std) = statistics(&encoded, 2);
        assert_eq!(mean, [2.5, -2.0]);
        assert!((std[0] - 1.5).abs() < 1e-6, "{std:?}");
        // What never changes has a deviation all the same: it is divided by.
        assert!((std[1] - 1e-3).abs() < 1e-6, "{std:?}");
    }
}
