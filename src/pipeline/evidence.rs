//! What is known of a request's photos, style image and texts. All reading, remembering, counting and awaiting is here, once
//! for all families; what follows from it is a family's to say.

use std::hash::Hash;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};

use super::cache::Key;
use super::embed;
use super::progress::{Encoding, Host};
use super::prompt::{PRIOR_STREAM, PromptKind, TextEmbeds, unused_notices};
use super::readers::{Readers, see};
use super::references::ReferenceReader;
use super::regions::{self, Canvas, Finder};
use crate::encoders::vision::VisionOutput;
use crate::error::{Notice, Result};
use crate::image::mask::Mask;
use crate::image::reference::head_and_shoulders;
use crate::request::{GenerateRequest, Layout, Person};
use crate::sampling::NoiseSource;

/// What a family wants to know of a request.
#[derive(Debug)]
pub struct Needs<'a> {
    /// Of each person, the identity.
    pub identities: bool,
    /// Of each photo, what the vision encoder sees of its face, cut out in the pose of the identity encoder's template.
    pub faces: bool,
    /// Of each photo, head and shoulders as latents.
    pub references: bool,
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
    /// As latents, whole.
    Reference,
}

/// Which texts are read, and what of.
#[derive(Debug)]
pub enum Texts<'a> {
    /// None.
    None,
    /// The tokens of each, by its weights and in as many chunks as it needs.
    Tokens(Vec<&'a str>),
    /// Each as a turn of a chat, of which what is too long is told.
    Chats(Vec<(PromptKind, String)>),
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
    /// Latents of the style image, `[1, channels, height, width]`.
    pub style_reference: Option<Tensor<4>>,
    /// Latents of the picture that is started from.
    pub start: Option<Tensor<4>>,
    /// What the vision encoder says to nothing.
    pub nothing: Option<VisionOutput>,
    /// Of each of [`Texts::Tokens`] or [`Texts::Chats`], `[1, tokens, channels]`, padded to the context's length or, in chunks, to
    /// multiples of it.
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
    /// Latents of each photo, `[1, channels, height, width]`.
    pub references: Vec<Tensor<4>>,
}

/// One mask per person over the latents; none for a layout without regions.
pub async fn masks(
    readers: &Readers,
    request: &GenerateRequest,
    canvas: &Canvas,
    host: &mut impl Host,
    device: &Device,
) -> Result<Vec<Mask>> {
    let detector = readers.detector().ok();
    let Layout::Content(content) = &request.layout else {
        return regions::masks(request, canvas, Finder { detector, segmenter: None }, device).await;
    };
    let key = Key::new("people", |hasher| (content, request.people.len(), canvas).hash(hasher));
    let find = async || {
        let segmenter = match &readers.segmenter {
            Some(segmenter) => Some(segmenter.get(host).await?),
            None => None,
        };
        let finder = Finder { detector, segmenter: segmenter.as_deref() };
        regions::masks(request, canvas, finder, device).await
    };
    readers.cache.remember(key, find).await
}

/// Reads what is needed of a request: a step for each photo and the style image; for texts one, or one for each picture where
/// they are drawn. What was read before is not read again, and what is needed only for that stays where it is.
pub async fn gather(
    readers: &Readers,
    needs: &Needs<'_>,
    pictures: &ReferenceReader<'_>,
    request: &GenerateRequest,
    host: &mut impl Host,
    device: &Device,
) -> Result<Evidence> {
    let style = request.style.as_ref().zip(needs.style);
    let texts = match &needs.texts {
        Texts::Drawn(texts) if texts.iter().all(Option::is_none) => 0,
        Texts::Drawn(_) => request.count,
        Texts::None | Texts::Tokens(_) | Texts::Chats(_) => 1,
    };
    let mut encoding = Encoding::new(host, request, style.is_some(), texts);
    let mut evidence = Evidence::default();
    if needs.nothing {
        let look = async || see(&*readers.vision_encoder(encoding.host).await?, None, device);
        evidence.nothing = Some(readers.cache.remember(Key::new("nothing", |_| ()), look).await?);
    }
    for (i, person) in request.people.iter().enumerate() {
        evidence
            .people
            .push(read_person(readers, needs, pictures, (i, person), &mut encoding, device).await?);
    }
    if let Some((picture, how)) = style {
        let people = !request.people.is_empty();
        if how == Style::Reference {
            let key = Key::new("reference", |hasher| (picture, pictures.area).hash(hasher));
            let read = async || pictures.latents(picture, device);
            evidence.style_reference = Some(readers.cache.remember(key, read).await?);
        } else {
            evidence.style = Some(read_style(readers, how, picture, people, encoding.host, device).await?);
        }
        encoding.advance().await?;
    }
    match &needs.texts {
        Texts::None => encoding.advance().await?,
        Texts::Tokens(texts) => {
            let mut used = vec![false; request.embeddings.len()];
            for text in texts {
                let (tokens, here) = read_weighted(readers, text, request, encoding.host).await?;
                evidence.tokens.push(tokens);
                used.iter_mut().zip(here).for_each(|(used, here)| *used |= here);
            }
            evidence.notices.extend(unused_notices(&request.embeddings, &used));
            encoding.advance().await?;
        }
        Texts::Chats(texts) => {
            for (kind, text) in texts {
                let (tokens, notice) = read_chat(readers, *kind, text, encoding.host, device).await?;
                evidence.tokens.push(tokens);
                evidence.notices.extend(notice);
            }
            encoding.advance().await?;
        }
        Texts::Drawn([None, None]) => evidence.drawn = vec![[None, None]; request.count],
        Texts::Drawn(texts) => draw(readers, *texts, request, &mut evidence, &mut encoding).await?,
    }
    Ok(evidence)
}

/// One person's photos.
async fn read_person(
    readers: &Readers,
    needs: &Needs<'_>,
    pictures: &ReferenceReader<'_>,
    (index, person): (usize, &Person),
    encoding: &mut Encoding<'_, impl Host>,
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
                let look = async || {
                    let landmarks = embed::landmarks(readers, photo, &name, device).await?;
                    let vision = readers.vision_encoder(encoding.host).await?;
                    let preprocessing = vision.preprocessing();
                    let face = embed::aligned(&photo.image, &landmarks, preprocessing.size)?;
                    see(&vision, Some(preprocessing.tensor(&face, device)?), device)
                };
                let weight = identity.beta / identity.photos.len() as f32;
                read.faces.push((weight, readers.cache.remember(key, look).await?));
            }
            if needs.references {
                let key = Key::new("portrait", |hasher| (photo, pictures.area).hash(hasher));
                let look = async || {
                    let landmarks = embed::landmarks(readers, photo, &name, device).await?;
                    let portrait = head_and_shoulders(&photo.image, &landmarks);
                    let latents = portrait.and_then(|portrait| pictures.latents(&portrait, device));
                    latents.map_err(|e| e.context(&name))
                };
                read.references.push(readers.cache.remember(key, look).await?);
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
    host: &mut impl Host,
    device: &Device,
) -> Result<VisionOutput> {
    let hides = people && how == Style::Ensemble;
    let key = Key::new("style", |hasher| (picture, hides).hash(hasher));
    let look = async || match how {
        Style::Ensemble => {
            let detector = if hides { Some(readers.detector()?) } else { None };
            let vision = readers.ensemble(host).await?;
            let image_embeds = embed::style(&vision, detector, picture, device).await?;
            Ok(VisionOutput { image_embeds, last_hidden_state: None, penultimate_hidden_state: None })
        }
        Style::Whole | Style::Reference => {
            let vision = readers.vision_encoder(host).await?;
            see(&vision, Some(vision.preprocessing().tensor(picture, device)?), device)
        }
    };
    readers.cache.remember(key, look).await
}

/// What a text becomes by its weights, and which of the request's embeddings stand in it.
async fn read_weighted(
    readers: &Readers,
    text: &str,
    request: &GenerateRequest,
    host: &mut impl Host,
) -> Result<(Tensor<3>, Vec<bool>)> {
    let GenerateRequest { clip_skip, embeddings, .. } = request;
    let key = Key::new("tokens", |hasher| {
        (text, clip_skip).hash(hasher);
        embeddings.iter().for_each(|own| (own.word(), own.sha256()).hash(hasher));
    });
    let read = async || readers.text(host).await?.weighted(text, *clip_skip, embeddings);
    readers.cache.remember(key, read).await
}

/// What a text becomes, and what of it is not read.
async fn read_text(
    readers: &Readers,
    kind: PromptKind,
    text: &str,
    host: &mut impl Host,
) -> Result<(TextEmbeds, Option<Notice>)> {
    let key = Key::new("text", |hasher| (kind, text).hash(hasher));
    let read = async || {
        let reader = readers.text(host).await?;
        Ok((reader.encode(&[text])?, reader.cut(kind, text)?))
    };
    readers.cache.remember(key, read).await
}

/// What a text becomes as a turn of a chat, and what of it is not read.
async fn read_chat(
    readers: &Readers,
    kind: PromptKind,
    text: &str,
    host: &mut impl Host,
    device: &Device,
) -> Result<(Tensor<3>, Option<Notice>)> {
    let key = Key::new("chat", |hasher| (kind, text).hash(hasher));
    let read = async || {
        let reader = readers.chat(host, device).await?;
        Ok((reader.encode(text)?, reader.cut(kind, text)))
    };
    readers.chats.remember(key, read).await
}

/// What the prior draws of the texts, with each picture's own noise.
async fn draw(
    readers: &Readers,
    texts: [Option<&str>; 2],
    request: &GenerateRequest,
    evidence: &mut Evidence,
    encoding: &mut Encoding<'_, impl Host>,
) -> Result<()> {
    let mut read = [None, None];
    for (i, kind) in [PromptKind::Prompt, PromptKind::NegativePrompt].into_iter().enumerate() {
        if let Some(text) = texts[i] {
            let (embeds, notice) = read_text(readers, kind, text, encoding.host).await?;
            read[i] = Some(embeds);
            evidence.notices.extend(notice);
        }
    }
    let key = Key::new("drawn", |hasher| (texts, request.seed, request.count).hash(hasher));
    if let Some(drawn) = readers.cache.get::<Vec<[Option<Tensor<2>>; 2]>>(key) {
        for drawn in drawn {
            evidence.drawn.push(drawn);
            encoding.advance().await?;
        }
        return Ok(());
    }
    let prior = readers.prior(encoding.host).await?;
    for picture in 0..request.count {
        let noise = NoiseSource::new(request.seed.wrapping_add(picture as u64));
        let drawn = |i: usize| read[i].as_ref().map(|t| prior.embed(t, &noise, PRIOR_STREAM)).transpose();
        evidence.drawn.push([drawn(0)?, drawn(1)?]);
        encoding.advance().await?;
    }
    readers.cache.put(key, evidence.drawn.clone());
    Ok(())
}
