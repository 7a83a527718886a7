//! FaceStudio's own guidance: style and identity fused into tokens, prompts through the prior (paper sections 3.1 to 3.3).

use burn::tensor::{Device, Tensor};

use super::evidence::{Evidence, Needs, Style, Texts};
use super::family::{Configs, Family, Guided, Kind, Target};
use super::folder::{ModelFolder, same};
use super::prompt::Prior;
use super::readers::Reads;
use crate::condition::{Condition, Places, Projection, Regions, Stream};
use crate::encoders::vision::VisionConfig;
use crate::error::{Error, Result};
use crate::guidance::fusion::{Fusion, FusionConfig, hybrid};
use crate::request::GenerateRequest;

/// The family of this project's own models.
pub const FUSED: Kind = Kind { folder: "guidance", needs_face_encoder: true, fits, open };

/// The shared Linear, `guidance/`.
#[derive(Debug)]
pub struct FusedGuidance {
    fusion: Fusion,
    config: FusionConfig,
    /// A folder without a prior draws from style images alone.
    has_prior: bool,
}

fn fits(folder: &ModelFolder, configs: &Configs) -> Result<Reads> {
    let fusion: FusionConfig = folder.load(FUSED.folder, |c| c.json("config.json"))?;
    same(
        "guidance tokens",
        fusion.cross_attention_dim,
        "the unet's tokens",
        configs.unet.cross_attention_dim,
    )?;
    let id_embed_dim = configs.face.as_ref().map_or(0, |face| face.embedding_size);
    same("guidance's identities", fusion.id_embed_dim, "face_encoder's", id_embed_dim)?;
    let others = (2..).map(|k| format!("vision_encoder_{k}")).take_while(|name| folder.has(name));
    let vision: Vec<String> = std::iter::once("vision_encoder".to_owned()).chain(others).collect();
    let mut style_width = 0;
    for name in &vision {
        style_width += folder.load(name, VisionConfig::read)?.embed_dim();
    }
    same("guidance's styles", fusion.image_embed_dim, "the vision encoders together", style_width)?;
    let prior = folder.has("prior");
    if prior {
        Prior::fits(folder, Some(style_width))?;
    }
    Ok(Reads { vision, text: prior, prior })
}

fn open(folder: &ModelFolder, _: Target, device: &Device) -> Result<Box<dyn Family>> {
    let config: FusionConfig = folder.load(FUSED.folder, |c| c.json("config.json"))?;
    let fusion = folder.load(FUSED.folder, |c| Fusion::load(c, device))?;
    Ok(Box::new(FusedGuidance { fusion, config, has_prior: folder.has("prior") }))
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
        if !self.has_prior && texts(request).iter().any(Option::is_some) {
            return Err(Error::weights(
                "component-missing",
                "the model has no component 'prior', which prompts need",
                "leave out the prompts, or use a model with a prior",
            ));
        }
        Ok(())
    }

    fn needs<'a>(&self, request: &'a GenerateRequest) -> Needs<'a> {
        Needs {
            identities: true,
            faces: false,
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
        regions: Option<&Regions>,
        device: &Device,
    ) -> Result<Vec<Guided>> {
        let Self { fusion, config, .. } = self;
        let alpha = request.effective_alpha();
        let zero_style = || Tensor::zeros([1, config.image_embed_dim], device);
        let nobody = || Tensor::zeros([1, config.id_embed_dim], device);
        let mut people: Vec<Tensor<2>> =
            evidence.people.iter().filter_map(|person| person.id_embeds.clone()).collect();
        if people.is_empty() {
            // Nobody: trained as a zero identity (paper section 4.1).
            people.push(nobody());
        }
        let style = evidence.style.as_ref().map(|style| &style.image_embeds);
        let join = |tokens: Vec<Tensor<3>>| -> Result<Condition> {
            let places = regions.cloned().map(Places::Regions);
            Ok(Condition::new(vec![Stream::new(Projection::Own, tokens, places)?]))
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
            let condition = join(people.iter().map(tokens).collect())?;
            if request.guidance_scale == 1.0 {
                return Ok(Guided { condition, guidance_scale: None });
            }
            let null = fusion.forward(negative.clone().unwrap_or_else(zero_style), nobody());
            let condition = Condition::cat(join(vec![null; people.len()])?, condition)?;
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
