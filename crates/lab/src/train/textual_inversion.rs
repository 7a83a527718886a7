//! Textual Inversion (Gal et al. 2022, arXiv 2208.01618): a new word for a person. Every network stays as it is; the word's
//! embedding alone is learnt, from photos, by the loss of the denoiser that is told "a photo of *".
//!
//! The original's denoiser attends to the text encoder's states, which are a function of the word. Ours attends to an embedding
//! that the prior *draws* given the text. The word is learnt through that draw: at every update the prior draws from fresh noise,
//! in 4 steps, and gradients pass through all of them. So the loss is the original's, with the base's own
//! conditioning in the place of `c_θ(y)`. (The prior's own loss against the photos' embeddings would be cheaper, but it is another
//! objective, which has never seen the pictures.)

use std::time::Instant;

use ::image::imageops::flip_horizontal;
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use super::optim::AdamWConfig;
use super::rng::Rng;
use super::subject::{Base, Learnt, Subject, Watch, put, tune};
use crate::read_back::read_back;
use facestudio::error::{Error, Result};
use facestudio::pipeline::prompt::{TextBranch, TextReader};
use facestudio::weights::{Component, MemoryFiles};

/// The word: the authors' placeholder, a token of its own in every CLIP vocabulary.
pub const WORD: &str = "*";
/// Updates, as in diffusers' `examples/textual_inversion` for Stable Diffusion (the authors: 5,000).
pub const STEPS: usize = 3000;
/// Pictures of an update (diffusers' example, 1 with 4 gathered; the authors: 4).
const BATCH: usize = 4;
/// diffusers' example: 5e-4, scaled by the batch.
const RATE: f64 = 2e-3;
/// Root mean square of the values of the tokens' embeddings that this rate is for: CLIP ViT-L/14's.
const RATE_FOR: f64 = 0.014;
/// Steps of the prior in an update. Measured with `mini` 5 on "a photo of a woman", against the 20 steps that pictures are drawn
/// with: 4 keep 87 % of the draws' spread, 1 keeps 13 %, being the mean of what the text may mean.
const PRIOR_STEPS: usize = 4;
/// Neutral contexts, as the authors' (appendix), in words that captions of `mini` have.
const CONTEXTS: [&str; 5] =
    ["a photo of", "a photograph of", "a studio photo of", "a portrait photo of", "a realistic picture of"];

/// What is learnt: `[1, hidden]`.
#[derive(Module, Debug)]
struct Word {
    embedding: Param<Tensor<2>>,
}

/// Learns the person as the word [`WORD`], beginning at the word of the person's class; the text encoder that knows it is all
/// that differs, in that word's row.
///
/// Fails with `word-token` where the tokenizer does not take the word for one token.
pub fn learn(subject: &Subject, watch: &mut Watch) -> Result<Learnt> {
    subject.check()?;
    let mut base = Base::load(subject)?;
    let mut text = TextBranch::open(subject.files, &base.device)?;
    base.denoiser = base.denoiser.no_grad();
    base.fusion = base.fusion.no_grad();
    text.reader.encoder = text.reader.encoder.no_grad();
    text.prior.transformer = text.prior.transformer.no_grad();
    let token = match tokens(&text.reader, WORD)?[..] {
        [token] => token,
        _ => {
            return Err(Error::weights(
                "word-token",
                format!("the tokenizer has no token of its own for the new word '{WORD}'"),
                "use a model with CLIP's tokenizer",
            ));
        }
    };

    let start = Instant::now();
    let mirrored = subject.photos.iter().map(flip_horizontal);
    let latents = base.latents(&subject.photos.iter().cloned().chain(mirrored).collect::<Vec<_>>())?;
    let table = read_back(text.reader.encoder.token_embedding(), "the words")?;
    let hidden = text.reader.encoder.token_embedding().dims()[1];
    let class = class_row(&table, hidden, &tokens(&text.reader, subject.class)?);
    let size = (table.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / table.len() as f64).sqrt();
    let class = Tensor::from_data(TensorData::new(class, [1, hidden]), &base.device);
    let word = Word { embedding: Param::from_tensor(class) };
    let objective = |word: &Word, rng: &mut Rng| {
        let indices: Vec<usize> = (0..BATCH).map(|_| rng.below(latents.len())).collect();
        let prompts: Vec<String> =
            (0..BATCH).map(|_| format!("{} {WORD}", CONTEXTS[rng.below(CONTEXTS.len())])).collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let embeds = word.embedding.val().repeat_dim(0, BATCH);
        let said = text.reader.encode_with(&prompts, Some((token, embeds)), base.dtype)?;
        let dim = text.prior.transformer.embedding_dim();
        let noise = TensorData::new(rng.normals(BATCH * dim), [BATCH, dim]);
        let image_embeds = text.prior.draw(&said, Tensor::from_data(noise, &base.device), PRIOR_STEPS)?;
        let latents = latents.pick(&indices, &base.device);
        Ok(base.errors(&base.denoiser, &base.fusion, image_embeds, latents, rng)?.mean())
    };
    // PyTorch's defaults, without clipping, as in both.
    let optimizer = AdamWConfig { beta_2: 0.999, max_grad_norm: f32::INFINITY, ..AdamWConfig::default() };
    let rate = RATE * size / RATE_FOR;
    let (word, losses) = tune(word, subject, optimizer, rate, objective, watch)?;
    let row = read_back(word.embedding.val(), "the word")?;
    let seconds = start.elapsed().as_secs_f64();

    let mut weights = Component::new(subject.files, "text_encoder").tensors()?.read_all()?;
    let place = token as usize * hidden..(token as usize + 1) * hidden;
    let table = weights.0.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight"));
    let values = table.and_then(|(_, (_, values))| values.get_mut(place));
    let values = values.ok_or_else(|| {
        Error::weights(
            "tensor-missing",
            "text_encoder: the tokens' embeddings are missing",
            "check that the file belongs to this model",
        )
    })?;
    values.copy_from_slice(&row);
    let mut folders = MemoryFiles::default();
    put(&mut folders, subject.files, "text_encoder", &weights)?;
    Ok(Learnt { folders, seconds, losses })
}

/// The tokens of a text without begin and end.
fn tokens(text: &TextReader, words: &str) -> Result<Vec<u32>> {
    let ids = text.tokenizer.encode(words, text.encoder.context_length())?;
    let end = text.tokenizer.eos_token_id();
    Ok(ids.into_iter().skip(1).take_while(|id| *id != end).collect())
}

/// The embedding of the class; the mean of its tokens' where it has several. `table` is `[.., hidden]`.
fn class_row(table: &[f32], hidden: usize, tokens: &[u32]) -> Vec<f32> {
    let mut row = vec![0.0; hidden];
    for token in tokens {
        let values = table.iter().skip(*token as usize * hidden);
        row.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / tokens.len() as f32);
    }
    row
}
