//! Guidance by a text and adapters of the IP-Adapter family, under the same request as FaceStudio's own.
//!
//! The prompt's tokens take the place of guidance tokens; the style image and the faces each go through the adapters that
//! read them. α moves weight between style adapters and prompt, β mixes identity embeddings before they are projected, and
//! regions say where each person's tokens act.

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use super::evidence::{Evidence, Needs, PersonEvidence, Style, Texts};
use super::family::{Configs, Denoises, Family, Guided, Kind, Target};
use super::folder::{ModelFolder, check_width};
use super::readers::RequiredReaders;
use crate::condition::{Condition, LayerScale, Places, Projection as Layers, Stream};
use crate::encoders::text::TextConfig;
use crate::encoders::vision::{VisionConfig, VisionOutput};
use crate::error::{Error, Result};
use crate::guidance::ip_adapter::{self, ImagePromptEmbeds, IpAdapterConfig, Projection, Role};
use crate::request::{GenerateRequest, Person};
use crate::unet::UNet2DConditionModel;
use crate::weights::Files;

/// The family of IP-Adapters. The second's folder is `ip_adapter_2`, and so on.
pub const ADAPTERS: Kind =
    Kind { folder: "ip_adapter", needs_face_encoder: false, denoises: Denoises::Unet { fits, open } };

/// The adapters' projections; their keys and values are in the UNet.
#[derive(Debug)]
pub struct AdapterGuidance {
    /// `ip_adapter/`, `ip_adapter_2/` and so on, numbered as in the UNet.
    adapters: Vec<Adapter>,
}

#[derive(Debug)]
struct Adapter {
    config: IpAdapterConfig,
    projection: Projection,
    scale: LayerScale,
}

/// The embeddings of one picture or person, and those of nothing in the same shapes.
struct EmbedsPair {
    conditional: ImagePromptEmbeds,
    unconditional: ImagePromptEmbeds,
}

/// The adapters' folders, in their order.
fn folders(folder: &ModelFolder) -> impl Iterator<Item = String> {
    let name = |k| if k == 1 { ADAPTERS.folder.to_owned() } else { format!("{}_{k}", ADAPTERS.folder) };
    (1..).map(name).take_while(|name| folder.has(name))
}

fn fits(folder: &ModelFolder, configs: &Configs) -> Result<RequiredReaders> {
    let width = configs.unet.cross_attention_dim;
    let text: TextConfig = folder.load("text_encoder", TextConfig::read)?;
    check_width("the text encoder's tokens", text.hidden_size, "the unet's tokens", width)?;
    let id_embed_dim = configs.face.as_ref().map(|face| face.embedding_size);
    let mut pictures = Vec::new();
    for name in folders(folder) {
        let config = folder.load(&name, IpAdapterConfig::read)?;
        check_width("the adapter's tokens", config.projection.cross_attention_dim(), "the unet's", width)?;
        let needs = config.projection.needs();
        if let Some(needed) = needs.id_embeds {
            if config.role == Role::Style {
                return Err(Error::weights(
                    "model-mismatch",
                    "an adapter that reads identity embeddings cannot read the style image",
                    "convert it with --identity-adapter",
                ));
            }
            // Without an identity encoder nothing is as wide as what is needed.
            check_width("the adapter's identities", needed, "face_encoder's", id_embed_dim.unwrap_or(0))?;
        }
        if needs.image_embeds.or(needs.hidden_states).is_some() {
            pictures.push(needs);
        }
    }
    if pictures.is_empty() {
        return Ok(RequiredReaders { text: true, ..RequiredReaders::default() });
    }
    let config = folder.load("vision_encoder", VisionConfig::read)?;
    let hidden = match &config {
        VisionConfig::Vit(vit) => vit.hidden_size,
        // It has no states that an adapter could read.
        VisionConfig::ResNet(_) => 0,
    };
    for needs in pictures {
        let embeds = needs.image_embeds.unwrap_or(config.embed_dim());
        check_width("the adapter's images", embeds, "vision_encoder's", config.embed_dim())?;
        check_width(
            "the adapter's states",
            needs.hidden_states.unwrap_or(hidden),
            "vision_encoder's",
            hidden,
        )?;
    }
    Ok(RequiredReaders { vision: vec!["vision_encoder".to_owned()], text: true, prior: false })
}

/// A folder's adapters, whose keys and values are added to a fresh UNet.
fn load(folder: &ModelFolder, mut unet: Target, device: &Device) -> Result<AdapterGuidance> {
    let mut adapters = Vec::new();
    for name in folders(folder) {
        adapters.push(folder.load_compact(&name, |component| {
            let config = IpAdapterConfig::read(component)?;
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
    Ok(AdapterGuidance { adapters })
}

fn open(folder: &ModelFolder, unet: Target, device: &Device) -> Result<Box<dyn Family>> {
    Ok(Box::new(load(folder, unet, device)?))
}

impl Family for AdapterGuidance {
    fn reads_words(&self) -> bool {
        true
    }

    /// Where an adapter reads them.
    fn reads_styles(&self) -> bool {
        self.of_role(Role::Style).next().is_some()
    }

    /// Refuses what the model's adapters give no meaning to.
    fn check(&self, request: &GenerateRequest) -> Result<()> {
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

    fn needs<'a>(&self, request: &'a GenerateRequest, _: Option<&Places>) -> Needs<'a> {
        let alpha = request.effective_alpha();
        let guided = request.guidance_scale != 1.0;
        let needs = || self.adapters.iter().map(|adapter| (adapter.config.role, adapter.projection.needs()));
        let pictures =
            |role| needs().any(|(of, n)| of == role && n.image_embeds.or(n.hidden_states).is_some());
        let mut texts = Vec::new();
        if alpha < 1.0 {
            texts.push(request.prompt.as_str());
        }
        if alpha > 0.0 {
            texts.push("");
        }
        if guided {
            texts.push(request.negative_prompt.as_str());
        }
        Needs {
            identities: needs().any(|(role, needs)| role == Role::Identity && needs.id_embeds.is_some()),
            faces: pictures(Role::Identity),
            references: false,
            style: (alpha > 0.0).then_some(Style::Whole),
            nothing: guided && (pictures(Role::Identity) || pictures(Role::Style)),
            texts: Texts::Tokens(texts),
        }
    }

    /// The same for all pictures, since no prior draws.
    fn condition(
        &self,
        evidence: &Evidence,
        request: &GenerateRequest,
        places: Option<&Places>,
        _: &Device,
    ) -> Result<Vec<Guided>> {
        let alpha = request.effective_alpha();
        let mut tokens = evidence.tokens.iter().cloned();
        let mut next =
            || tokens.next().ok_or_else(|| Error::internal("condition-shape", "a text was not read"));
        // The prompt's, moved toward those of no prompt by α.
        let acts: Vec<_> = request.people.iter().map(Person::acts).collect();
        let text = if alpha > 0.0 && alpha < 1.0 {
            let [prompt, none] = as_long([next()?, next()?]);
            prompt * (1.0 - alpha) + none * alpha
        } else {
            next()?
        };
        let nothing = &evidence.nothing;
        let person = |person: &PersonEvidence| embeds_pair(&person.faces, person.id_embeds.clone(), nothing);
        let people: Vec<EmbedsPair> = evidence.people.iter().map(person).collect();
        let style = evidence.style.as_ref().map(|style| embeds_pair(&[(1.0, style.clone())], None, nothing));
        let streams = |text, half: fn(&EmbedsPair) -> &ImagePromptEmbeds| {
            self.streams(text, (&people, &acts), &style, places, alpha, half)
        };
        let guided = if request.guidance_scale == 1.0 {
            let condition = Condition::new(streams(text, |pair| &pair.conditional)?);
            Guided { condition, guidance_scale: None }
        } else {
            let [text, null] = as_long([text, next()?]);
            let condition = Condition::new(streams(text, |pair| &pair.conditional)?);
            let null = Condition::new(streams(null, |pair| &pair.unconditional)?);
            let guidance_scale = Some(request.guidance_scale);
            Guided { condition: Condition::cat(null, condition)?, guidance_scale }
        };
        Ok(vec![guided; request.count])
    }
}

impl AdapterGuidance {
    /// The adapters of a model folder that may have nothing that reads for them: for evidence that is given. Their keys and values are
    /// added to `unet`.
    pub fn load(files: &dyn Files, unet: &mut UNet2DConditionModel, device: &Device) -> Result<Self> {
        load(&ModelFolder::new(files)?, Target::Fresh(unet), device)
    }

    /// What each adapter reads, and of whom.
    pub fn reads(&self) -> impl Iterator<Item = (Role, ip_adapter::Needs)> {
        self.adapters.iter().map(|adapter| (adapter.config.role, adapter.projection.needs()))
    }

    /// How much adapter `n` adds at every layer, in place of what its config says.
    pub fn set_scale(&mut self, n: usize, scale: f32) {
        if let Some(adapter) = self.adapters.get_mut(n) {
            adapter.scale = LayerScale::All(scale);
        }
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = (usize, &Adapter)> {
        self.adapters.iter().enumerate().filter(move |(_, adapter)| adapter.config.role == role)
    }

    /// The text's stream and every adapter's: of the style image where there is one, and of the people in their places.
    fn streams(
        &self,
        text: Tensor<3>,
        (people, acts): (&[EmbedsPair], &[(f32, Range<f32>)]),
        style: &Option<EmbedsPair>,
        places: Option<&Places>,
        alpha: f32,
        half: impl Fn(&EmbedsPair) -> &ImagePromptEmbeds,
    ) -> Result<Vec<Stream>> {
        let mut streams = vec![Stream::everywhere(Layers::Own, text)];
        for (i, adapter) in self.adapters.iter().enumerate() {
            let [start, end] = adapter.config.interval;
            match adapter.config.role {
                Role::Style => {
                    let Some(style) = style else { continue };
                    let tokens = adapter.projection.forward(half(style))?;
                    let (scale, interval) = (adapter.scale.clone().times(alpha), start..end);
                    streams.push(Stream {
                        scale,
                        interval,
                        ..Stream::everywhere(Layers::Adapter(i), tokens)
                    });
                }
                Role::Identity => {
                    if people.is_empty() {
                        continue;
                    }
                    let tokens = people.iter().map(|person| adapter.projection.forward(half(person)));
                    let tokens = tokens.collect::<Result<Vec<_>>>()?;
                    for (alike, (strength, when)) in alike(people.len(), acts) {
                        // Of nothing there are no values: who is of another stream adds nothing in this one.
                        let own = tokens.iter().zip(&alike);
                        let own =
                            own.map(|(tokens, is)| if *is { tokens.clone() } else { tokens.zeros_like() });
                        let stream = Stream::new(Layers::Adapter(i), own.collect(), places.cloned())?;
                        let interval = start.max(when.start)..end.min(when.end);
                        streams.push(Stream {
                            scale: adapter.scale.clone().times(strength),
                            interval,
                            ..stream
                        });
                    }
                }
            }
        }
        Ok(streams)
    }
}

/// How strongly a person acts, and in which part of the steps.
type Act = (f32, Range<f32>);

/// Who acts alike: for each way of it, whether each of the people acts so.
fn alike(people: usize, acts: &[Act]) -> Vec<(Vec<bool>, Act)> {
    let of = |i: usize| acts.get(i).cloned().unwrap_or((1.0, 0.0..1.0));
    let mut ways: Vec<Act> = Vec::new();
    (0..people).map(of).for_each(|way| {
        if !ways.contains(&way) {
            ways.push(way)
        }
    });
    ways.into_iter().map(|way| ((0..people).map(|i| of(i) == way).collect(), way)).collect()
}

/// Two texts' tokens, repeated to their least common multiple: attention to tokens is the same however often all of them are there.
fn as_long(texts: [Tensor<3>; 2]) -> [Tensor<3>; 2] {
    let [first, second] = texts.each_ref().map(|text| text.dims()[1]);
    let (mut divisor, mut rest) = (first, second);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    let repeated = |text: Tensor<3>, times: usize| if times == 1 { text } else { text.repeat_dim(1, times) };
    let [one, other] = texts;
    [repeated(one, second / divisor.max(1)), repeated(other, first / divisor.max(1))]
}

/// What was seen of one picture or person, with its weights: embeddings are averaged, states are joined, so that tokens may
/// attend to those of every photo.
fn embeds_pair(
    seen: &[(f32, VisionOutput)],
    id_embeds: Option<Tensor<2>>,
    nothing: &Option<VisionOutput>,
) -> EmbedsPair {
    let total: f32 = seen.iter().map(|(weight, _)| weight).sum();
    let embeds = seen.iter().map(|(weight, output)| output.image_embeds.clone() * (weight / total));
    let image_embeds = embeds.reduce(|sum, embeds| sum + embeds);
    let joined = |states: Vec<Tensor<3>>| Some(states).filter(|s| !s.is_empty()).map(|s| Tensor::cat(s, 1));
    let states = seen.iter().filter_map(|(_, output)| output.penultimate_hidden_state.clone());
    let null_states = nothing.as_ref().and_then(|nothing| nothing.penultimate_hidden_state.clone());
    let unconditional = ImagePromptEmbeds {
        image_embeds: image_embeds.as_ref().map(Tensor::zeros_like),
        hidden_states: joined(null_states.map_or(Vec::new(), |states| vec![states; seen.len()])),
        id_embeds: id_embeds.as_ref().map(Tensor::zeros_like),
    };
    EmbedsPair {
        conditional: ImagePromptEmbeds { image_embeds, hidden_states: joined(states.collect()), id_embeds },
        unconditional,
    }
}

#[cfg(test)]
mod tests;
