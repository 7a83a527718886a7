//! FaceStudio's own guidance: style and identity fused into tokens, prompts through the prior (paper sections 3.1 to 3.3).

use std::hash::Hash;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};

use super::cache::Key;
use super::models::{Encoders, ModelFolder, same};
use super::prompt::{PRIOR_STREAM, Said, TextBranch, cut};
use super::{Guided, Progress, Watcher, embed};
use crate::condition::{Condition, Places, Projection, Regions, Stream};
use crate::encoders::vision::{VisionEncoder, VisionEnsemble};
use crate::error::{Error, Notice, Result};
use crate::guidance::fusion::{Fusion, FusionConfig, hybrid};
use crate::request::GenerateRequest;
use crate::sampling::NoiseSource;

/// Vision ensemble, prior and the shared Linear.
#[derive(Debug)]
pub struct FusedGuidance {
    /// `vision_encoder/`, `vision_encoder_2/`, and so on.
    vision: VisionEnsemble,
    /// `tokenizer/`, `text_encoder/` and `prior/`; a folder without a prior draws from style images alone.
    text: Option<TextBranch>,
    /// `guidance/`.
    fusion: Fusion,
    /// Width of the identity embedding.
    id_embed_dim: usize,
}

impl FusedGuidance {
    /// Loads the folders, whose `guidance/config.json` is `config`.
    pub(super) fn load(folder: &ModelFolder, config: &FusionConfig, device: &Device) -> Result<Self> {
        let mut encoders = vec![folder.load("vision_encoder", |c| VisionEncoder::load(c, device))?];
        for k in 2.. {
            let name = format!("vision_encoder_{k}");
            if !folder.has(&name) {
                break;
            }
            encoders.push(folder.load(&name, |c| VisionEncoder::load(c, device))?);
        }
        let vision = VisionEnsemble { encoders };
        let style_width = vision.embed_dim();
        same("guidance's styles", config.image_embed_dim, "the vision encoders together", style_width)?;
        let text = if folder.has("prior") { Some(TextBranch::load(folder, device)?) } else { None };
        if let Some(text) = &text {
            same("the prior", text.prior.embedding_dim(), "the vision encoders together", style_width)?;
        }
        let fusion = folder.load("guidance", |c| Fusion::load(c, device))?;
        Ok(Self { vision, text, fusion, id_embed_dim: config.id_embed_dim })
    }

    /// Whether there is a prior, which prompts need.
    pub fn reads_words(&self) -> bool {
        self.text.is_some()
    }

    /// What of the texts is not read.
    pub(super) fn notices(&self, request: &GenerateRequest) -> Result<Vec<Notice>> {
        let Some(branch) = &self.text else { return Ok(Vec::new()) };
        let length = branch.text_encoder.context_length();
        let mut notices = Vec::new();
        for (said, text) in [Said::Prompt, Said::NegativePrompt].into_iter().zip(texts(request)) {
            notices
                .extend(text.map(|text| cut(&branch.tokenizer, length, said, text)).transpose()?.flatten());
        }
        Ok(notices)
    }

    /// What each picture's denoiser attends to. One step for each photo and the style image, and one for each picture's
    /// prior.
    pub(super) async fn guided<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
        &self,
        encoders: &Encoders,
        request: &GenerateRequest,
        regions: Option<Regions>,
        watcher: &mut Watcher<W>,
        device: &Device,
    ) -> Result<Vec<Guided>> {
        let embeds = self.encode(encoders, request, watcher, device).await?;
        let prompts = embeds.prompts.iter();
        prompts.map(|prompts| self.condition(request, &embeds, prompts, regions.clone(), device)).collect()
    }

    /// Photos, style image and prompts to embeddings.
    async fn encode<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
        &self,
        encoders: &Encoders,
        request: &GenerateRequest,
        watcher: &mut Watcher<W>,
        device: &Device,
    ) -> Result<Embeds> {
        let alpha = request.effective_alpha();
        let style = request.style.as_ref().filter(|_| alpha > 0.0);
        let [prompt, negative] = texts(request);
        let texts = prompt.or(negative).map_or(0, |_| request.count);
        let mut encoding = watcher.encoding(request, style.is_some(), texts);

        let mut id_embeds = Vec::with_capacity(request.people.len().max(1));
        for (i, person) in request.people.iter().enumerate() {
            let mut embeddings = Vec::new();
            for photo in person.identities.iter().flat_map(|identity| &identity.photos) {
                let name = format!("photo {} of person {}", embeddings.len() + 1, i + 1);
                embeddings.push(embed::identity(encoders, photo, &name, device).await?);
                encoding.advance().await?;
            }
            id_embeds.push(embed::mixed(person, &mut embeddings.into_iter(), device));
        }
        if id_embeds.is_empty() {
            // Nobody: trained as a zero identity (paper section 4.1).
            id_embeds.push(Tensor::zeros([1, self.id_embed_dim], device));
        }
        let mut style_embeds = None;
        if let Some(style) = style {
            let detector = (!request.people.is_empty()).then_some(encoders.detector.as_ref());
            let key = Key::new("style", |hasher| (style, detector.is_some()).hash(hasher));
            let embed = async || embed::style(&self.vision, detector, style, device).await;
            style_embeds = Some(encoders.cache.remember(key, embed).await?);
            encoding.advance().await?;
        }
        let mut prompts = vec![Prompts::default(); request.count];
        if prompt.or(negative).is_some() {
            let text = self.text.as_ref().ok_or_else(|| {
                Error::weights(
                    "component-missing",
                    "the model has no component 'prior', which prompts need",
                    "leave out the prompts, or use a model with a prior",
                )
            })?;
            let prompt = prompt.map(|prompt| text.encode(&[prompt])).transpose()?;
            let negative = negative.map(|negative| text.encode(&[negative])).transpose()?;
            for (picture, prompts) in prompts.iter_mut().enumerate() {
                let noise = NoiseSource::new(request.seed.wrapping_add(picture as u64));
                prompts.positive =
                    prompt.as_ref().map(|p| text.embed(p, &noise, PRIOR_STREAM)).transpose()?;
                prompts.negative =
                    negative.as_ref().map(|n| text.embed(n, &noise, PRIOR_STREAM)).transpose()?;
                encoding.advance().await?;
            }
        }
        Ok(Embeds { style: style_embeds, id_embeds, prompts })
    }

    /// Embeddings to guidance tokens, with the null half of classifier-free guidance where there is any.
    fn condition(
        &self,
        request: &GenerateRequest,
        embeds: &Embeds,
        prompts: &Prompts,
        regions: Option<Regions>,
        device: &Device,
    ) -> Result<Guided> {
        let fusion = &self.fusion;
        let alpha = request.effective_alpha();
        let zero_style = || Tensor::zeros([1, self.vision.embed_dim()], device);
        let tokens = |id_embeds: &Tensor<2>| {
            let branch = |embeds: &Tensor<2>| fusion.forward(embeds.clone(), id_embeds.clone());
            match (&embeds.style, &prompts.positive) {
                (Some(style), Some(prompt)) => hybrid(branch(style), branch(prompt), alpha),
                (Some(only), None) | (None, Some(only)) => branch(only),
                (None, None) => branch(&zero_style()),
            }
        };
        let join = |tokens: Vec<Tensor<3>>| -> Result<Condition> {
            let places = regions.clone().map(Places::Regions);
            Ok(Condition::new(vec![Stream::new(Projection::Own, tokens, places)?]))
        };
        let condition = join(embeds.id_embeds.iter().map(tokens).collect())?;
        if request.guidance_scale == 1.0 {
            return Ok(Guided { condition, guidance_scale: None });
        }
        let away_from = prompts.negative.clone().unwrap_or_else(zero_style);
        let null = fusion.forward(away_from, Tensor::zeros([1, self.id_embed_dim], device));
        let null = join(vec![null; embeds.id_embeds.len()])?;
        let condition = Condition::cat(null, condition)?;
        Ok(Guided { condition, guidance_scale: Some(request.guidance_scale) })
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

/// What a request's pictures and texts became.
struct Embeds {
    /// `[1, image_embed_dim]`.
    style: Option<Tensor<2>>,
    /// `[1, id_embed_dim]` of each person; one of zeros without people.
    id_embeds: Vec<Tensor<2>>,
    /// Of each picture: the prior draws.
    prompts: Vec<Prompts>,
}

/// One picture's draws from the prior, `[1, image_embed_dim]`.
#[derive(Clone, Default)]
struct Prompts {
    positive: Option<Tensor<2>>,
    negative: Option<Tensor<2>>,
}
