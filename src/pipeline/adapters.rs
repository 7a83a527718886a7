//! Guidance by a text and adapters of the IP-Adapter family, under the same request as FaceStudio's own.
//!
//! The prompt's tokens take the place of guidance tokens; the style image and the faces each go through the adapters that
//! read them. α moves weight between style adapters and prompt, β mixes identity embeddings before they are projected, and
//! regions say where each person's tokens act.

use std::hash::Hash;
use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};

use super::cache::{Cache, Key};
use super::models::{Encoders, ModelFolder, Target, same};
use super::prompt::{self, Said};
use super::{Encoding, Guided, Progress, Watcher, embed};
use crate::condition::{Condition, LayerScale, Places, Projection as Layers, Regions, Stream};
use crate::encoders::text::{TextConfig, TextEncoder};
use crate::encoders::tokenizer::Tokenizer;
use crate::encoders::vision::{VisionConfig, VisionEncoder, VisionOutput};
use crate::error::{Error, Notice, Result};
use crate::guidance::ip_adapter::{Features, IpAdapterConfig, Projection, Role};
use crate::request::{GenerateRequest, Person};

/// Folder of the first adapter; the second's is `ip_adapter_2`, and so on.
pub const ADAPTER: &str = "ip_adapter";

/// Text encoder, vision encoder and adapters' projections; their keys and values are in the UNet.
#[derive(Debug)]
pub struct AdapterGuidance {
    /// `tokenizer/`.
    tokenizer: Tokenizer,
    /// `text_encoder/`.
    text_encoder: TextEncoder,
    /// `vision_encoder/`, where an adapter reads pictures.
    vision: Option<VisionEncoder>,
    /// `ip_adapter/`, `ip_adapter_2/` and so on, numbered as in the UNet.
    adapters: Vec<Adapter>,
}

#[derive(Debug)]
struct Adapter {
    config: IpAdapterConfig,
    projection: Projection,
    scale: LayerScale,
}

/// The features of one picture or person, and those of nothing in the same shapes.
struct Read {
    features: Features,
    null: Features,
}

impl AdapterGuidance {
    /// Whether an adapter reads style images.
    pub fn reads_styles(&self) -> bool {
        self.adapters.iter().any(|adapter| adapter.config.role == Role::Style)
    }

    /// Loads the folders, and the adapters' keys and values into a fresh `unet`, whose tokens are `width` wide;
    /// `id_embed_dim` is `face_encoder`'s width, where there is one.
    pub(super) fn load(
        folder: &ModelFolder,
        mut unet: Target,
        width: usize,
        id_embed_dim: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let text: TextConfig = folder.load("text_encoder", TextConfig::read)?;
        same("the text encoder's tokens", text.hidden_size, "the unet's tokens", width)?;
        let mut adapters = Vec::new();
        for k in 1.. {
            let name = if k == 1 { ADAPTER.to_owned() } else { format!("{ADAPTER}_{k}") };
            if !folder.has(&name) {
                break;
            }
            adapters.push(folder.load(&name, |component| {
                let config = IpAdapterConfig::read(component)?;
                same("the adapter's tokens", config.projection.cross_attention_dim(), "the unet's", width)?;
                let source = component.tensors()?;
                if let Target::Fresh(unet) = &mut unet {
                    unet.add_adapter(source.as_ref(), device)?;
                }
                let scale = if config.block_scales.is_empty() {
                    LayerScale::All(config.scale)
                } else {
                    unet.unet().layer_scale(&config.block_scales)?.times(config.scale)
                };
                let projection = config.projection.load(source.as_ref(), device)?;
                Ok(Adapter { config, projection, scale })
            })?);
        }
        let needs = || adapters.iter().map(|adapter| (adapter, adapter.projection.needs()));
        for (adapter, needs) in needs() {
            let Some(needed) = needs.id_embeds else { continue };
            if adapter.config.role == Role::Style {
                return Err(Error::weights(
                    "model-mismatch",
                    "an adapter that reads identity embeddings cannot read the style image",
                    "convert it with --identity-adapter",
                ));
            }
            // Without an identity encoder nothing is as wide as what is needed.
            same("the adapter's identities", needed, "face_encoder's", id_embed_dim.unwrap_or(0))?;
        }
        let pictures = needs().any(|(_, needs)| needs.image_embeds.or(needs.hidden_states).is_some());
        let vision = if pictures {
            let config = folder.load("vision_encoder", VisionConfig::read)?;
            let hidden = match &config {
                VisionConfig::Vit(vit) => vit.hidden_size,
                // It has no states that an adapter could read.
                VisionConfig::ResNet(_) => 0,
            };
            for (_, needs) in needs() {
                let embeds = needs.image_embeds.unwrap_or(config.embed_dim());
                same("the adapter's images", embeds, "vision_encoder's", config.embed_dim())?;
                same(
                    "the adapter's states",
                    needs.hidden_states.unwrap_or(hidden),
                    "vision_encoder's",
                    hidden,
                )?;
            }
            Some(folder.load("vision_encoder", |c| VisionEncoder::load(c, device))?)
        } else {
            None
        };
        Ok(Self {
            tokenizer: folder.load("tokenizer", Tokenizer::load)?,
            text_encoder: folder.load("text_encoder", |c| TextEncoder::load(c, device))?,
            vision,
            adapters,
        })
    }

    /// What each picture's denoiser attends to: the same for all, since no prior draws. One step for each photo and the style
    /// image, and one for the texts.
    pub(super) async fn guided<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
        &self,
        encoders: &Encoders,
        request: &GenerateRequest,
        regions: Option<Regions>,
        watcher: &mut Watcher<W>,
        device: &Device,
    ) -> Result<Vec<Guided>> {
        let alpha = request.effective_alpha();
        let style = request.style.as_ref().filter(|_| alpha > 0.0);
        let guided = request.guidance_scale != 1.0;
        let mut encoding = watcher.encoding(request, style.is_some(), 1);

        let mut nothing = None;
        if guided {
            let key = Key::new("nothing", |_| ());
            nothing = encoders.cache.remember(key, async || self.see_nothing(device)).await?;
        }
        let mut people = Vec::with_capacity(request.people.len());
        for (i, person) in request.people.iter().enumerate() {
            people.push(self.person(encoders, person, i, &nothing, &mut encoding, device).await?);
        }
        let mut seen = None;
        if let Some(style) = style {
            seen = Some(self.style(&encoders.cache, style, &nothing, device).await?);
            encoding.advance().await?;
        }
        let text = self.text(request, alpha)?;
        let null_text = if guided { Some(self.tokens(&request.negative_prompt)?) } else { None };
        encoding.advance().await?;

        let streams =
            |text, of: fn(&Read) -> &Features| self.streams(text, &people, &seen, &regions, alpha, of);
        let condition = Condition::new(streams(text, |read| &read.features)?);
        let guided = match null_text {
            None => Guided { condition, guidance_scale: None },
            Some(text) => Guided {
                condition: Condition::cat(Condition::new(streams(text, |read| &read.null)?), condition)?,
                guidance_scale: Some(request.guidance_scale),
            },
        };
        Ok(vec![guided; request.count])
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = (usize, &Adapter)> {
        self.adapters.iter().enumerate().filter(move |(_, adapter)| adapter.config.role == role)
    }

    /// Refuses what the model's adapters give no meaning to.
    pub(super) fn check(&self, request: &GenerateRequest) -> Result<()> {
        request.validate_subject()?;
        let style = request.style.is_some() && request.effective_alpha() > 0.0;
        for (asked, role, what, remedy) in [
            (
                style,
                Role::Style,
                "a style image",
                "leave the style image out, or convert one with --style-adapter",
            ),
            (
                !request.people.is_empty(),
                Role::Identity,
                "faces",
                "leave the people out, or convert one with --identity-adapter",
            ),
        ] {
            if asked && self.of_role(role).next().is_none() {
                let message = format!("the model has no adapter that reads {what}");
                return Err(Error::input("adapter-missing", message, remedy));
            }
        }
        let reads_states = self
            .of_role(Role::Identity)
            .any(|(_, adapter)| adapter.projection.needs().hidden_states.is_some());
        let mixes = |person: &Person| {
            person.identities.iter().filter(|identity| !identity.photos.is_empty()).count() > 1
        };
        let mixed = request.people.iter().position(mixes);
        if let Some(i) = mixed.filter(|_| reads_states) {
            return Err(Error::input(
                "mix-unsupported",
                format!(
                    "person {} mixes identities, but this model's adapter reads pictures of faces, whose parts have no mean",
                    i + 1
                ),
                "give one identity per person, or use a model with a FaceID adapter",
            ));
        }
        Ok(())
    }

    /// What of the texts is not read.
    pub(super) fn notices(&self, request: &GenerateRequest) -> Result<Vec<Notice>> {
        let length = self.text_encoder.context_length();
        let cut = |said, text: &str| prompt::cut(&self.tokenizer, length, said, text);
        let read = [
            (request.effective_alpha() < 1.0).then(|| cut(Said::Prompt, &request.prompt)),
            (request.guidance_scale != 1.0).then(|| cut(Said::NegativePrompt, &request.negative_prompt)),
        ];
        let notices = read.into_iter().flatten().collect::<Result<Vec<_>>>()?;
        Ok(notices.into_iter().flatten().collect())
    }

    /// The text's tokens, `[1, tokens, channels]`: the prompt's, moved toward those of no prompt by α.
    fn text(&self, request: &GenerateRequest, alpha: f32) -> Result<Tensor<3>> {
        if alpha == 1.0 {
            return self.tokens("");
        }
        let prompt = self.tokens(&request.prompt)?;
        if alpha == 0.0 {
            return Ok(prompt);
        }
        Ok(prompt * (1.0 - alpha) + self.tokens("")? * alpha)
    }

    /// CLIP's last states of a text, padded to its context length, `[1, tokens, hidden]`.
    fn tokens(&self, text: &str) -> Result<Tensor<3>> {
        self.text_encoder.states(&self.tokenizer, text)
    }

    fn see(&self, picture: &RgbImage, device: &Device) -> Result<Option<VisionOutput>> {
        let Some(vision) = &self.vision else { return Ok(None) };
        let seen = vision.forward(vision.preprocessing().tensor(picture, device)?)?;
        // No adapter reads the last states; what is kept of a picture is smaller without.
        Ok(Some(VisionOutput { last_hidden_state: None, ..seen }))
    }

    /// What the vision encoder says to an input of zeros: the null condition of adapters that read its states (diffusers'
    /// `encode_image`).
    fn see_nothing(&self, device: &Device) -> Result<Option<VisionOutput>> {
        let Some(vision) = &self.vision else { return Ok(None) };
        let size = vision.preprocessing().size;
        vision.forward(Tensor::zeros([1, 3, size, size], device)).map(Some)
    }

    /// The whole style image: adapters were trained on pictures with their faces, and would draw a hidden one.
    async fn style(
        &self,
        cache: &Cache,
        picture: &RgbImage,
        nothing: &Option<VisionOutput>,
        device: &Device,
    ) -> Result<Read> {
        let key = Key::new("style", |hasher| picture.hash(hasher));
        let seen = cache.remember(key, async || self.see(picture, device)).await?;
        let seen: Vec<(f32, VisionOutput)> = seen.map(|seen| (1.0, seen)).into_iter().collect();
        Ok(read(&seen, None, nothing))
    }

    /// One person's faces, cut out in the pose of the identity encoder's template.
    async fn person<W: AsyncFnMut(Progress) -> ControlFlow<()>>(
        &self,
        encoders: &Encoders,
        person: &Person,
        index: usize,
        nothing: &Option<VisionOutput>,
        encoding: &mut Encoding<'_, W>,
        device: &Device,
    ) -> Result<Read> {
        let needs_id = self.of_role(Role::Identity).any(|(_, a)| a.projection.needs().id_embeds.is_some());
        let (mut seen, mut embeddings) = (Vec::new(), Vec::new());
        let mut number = 0;
        for identity in &person.identities {
            for photo in &identity.photos {
                number += 1;
                let name = format!("photo {number} of person {}", index + 1);
                if needs_id {
                    embeddings.push(embed::identity(encoders, photo, &name, device).await?);
                }
                if let Some(vision) = &self.vision {
                    let key = Key::new("face", |hasher| photo.hash(hasher));
                    let see = async || {
                        let face = embed::largest(encoders, photo, &name, device).await?;
                        self.see(&embed::aligned(photo, &face, vision.preprocessing().size)?, device)
                    };
                    let output = encoders.cache.remember(key, see).await?;
                    let weight = identity.beta / identity.photos.len() as f32;
                    seen.extend(output.map(|output| (weight, output)));
                }
                encoding.advance().await?;
            }
        }
        let id_embeds = needs_id.then(|| embed::mixed(person, &mut embeddings.into_iter(), device));
        Ok(read(&seen, id_embeds, nothing))
    }

    /// The text's stream and every adapter's: of the style image where there is one, and of the people in their regions.
    fn streams(
        &self,
        text: Tensor<3>,
        people: &[Read],
        style: &Option<Read>,
        regions: &Option<Regions>,
        alpha: f32,
        of: impl Fn(&Read) -> &Features,
    ) -> Result<Vec<Stream>> {
        let mut streams = vec![Stream::everywhere(Layers::Own, text)];
        for (i, adapter) in self.adapters.iter().enumerate() {
            let stream = match adapter.config.role {
                Role::Style => {
                    let Some(style) = style else { continue };
                    let tokens = adapter.projection.forward(of(style))?;
                    let scale = adapter.scale.clone().times(alpha);
                    Stream { scale, ..Stream::everywhere(Layers::Adapter(i), tokens) }
                }
                Role::Identity => {
                    if people.is_empty() {
                        continue;
                    }
                    let tokens = people.iter().map(|person| adapter.projection.forward(of(person)));
                    let places = regions.clone().map(Places::Regions);
                    let stream = Stream::new(Layers::Adapter(i), tokens.collect::<Result<_>>()?, places)?;
                    Stream { scale: adapter.scale.clone(), ..stream }
                }
            };
            let [start, end] = adapter.config.interval;
            streams.push(Stream { interval: start..end, ..stream });
        }
        Ok(streams)
    }
}

/// What was seen of one picture or person, with its weights: embeddings are averaged, states are joined, so that tokens may
/// attend to those of every photo.
fn read(seen: &[(f32, VisionOutput)], id_embeds: Option<Tensor<2>>, nothing: &Option<VisionOutput>) -> Read {
    let total: f32 = seen.iter().map(|(weight, _)| weight).sum();
    let embeds = seen.iter().map(|(weight, output)| output.image_embeds.clone() * (weight / total));
    let image_embeds = embeds.reduce(|sum, embeds| sum + embeds);
    let joined = |states: Vec<Tensor<3>>| Some(states).filter(|s| !s.is_empty()).map(|s| Tensor::cat(s, 1));
    let states = seen.iter().filter_map(|(_, output)| output.penultimate_hidden_state.clone());
    let null_states = nothing.as_ref().and_then(|nothing| nothing.penultimate_hidden_state.clone());
    let null = Features {
        image_embeds: image_embeds.as_ref().map(Tensor::zeros_like),
        hidden_states: joined(null_states.map_or(Vec::new(), |states| vec![states; seen.len()])),
        id_embeds: id_embeds.as_ref().map(Tensor::zeros_like),
    };
    Read { features: Features { image_embeds, hidden_states: joined(states.collect()), id_embeds }, null }
}
