//! From noise to latents: the sampling loop that tells of every step, and waits for what hears of it.

use burn::tensor::{DType, Tensor, TensorData};

use super::network::Network;
use super::regions::Canvas;
use crate::condition::Condition;
use crate::error::Result;
use crate::guidance::classifier_free::guide;
use crate::nn::read_finite;
use crate::sampling::{Scheduler, StepOutput};

/// A network and what it is told; with a guidance scale, the condition's batch holds the null half first.
#[derive(Debug)]
pub struct Denoiser<'a> {
    /// The network.
    pub network: &'a dyn Network,
    /// What it attends to.
    pub condition: Condition,
    /// Classifier-free guidance; `None` without.
    pub guidance_scale: Option<f32>,
    /// What the network computes in; everything around it is f32.
    pub dtype: DType,
}

impl Denoiser<'_> {
    /// As the network takes latents of one picture: once for each half of guidance.
    fn input(&self, latents: Tensor<4>) -> Tensor<4> {
        let latents = match self.guidance_scale {
            None => latents,
            Some(_) => Tensor::cat(vec![latents.clone(), latents], 0),
        };
        latents.cast(self.dtype)
    }

    /// What of the network's output the sampler takes.
    fn output(&self, predicted: Tensor<4>) -> Tensor<4> {
        let predicted = predicted.cast(DType::F32);
        match self.guidance_scale {
            None => predicted,
            Some(scale) => guide(predicted, scale),
        }
    }
}

/// What the loop starts from: `noise` at the level of the schedule's first step, over the latents of an `init` image where
/// there is one, whatever its strength.
///
/// Inpainting (`inpaint`) at strength 1 starts from noise alone: what the picture was inside the mask must not show. Both are as
/// in diffusers' pipelines.
pub fn start(
    scheduler: &Scheduler,
    noise: &Tensor<4>,
    init: Option<(&Tensor<4>, f32)>,
    inpaint: Option<&InpaintMask>,
) -> Result<Tensor<4>> {
    match init {
        Some((init, strength)) if inpaint.is_none() || strength < 1.0 => {
            scheduler.add_noise(0, init.clone(), noise.clone())
        }
        _ => Ok(noise.clone() * scheduler.schedule().init_noise_sigma()),
    }
}

/// Takes `latents` (`[1, channels, height, width]`, at the level of the schedule's first step) through every step.
///
/// `noise` gives step `i`'s fresh noise, and is asked where the sampler takes any. `inpaint`, if any, keeps a part of the latents.
/// `after` hears of every step, counted from 1, before the next one starts; its error ends the loop.
pub async fn denoise(
    denoiser: &Denoiser<'_>,
    mut scheduler: Scheduler,
    mut latents: Tensor<4>,
    noise: impl Fn(usize) -> Option<Tensor<4>>,
    inpaint: Option<&InpaintMask>,
    mut after: impl AsyncFnMut(usize, StepOutput) -> Result<()>,
) -> Result<Tensor<4>> {
    let network = denoiser.network.under(&denoiser.condition, &denoiser.input(latents.clone()))?;
    let steps = scheduler.schedule().len();
    for i in 0..steps {
        let predict = |latents, timestep| {
            let predicted = network.predict(denoiser.input(latents), timestep, i as f32 / steps as f32)?;
            Ok(denoiser.output(predicted))
        };
        let mut output = scheduler.advance(i, latents, predict, &noise)?;
        if let Some(inpaint) = inpaint {
            output.sample = inpaint.put_back(output.sample, i + 1, &scheduler)?;
        }
        latents = output.sample.clone();
        // A GPU only queues what it is told: without this wait progress and cancelling would run ahead of it by many steps.
        read_finite(latents.clone(), &format!("the latents of step {}", i + 1)).await?;
        after(i + 1, output).await?;
    }
    Ok(latents)
}

/// Latents that must stay the init image's, as in inpainting.
#[derive(Debug)]
pub struct InpaintMask {
    init: Tensor<4>,
    /// 1 where latents may change, `[1, 1, height, width]`.
    mask: Tensor<4>,
    /// The noise that the picture starts from.
    start: Tensor<4>,
}

impl InpaintMask {
    /// Latents of `init` that stay where `mask`, one value for each of the canvas's latents, is 0; they are noised
    /// with `start`.
    pub fn new(init: &Tensor<4>, mask: &[f32], start: &Tensor<4>, canvas: &Canvas) -> Self {
        let mask = TensorData::new(mask.to_vec(), [1, 1, canvas.latent_height, canvas.latent_width]);
        let mask = Tensor::from_data(mask, &init.device());
        Self { init: init.clone(), mask, start: start.clone() }
    }

    /// Puts the init image's latents back, noised to the level that step `next` starts from (clean after the last).
    fn put_back(&self, latents: Tensor<4>, next: usize, scheduler: &Scheduler) -> Result<Tensor<4>> {
        let kept = if next < scheduler.schedule().len() {
            scheduler.add_noise(next, self.init.clone(), self.start.clone())?
        } else {
            self.init.clone()
        };
        Ok(latents * self.mask.clone() + kept * (self.mask.clone() * -1.0 + 1.0))
    }
}
