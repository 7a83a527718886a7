//! The text branch: a prompt to an embedding in the vision ensemble's space, `e_T = Prior(CLIP_T(T))` (paper
//! section 3.2).

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::folder::{ModelFolder, check_width};
use crate::encoders::prompt::{Chunked, chunks, weighs};
use crate::encoders::text::{TextConfig, TextEncoder};
use crate::encoders::tokenizer::{Excess, Tokenizer};
use crate::error::{Error, Notice, Result};
use crate::guidance::prior::{PriorConfig, PriorTransformer, text_mask};
use crate::request::{Embedding, GenerateRequest};
use crate::sampling::{NoiseSource, Sampler, Scheduler, SchedulerConfig};
use crate::weights::Files;

/// Steps of the prior's diffusion: unCLIP's default is 25; with DDIM fewer do.
pub const PRIOR_STEPS: usize = 20;
/// The stream of a picture's [`NoiseSource`] that its prompt is drawn with. The negative prompt's is the same: a prompt against
/// itself then changes nothing.
pub const PRIOR_STREAM: u64 = 2 << 32;

/// A text of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptKind {
    /// What the picture shows.
    Prompt,
    /// What it moves away from.
    NegativePrompt,
}

/// Refuses what has a meaning only where a denoiser attends to a CLIP's tokens; `reads` says how this model reads texts.
///
/// Brackets alone are punctuation there, and are read as they are written.
pub(super) fn refuse_weights(request: &GenerateRequest, reads: &str) -> Result<()> {
    for (name, text) in [("prompt", &request.prompt), ("negative prompt", &request.negative_prompt)] {
        if weighs(text) {
            let what = format!("the {name} weighs words by numbers or has a BREAK");
            return refuse_setting(
                "weights-unsupported",
                &what,
                reads,
                "say it in words, without (word:1.2) and BREAK",
            );
        }
    }
    if let Some(embedding) = request.embeddings.first() {
        let what = format!("the embedding '{}' is given", embedding.word());
        return refuse_setting("embeddings-unsupported", &what, reads, "leave the embeddings out");
    }
    if request.clip_skip != 1 {
        let what = format!("clip skip is {}", request.clip_skip);
        return refuse_setting("clip-skip-unsupported", &what, reads, "leave it out");
    }
    Ok(())
}

fn refuse_setting(code: &'static str, what: &str, reads: &str, remedy: &str) -> Result<()> {
    Err(Error::input(code, format!("{what}, and this model {reads}"), remedy))
}

/// Refuses people of another strength than 1; `model` says why this one has none.
pub(super) fn refuse_strength(request: &GenerateRequest, model: &str) -> Result<()> {
    match request.people.iter().position(|person| person.strength != 1.0) {
        None => Ok(()),
        Some(i) => Err(Error::input(
            "identity-strength-unsupported",
            format!(
                "person {} has a strength of {}, and this model {model}",
                i + 1,
                request.people[i].strength
            ),
            "use a strength of 1; start and end say in which part of the steps a person acts",
        )),
    }
}

/// Tells of embeddings whose words stand in no text that was read.
pub(super) fn unused_notices(embeddings: &[Embedding], used: &[bool]) -> impl Iterator<Item = Notice> {
    let unused = embeddings.iter().zip(used).filter(|(_, used)| !**used);
    unused.map(|(embedding, _)| {
        notice(
            "embedding-unused",
            format!("the embedding '{}' stands in no text that is read", embedding.word()),
            "write its word in the prompt or the negative prompt",
            BTreeMap::from([("word", embedding.word().to_owned())]),
        )
    })
}

fn notice(
    code: &'static str,
    message: String,
    remedy: &str,
    values: BTreeMap<&'static str, String>,
) -> Notice {
    Notice { code, message, remedy: remedy.to_owned(), values }
}

/// Tells what of a text is not read.
pub(super) fn cut_notice(kind: PromptKind, Excess { tokens, from, room }: Excess) -> Notice {
    let code = match kind {
        PromptKind::Prompt => "prompt-cut",
        PromptKind::NegativePrompt => "negative-prompt-cut",
    };
    let name = if kind == PromptKind::Prompt { "prompt" } else { "negative prompt" };
    let count =
        if tokens == 1 { "its last token was".to_owned() } else { format!("its last {tokens} tokens were") };
    notice(
        code,
        format!(
            "the {name} is longer than the {room} tokens that the model reads: {count} cut off, from '{from}' on"
        ),
        "shorten it, or put what matters most first",
        BTreeMap::from([("tokens", tokens.to_string()), ("from", from), ("room", room.to_string())]),
    )
}

/// What reads texts.
#[derive(Debug)]
pub struct TextReader {
    /// `tokenizer/`.
    pub tokenizer: Tokenizer,
    /// `text_encoder/`.
    pub encoder: TextEncoder,
}

/// What a text encoder makes of a batch of texts.
#[derive(Debug, Clone)]
pub struct TextEmbeds {
    /// The pooled embedding, projected where the text encoder projects, `[batch, dim]`.
    pub proj_embedding: Tensor<2>,
    /// Every token's state, `[batch, tokens, hidden]`.
    pub encoder_hidden_states: Tensor<3>,
    /// 1 for text and 0 for padding, `[batch, tokens]`.
    pub attention_mask: Tensor<2>,
}

impl TextReader {
    pub(super) fn load(folder: &ModelFolder, device: &Device) -> Result<Self> {
        Ok(Self {
            tokenizer: folder.load("tokenizer", Tokenizer::load)?,
            encoder: folder.load_compact("text_encoder", |c| TextEncoder::load(c, device))?,
        })
    }

    /// What of a text is not read.
    pub(super) fn cut(&self, kind: PromptKind, text: &str) -> Result<Option<Notice>> {
        let text = self.tokenizer.written_out(text);
        let excess = self.tokenizer.excess(&text, self.encoder.context_length())?;
        Ok(excess.map(|excess| cut_notice(kind, excess)))
    }

    /// A text by its weights, in as many chunks as it needs, `[1, chunks · tokens, hidden]`, and whether each of the embeddings
    /// stands in it. See [`chunks`] and [`TextEncoder::weighted`].
    pub fn weighted(
        &self,
        text: &str,
        clip_skip: usize,
        embeddings: &[Embedding],
    ) -> Result<(Tensor<3>, Vec<bool>)> {
        let Chunked { chunks, used } =
            chunks(&self.tokenizer, text, self.encoder.context_length(), embeddings)?;
        Ok((self.encoder.weighted(&chunks, clip_skip)?, used))
    }

    /// Encodes texts.
    pub fn encode(&self, texts: &[&str]) -> Result<TextEmbeds> {
        self.encode_with(texts, None, DType::F32)
    }

    /// [`TextReader::encode`] in `dtype`, with `embeds`, `[texts, width]`, in the place of the embedding of a token, where one
    /// is given: what a new word means. Gradients reach them where the network's device records any.
    pub fn encode_with(
        &self,
        texts: &[&str],
        word: Option<(u32, Tensor<2>)>,
        dtype: DType,
    ) -> Result<TextEmbeds> {
        let context_length = self.encoder.context_length();
        let length = self.tokenizer.length(context_length);
        let ids = texts
            .iter()
            .map(|text| self.tokenizer.encode(&self.tokenizer.written_out(text), context_length))
            .collect::<Result<Vec<Vec<u32>>>>()?;
        let text = match word {
            Some((token, embeds)) => self.encoder.forward_with(&ids, token, embeds, dtype)?,
            None => self.encoder.forward(&ids, dtype)?,
        };
        let proj_embedding = text.text_embeds.unwrap_or(text.pooled);
        let end = self.tokenizer.eos_token_id();
        let mask: Vec<f32> = ids.iter().flat_map(|ids| text_mask(ids, end)).collect();
        let mask = TensorData::new(mask, [ids.len(), length]);
        let attention_mask = Tensor::from_data(mask, &proj_embedding.device());
        Ok(TextEmbeds { proj_embedding, encoder_hidden_states: text.last_hidden_state, attention_mask })
    }
}

/// What draws an embedding in the vision ensemble's space from a text's.
#[derive(Debug)]
pub struct Prior {
    /// `prior/`.
    pub transformer: PriorTransformer,
    /// `prior/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
}

impl Prior {
    /// Fails with `model-mismatch` unless `prior/` reads what `tokenizer/` and `text_encoder/` say, and draws embeddings of
    /// `style_width`; reads no weights.
    pub(super) fn fits(folder: &ModelFolder, style_width: Option<usize>) -> Result<()> {
        let text: TextConfig = folder.load("text_encoder", TextConfig::read)?;
        let config: PriorConfig = folder.load("prior", |c| c.json("config.json"))?;
        let or_embedding = |width: Option<usize>| width.unwrap_or(config.embedding_dim);
        let text_width = if text.projects() { text.projection_dim } else { text.hidden_size };
        let pooled = or_embedding(config.embedding_proj_dim);
        check_width("the prior's pooled text", pooled, "text_encoder's", text_width)?;
        check_width(
            "the prior's input",
            config.embedding_dim,
            "its output",
            or_embedding(config.clip_embed_dim),
        )?;
        if config.encoder_hid_proj_type.is_some() {
            let states = or_embedding(config.encoder_hid_dim);
            check_width("the prior's text states", states, "text_encoder's", text.hidden_size)?;
            check_width(
                "the prior's text",
                config.num_embeddings,
                "text_encoder's",
                text.max_position_embeddings,
            )?;
            let length = folder.load("tokenizer", Tokenizer::load)?.length(text.max_position_embeddings);
            check_width("the prior's text", config.num_embeddings, "the tokenizer's", length)?;
        }
        let style_width = style_width.unwrap_or(config.embedding_dim);
        check_width("the prior", config.embedding_dim, "the vision encoders together", style_width)
    }

    pub(super) fn load(folder: &ModelFolder, device: &Device) -> Result<Self> {
        Ok(Self {
            transformer: folder.load_compact("prior", |c| PriorTransformer::load(c, device))?,
            scheduler: folder.load("prior", SchedulerConfig::from_component)?,
        })
    }

    /// Draws one text's embedding `[1, dim]` in the vision ensemble's space, from numbers of `stream`.
    pub fn embed(&self, text: &TextEmbeds, noise: &NoiseSource, stream: u64) -> Result<Tensor<2>> {
        let shape = [1, self.transformer.embedding_dim()];
        self.draw(text, noise.tensor(stream, shape, &text.proj_embedding.device()), PRIOR_STEPS)
    }

    /// Draws an embedding of each text, `[texts, dim]`, from `noise` of that shape in so many steps; the transformer runs in
    /// the text's precision.
    ///
    /// DDIM over the normalised embedding, which is taken for a picture of one pixel with `dim` channels.
    pub fn draw(&self, text: &TextEmbeds, noise: Tensor<2>, steps: usize) -> Result<Tensor<2>> {
        let [texts, dim] = noise.dims();
        let (device, dtype) = (noise.device(), text.proj_embedding.dtype());
        let states = self
            .transformer
            .takes_text_states()
            .then(|| (text.encoder_hidden_states.clone(), text.attention_mask.clone()));
        let (states, mask) = states.unzip();
        let steps = steps.min(self.scheduler.train_timesteps());
        let scheduler = Scheduler::new(self.scheduler.schedule(Sampler::Ddim, steps, None)?);
        let latents = noise.reshape([texts, dim, 1, 1]) * scheduler.schedule().init_noise_sigma();
        let predict = |input: Tensor<4>, timestep| {
            let predicted = self.transformer.forward(
                input.reshape([texts, dim]).cast(dtype),
                Tensor::full([texts], timestep, &device),
                text.proj_embedding.clone(),
                states.clone(),
                mask.clone(),
            )?;
            Ok(predicted.reshape([texts, dim, 1, 1]))
        };
        // DDIM takes no fresh noise.
        let latents = scheduler.run(latents, predict, |_| None)?;
        Ok(self.transformer.post_process_latents(latents.reshape([texts, dim])))
    }
}

/// The whole branch.
#[derive(Debug)]
pub struct TextBranch {
    /// `tokenizer/` and `text_encoder/`.
    pub reader: TextReader,
    /// `prior/`.
    pub prior: Prior,
}

impl TextBranch {
    /// Loads `tokenizer/`, `text_encoder/` and `prior/` of a model folder. Fails with `model-mismatch` where they do not fit each
    /// other.
    pub fn open(files: &dyn Files, device: &Device) -> Result<Self> {
        let folder = ModelFolder::new(files)?;
        Prior::fits(&folder, None)?;
        Ok(Self { reader: TextReader::load(&folder, device)?, prior: Prior::load(&folder, device)? })
    }
}
