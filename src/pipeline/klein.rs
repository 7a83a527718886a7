//! FLUX.2 klein: people, a style and a start picture are reference pictures, beside a text that says what each is.
//!
//! References have numbers in this order: the start picture, each person's photos with the people from left to right, the style
//! image. β is how strongly a person's photos are seen, `α / (1 − α)` how strongly the style image is, 1 being the model as it
//! is; with several people, each one's photos are seen in their region alone.

use burn::tensor::{Device, Tensor};

use super::chat::ChatReader;
use super::evidence::{Evidence, Needs, Style, Texts};
use super::family::{Denoises, Family, Guided, Kind};
use super::folder::ModelFolder;
use super::index::KleinIndex;
use super::prompt::{PromptKind, refuse_weights};
use crate::condition::{Added, Condition, Places, Reference};
use crate::error::{Error, Result};
use crate::request::{GenerateRequest, Identity, Numbers, Person};
use crate::transformer::Flux2Transformer2DConfig;

/// The family of FLUX.2 klein.
pub const KLEIN: Kind =
    Kind { folder: "transformer", needs_face_encoder: false, denoises: Denoises::Flux2 { fits, open } };

/// Most reference pictures of a model; FLUX.2 klein's publisher takes four.
const MOST_REFERENCES: usize = 4;

/// What makes conditions of text and latents; it has no network of its own.
#[derive(Debug)]
pub struct KleinGuidance {
    /// Whether it draws without guidance.
    distilled: bool,
}

fn fits(folder: &ModelFolder, transformer: &Flux2Transformer2DConfig) -> Result<()> {
    if transformer.guidance_embeds {
        return Err(Error::weights(
            "config-unsupported",
            "the transformer takes a guidance scale (guidance_embeds), as FLUX.2 [dev] does and klein does not",
            "use a FLUX.2 klein",
        ));
    }
    ChatReader::fits(folder, transformer.joint_attention_dim)
}

fn open(folder: &ModelFolder) -> Result<Box<dyn Family>> {
    Ok(Box::new(KleinGuidance::new(KleinIndex::read(folder.files())?.distilled)))
}

impl KleinGuidance {
    /// Of a model that is distilled, and so draws without guidance, or not.
    pub fn new(distilled: bool) -> Self {
        Self { distilled }
    }
}

impl Family for KleinGuidance {
    fn reads_words(&self) -> bool {
        true
    }

    fn reads_styles(&self) -> bool {
        true
    }

    fn sees_references(&self) -> bool {
        true
    }

    /// Refuses what has no meaning for pictures that are seen as they are, or for a model without guidance.
    fn check(&self, request: &GenerateRequest) -> Result<()> {
        if request.init.is_none() {
            request.validate_subject()?;
        }
        refuse_weights(request, "reads a text as language, whose words have no weights")?;
        if let Some(i) = request.people.iter().position(|person| person.acts().1 != (0.0..1.0)) {
            return Err(Error::input(
                "identity-steps-unsupported",
                format!(
                    "person {} is to act in a part of the steps, and this model sees the same pictures in all of them",
                    i + 1
                ),
                "leave start and end out; strength says how strongly a person is seen",
            ));
        }
        if let Some(i) = request.people.iter().position(|person| identities(person).count() > 1) {
            return Err(Error::input(
                "mix-unsupported",
                format!(
                    "person {} mixes identities, but this model sees the photos themselves, which have no mean",
                    i + 1
                ),
                "give one identity per person",
            ));
        }
        let count = numbers(request, None).count();
        if count > MOST_REFERENCES {
            return Err(Error::input(
                "references-count",
                format!(
                    "the request has {count} pictures that the model is to see: photos, a style image and a start picture; it \
                     takes {MOST_REFERENCES}"
                ),
                "give fewer photos, or leave the style image or the start picture out",
            ));
        }
        let guided = request.guidance_scale != 1.0;
        let negative = !request.negative_prompt.trim().is_empty();
        if self.distilled && guided {
            return Err(Error::input(
                "guidance-distilled",
                format!(
                    "this model is distilled: it has no guidance, so none of scale {}",
                    request.guidance_scale
                ),
                "use a guidance scale of 1",
            ));
        }
        if negative && !guided {
            return Err(Error::input(
                "guidance-distilled",
                "a negative prompt is what guidance moves away from, and there is none at a guidance scale of 1",
                if self.distilled {
                    "leave the negative prompt out: this model is distilled and has no guidance"
                } else {
                    "leave the negative prompt out, or use a guidance scale above 1"
                },
            ));
        }
        Ok(())
    }

    fn needs<'a>(&self, request: &'a GenerateRequest, places: Option<&Places>) -> Needs<'a> {
        let numbers = numbers(request, places);
        let roles = request.roles.clone().unwrap_or_default();
        let prompt = if request.effective_alpha() < 1.0 { request.prompt.as_str() } else { "" };
        let mut texts = vec![(PromptKind::Prompt, roles.text(&numbers, prompt))];
        if request.guidance_scale != 1.0 {
            texts.push((PromptKind::NegativePrompt, request.negative_prompt.clone()));
        }
        Needs {
            identities: false,
            faces: false,
            references: true,
            style: numbers.style.map(|_| Style::Reference),
            nothing: false,
            texts: Texts::Chats(texts),
        }
    }

    /// The text and every picture that is seen, the same for all pictures of the request; with guidance, the null half sees them as
    /// well and reads the negative prompt, as in diffusers' `Flux2KleinPipeline`.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        places: Option<&Places>,
        _: &Device,
    ) -> Result<Vec<Guided>> {
        let unread = || Error::internal("condition-shape", "a text or a picture was not read");
        let mut texts = evidence.tokens.iter().cloned();
        let mut text = texts.next().ok_or_else(unread)?;
        let guidance_scale = Some(request.guidance_scale).filter(|scale| *scale != 1.0);
        if guidance_scale.is_some() {
            text = Tensor::cat(vec![texts.next().ok_or_else(unread)?, text], 0);
        }
        let numbers = numbers(request, places);
        let regions = places.map(Places::weights);
        let mut pictures = Vec::new();
        if let Some(number) = numbers.start {
            pictures.push(Reference::new(evidence.start.clone().ok_or_else(unread)?, number));
        }
        for (person, photos) in &numbers.people {
            let strength: f32 = identities(&request.people[*person]).map(|identity| identity.beta).sum();
            let strength = strength * request.people[*person].strength;
            let region = regions.as_ref().map(|regions| regions[*person].clone());
            let read = &evidence.people.get(*person).ok_or_else(unread)?.references;
            if read.len() != photos.len() {
                return Err(unread());
            }
            pictures.extend(photos.iter().zip(read).map(|(number, latents)| Reference {
                strength,
                region: region.clone(),
                ..Reference::new(latents.clone(), *number)
            }));
        }
        if let Some(number) = numbers.style {
            let latents = evidence.style_reference.clone().ok_or_else(unread)?;
            pictures.push(Reference { strength: style_strength(request), ..Reference::new(latents, number) });
        }
        let condition = Condition::single(text).adding(Some(Added::References { pictures, guidance: None }));
        Ok(vec![Guided { condition, guidance_scale }; request.count])
    }
}

/// Those that have photos.
fn identities(person: &Person) -> impl Iterator<Item = &Identity> {
    person.identities.iter().filter(|identity| !identity.photos.is_empty())
}

/// Which picture is which. Whoever has no place in the picture is not among them.
fn numbers(request: &GenerateRequest, places: Option<&Places>) -> Numbers {
    let mut last = 0;
    let mut next = || {
        last += 1;
        last
    };
    let start = request.init.as_ref().map(|_| next());
    let photos = |person: &Person| identities(person).map(|identity| identity.photos.len()).sum::<usize>();
    let people = from_left_to_right(request.people.len(), places);
    let people = people.into_iter().map(|i| (i, (0..photos(&request.people[i])).map(|_| next()).collect()));
    let people = people.collect();
    let style = request.style.as_ref().filter(|_| request.effective_alpha() > 0.0).map(|_| next());
    Numbers { start, people, style }
}

/// The people who have a place, by the middle of their regions, so that it does not matter in which order they are given.
fn from_left_to_right(people: usize, places: Option<&Places>) -> Vec<usize> {
    let Some(places) = places else { return (0..people).collect() };
    let (_, width) = places.size();
    let middle = |(i, weights): (usize, Vec<f32>)| {
        let sum = |of: &dyn Fn(usize) -> usize| {
            weights.iter().enumerate().map(|(p, weight)| f64::from(*weight) * of(p) as f64).sum::<f64>()
        };
        let total = sum(&|_| 1);
        (total > 0.0).then(|| ([sum(&|p| p % width) / total, sum(&|p| p / width) / total], i))
    };
    let mut found: Vec<([f64; 2], usize)> =
        places.weights().into_iter().enumerate().filter_map(middle).collect();
    found.sort_by(|([x, y], _), ([u, v], _)| x.total_cmp(u).then(y.total_cmp(v)));
    found.into_iter().map(|(_, i)| i).filter(|i| *i < people).collect()
}

/// How strongly the style image is seen against the prompt: as the model is where both count alike, or where it is alone.
fn style_strength(request: &GenerateRequest) -> f32 {
    let alpha = request.effective_alpha();
    if alpha < 1.0 { alpha / (1.0 - alpha) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::PersonEvidence;
    use super::super::family::made_up::{assert_same, halves, request, row, waves};
    use super::*;
    use crate::condition::Regions;
    use crate::request::InitImage;
    use ::image::RgbImage;

    /// So many people, each with a photo.
    fn asked(people: usize) -> GenerateRequest {
        let photo = || Person::new(vec![RgbImage::new(1, 1)]);
        GenerateRequest {
            people: (0..people).map(|_| photo()).collect(),
            guidance_scale: 1.0,
            alpha: 0.5,
            ..request(0)
        }
    }

    fn said(family: &KleinGuidance, request: &GenerateRequest, places: Option<&Places>) -> Vec<String> {
        let Texts::Chats(texts) = family.needs(request, places).texts else { panic!("it reads chats") };
        texts.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn four_pictures_are_seen_and_a_fifth_is_refused() {
        let family = KleinGuidance::new(true);
        // Beside the style image.
        family.check(&asked(3)).unwrap();
        assert_eq!(family.check(&asked(4)).unwrap_err().code, "references-count");
    }

    #[test]
    fn a_part_of_the_steps_is_refused() {
        let family = KleinGuidance::new(true);
        for (start, end) in [(0.0, 0.5), (0.5, 1.0)] {
            let mut request = asked(2);
            (request.people[1].start, request.people[1].end) = (start, end);
            let error = family.check(&request).unwrap_err();
            assert!(
                error.code == "identity-steps-unsupported" && error.message.contains("person 2"),
                "{error}"
            );
        }
    }

    #[test]
    fn pictures_are_numbered_from_left_to_right_and_told_of_before_the_prompt() {
        let family = KleinGuidance::new(true);
        let init = Some(InitImage { image: RgbImage::new(1, 1), strength: 0.5, mask: None });
        let mut two = GenerateRequest { init, ..asked(2) };
        two.people[1].identities[0].photos.push(RgbImage::new(1, 1).into());
        let sentences = |first: &str, second: &str| {
            format!(
                "Change image 1. Keep the face of the person in {first}. Keep the face of the person in {second}. \
                 Draw in the style of image 5. a man"
            )
        };
        assert_eq!(said(&family, &two, Some(&halves())), [sentences("image 2", "images 3 and 4")]);
        let swapped = Regions::new(1, 2, vec![vec![0.0, 1.0], vec![1.0, 0.0]], 0).unwrap();
        let swapped = Places::Regions(swapped);
        assert_eq!(said(&family, &two, Some(&swapped)), [sentences("images 2 and 3", "image 4")]);
        assert_eq!(numbers(&two, Some(&swapped)).people, [(1, vec![2, 3]), (0, vec![4])]);
        // Whoever is nowhere has no number.
        let nowhere = Places::Regions(Regions::new(1, 2, vec![vec![1.0, 1.0], vec![0.0, 0.0]], 0).unwrap());
        assert_eq!(numbers(&two, Some(&nowhere)).people, [(0, vec![2])]);
        assert_eq!(numbers(&two, Some(&nowhere)).style, Some(3));

        // Of the style alone nothing is said, of the prompt alone the style is not seen.
        let of = |alpha| said(&family, &GenerateRequest { alpha, ..asked(0) }, None);
        assert_eq!(of(1.0), ["Draw in the style of image 1."]);
        assert_eq!(of(0.0), ["a man"]);
        let guided = GenerateRequest {
            guidance_scale: 3.0,
            negative_prompt: "fog".to_owned(),
            roles: Some(crate::request::Roles::silent()),
            ..asked(1)
        };
        assert_eq!(said(&KleinGuidance::new(false), &guided, None), ["a man", "fog"]);
    }

    #[test]
    fn strengths_and_regions_are_the_requests() {
        let family = KleinGuidance::new(false);
        let latents = |phase| waves(phase, [1, 2, 1, 1]);
        let evidence = Evidence {
            people: [1.0, 2.0]
                .map(|phase| PersonEvidence { references: vec![latents(phase)], ..PersonEvidence::default() })
                .into(),
            style_reference: Some(latents(3.0)),
            tokens: vec![waves(4.0, [1, 3, 5]), waves(5.0, [1, 3, 5])],
            ..Evidence::default()
        };
        let mut two = GenerateRequest { guidance_scale: 3.0, alpha: 0.8, count: 2, ..asked(2) };
        (two.people[1].identities[0].beta, two.people[1].strength) = (0.5, 0.5);
        let guided = family.condition(&evidence, &two, Some(&halves()), &Device::flex()).unwrap();
        assert_eq!((guided.len(), guided[0].guidance_scale), (2, Some(3.0)));
        let [stream] = &guided[0].condition.streams[..] else { panic!("one text") };
        assert_same(row(&stream.tokens[0], 0), evidence.tokens[1].clone());
        assert_same(row(&stream.tokens[0], 1), evidence.tokens[0].clone());
        let seen = guided[0].condition.references().iter();
        let seen: Vec<_> = seen.map(|r| (r.number, (r.strength * 100.0).round(), r.region.clone())).collect();
        assert_eq!(
            seen,
            [
                (1, 100.0, Some(vec![1.0, 0.0])),
                (2, 25.0, Some(vec![0.0, 1.0])),
                // α / (1 − α)
                (3, 400.0, None)
            ]
        );
        // Alone, a person is seen everywhere, by text and style as well.
        let one = family.condition(&evidence, &asked(1), None, &Device::flex()).unwrap();
        assert!(one[0].condition.references().iter().all(|r| r.region.is_none() && r.strength == 1.0));
        // What was not read is no condition.
        let error = family.condition(&Evidence::default(), &two, None, &Device::flex()).unwrap_err();
        assert_eq!(error.code, "condition-shape");
    }
}
