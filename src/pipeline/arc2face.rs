//! Guidance by a face alone: Arc2Face's text encoder in place of styles, prompts and adapters.

use burn::tensor::{Device, Tensor};

use super::evidence::{Evidence, Needs, Texts};
use super::family::{Configs, Family, Guided, Kind, Target};
use super::folder::{ModelFolder, same};
use super::readers::Reads;
use crate::condition::{Condition, Places, Projection, Regions, Stream};
use crate::encoders::arc2face::{Arc2FaceConfig, Arc2FaceEncoder};
use crate::encoders::text::{TextConfig, TextEncoder};
use crate::encoders::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::request::GenerateRequest;

/// The family that draws from faces alone.
pub const ARC2FACE: Kind = Kind { folder: "arc2face", needs_face_encoder: true, fits, open };

/// `arc2face/`, `tokenizer/` and `text_encoder/`.
#[derive(Debug)]
pub struct Arc2FaceGuidance {
    encoder: Arc2FaceEncoder,
}

fn fits(folder: &ModelFolder, configs: &Configs) -> Result<Reads> {
    let text: TextConfig = folder.load("text_encoder", TextConfig::read)?;
    same(
        "the text encoder's tokens",
        text.hidden_size,
        "the unet's tokens",
        configs.unet.cross_attention_dim,
    )?;
    let id_embed_dim = configs.face.as_ref().map_or(0, |face| face.embedding_size);
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
    Ok(Reads { vision: Vec::new(), text: false, prior: false })
}

fn open(folder: &ModelFolder, _: Target, device: &Device) -> Result<Box<dyn Family>> {
    let config: Arc2FaceConfig = folder.load(ARC2FACE.folder, |c| c.json("config.json"))?;
    let tokenizer = folder.load("tokenizer", Tokenizer::load)?;
    let text_encoder = folder.load_compact("text_encoder", |c| TextEncoder::load(c, device))?;
    let encoder = Arc2FaceEncoder::new(&config, tokenizer, text_encoder)?;
    Ok(Box::new(Arc2FaceGuidance { encoder }))
}

impl Family for Arc2FaceGuidance {
    fn reads_words(&self) -> bool {
        false
    }

    fn reads_styles(&self) -> bool {
        false
    }

    /// Refuses, with `identity-only`, what a face alone gives no meaning to.
    fn check(&self, request: &GenerateRequest) -> Result<()> {
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

    fn needs<'a>(&self, _: &'a GenerateRequest) -> Needs<'a> {
        Needs { identities: true, faces: false, style: None, nothing: false, texts: Texts::None }
    }

    /// Each person's tokens in their region, the same for all pictures.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        regions: Option<&Regions>,
        _: &Device,
    ) -> Result<Vec<Guided>> {
        let join = |tokens: Vec<Tensor<3>>| -> Result<Condition> {
            let places = regions.cloned().map(Places::Regions);
            Ok(Condition::new(vec![Stream::new(Projection::Own, tokens, places)?]))
        };
        let people = evidence.people.iter().filter_map(|person| person.id_embeds.clone());
        let tokens: Vec<Tensor<3>> =
            people.map(|id_embeds| self.encoder.forward(id_embeds)).collect::<Result<_>>()?;
        let people = tokens.len();
        let mut condition = join(tokens)?;
        let guidance_scale = Some(request.guidance_scale).filter(|scale| *scale != 1.0);
        if guidance_scale.is_some() {
            condition = Condition::cat(join(vec![self.encoder.nobody()?; people])?, condition)?;
        }
        Ok(vec![Guided { condition, guidance_scale }; request.count])
    }
}
