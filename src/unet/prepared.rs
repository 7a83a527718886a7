//! What a [`Condition`] means to every cross-attention of a UNet, made once per picture.

use burn::tensor::Tensor;

use super::{CrossContext, LevelCondition, Segment, UNet2DConditionModel};
use crate::condition::Condition;
use crate::error::{Error, Result};

/// A [`Condition`] as keys and values of every cross-attention of one UNet, with the identities' weights at every
/// level of one latent size. Nothing in it depends on the latents or the timestep, so a sampling loop makes it once.
#[derive(Debug, Clone)]
pub struct PreparedCondition {
    segments: Vec<Vec<CrossContext>>,
}

impl PreparedCondition {
    /// Of each of the UNet's [segments](UNet2DConditionModel::segments), what its cross-attentions attend to.
    pub fn segments(&self) -> &[Vec<CrossContext>] {
        &self.segments
    }

    /// What of it acts after `progress` (0 to 1) of the sampling steps: streams may act in a part of them only.
    pub fn at(&self, progress: f32) -> Self {
        let now =
            |contexts: &Vec<CrossContext>| contexts.iter().map(|context| context.at(progress)).collect();
        Self { segments: self.segments.iter().map(now).collect() }
    }
}

impl UNet2DConditionModel {
    /// Prepares `condition` for latents of the size, precision and device of `sample` (`[_, _, height, width]`); its tokens'
    /// batch is that of the [forward passes](Self::forward_prepared) to come.
    ///
    /// Fails with `adapter-missing` where the condition has a stream for an adapter that was not [added](Self::add_adapter),
    /// and with `condition-added` where it has anything to add to the timestep's embedding, which this network does not take.
    pub fn prepare(&self, condition: &Condition, sample: &Tensor<4>) -> Result<PreparedCondition> {
        if condition.added.is_some() {
            return Err(Error::internal(
                "condition-added",
                "pooled text and sizes are for a unet with addition_embed_type, which this one has not",
            ));
        }
        let [_, _, height, width] = sample.dims();
        // Finest first: each downsampling halves, rounding up.
        let halved = |[h, w]: &[usize; 2]| Some([h.div_ceil(2), w.div_ceil(2)]);
        let levels: Vec<LevelCondition> = std::iter::successors(Some([height, width]), halved)
            .take(self.down_blocks.len())
            .map(|size| LevelCondition::new(condition, size, sample))
            .collect();
        let contexts = |segment: &Segment| segment.contexts(&levels[segment.level]);
        Ok(PreparedCondition { segments: self.segments().iter().map(contexts).collect::<Result<_>>()? })
    }
}
