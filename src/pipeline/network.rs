//! [`Network`]: a denoiser as the sampling loop sees it, whichever architecture it has.

use std::fmt::Debug;

use burn::tensor::Tensor;

use crate::condition::Condition;
use crate::error::Result;
use crate::pixart::{PixArtTransformer2DModel, PreparedPixArtCondition};
use crate::transformer::{Flux2Transformer2DModel, PreparedFlux2Condition};
use crate::unet::{PreparedCondition, UNet2DConditionModel};

/// A network that denoises.
pub trait Network: Debug + Send + Sync {
    /// The network under a condition, for latents of the size, batch, precision and device of `latents`,
    /// `[batch, channels, height, width]`: made once for a picture.
    ///
    /// Fails where the condition is none for this architecture.
    fn under<'a>(&'a self, condition: &Condition, latents: &Tensor<4>) -> Result<Box<dyn Predict + 'a>>;
}

/// A network under a condition.
pub trait Predict {
    /// What the network says of `latents`, `[batch, channels, height, width]` both: the noise, a velocity or what else its
    /// scheduler takes. `timestep` is in training steps, `progress` the part of the steps that lies behind, from 0 to 1.
    fn predict(&self, latents: Tensor<4>, timestep: f32, progress: f32) -> Result<Tensor<4>>;
}

struct Under<'a, N, C> {
    network: &'a N,
    condition: C,
}

impl Network for UNet2DConditionModel {
    fn under<'a>(&'a self, condition: &Condition, latents: &Tensor<4>) -> Result<Box<dyn Predict + 'a>> {
        Ok(Box::new(Under { network: self, condition: self.prepare(condition, latents)? }))
    }
}

impl Predict for Under<'_, UNet2DConditionModel, PreparedCondition> {
    fn predict(&self, latents: Tensor<4>, timestep: f32, progress: f32) -> Result<Tensor<4>> {
        let timesteps = Tensor::full([latents.dims()[0]], timestep, &latents.device());
        Ok(self.network.forward_prepared(latents, timesteps, &self.condition.at(progress)))
    }
}

impl Network for PixArtTransformer2DModel {
    fn under<'a>(&'a self, condition: &Condition, latents: &Tensor<4>) -> Result<Box<dyn Predict + 'a>> {
        Ok(Box::new(Under { network: self, condition: self.prepare(condition, latents)? }))
    }
}

impl Predict for Under<'_, PixArtTransformer2DModel, PreparedPixArtCondition> {
    fn predict(&self, latents: Tensor<4>, timestep: f32, progress: f32) -> Result<Tensor<4>> {
        // One timestep counts for the whole batch.
        let timestep = Tensor::full([1], timestep, &latents.device());
        Ok(self.network.forward_prepared(latents, timestep, &self.condition.at(progress)))
    }
}

impl Network for Flux2Transformer2DModel {
    fn under<'a>(&'a self, condition: &Condition, latents: &Tensor<4>) -> Result<Box<dyn Predict + 'a>> {
        Ok(Box::new(Under { network: self, condition: self.prepare(condition, latents)? }))
    }
}

impl Predict for Under<'_, Flux2Transformer2DModel, PreparedFlux2Condition> {
    fn predict(&self, latents: Tensor<4>, timestep: f32, _: f32) -> Result<Tensor<4>> {
        self.network.velocity(latents, timestep, &self.condition)
    }
}
