//! The transformer as the sampling loop sees a denoiser: latents in, the velocity in them out.

use burn::tensor::Tensor;

use super::{
    Flux2Input, Flux2Transformer2DModel, ReferenceCache, Sight, TokenId, image_ids, misfit, reference_ids,
    sight::sight, text_ids,
};
use crate::condition::{Added, Condition, LayerScale, Projection, Reference, Stream};
use crate::error::{Error, Result};

/// The highest number of a reference picture; models take ten at most.
const MOST_PICTURES: usize = 1000;

/// A [`Condition`] for latents of one size and batch. Nothing in it depends on the latents or the timestep, so a sampling
/// loop makes it once.
#[derive(Debug, Clone)]
pub struct PreparedFlux2Condition {
    text: Tensor<3>,
    guidance: Option<Tensor<1>>,
    /// Of the references that are seen, `[batch, tokens, channels]` each.
    references: Vec<Tensor<3>>,
    picture_ids: Vec<TokenId>,
    reference_ids: Vec<TokenId>,
    sight: Option<Sight>,
    /// Of the latents.
    dims: [usize; 4],
}

impl Flux2Transformer2DModel {
    /// Prepares `condition` for latents of the size, batch, precision and device of `latents`, `[batch, channels, h, w]`. Its one
    /// stream is the text, `[batch, tokens, joint_attention_dim]`.
    ///
    /// Fails with `condition-added` where it has other streams, or adds what this network does not take, and with
    /// `condition-shape` where a reference picture does not fit the latents.
    pub fn prepare(&self, condition: &Condition, latents: &Tensor<4>) -> Result<PreparedFlux2Condition> {
        let dims @ [batch, _, height, width] = latents.dims();
        let device = latents.device();
        let (text, guidance) = text_and_guidance(condition)?;
        let references = seen(condition.references(), latents)?;
        let [_, tokens_of_text, _] = text.dims();
        let sight = sight(tokens_of_text, height * width, &references, &device);
        let (references, reference_ids) = tokens(&references, latents);
        Ok(PreparedFlux2Condition {
            text,
            guidance: guidance.map(|scale| Tensor::full([batch], scale, &device)),
            references,
            picture_ids: image_ids(height, width),
            reference_ids,
            sight,
            dims,
        })
    }

    /// The velocity in `latents`, `[batch, channels, h, w]` both; `timestep` in training steps. The reference pictures' tokens
    /// stand behind the picture's and are computed in every step, as in diffusers' `Flux2KleinPipeline`.
    ///
    /// Fails as [`forward`](Self::forward) does.
    pub fn velocity(
        &self,
        latents: Tensor<4>,
        timestep: f32,
        condition: &PreparedFlux2Condition,
    ) -> Result<Tensor<4>> {
        let [_, _, height, width] = condition.dims;
        let tokens = [condition.tokens(latents)?].into_iter().chain(condition.references.iter().cloned());
        let ids = [condition.picture_ids.as_slice(), condition.reference_ids.as_slice()].concat();
        let input = condition.input(Tensor::cat(tokens.collect(), 1), timestep, ids);
        let velocity = self.forward(&Flux2Input { sight: condition.sight.clone(), ..input })?;
        Ok(latents_of(velocity.narrow(1, 0, height * width), [height, width]))
    }

    /// As [`velocity`](Self::velocity) for models that see reference pictures alone for themselves: what is computed of them is
    /// kept, and used again by [`velocity_with`](Self::velocity_with), as in diffusers' `Flux2KleinKVPipeline`. Strengths and
    /// regions fail with `condition-shape`: what is kept has none.
    pub fn velocity_keeping(
        &self,
        latents: Tensor<4>,
        timestep: f32,
        condition: &PreparedFlux2Condition,
    ) -> Result<(Tensor<4>, ReferenceCache)> {
        let [_, _, height, width] = condition.dims;
        if condition.sight.is_some() {
            return Err(misfit("a strength or a region of a reference picture whose keys are kept"));
        }
        let tokens = condition.references.iter().cloned().chain([condition.tokens(latents)?]);
        let ids = [condition.reference_ids.as_slice(), condition.picture_ids.as_slice()].concat();
        let input = condition.input(Tensor::cat(tokens.collect(), 1), timestep, ids);
        let (velocity, cache) = self.forward_keeping(&input, condition.reference_ids.len())?;
        Ok((latents_of(velocity, [height, width]), cache))
    }

    /// A step after [`velocity_keeping`](Self::velocity_keeping).
    pub fn velocity_with(
        &self,
        latents: Tensor<4>,
        timestep: f32,
        condition: &PreparedFlux2Condition,
        cache: &ReferenceCache,
    ) -> Result<Tensor<4>> {
        let [_, _, height, width] = condition.dims;
        let input = condition.input(condition.tokens(latents)?, timestep, condition.picture_ids.clone());
        Ok(latents_of(self.forward_with(&input, cache)?, [height, width]))
    }
}

impl PreparedFlux2Condition {
    /// The latents' tokens, if they are what this was prepared for.
    fn tokens(&self, latents: Tensor<4>) -> Result<Tensor<3>> {
        if latents.dims() != self.dims {
            return Err(misfit(format!(
                "latents of {:?} under a condition for {:?}",
                latents.dims(),
                self.dims
            )));
        }
        Ok(tokens_of(latents))
    }

    fn input(&self, hidden_states: Tensor<3>, timestep: f32, image_ids: Vec<TokenId>) -> Flux2Input {
        let [batch, _, _] = hidden_states.dims();
        let [_, text, _] = self.text.dims();
        Flux2Input {
            timestep: Tensor::full([batch], timestep, &hidden_states.device()),
            hidden_states,
            encoder_hidden_states: self.text.clone(),
            guidance: self.guidance.clone(),
            image_ids,
            text_ids: text_ids(text),
            sight: None,
        }
    }
}

/// The tokens of the text, and the guidance scale of a model that is distilled for one.
fn text_and_guidance(condition: &Condition) -> Result<(Tensor<3>, Option<f32>)> {
    let guidance = match &condition.added {
        None => None,
        Some(Added::References { guidance, .. }) => *guidance,
        Some(Added::ClassLabels(_) | Added::TextTime { .. }) => {
            return Err(refused("the condition adds to a timestep, which this transformer does not take"));
        }
    };
    let plain = |stream: &&Stream| {
        stream.projection == Projection::Own
            && stream.places.is_none()
            && stream.scale == LayerScale::All(1.0)
            && stream.interval == (0.0..1.0)
    };
    match &condition.streams[..] {
        [stream] if plain(&stream) && stream.tokens.len() == 1 => Ok((stream.tokens[0].clone(), guidance)),
        _ => Err(refused("the condition is not one text, which acts everywhere")),
    }
}

fn refused(message: &str) -> Error {
    Error::internal("condition-added", message)
}

/// The references that are seen at all. Fails with `condition-shape` where one does not fit the latents.
fn seen<'a>(references: &'a [Reference], latents: &Tensor<4>) -> Result<Vec<&'a Reference>> {
    let [_, channels, height, width] = latents.dims();
    for Reference { latents, number, strength, region } in references {
        let [one, of, h, w] = latents.dims();
        if [one, of] != [1, channels] || h * w == 0 || !(1..=MOST_PICTURES).contains(number) {
            return Err(misfit(format!(
                "reference picture {number}: its latents are {:?}; one of {channels} channels is needed",
                latents.dims()
            )));
        }
        if !(strength.is_finite() && *strength >= 0.0) {
            return Err(misfit(format!("reference picture {number}: its strength is {strength}")));
        }
        let usable = |region: &Vec<f32>| {
            region.len() == height * width && region.iter().all(|seen| (0.0..=1.0).contains(seen))
        };
        if !region.as_ref().is_none_or(usable) {
            return Err(misfit(format!(
                "reference picture {number}: its region is not {height} by {width} numbers from 0 to 1"
            )));
        }
    }
    Ok(references.iter().filter(|reference| !reference.is_unseen()).collect())
}

/// The references' tokens, for each of the latents' batch, and their ids.
fn tokens(references: &[&Reference], latents: &Tensor<4>) -> (Vec<Tensor<3>>, Vec<TokenId>) {
    let [batch, channels, _, _] = latents.dims();
    let of = |reference: &&Reference| {
        let tokens = tokens_of(reference.latents.clone().cast(latents.dtype()));
        tokens.expand([batch, reference.tokens(), channels])
    };
    let ids = references.iter().flat_map(|reference| {
        let [_, _, height, width] = reference.latents.dims();
        reference_ids(reference.number, height, width)
    });
    (references.iter().map(of).collect(), ids.collect())
}

/// `[batch, channels, h, w]` → `[batch, h · w, channels]`.
fn tokens_of(latents: Tensor<4>) -> Tensor<3> {
    let [batch, channels, height, width] = latents.dims();
    latents.reshape([batch, channels, height * width]).swap_dims(1, 2)
}

/// What [`tokens_of`] were made of.
fn latents_of(tokens: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = tokens.dims();
    tokens.swap_dims(1, 2).reshape([batch, channels, height, width])
}
