//! What is known of a request's photos, style image and texts. All reading, remembering, counting and awaiting is here, once
//! for all families; what follows from it is a family's to say.

use std::hash::Hash;
use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};

use super::cache::Key;
use super::embed;
use super::folder::missing;
use super::progress::{Encoding, Progress, Watcher};
use super::prompt::{PRIOR_STREAM, Said, TextBranch};
use super::readers::{Readers, TextReader};
use crate::encoders::vision::VisionOutput;
use crate::error::{Notice, Result};
use crate::request::{GenerateRequest, Person};
use crate::sampling::NoiseSource;

/// What a family wants to know of a request.
#[derive(Debug)]
pub struct Needs<'a> {
    /// Of each person, the identity.
    pub identities: bool,
    /// Of each photo, what the vision encoder sees of its face, cut out in the pose of the identity encoder's template.
    pub faces: bool,
    /// Of the style image, what is seen of it.
    pub style: Option<Style>,
    /// What the vision encoder says to nothing.
    pub nothing: bool,
    /// Which texts, and how they are read.
    pub texts: Texts<'a>,
}

/// How a style image is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// By all vision encoders together, with its faces hidden where the request has people (paper section 3.1).
    Ensemble,
    /// By the first vision encoder, whole: adapters were trained on pictures with their faces, and would draw a hidden one.
    Whole,
}

/// Which texts are read, and what of.
#[derive(Debug)]
pub enum Texts<'a> {
    /// None.
    None,
    /// The tokens of each, of which those that the request says are told of where they are too long.
    Tokens(Vec<(Option<Said>, &'a str)>),
    /// What a prior draws of prompt and negative prompt, for each picture anew.
    Drawn([Option<&'a str>; 2]),
}

/// What is known.
#[derive(Debug, Default)]
pub struct Evidence {
    /// In the request's order.
    pub people: Vec<PersonEvidence>,
    /// The style image; an ensemble's embedding has no states.
    pub style: Option<VisionOutput>,
    /// What the vision encoder says to nothing.
    pub nothing: Option<VisionOutput>,
    /// Of each of [`Texts::Tokens`], `[1, tokens, channels]`, padded to the context's length.
    pub tokens: Vec<Tensor<3>>,
    /// Of each picture with [`Texts::Drawn`], the prompt's and the negative prompt's embedding, `[1, image_embed_dim]`.
    pub drawn: Vec<[Option<Tensor<2>>; 2]>,
    /// What of the texts is not read.
    pub notices: Vec<Notice>,
}

/// What is known of a person.
#[derive(Debug, Default)]
pub struct PersonEvidence {
    /// The identity, its parts mixed by β, `[1, id_embed_dim]`.
    pub id_embeds: Option<Tensor<2>>,
    /// Each photo's face with its weight, which is β shared by the identity's photos.
    pub faces: Vec<(f32, VisionOutput)>,
}

/// Reads what is needed of a request: a step for each photo and the style image; for texts one, or one for each picture where
/// they are drawn.
pub async fn gather<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
    readers: &Readers,
    needs: &Needs<'_>,
    request: &GenerateRequest,
    watcher: &mut Watcher<W>,
    device: &Device,
) -> Result<Evidence> {
    let style = request.style.as_ref().zip(needs.style);
    let texts = match &needs.texts {
        Texts::Drawn(texts) if texts.iter().all(Option::is_none) => 0,
        Texts::Drawn(_) => request.count,
        Texts::None | Texts::Tokens(_) => 1,
    };
    let mut encoding = watcher.encoding(request, style.is_some(), texts);
    let mut evidence = Evidence::default();
    if needs.nothing {
        let see = async || readers.see(None, device);
        evidence.nothing = Some(readers.cache.remember(Key::new("nothing", |_| ()), see).await?);
    }
    for (i, person) in request.people.iter().enumerate() {
        evidence.people.push(read_person(readers, needs, (i, person), &mut encoding, device).await?);
    }
    if let Some((picture, how)) = style {
        evidence.style = Some(read_style(readers, how, picture, !request.people.is_empty(), device).await?);
        encoding.advance().await?;
    }
    match &needs.texts {
        Texts::None => encoding.advance().await?,
        Texts::Tokens(texts) => {
            let Some(reader @ TextReader::Tokens { tokenizer, encoder }) = &readers.text else {
                return Err(missing("text_encoder"));
            };
            for (said, text) in texts {
                evidence.tokens.push(encoder.states(tokenizer, text)?);
                if let Some(said) = said {
                    evidence.notices.extend(reader.cut(*said, text)?);
                }
            }
            encoding.advance().await?;
        }
        Texts::Drawn([None, None]) => evidence.drawn = vec![[None, None]; request.count],
        Texts::Drawn(texts) => {
            let Some(reader @ TextReader::Prior(branch)) = &readers.text else {
                return Err(missing("prior"));
            };
            for (said, text) in [Said::Prompt, Said::NegativePrompt].into_iter().zip(texts) {
                if let Some(text) = text {
                    evidence.notices.extend(reader.cut(said, text)?);
                }
            }
            draw(branch, *texts, request, &mut evidence, &mut encoding).await?;
        }
    }
    Ok(evidence)
}

/// One person's photos.
async fn read_person<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
    readers: &Readers,
    needs: &Needs<'_>,
    (index, person): (usize, &Person),
    encoding: &mut Encoding<'_, W>,
    device: &Device,
) -> Result<PersonEvidence> {
    let (mut read, mut embeddings, mut number) = (PersonEvidence::default(), Vec::new(), 0);
    for identity in &person.identities {
        for photo in &identity.photos {
            number += 1;
            let name = format!("photo {number} of person {}", index + 1);
            if needs.identities {
                embeddings.push(embed::identity(readers, photo, &name, device).await?);
            }
            if needs.faces {
                let key = Key::new("face", |hasher| photo.hash(hasher));
                let see = async || {
                    let preprocessing = readers.vision_encoder()?.preprocessing();
                    let face = embed::largest(readers, photo, &name, device).await?;
                    let face = embed::aligned(photo, &face, preprocessing.size)?;
                    readers.see(Some(preprocessing.tensor(&face, device)?), device)
                };
                let weight = identity.beta / identity.photos.len() as f32;
                read.faces.push((weight, readers.cache.remember(key, see).await?));
            }
            encoding.advance().await?;
        }
    }
    if needs.identities {
        read.id_embeds = Some(embed::mixed(person, &mut embeddings.into_iter(), device));
    }
    Ok(read)
}

/// The style image, with its faces hidden from an ensemble where there are `people`.
async fn read_style(
    readers: &Readers,
    how: Style,
    picture: &RgbImage,
    people: bool,
    device: &Device,
) -> Result<VisionOutput> {
    let hides = people && how == Style::Ensemble;
    let key = Key::new("style", |hasher| (picture, hides).hash(hasher));
    let see = async || match how {
        Style::Ensemble => {
            let detector = hides.then_some(readers.detector.as_ref());
            let image_embeds = embed::style(&readers.vision, detector, picture, device).await?;
            Ok(VisionOutput { image_embeds, last_hidden_state: None, penultimate_hidden_state: None })
        }
        Style::Whole => {
            let preprocessing = readers.vision_encoder()?.preprocessing();
            readers.see(Some(preprocessing.tensor(picture, device)?), device)
        }
    };
    readers.cache.remember(key, see).await
}

/// What the prior draws of the texts, with each picture's own noise.
async fn draw<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
    branch: &TextBranch,
    texts: [Option<&str>; 2],
    request: &GenerateRequest,
    evidence: &mut Evidence,
    encoding: &mut Encoding<'_, W>,
) -> Result<()> {
    let read = |text: Option<&str>| text.map(|text| branch.encode(&[text])).transpose();
    let texts = [read(texts[0])?, read(texts[1])?];
    for picture in 0..request.count {
        let noise = NoiseSource::new(request.seed.wrapping_add(picture as u64));
        let drawn = |i: usize| texts[i].as_ref().map(|t| branch.embed(t, &noise, PRIOR_STREAM)).transpose();
        evidence.drawn.push([drawn(0)?, drawn(1)?]);
        encoding.advance().await?;
    }
    Ok(())
}
