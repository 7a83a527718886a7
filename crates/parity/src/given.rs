//! What adapters are given in place of what is read of pictures, and what their family makes of it: the code that draws.

use burn::tensor::{Device, Tensor};
use facestudio::condition::{Masks, Places};
use facestudio::encoders::vision::VisionOutput;
use facestudio::guidance::ip_adapter::{ImagePromptEmbeds, Needs, Role};
use facestudio::internal::{Evidence, Family, Guided, PersonEvidence};
use facestudio::request::GenerateRequest;
use facestudio::{Error, Result};
use image::RgbImage;

use crate::inputs::{Axis::Any, Axis::Exactly, Inputs};

/// Evidence, and the request that it would be of.
pub struct Given {
    evidence: Evidence,
    request: GenerateRequest,
    places: Option<Places>,
    /// The states of [`Evidence::nothing`].
    nothing: Vec<f32>,
}

impl Given {
    /// What of the inputs the adapters read: those of role identity of each person, those of role style of the style image.
    /// `texts` are the text's tokens and, for guidance, the negative one's.
    ///
    /// Fails with `input-missing`, `input-shape` or `input-range`, naming the input.
    pub fn read(
        inputs: &Inputs,
        adapters: impl Iterator<Item = (Role, Needs)>,
        texts: Vec<Tensor<3>>,
        guidance_scale: f32,
        device: &Device,
    ) -> Result<Self> {
        let request = GenerateRequest { guidance_scale, ..GenerateRequest::default() };
        let evidence = Evidence { tokens: texts, ..Evidence::default() };
        let mut given = Self { evidence, request, places: None, nothing: Vec::new() };
        let mut read = Vec::new();
        for (n, (role, needs)) in adapters.enumerate() {
            let names = names(n, needs);
            if !names.iter().any(|name| inputs.has(name)) {
                // A mask without a picture is a mistake, an adapter without one is left out.
                if let Some(name) = names.first().filter(|_| inputs.has(&format!("ip_mask.{n}"))) {
                    inputs.values(name)?;
                }
                continue;
            }
            if let Some(other) = read.iter().find(|(other, _)| *other == role).map(|(_, other)| other) {
                let message =
                    format!("adapters {other} and {n} read the same pictures, and both are given some");
                return Err(Error::input("input-range", message, "give one adapter of each role its inputs"));
            }
            read.push((role, n));
            given.take(inputs, n, role, needs, device)?;
        }
        Ok(given)
    }

    /// What adapter `n` is given.
    fn take(&mut self, inputs: &Inputs, n: usize, role: Role, needs: Needs, device: &Device) -> Result<()> {
        let features = features(inputs, "", n, needs, device)?;
        let pictures = count(&features);
        let states = features.hidden_states.clone();
        if self.request.guidance_scale != 1.0 {
            self.take_nothing(inputs, n, needs, pictures, device)?;
        }
        let seen = |i: usize| -> Option<VisionOutput> {
            let row = |embeds: &Tensor<2>| embeds.clone().narrow(0, i, 1);
            let states = states.as_ref().map(|states| states.clone().narrow(0, i, 1));
            let embeds = features.image_embeds.as_ref().map(row);
            output(embeds, states, device)
        };
        match role {
            Role::Style => {
                if pictures != 1 || inputs.has(&format!("ip_mask.{n}")) {
                    let message = format!("adapter {n} reads one style image, which acts everywhere");
                    return Err(Error::input("input-range", message, "give it one image and no mask"));
                }
                self.evidence.style = seen(0);
                self.request.style = Some(RgbImage::new(1, 1));
            }
            Role::Identity => {
                self.evidence.people = (0..pictures)
                    .map(|i| PersonEvidence {
                        id_embeds: features.id_embeds.as_ref().map(|embeds| embeds.clone().narrow(0, i, 1)),
                        faces: seen(i).map(|face| (1.0, face)).into_iter().collect(),
                        ..PersonEvidence::default()
                    })
                    .collect();
                self.places = places(inputs, n, pictures)?;
            }
        }
        Ok(())
    }

    /// What the vision encoder says to nothing, as adapter `n` is given it: the same states for each picture and adapter. Negative
    /// embeddings are zeros, whether they are given or not.
    fn take_nothing(
        &mut self,
        inputs: &Inputs,
        n: usize,
        needs: Needs,
        pictures: usize,
        device: &Device,
    ) -> Result<()> {
        let refuse = |name: &str, wanted: &str| {
            Err(Error::input(
                "input-range",
                format!("input '{name}' is not {wanted}"),
                "leave it out, or mend it",
            ))
        };
        for what in ["image_embeds", "id_embeds"] {
            let name = format!("negative_{what}.{n}");
            if inputs.has(&name) && inputs.values(&name)?.1.iter().any(|value| *value != 0.0) {
                return refuse(&name, "zeros");
            }
        }
        let Some(hidden) = needs.hidden_states else { return Ok(()) };
        let name = format!("negative_hidden_states.{n}");
        let axes = [Exactly(pictures), Any("tokens"), Exactly(hidden)];
        let states: Tensor<3> = inputs.tensor(&name, axes, device)?;
        let (_, values) = inputs.values(&name)?;
        let one = &values[..values.len() / pictures];
        let known = if self.nothing.is_empty() { one } else { self.nothing.as_slice() };
        if values.chunks(one.len()).any(|other| other != known) {
            return refuse(&name, "the same for every picture: an encoder says one thing to nothing");
        }
        self.nothing = one.to_vec();
        self.evidence.nothing = output(None, Some(states.narrow(0, 0, 1)), device);
        Ok(())
    }

    /// What the family makes of it.
    pub fn guided(&self, family: &dyn Family, device: &Device) -> Result<Guided> {
        let guided = family.condition(&self.evidence, &self.request, self.places.as_ref(), device)?;
        guided.into_iter().next().ok_or_else(|| Error::internal("condition-shape", "no picture was guided"))
    }
}

/// The inputs that adapter `n` reads, states first.
fn names(n: usize, needs: Needs) -> Vec<String> {
    let Needs { image_embeds, hidden_states, id_embeds } = needs;
    let read = [
        hidden_states.map(|_| "hidden_states"),
        image_embeds.map(|_| "image_embeds"),
        id_embeds.map(|_| "id_embeds"),
    ];
    read.into_iter().flatten().map(|what| format!("{what}.{n}")).collect()
}

/// What adapter `n` reads of all pictures.
fn features(
    inputs: &Inputs,
    prefix: &str,
    n: usize,
    needs: Needs,
    device: &Device,
) -> Result<ImagePromptEmbeds> {
    let name = |what: &str| format!("{prefix}{what}.{n}");
    let embeds = |what: &str, width: Option<usize>| -> Result<Option<Tensor<2>>> {
        width.map(|width| inputs.tensor(&name(what), [Any("pictures"), Exactly(width)], device)).transpose()
    };
    let states = |hidden| {
        let axes = [Any("pictures"), Any("tokens"), Exactly(hidden)];
        inputs.tensor(&name("hidden_states"), axes, device)
    };
    let features = ImagePromptEmbeds {
        hidden_states: needs.hidden_states.map(states).transpose()?,
        image_embeds: embeds("image_embeds", needs.image_embeds)?,
        id_embeds: embeds("id_embeds", needs.id_embeds)?,
    };
    // An adapter that reads two things reads both of each.
    if let (Some(states), Some(embeds)) = (&features.hidden_states, &features.id_embeds) {
        inputs.shape(&name("id_embeds"), [Exactly(states.dims()[0]), Exactly(embeds.dims()[1])])?;
    }
    Ok(features)
}

/// How many pictures there are features of.
fn count(features: &ImagePromptEmbeds) -> usize {
    let embeds = features.image_embeds.as_ref().or(features.id_embeds.as_ref());
    let states = features.hidden_states.as_ref();
    embeds.map(|embeds| embeds.dims()[0]).or(states.map(|states| states.dims()[0])).unwrap_or(0)
}

/// What is seen of a picture; nothing where neither embedding nor states are given.
fn output(embeds: Option<Tensor<2>>, states: Option<Tensor<3>>, device: &Device) -> Option<VisionOutput> {
    if embeds.is_none() && states.is_none() {
        return None;
    }
    // No adapter that reads states reads the embedding beside them.
    let image_embeds = embeds.unwrap_or_else(|| Tensor::zeros([1, 1], device));
    Some(VisionOutput { image_embeds, last_hidden_state: None, penultimate_hidden_state: states })
}

/// Where each image of adapter `n` acts.
pub fn places(inputs: &Inputs, n: usize, images: usize) -> Result<Option<Places>> {
    let name = format!("ip_mask.{n}");
    if !inputs.has(&name) {
        return Ok(None);
    }
    let [_, height, width] = inputs.shape(&name, [Exactly(images), Any("height"), Any("width")])?;
    let (_, values) = inputs.values(&name)?;
    let masks = values.chunks(height * width).map(<[f32]>::to_vec).collect();
    Ok(Some(Places::Masks(Masks::new(height, width, masks)?)))
}
