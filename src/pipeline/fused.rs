//! FaceStudio's own guidance: style and identity fused into tokens, prompts through the prior (paper sections 3.1 to 3.3).

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use super::evidence::{Evidence, Needs, Style, Texts};
use super::family::{Denoises, Family, Guided, GuidedConfigs, Kind, parts};
use super::folder::{ModelFolder, check_width};
use super::prompt::{Prior, refuse_weights};
use super::readers::RequiredReaders;
use crate::condition::{Added, Condition, Places, Projection, Stream};
use crate::encoders::vision::VisionConfig;
use crate::error::{Error, Result};
use crate::guidance::fusion::{Fusion, FusionConfig, hybrid};
use crate::request::GenerateRequest;

/// The family of this project's own models.
pub const FUSED: Kind =
    Kind { folder: "guidance", needs_face_encoder: true, denoises: Denoises::Guided { fits, open } };

/// The shared Linear, `guidance/`.
#[derive(Debug)]
pub struct FusedGuidance {
    fusion: Fusion,
    config: FusionConfig,
    /// A folder without a prior draws from style images alone.
    has_prior: bool,
    /// Whether the denoiser adds the style to its timestep's embedding as well.
    adds_style: bool,
}

fn fits(folder: &ModelFolder, configs: &GuidedConfigs) -> Result<RequiredReaders> {
    let fusion: FusionConfig = folder.load(FUSED.folder, |c| c.json("config.json"))?;
    let tokens = format!("the {}'s tokens", configs.denoiser);
    check_width("guidance tokens", fusion.cross_attention_dim, &tokens, configs.token_channels)?;
    if let Some(class_labels) = configs.class_labels {
        check_width("the unet's class labels", class_labels, "guidance's styles", fusion.image_embed_dim)?;
    }
    let id_embed_dim = configs.face.as_ref().map_or(0, |face| face.embedding_size);
    check_width("guidance's identities", fusion.id_embed_dim, "face_encoder's", id_embed_dim)?;
    let others = (2..).map(|k| format!("vision_encoder_{k}")).take_while(|name| folder.has(name));
    let vision: Vec<String> = std::iter::once("vision_encoder".to_owned()).chain(others).collect();
    let mut style_width = 0;
    for name in &vision {
        style_width += folder.load(name, VisionConfig::read)?.embed_dim();
    }
    check_width("guidance's styles", fusion.image_embed_dim, "the vision encoders together", style_width)?;
    let prior = folder.has("prior");
    if prior {
        Prior::fits(folder, Some(style_width))?;
    }
    Ok(RequiredReaders { vision, text: prior, prior })
}

fn open(folder: &ModelFolder, adds_style: bool, device: &Device) -> Result<Box<dyn Family>> {
    let config: FusionConfig = folder.load(FUSED.folder, |c| c.json("config.json"))?;
    let fusion = folder.load(FUSED.folder, |c| Fusion::load(c, device))?;
    Ok(Box::new(FusedGuidance { fusion, config, has_prior: folder.has("prior"), adds_style }))
}

impl Family for FusedGuidance {
    /// Where there is a prior, which prompts need.
    fn reads_words(&self) -> bool {
        self.has_prior
    }

    fn reads_styles(&self) -> bool {
        true
    }

    fn draws(&self) -> bool {
        self.has_prior
    }

    fn check(&self, request: &GenerateRequest) -> Result<()> {
        request.validate_subject()?;
        refuse_weights(request, "draws from a text as a whole")?;
        if !self.has_prior && texts(request).iter().any(Option::is_some) {
            return Err(Error::weights(
                "component-missing",
                "the model has no component 'prior', which prompts need",
                "leave out the prompts, or use a model with a prior",
            ));
        }
        Ok(())
    }

    fn needs<'a>(&self, request: &'a GenerateRequest, _: Option<&Places>) -> Needs<'a> {
        Needs {
            identities: true,
            faces: false,
            references: false,
            style: (request.effective_alpha() > 0.0).then_some(Style::Ensemble),
            nothing: false,
            texts: Texts::Drawn(texts(request)),
        }
    }

    /// Embeddings to guidance tokens, with the null half of classifier-free guidance where there is any.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        places: Option<&Places>,
        device: &Device,
    ) -> Result<Vec<Guided>> {
        let Self { fusion, config, adds_style, .. } = self;
        let alpha = request.effective_alpha();
        let zero_style = || Tensor::zeros([1, config.image_embed_dim], device);
        let nobody = || Tensor::zeros([1, config.id_embed_dim], device);
        let known = evidence.people.iter().filter_map(|person| person.id_embeds.clone());
        let known: Vec<Tensor<2>> = known.collect();
        let count = known.len().max(1);
        // Nobody was trained as a zero identity (paper section 4.1), which is where strength leads to.
        let people = |acts: &[bool]| -> Vec<Tensor<2>> {
            let acting = known.iter().enumerate().map(|(i, id_embeds)| match acts.get(i) {
                Some(false) => nobody(),
                _ => id_embeds.clone() * request.people.get(i).map_or(1.0, |person| person.strength),
            });
            if known.is_empty() { vec![nobody()] } else { acting.collect() }
        };
        let parts = parts(&request.people);
        let style = evidence.style.as_ref().map(|style| &style.image_embeds);
        let join = |tokens: &dyn Fn(&[bool]) -> Vec<Tensor<3>>, style: Tensor<2>| -> Result<Condition> {
            let added = adds_style.then(|| Added::ClassLabels(style));
            let stream = |(part, acts): &(Range<f32>, Vec<bool>)| {
                let stream = Stream::new(Projection::Own, tokens(acts), places.cloned())?;
                Ok(Stream { interval: part.clone(), ..stream })
            };
            Ok(Condition::new(parts.iter().map(stream).collect::<Result<_>>()?).adding(added))
        };
        let guided = |[prompt, negative]: &[Option<Tensor<2>>; 2]| {
            let tokens = |id_embeds: &Tensor<2>| {
                let branch = |embeds: &Tensor<2>| fusion.forward(embeds.clone(), id_embeds.clone());
                match (style, prompt) {
                    (Some(style), Some(prompt)) => hybrid(branch(style), branch(prompt), alpha),
                    (Some(only), None) | (None, Some(only)) => branch(only),
                    (None, None) => branch(&zero_style()),
                }
            };
            // The Linear of a mixture is the mixture of its branches, so both are told of the same style.
            let style = match (style, prompt) {
                (Some(style), Some(prompt)) => hybrid(style.clone(), prompt.clone(), alpha),
                (Some(only), None) | (None, Some(only)) => only.clone(),
                (None, None) => zero_style(),
            };
            let condition = join(&|acts| people(acts).iter().map(&tokens).collect(), style)?;
            if request.guidance_scale == 1.0 {
                return Ok(Guided { condition, guidance_scale: None });
            }
            let negative = negative.clone().unwrap_or_else(zero_style);
            let null = fusion.forward(negative.clone(), nobody());
            let condition = Condition::cat(join(&|_| vec![null.clone(); count], negative)?, condition)?;
            Ok(Guided { condition, guidance_scale: Some(request.guidance_scale) })
        };
        evidence.drawn.iter().map(guided).collect()
    }
}

/// The prompt and the negative prompt that a request's guidance follows from.
pub(super) fn texts(request: &GenerateRequest) -> [Option<&str>; 2] {
    let negative = request.negative_prompt.as_str();
    [
        Some(request.prompt.as_str()).filter(|_| request.effective_alpha() < 1.0),
        Some(negative).filter(|negative| !negative.trim().is_empty() && request.guidance_scale != 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::evidence::PersonEvidence;
    use super::super::family::made_up::{assert_same, halves, request, row, seen, waves};
    use super::*;

    const STYLE: usize = 5;
    const ID: usize = 3;

    fn family(has_prior: bool) -> FusedGuidance {
        let config =
            FusionConfig { image_embed_dim: STYLE, id_embed_dim: ID, n_tokens: 2, cross_attention_dim: 4 };
        FusedGuidance { fusion: config.init(&Device::flex()).unwrap(), config, has_prior, adds_style: false }
    }

    fn person(phase: f32) -> PersonEvidence {
        PersonEvidence { id_embeds: Some(waves(phase, [1, ID])), ..PersonEvidence::default() }
    }

    fn drawn(phase: f32) -> Option<Tensor<2>> {
        Some(waves(phase, [1, STYLE]))
    }

    fn condition(
        family: &FusedGuidance,
        evidence: &Evidence,
        request: &GenerateRequest,
        places: Option<&Places>,
    ) -> Vec<Guided> {
        family.condition(evidence, request, places, &Device::flex()).unwrap()
    }

    #[test]
    fn each_picture_mixes_the_style_with_what_was_drawn_for_it_and_each_person_has_tokens() {
        let (family, places) = (family(true), halves());
        let linear = |style: Tensor<2>, id: Tensor<2>| family.fusion.forward(style, id);
        let evidence = Evidence {
            people: vec![person(1.0), person(2.0)],
            style: Some(seen(3.0, STYLE, None)),
            drawn: vec![[drawn(4.0), drawn(5.0)], [drawn(6.0), None]],
            ..Evidence::default()
        };
        let request = GenerateRequest { count: 2, ..request(2) };
        let guided = condition(&family, &evidence, &request, Some(&places));
        assert_eq!(guided.len(), 2);
        let zeros = |width: usize| Tensor::<2>::zeros([1, width], &Device::flex());
        for (guided, [prompt, negative]) in guided.iter().zip(&evidence.drawn) {
            assert_eq!(guided.guidance_scale, Some(3.0));
            let [stream] = &guided.condition.streams[..] else { panic!("{guided:?}") };
            assert_eq!(stream.places, Some(places.clone()));
            assert_eq!((stream.projection, stream.tokens.len()), (Projection::Own, 2));
            for (tokens, person) in stream.tokens.iter().zip(&evidence.people) {
                let id = || person.id_embeds.clone().unwrap();
                let style = linear(evidence.style.as_ref().unwrap().image_embeds.clone(), id());
                let prompt = linear(prompt.clone().unwrap(), id());
                assert_same(row(tokens, 1), style * 0.25 + prompt * 0.75);
                // Nobody, and what is moved away from.
                let negative = negative.clone().unwrap_or_else(|| zeros(STYLE));
                assert_same(row(tokens, 0), linear(negative, zeros(ID)));
            }
        }
    }

    #[test]
    fn what_the_unet_adds_is_the_style_that_its_tokens_are_made_of() {
        let family = FusedGuidance { adds_style: true, ..family(true) };
        let evidence = Evidence {
            people: vec![person(1.0)],
            style: Some(seen(3.0, STYLE, None)),
            drawn: vec![[drawn(4.0), drawn(5.0)]],
            ..Evidence::default()
        };
        let guided = condition(&family, &evidence, &request(1), None).swap_remove(0);
        let Some(Added::ClassLabels(labels)) = guided.condition.added else { panic!("nothing is added") };
        let style = evidence.style.as_ref().unwrap().image_embeds.clone() * 0.25 + drawn(4.0).unwrap() * 0.75;
        let difference = labels - Tensor::cat(vec![drawn(5.0).unwrap(), style], 0);
        assert!(difference.abs().max().into_scalar::<f32>() < 1e-6);
        let nothing = Evidence { drawn: vec![[None, None]], ..Evidence::default() };
        let guided = condition(&family, &nothing, &request(0), None).swap_remove(0);
        let Some(Added::ClassLabels(labels)) = guided.condition.added else { panic!("nothing is added") };
        assert_eq!(labels.abs().max().into_scalar::<f32>(), 0.0);
    }

    /// The first is there from a quarter on, at half strength, the second up to three quarters.
    #[test]
    fn people_act_in_their_parts_of_the_steps_at_their_strength() {
        let (family, places) = (family(true), halves());
        let linear = |style: Tensor<2>, id: Tensor<2>| family.fusion.forward(style, id);
        let evidence = Evidence {
            people: vec![person(1.0), person(2.0)],
            style: Some(seen(3.0, STYLE, None)),
            drawn: vec![[None, None]],
            ..Evidence::default()
        };
        let mut request = request(2);
        (request.people[0].strength, request.people[0].start, request.people[1].end) = (0.5, 0.25, 0.75);
        let guided = condition(&family, &evidence, &request, Some(&places)).swap_remove(0);
        let intervals: Vec<_> =
            guided.condition.streams.iter().map(|stream| stream.interval.clone()).collect();
        assert_eq!(intervals, [0.0..0.25, 0.25..0.75, 0.75..1.0]);
        let style = || evidence.style.as_ref().unwrap().image_embeds.clone();
        let nobody = Tensor::<2>::zeros([1, ID], &Device::flex());
        let [first, second] = [0, 1].map(|i: usize| evidence.people[i].id_embeds.clone().unwrap());
        let half = first * 0.5;
        let there = [[nobody.clone(), second.clone()], [half.clone(), second], [half, nobody]];
        for (stream, people) in guided.condition.streams.iter().zip(there) {
            assert_eq!(stream.places, Some(places.clone()));
            for (tokens, id) in stream.tokens.iter().zip(people) {
                assert_same(row(tokens, 1), linear(style(), id));
            }
        }
    }

    #[test]
    fn what_is_not_there_is_left_out_or_zero() {
        let family = family(true);
        let linear = |style: Tensor<2>, id: Tensor<2>| family.fusion.forward(style, id);
        let plain = GenerateRequest { guidance_scale: 1.0, ..request(0) };
        let tokens = |evidence: &Evidence| {
            let guided = condition(&family, evidence, &plain, None).swap_remove(0);
            assert_eq!(guided.guidance_scale, None);
            guided.condition.streams[0].tokens[0].clone()
        };
        let style = || Some(seen(3.0, STYLE, None));
        let nobody = || Tensor::zeros([1, ID], &Device::flex());
        let alone = Evidence { style: style(), drawn: vec![[None, None]], ..Evidence::default() };
        assert_same(tokens(&alone), linear(style().unwrap().image_embeds, nobody()));
        let worded = Evidence { drawn: vec![[drawn(4.0), None]], ..Evidence::default() };
        assert_same(tokens(&worded), linear(drawn(4.0).unwrap(), nobody()));
        let face = Evidence { people: vec![person(1.0)], drawn: vec![[None, None]], ..Evidence::default() };
        let zeros = Tensor::zeros([1, STYLE], &Device::flex());
        assert_same(tokens(&face), linear(zeros, waves(1.0, [1, ID])));
    }

    #[test]
    fn a_family_without_a_prior_refuses_words_and_asks_for_none() {
        let (with, without) = (family(true), family(false));
        with.check(&request(1)).unwrap();
        assert_eq!(without.check(&request(1)).unwrap_err().code, "component-missing");
        let styled = GenerateRequest { prompt: String::new(), ..request(1) };
        without.check(&styled).unwrap();
        assert!(matches!(without.needs(&styled, None).texts, Texts::Drawn([None, None])));
        let needs = with.needs(&styled, None);
        assert_eq!((needs.identities, needs.style, needs.faces), (true, Some(Style::Ensemble), false));
        let worded = GenerateRequest { style: None, negative_prompt: "a hat".to_owned(), ..request(1) };
        let needs = with.needs(&worded, None);
        assert!(matches!(needs.texts, Texts::Drawn([Some("a man"), Some("a hat")])) && needs.style.is_none());
        let beside = GenerateRequest { alpha: 0.0, style: request(1).style, ..worded.clone() };
        assert!(with.needs(&beside, None).style.is_none(), "it does not count");
        let unguided = GenerateRequest { guidance_scale: 1.0, ..worded };
        assert!(matches!(with.needs(&unguided, None).texts, Texts::Drawn([Some("a man"), None])));
    }
}
