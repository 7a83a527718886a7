//! What a [`Condition`] means to every cross-attention of a UNet, made once per picture.

use burn::tensor::{DType, Tensor};

use super::{Segment, UNet2DConditionModel};
use crate::attention::{CrossContext, LevelCondition};
use crate::condition::{Added, Condition};
use crate::error::{Error, Result};

/// A [`Condition`] as keys and values of every cross-attention of one UNet, with the identities' weights at every
/// level of one latent size. Nothing in it depends on the latents or the timestep, so a sampling loop makes it once.
#[derive(Debug, Clone)]
pub struct PreparedCondition {
    segments: Vec<Vec<CrossContext>>,
    /// What is added to the timestep's embedding, `[batch, time_embed_dim]`, f32.
    added: Option<Tensor<2>>,
}

impl PreparedCondition {
    /// Of each of the UNet's [segments](UNet2DConditionModel::segments), what its cross-attentions attend to.
    pub fn segments(&self) -> &[Vec<CrossContext>] {
        &self.segments
    }

    /// What is added to the timestep's embedding, `[batch, time_embed_dim]`.
    pub fn added(&self) -> Option<&Tensor<2>> {
        self.added.as_ref()
    }

    /// What of it acts after `progress` (0 to 1) of the sampling steps: streams may act in a part of them only.
    pub fn at(&self, progress: f32) -> Self {
        let now =
            |contexts: &Vec<CrossContext>| contexts.iter().map(|context| context.at(progress)).collect();
        Self { segments: self.segments.iter().map(now).collect(), added: self.added.clone() }
    }
}

impl UNet2DConditionModel {
    /// Prepares `condition` for latents of the size, precision and device of `sample` (`[_, _, height, width]`); its tokens'
    /// batch is that of the [forward passes](Self::forward_prepared) to come.
    ///
    /// Fails with `adapter-missing` where the condition has a stream for an adapter that was not [added](Self::add_adapter),
    /// and with `condition-added` as [`added`](Self::added) does.
    pub fn prepare(&self, condition: &Condition, sample: &Tensor<4>) -> Result<PreparedCondition> {
        let [_, _, height, width] = sample.dims();
        // Finest first: each downsampling halves, rounding up.
        let halved = |[h, w]: &[usize; 2]| Some([h.div_ceil(2), w.div_ceil(2)]);
        let levels: Vec<LevelCondition> = std::iter::successors(Some([height, width]), halved)
            .take(self.down_blocks.len())
            .map(|size| LevelCondition::new(condition, size, sample))
            .collect();
        let contexts = |segment: &Segment| segment.contexts(&levels[segment.level]);
        let segments = self.segments().iter().map(contexts).collect::<Result<_>>()?;
        Ok(PreparedCondition { segments, added: self.added(condition)? })
    }

    /// What `condition` adds to the timestep's embedding, `[batch, time_embed_dim]`, f32.
    ///
    /// Fails with `condition-added` where it has anything to add that this network has no layer for, of another width, or nothing
    /// where the network's layer wants something.
    pub fn added(&self, condition: &Condition) -> Result<Option<Tensor<2>>> {
        match (&self.class_embedding, &condition.added) {
            (None, None) => Ok(None),
            (Some(layer), Some(Added::ClassLabels(labels)))
                if labels.dims()[1] == layer.weight.lazy_shape()[1] =>
            {
                Ok(Some(layer.forward(labels.clone().cast(DType::F32))))
            }
            (layer, added) => Err(Error::internal(
                "condition-added",
                format!(
                    "the unet {} class labels; the condition has {}",
                    layer.as_ref().map_or("takes no", |_| "takes"),
                    match added {
                        None => "none".to_owned(),
                        Some(Added::ClassLabels(labels)) => format!("some of {} numbers", labels.dims()[1]),
                        Some(Added::TextTime { .. }) => "pooled text and sizes".to_owned(),
                        Some(Added::References { .. }) => "reference pictures".to_owned(),
                    }
                ),
            )),
        }
    }
}
