//! Arc2Face (Paraperas Papantoniou et al. 2024, arXiv 2403.11641, section 3.2): a fine-tuned CLIP text encoder reads an
//! identity embedding in the place of a word, and its states are the tokens of a UNet that draws that person.

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::text::TextEncoder;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// `config.json` of an `arc2face` folder, which tells the family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arc2FaceConfig {
    /// The text that the encoder was trained with.
    pub prompt: String,
    /// The word of it whose place the identity takes; a single token.
    pub id_token: String,
}

impl Default for Arc2FaceConfig {
    /// As published: `project_face_embs` of foivospar/Arc2Face.
    fn default() -> Self {
        Self { prompt: "photo of a id person".to_owned(), id_token: "id".to_owned() }
    }
}

/// The text encoder with its one text.
#[derive(Debug)]
pub struct Arc2FaceEncoder {
    text_encoder: TextEncoder,
    tokenizer: Tokenizer,
    input_ids: Vec<u32>,
    id_token: u32,
}

impl Arc2FaceEncoder {
    /// Fails with `tokenizer` where the word is no single token, and with `config` where the text does not have it.
    pub fn new(config: &Arc2FaceConfig, tokenizer: Tokenizer, text_encoder: TextEncoder) -> Result<Self> {
        let Arc2FaceConfig { prompt, id_token: word } = config;
        let id_token = match tokenizer.encode(word, 4)?[..] {
            [_, token, end, _] if token != end && end == tokenizer.eos_token_id() => token,
            _ => {
                return Err(Error::weights(
                    "tokenizer",
                    format!("'{word}', whose place an identity takes, is not one token"),
                    "use the tokenizer of Stable Diffusion 1.5",
                ));
            }
        };
        let input_ids = tokenizer.encode(prompt, text_encoder.context_length())?;
        if !input_ids.contains(&id_token) {
            return Err(Error::weights(
                "config",
                format!(
                    "arc2face/config.json: '{prompt}' has no word '{word}' for an identity to take the place of"
                ),
                "use the published text, 'photo of a id person'",
            ));
        }
        Ok(Self { text_encoder, tokenizer, input_ids, id_token })
    }

    /// The tokens of identities: unit-length embeddings `[batch, width]` → `[batch, tokens, hidden]`.
    ///
    /// Fails with `projection-input` where they are wider than the text encoder.
    pub fn forward(&self, id_embeds: Tensor<2>) -> Result<Tensor<3>> {
        let input_ids = vec![self.input_ids.clone(); id_embeds.dims()[0]];
        let output = self.text_encoder.forward_with(&input_ids, self.id_token, id_embeds, DType::F32)?;
        Ok(output.last_hidden_state)
    }

    /// The tokens of nobody, the null condition: those of an empty text, `[1, tokens, hidden]`.
    pub fn nobody(&self) -> Result<Tensor<3>> {
        self.text_encoder.states(&self.tokenizer, "")
    }
}
