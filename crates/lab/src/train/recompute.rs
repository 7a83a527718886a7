//! Gradients of the UNet in the memory of its largest segment (Chen et al. 2016, arXiv 1604.06174; diffusers'
//! `enable_gradient_checkpointing`).
//!
//! ```text
//! forwards, nothing recorded    x₀ ─ segment 1 ─ x₁ ─ segment 2 ─ x₂ ─ … ─ loss
//! backwards, the last first     xᵢ₋₁ ─ segment i, recorded ─ xᵢ · ∂loss/∂xᵢ ─ ∂loss/∂xᵢ₋₁ and the gradients of its weights
//! ```
//!
//! The `x` are all that is kept: each segment is computed twice, and what it keeps for its gradients is let go of before the
//! next one is computed.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};

use super::run::Gather;
use facestudio::attention::LevelCondition;
use facestudio::condition::Condition;
use facestudio::error::{Error, Result};
use facestudio::unet::{HiddenStates, Skip, UNet2DConditionModel};

/// The loss (f32, `[1]`) of what `unet` predicts; its arguments are as those of [`UNet2DConditionModel::forward`].
///
/// `gather` gets the loss's gradients in parts, which add up to those of all that was recorded: the UNet's weights and what
/// made the condition's tokens.
pub fn backward(
    unet: &UNet2DConditionModel,
    sample: Tensor<4>,
    timestep: Tensor<1>,
    condition: &Condition,
    loss: impl FnOnce(Tensor<4>) -> Tensor<1>,
    gather: Gather,
) -> Result<Tensor<1>> {
    let added = unet.added(condition)?;
    let mut temb = Shared::new(unet.embed(timestep, added.as_ref(), sample.dtype()));
    let mut tokens: Vec<Shared<3>> = Vec::new();
    let plain = condition.clone().map_tokens(|made| {
        tokens.push(Shared::new(made.clone()));
        made.inner()
    });
    let (inputs, predicted) = forward(&unet.valid(), sample.inner(), temb.made.clone().inner(), &plain)?;

    let predicted = leaf(predicted);
    let loss = loss(predicted.clone());
    let mut gradients = loss.backward();
    let mut gradient = take_gradient(&predicted, &mut gradients)?;
    gather(gradients)?;

    let mut of_skips = Vec::new();
    for (segment, HiddenStates { x, mut skips }) in unet.segments().iter().zip(inputs).rev() {
        let x = leaf(x);
        let skip = if segment.skip == Skip::Takes { skips.pop().map(leaf) } else { None };
        skips.extend(skip.clone());
        if segment.skip == Skip::Leaves
            && let Some(of_skip) = of_skips.pop()
        {
            gradient = gradient + of_skip;
        }
        let temb_here = leaf(temb.made.clone().inner());
        let mut tokens_here = Vec::new();
        let condition = plain.clone().map_tokens(|tokens| {
            tokens_here.push(leaf(tokens));
            tokens_here[tokens_here.len() - 1].clone()
        });
        let [_, _, height, width] = x.dims();
        let contexts = segment.contexts(&LevelCondition::new(&condition, [height, width], &x))?;
        let out = segment.forward(HiddenStates { x: x.clone(), skips }, &temb_here, &contexts).x;
        let mut gradients = (out * gradient).sum().backward();
        gradient = take_gradient(&x, &mut gradients)?;
        if let Some(skip) = skip {
            of_skips.push(take_gradient(&skip, &mut gradients)?);
        }
        temb.add(&temb_here, &mut gradients);
        for (tokens, here) in tokens.iter_mut().zip(&tokens_here) {
            tokens.add(here, &mut gradients);
        }
        gather(gradients)?;
    }

    let shared = temb.pulled().into_iter().chain(tokens.into_iter().filter_map(Shared::pulled));
    if let Some(pulled) = shared.reduce(|sum, one| sum + one) {
        gather(pulled.backward())?;
    }
    Ok(loss)
}

/// The input of each segment, and the prediction.
fn forward(
    unet: &UNet2DConditionModel,
    sample: Tensor<4>,
    temb: Tensor<2>,
    condition: &Condition,
) -> Result<(Vec<HiddenStates>, Tensor<4>)> {
    let contexts = unet.prepare(condition, &sample)?;
    let mut features = HiddenStates { x: sample, skips: Vec::new() };
    let mut inputs = Vec::new();
    for (segment, contexts) in unet.segments().iter().zip(contexts.segments()) {
        inputs.push(features.clone());
        features = segment.forward(features, &temb, contexts);
    }
    Ok((inputs, features.x))
}

/// What several segments use. What made it gets the sum of their gradients, once.
struct Shared<const D: usize> {
    made: Tensor<D>,
    gradient: Option<Tensor<D>>,
}

impl<const D: usize> Shared<D> {
    fn new(made: Tensor<D>) -> Self {
        Self { made, gradient: None }
    }

    /// Not every segment uses everything.
    fn add(&mut self, leaf: &Tensor<D>, gradients: &mut Gradients) {
        let more = leaf.grad_remove(gradients);
        self.gradient = match (self.gradient.take(), more) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
    }

    /// A number whose gradients are the loss's; none where nothing recorded made it.
    fn pulled(self) -> Option<Tensor<1>> {
        let gradient = self.gradient?;
        self.made.is_tracked().then(|| (self.made * gradient).sum())
    }
}

/// Where a recording begins.
fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.autodiff().require_grad()
}

fn take_gradient<const D: usize>(leaf: &Tensor<D>, gradients: &mut Gradients) -> Result<Tensor<D>> {
    leaf.grad_remove(gradients)
        .ok_or_else(|| Error::internal("gradient-missing", "no gradient reached a segment's input"))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;
    use crate::train::denoiser::Denoiser;
    use crate::train::diffusion::DiffusionTrainee;
    use crate::train::optim::{AdamW, AdamWConfig};
    use crate::train::rng::Rng;
    use facestudio::condition::{Added, Places, Projection, Regions, Stream};
    use facestudio::guidance::fusion::FusionConfig;
    use facestudio::unet::UNet2DConditionConfig;
    use facestudio::weights::{apply, collect};

    /// Of a tensor's largest gradient, the project's measure for parity. Both ways run the same operations, on inputs that
    /// differ in their last bits: forwards, our kernels take the place of burn's operations, and sum in another order. The
    /// largest difference found is a fifth of it, where gradients nearly cancel.
    const TOLERANCE: f32 = 1e-4;

    const BATCH: usize = 2;

    /// Blocks with and without attention, levels of odd sizes, a transformer of two blocks.
    fn trainee(device: &Device) -> DiffusionTrainee {
        let unet: UNet2DConditionConfig = serde_json::from_value(serde_json::json!({
            "block_out_channels": [8, 16, 16], "layers_per_block": [1, 2, 1], "norm_num_groups": 4,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": 2, "transformer_layers_per_block": [1, 2, 1], "cross_attention_dim": 6,
            "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 5,
        }))
        .unwrap();
        let guidance =
            FusionConfig { image_embed_dim: 5, id_embed_dim: 3, n_tokens: 2, cross_attention_dim: 6 };
        let model = DiffusionTrainee {
            denoiser: Denoiser::UNet(unet.init(device).unwrap()),
            guidance: guidance.init(device).unwrap(),
        };
        // Not burn's generator: tests that run side by side share its state.
        let mut rng = Rng::new(2, 2);
        let mut weights = collect(&model, "").unwrap();
        for (shape, values) in weights.0.values_mut() {
            let fan_in: usize = shape.iter().skip(1).product();
            *values = rng.normals(values.len()).iter().map(|v| v / (fan_in as f32).sqrt()).collect();
        }
        apply(model, &weights, "").unwrap()
    }

    fn normals<const D: usize>(rng: &mut Rng, shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(rng.normals(shape.iter().product()), shape), device)
    }

    /// By parameter.
    type Named = Vec<(String, Vec<f32>)>;

    /// The loss and, but for a factor, the gradients of a step.
    fn step(model: &DiffusionTrainee, again: bool, people: usize, dtype: DType) -> (f32, Named) {
        let Denoiser::UNet(unet) = &model.denoiser else { panic!("no UNet") };
        let device = model.devices()[0].clone();
        let mut rng = Rng::new(1, 1);
        let sample = normals(&mut rng, [BATCH, 4, 7, 5], &device).cast(dtype);
        let target: Tensor<4> = normals(&mut rng, [BATCH, 4, 7, 5], &device);
        let timestep = Tensor::from_floats([3.0, 700.0], &device);
        let image_embeds: Tensor<2> = normals(&mut rng, [BATCH, 5], &device);
        let mut tokens = || {
            let id_embeds = normals(&mut rng, [BATCH, 3], &device);
            model.guidance.forward(image_embeds.clone(), id_embeds).cast(dtype)
        };
        let condition = if people == 1 {
            Condition::single(tokens())
        } else {
            // The last one is nowhere.
            let mask = |person: usize| (0..35).map(|p| f32::from(p % 5 / 2 == person)).collect();
            let masks = (0..people - 1).map(mask).chain([vec![0.0; 35]]).collect();
            let regions = Regions::new(7, 5, masks, 0).unwrap();
            let tokens = (0..people).map(|_| tokens()).collect();
            Condition::new(vec![
                Stream::new(Projection::Own, tokens, Some(Places::Regions(regions))).unwrap(),
            ])
        };
        let condition = condition.adding(Some(Added::ClassLabels(image_embeds.clone())));
        let loss = |predicted: Tensor<4>| (predicted.cast(DType::F32) - target).square().mean();
        let mut optimizer = AdamW::new(AdamWConfig { max_grad_norm: f32::MAX, ..AdamWConfig::default() });
        let loss = if again {
            let gather: Gather = &mut |gradients| optimizer.gather(model, gradients);
            backward(unet, sample, timestep, &condition, loss, gather).unwrap()
        } else {
            let loss = loss(unet.forward(sample, timestep, &condition).unwrap());
            optimizer.gather(model, loss.backward()).unwrap();
            loss
        };
        optimizer.step(model.clone(), 1, 1e-3);
        let moments = optimizer.state().1.into_iter().filter_map(|(name, (_, values))| {
            name.strip_prefix("m.").map(|name| (name.to_owned(), values.to_vec()))
        });
        (loss.into_scalar(), moments.collect())
    }

    fn assert_same(people: usize) {
        let model = trainee(&Device::flex().autodiff());
        let [(again, ours), (once, theirs)] =
            [true, false].map(|again| step(&model, again, people, DType::F32));
        assert!((again - once).abs() <= TOLERANCE * once, "{again} {once}");
        let parameters = collect(&model, "").unwrap().0;
        assert_eq!([ours.len(), theirs.len()], [parameters.len(); 2]);
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            let largest = theirs.iter().fold(0f32, |largest, g| largest.max(g.abs()));
            let off = ours.iter().zip(theirs).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(largest > 0.0 && off <= TOLERANCE * largest, "{name}: {off} of {largest}");
        }
    }

    #[test]
    fn gradients_are_those_of_one_recording() {
        assert_same(1);
    }

    #[test]
    fn so_they_are_with_several_people() {
        assert_same(3);
    }

    /// What many segments share is summed in another order, in 8 bits: no further from f32's gradients than one recording.
    #[test]
    fn in_bf16_they_are_as_exact_as_those_of_one_recording() {
        let model = trainee(&Device::flex().autodiff());
        let exact = step(&model, false, 3, DType::F32).1;
        let [ours, theirs] = [true, false].map(|again| {
            let gradients = step(&model, again, 3, DType::BF16).1;
            let values = |of: &Named| of.iter().flat_map(|(_, values)| values.clone()).collect::<Vec<_>>();
            values(&gradients).iter().zip(values(&exact)).map(|(g, exact)| (g - exact).powi(2)).sum::<f32>()
        });
        assert!(theirs > 0.0 && ours < 1.5 * theirs, "{ours} {theirs}");
    }
}
