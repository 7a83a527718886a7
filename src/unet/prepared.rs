//! What a [`Condition`] means to every cross-attention of a UNet, made once per picture.

use burn::tensor::Tensor;

use super::{CrossContext, LevelCondition, Transformer2DModel, UNet2DConditionModel};
use crate::condition::Condition;

/// Of each transformer of a block, what its cross-attentions attend to.
pub type BlockContexts = Vec<Vec<CrossContext>>;

/// A [`Condition`] as keys and values of every cross-attention of one UNet, with the identities' weights at every
/// level of one latent size. Nothing in it depends on the latents or the timestep, so a sampling loop makes it once.
#[derive(Debug, Clone)]
pub struct PreparedCondition {
    pub(super) down_blocks: Vec<BlockContexts>,
    pub(super) mid_block: BlockContexts,
    pub(super) up_blocks: Vec<BlockContexts>,
}

impl PreparedCondition {
    /// What of it acts after `progress` (0 to 1) of the sampling steps: adapters may act in a part of them only.
    pub fn at(&self, progress: f32) -> Self {
        let block = |contexts: &BlockContexts| -> BlockContexts {
            contexts.iter().map(|layer| layer.iter().map(|context| context.at(progress)).collect()).collect()
        };
        Self {
            down_blocks: self.down_blocks.iter().map(block).collect(),
            mid_block: block(&self.mid_block),
            up_blocks: self.up_blocks.iter().map(block).collect(),
        }
    }
}

impl UNet2DConditionModel {
    /// Prepares `condition` for latents of the size, precision and device of `sample` (`[_, _, height, width]`); its tokens'
    /// batch is that of the [forward passes](Self::forward_prepared) to come.
    ///
    /// # Panics
    /// If the condition has a stream for an adapter that was not [added](Self::add_adapter).
    pub fn prepare(&self, condition: &Condition, sample: &Tensor<4>) -> PreparedCondition {
        let [_, _, height, width] = sample.dims();
        // Finest first: each downsampling halves, rounding up.
        let halved = |[h, w]: &[usize; 2]| Some([h.div_ceil(2), w.div_ceil(2)]);
        let levels: Vec<LevelCondition> = std::iter::successors(Some([height, width]), halved)
            .take(self.down_blocks.len())
            .map(|size| LevelCondition::new(condition, size, sample))
            .collect();
        let contexts = |transformers: &[Transformer2DModel], level: &LevelCondition| -> BlockContexts {
            transformers.iter().map(|transformer| transformer.contexts(level)).collect()
        };
        let down = self.down_blocks.iter().zip(&levels);
        let mid = self.mid_block.iter().zip(levels.last());
        let up = self.up_blocks.iter().zip(levels.iter().rev());
        PreparedCondition {
            down_blocks: down.map(|(block, level)| contexts(&block.attentions, level)).collect(),
            mid_block: mid.flat_map(|(block, level)| contexts(&block.attentions, level)).collect(),
            up_blocks: up.map(|(block, level)| contexts(&block.attentions, level)).collect(),
        }
    }
}
