//! Guidance by a face alone: Arc2Face's text encoder in place of styles, prompts and adapters.

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};

use super::models::{Encoders, ModelFolder, same};
use super::{Guided, Progress, Watcher, embed};
use crate::condition::{Condition, Places, Projection, Regions, Stream};
use crate::encoders::arc2face::{Arc2FaceConfig, Arc2FaceEncoder};
use crate::encoders::text::{TextConfig, TextEncoder};
use crate::encoders::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::request::GenerateRequest;

/// The folder that tells the family.
pub const ARC2FACE: &str = "arc2face";

/// `arc2face/`, `tokenizer/` and `text_encoder/`.
#[derive(Debug)]
pub struct Arc2FaceGuidance {
    encoder: Arc2FaceEncoder,
}

impl Arc2FaceGuidance {
    /// Loads the folders, for a UNet whose tokens are `width` wide and an identity encoder of `id_embed_dim`.
    pub(super) fn load(
        folder: &ModelFolder,
        width: usize,
        id_embed_dim: usize,
        device: &Device,
    ) -> Result<Self> {
        let text: TextConfig = folder.load("text_encoder", TextConfig::read)?;
        same("the text encoder's tokens", text.hidden_size, "the unet's tokens", width)?;
        if id_embed_dim > text.hidden_size {
            return Err(Error::weights(
                "model-mismatch",
                format!(
                    "components do not fit: face_encoder's identities {id_embed_dim} wide, the text encoder, which takes \
                     them for a word, {}",
                    text.hidden_size
                ),
                "use components that were trained together",
            ));
        }
        let config: Arc2FaceConfig = folder.load(ARC2FACE, |c| c.json("config.json"))?;
        let tokenizer = folder.load("tokenizer", Tokenizer::load)?;
        let text_encoder = folder.load("text_encoder", |c| TextEncoder::load(c, device))?;
        Ok(Self { encoder: Arc2FaceEncoder::new(&config, tokenizer, text_encoder)? })
    }

    /// Refuses, with `identity-only`, what a face alone gives no meaning to.
    pub(super) fn check(&self, request: &GenerateRequest) -> Result<()> {
        let said = |text: &str| !text.trim().is_empty();
        let asked = [
            (request.style.is_some(), "style image"),
            (said(&request.prompt), "prompt"),
            (said(&request.negative_prompt), "negative prompt"),
        ];
        let asked: Vec<&str> = asked.iter().filter(|(given, _)| *given).map(|(_, what)| *what).collect();
        if asked.is_empty() && !request.people.is_empty() {
            return Ok(());
        }
        Err(Error::input(
            "identity-only",
            format!(
                "this model draws a person from the face alone (Arc2Face): it needs people, and has no place for a {}, nor for \
                 α between them",
                if asked.is_empty() { "picture without".to_owned() } else { asked.join(" or a ") }
            ),
            "give faces and nothing else, or use a model with adapters",
        ))
    }

    /// What each picture's denoiser attends to: each person's tokens in their region, the same for all pictures. One step for
    /// each photo, and one for the text.
    pub(super) async fn guided<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
        &self,
        encoders: &Encoders,
        request: &GenerateRequest,
        regions: Option<Regions>,
        watcher: &mut Watcher<W>,
        device: &Device,
    ) -> Result<Vec<Guided>> {
        let mut encoding = watcher.encoding(request, false, 1);
        let mut tokens = Vec::with_capacity(request.people.len());
        for (i, person) in request.people.iter().enumerate() {
            let mut embeddings = Vec::new();
            for photo in person.identities.iter().flat_map(|identity| &identity.photos) {
                let name = format!("photo {} of person {}", embeddings.len() + 1, i + 1);
                embeddings.push(embed::identity(encoders, photo, &name, device).await?);
                encoding.advance().await?;
            }
            tokens.push(self.encoder.forward(embed::mixed(person, &mut embeddings.into_iter(), device))?);
        }
        let join = |tokens: Vec<Tensor<3>>| -> Result<Condition> {
            let places = regions.clone().map(Places::Regions);
            Ok(Condition::new(vec![Stream::new(Projection::Own, tokens, places)?]))
        };
        let people = tokens.len();
        let mut condition = join(tokens)?;
        let guidance_scale = Some(request.guidance_scale).filter(|scale| *scale != 1.0);
        if guidance_scale.is_some() {
            condition = Condition::cat(join(vec![self.encoder.nobody()?; people])?, condition)?;
        }
        encoding.advance().await?;
        Ok(vec![Guided { condition, guidance_scale }; request.count])
    }
}
