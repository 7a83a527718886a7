//! Guidance by a face alone: Arc2Face's text encoder in place of styles, prompts and adapters.

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use super::evidence::{Evidence, Needs, Texts};
use super::family::{Configs, Denoises, Family, Guided, Kind, Target, parts};
use super::folder::{ModelFolder, check_width};
use super::prompt::{refuse_strength, refuse_weights};
use super::readers::RequiredReaders;
use crate::condition::{Condition, Places, Projection, Stream};
use crate::encoders::arc2face::{Arc2FaceConfig, Arc2FaceEncoder};
use crate::encoders::text::{TextConfig, TextEncoder};
use crate::encoders::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::request::GenerateRequest;

/// The family that draws from faces alone.
pub const ARC2FACE: Kind =
    Kind { folder: "arc2face", needs_face_encoder: true, denoises: Denoises::Unet { fits, open } };

/// `arc2face/`, `tokenizer/` and `text_encoder/`.
#[derive(Debug)]
pub struct Arc2FaceGuidance {
    encoder: Arc2FaceEncoder,
}

fn fits(folder: &ModelFolder, configs: &Configs) -> Result<RequiredReaders> {
    let text: TextConfig = folder.load("text_encoder", TextConfig::read)?;
    check_width(
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
    Ok(RequiredReaders::default())
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
            refuse_weights(request, "draws from faces alone")?;
            return refuse_strength(request, "has a face in the place of a word, which is there or is not");
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

    fn needs<'a>(&self, _: &'a GenerateRequest, _: Option<&Places>) -> Needs<'a> {
        Needs {
            identities: true,
            faces: false,
            references: false,
            style: None,
            nothing: false,
            texts: Texts::None,
        }
    }

    /// Each person's tokens in their region, the same for all pictures.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        places: Option<&Places>,
        _: &Device,
    ) -> Result<Vec<Guided>> {
        let parts = parts(&request.people);
        let join = |tokens: &dyn Fn(&[bool]) -> Vec<Tensor<3>>| -> Result<Condition> {
            let stream = |(part, acts): &(Range<f32>, Vec<bool>)| {
                let stream = Stream::new(Projection::Own, tokens(acts), places.cloned())?;
                Ok(Stream { interval: part.clone(), ..stream })
            };
            Ok(Condition::new(parts.iter().map(stream).collect::<Result<_>>()?))
        };
        let people = evidence.people.iter().filter_map(|person| person.id_embeds.clone());
        let tokens: Vec<Tensor<3>> =
            people.map(|id_embeds| self.encoder.forward(id_embeds)).collect::<Result<_>>()?;
        let (people, nobody) = (tokens.len(), self.encoder.nobody()?);
        let told = |acts: &[bool]| -> Vec<Tensor<3>> {
            let each = tokens.iter().enumerate();
            each.map(|(i, own)| if acts.get(i) == Some(&false) { &nobody } else { own }.clone()).collect()
        };
        let mut condition = join(&told)?;
        let guidance_scale = Some(request.guidance_scale).filter(|scale| *scale != 1.0);
        if guidance_scale.is_some() {
            condition = Condition::cat(join(&|_| vec![nobody.clone(); people])?, condition)?;
        }
        Ok(vec![Guided { condition, guidance_scale }; request.count])
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::PersonEvidence;
    use super::super::family::made_up::{assert_same, halves, request, row, waves};
    use super::*;
    use crate::weights::{Component, MemoryFiles};

    const ID: usize = 4;

    fn family() -> Arc2FaceGuidance {
        let (vocab, merges) = Tokenizer::train(["photo of a id person", "id id id id"], 560).unwrap();
        let tokens: std::collections::BTreeMap<String, u32> = serde_json::from_str(&vocab).unwrap();
        let files = [("vocab.json", vocab), ("merges.txt", merges)];
        let files = MemoryFiles(files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into());
        let config = TextConfig {
            vocab_size: tokens.len(),
            hidden_size: 8,
            intermediate_size: 16,
            projection_dim: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 24,
            eos_token_id: tokens["<|endoftext|>"],
            ..TextConfig::default()
        };
        let tokenizer = Tokenizer::load(&Component::new(&files, "")).unwrap();
        let text_encoder = config.init(&Device::flex()).unwrap();
        let encoder = Arc2FaceEncoder::new(&Arc2FaceConfig::default(), tokenizer, text_encoder).unwrap();
        Arc2FaceGuidance { encoder }
    }

    fn evidence() -> Evidence {
        let person =
            |phase| PersonEvidence { id_embeds: Some(waves(phase, [1, ID])), ..PersonEvidence::default() };
        Evidence { people: vec![person(1.0), person(2.0)], ..Evidence::default() }
    }

    fn faces(people: usize) -> GenerateRequest {
        GenerateRequest { style: None, prompt: String::new(), ..request(people) }
    }

    #[test]
    fn each_face_is_read_for_itself_and_guided_away_from_nobody() {
        let (family, evidence, places) = (family(), evidence(), halves());
        let request = GenerateRequest { count: 3, ..faces(2) };
        let guided = family.condition(&evidence, &request, Some(&places), &Device::flex()).unwrap();
        assert_eq!(guided.len(), 3, "the same for all pictures");
        let [stream] = &guided[0].condition.streams[..] else { panic!("{guided:?}") };
        assert_eq!((guided[0].guidance_scale, stream.projection), (Some(3.0), Projection::Own));
        assert!(stream.places.is_some());
        let nobody = family.encoder.nobody().unwrap();
        for (tokens, person) in stream.tokens.iter().zip(&evidence.people) {
            let face = family.encoder.forward(person.id_embeds.clone().unwrap()).unwrap();
            let apart: f32 = (face.clone() - nobody.clone()).abs().max().into_scalar();
            assert!(apart > 1e-3, "{apart}");
            assert_same(row(tokens, 1), face);
            assert_same(row(tokens, 0), nobody.clone());
        }
        let apart = row(&stream.tokens[0], 1) - row(&stream.tokens[1], 1);
        assert!(apart.abs().max().into_scalar::<f32>() > 1e-3);

        let request = GenerateRequest { guidance_scale: 1.0, ..faces(2) };
        let unguided = family.condition(&evidence, &request, Some(&places), &Device::flex()).unwrap();
        assert_eq!(unguided[0].guidance_scale, None);
        assert_same(unguided[0].condition.streams[0].tokens[1].clone(), row(&stream.tokens[1], 1));
        // Two faces in one place have no meaning.
        let error = family.condition(&evidence, &request, None, &Device::flex()).unwrap_err();
        assert_eq!(error.code, "region-count");
    }

    #[test]
    fn faces_alone_are_asked_for() {
        let family = family();
        family.check(&faces(1)).unwrap();
        let asked = faces(1);
        let needs = family.needs(&asked, None);
        assert!(needs.identities && needs.style.is_none() && matches!(needs.texts, Texts::None));
        for refused in [request(1), faces(0)] {
            assert_eq!(family.check(&refused).unwrap_err().code, "identity-only");
        }
    }
}
