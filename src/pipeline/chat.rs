//! The text branch of FLUX.2 klein: a prompt as a user's turn of a chat, read by Qwen3.

use burn::tensor::{DType, Device, Tensor};

use super::folder::{ModelFolder, check_width};
use super::prompt::{PromptKind, cut_notice};
use crate::encoders::qwen3::{Qwen3Config, Qwen3Encoder, klein_layers};
use crate::encoders::tokenizer::Qwen2Tokenizer;
use crate::error::{Notice, Result};

/// Tokens of a chat, padding among them (`max_sequence_length` of diffusers' `Flux2KleinPipeline`).
const MOST_TOKENS: usize = 512;

/// What reads prompts as a chat.
#[derive(Debug)]
pub struct ChatReader {
    tokenizer: Qwen2Tokenizer,
    encoder: Qwen3Encoder,
}

impl ChatReader {
    /// Fails with `model-mismatch` unless `text_encoder/` says as much of a token as the transformer takes; reads no weights.
    pub fn fits(folder: &ModelFolder, joint_attention_dim: usize) -> Result<()> {
        folder.load("tokenizer", Qwen2Tokenizer::load)?;
        let config = folder.load("text_encoder", |c| {
            let config: Qwen3Config = c.json("config.json")?;
            config.check()?;
            Ok(config)
        })?;
        let width = klein_layers(config.num_hidden_layers).len() * config.hidden_size;
        check_width("the text encoder's tokens", width, "the transformer's", joint_attention_dim)
    }

    /// Loads `tokenizer/` and `text_encoder/`.
    pub fn load(folder: &ModelFolder, device: &Device) -> Result<Self> {
        let tokenizer = folder.load("tokenizer", Qwen2Tokenizer::load)?;
        let config: Qwen3Config = folder.load("text_encoder", |c| c.json("config.json"))?;
        let layers = klein_layers(config.num_hidden_layers);
        let encoder = folder.load_compact("text_encoder", |c| Qwen3Encoder::load(c, &layers, device))?;
        Ok(Self { tokenizer, encoder })
    }

    fn length(&self) -> usize {
        self.encoder.context_length().min(MOST_TOKENS)
    }

    /// What the transformer reads, `[1, tokens, joint_attention_dim]`.
    pub fn encode(&self, prompt: &str) -> Result<Tensor<3>> {
        let chat = self.tokenizer.encode_chat(prompt, self.length());
        self.encoder.forward(&[chat.ids], &[chat.real], DType::F32)
    }

    /// What of a prompt is not read.
    pub fn cut(&self, kind: PromptKind, prompt: &str) -> Option<Notice> {
        self.tokenizer.chat_excess(prompt, self.length()).map(|excess| cut_notice(kind, excess))
    }
}
