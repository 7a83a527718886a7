//! The UNet as a list of segments: what runs one after the other, and what training may run a second time to keep less.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{Downsample2D, ResnetBlock2D, Transformer2DModel, UNet2DConditionModel, Upsample2D};
use crate::attention::{CrossContext, LevelCondition};
use crate::error::Result;
use crate::nn::{Activation, Conv2d, GroupNorm};

/// What passes from one segment to the next.
#[derive(Debug, Clone)]
pub struct HiddenStates {
    /// `[batch, channels, height, width]`: the latents before the first segment, the prediction after the last.
    pub x: Tensor<4>,
    /// What the way down left for the way up, the last on top; shapes as `x` had them.
    pub skips: Vec<Tensor<4>>,
}

/// What a segment does with the skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Nothing.
    Passes,
    /// Puts its output on top.
    Leaves,
    /// Takes the topmost.
    Takes,
}

/// A part of the UNet that needs nothing of the others but [`HiddenStates`].
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// What it does with the skips.
    pub skip: Skip,
    /// Counted from the finest.
    pub(super) level: usize,
    part: Operation<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Operation<'a> {
    /// The first convolution, of latents in [0, 1] if `center`.
    In {
        conv: &'a Conv2d,
        center: bool,
    },
    /// A layer of a block.
    Layer {
        resnet: &'a ResnetBlock2D,
        attention: Option<&'a Transformer2DModel>,
    },
    Downsampler(&'a Downsample2D),
    Upsampler(&'a Upsample2D),
    Out {
        norm: &'a GroupNorm,
        act: Activation,
        conv: &'a Conv2d,
    },
}

/// What decides how much memory a segment takes, beside the latents' size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Counted from the finest: the size of the input.
    pub level: usize,
    /// The level that the output has the size of.
    pub level_out: usize,
    /// Channels of the input, with those of the skip that it takes.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// All weights.
    pub parameters: usize,
    /// Normalised convolutions: 2 in a ResNet block, 1 at the end, 0 where there is just a convolution.
    pub norms: usize,
    /// The transformer, if there is one.
    pub transformer: Option<TransformerExtent>,
}

/// As [`Extent`], of a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransformerExtent {
    /// One after the other.
    pub blocks: usize,
    /// Of each attention.
    pub heads: usize,
    /// Whether scores are f32 whatever the rest is.
    pub upcast: bool,
    /// All weights.
    pub parameters: usize,
}

impl Segment<'_> {
    /// What decides how much memory it takes; allocates no weight that is not there yet.
    pub fn extent(&self) -> Extent {
        let channels =
            |first: &Conv2d, last: &Conv2d| [first.weight.lazy_shape()[1], last.weight.lazy_shape()[0]];
        let level = self.level;
        let (level_out, [channels_in, channels_out], parameters, norms, transformer) = match self.part {
            Operation::In { conv, .. } => (level, channels(conv, conv), conv.num_params(), 0, None),
            Operation::Layer { resnet, attention } => {
                let transformer = attention.map(Transformer2DModel::extent);
                let parameters = resnet.num_params() + transformer.map_or(0, |of| of.parameters);
                (level, channels(&resnet.conv1, &resnet.conv2), parameters, 2, transformer)
            }
            Operation::Downsampler(Downsample2D { conv }) => {
                (level + 1, channels(conv, conv), conv.num_params(), 0, None)
            }
            Operation::Upsampler(Upsample2D { conv }) => {
                (level.saturating_sub(1), channels(conv, conv), conv.num_params(), 0, None)
            }
            Operation::Out { norm, conv, .. } => {
                (level, channels(conv, conv), norm.num_params() + conv.num_params(), 1, None)
            }
        };
        Extent { level, level_out, channels_in, channels_out, parameters, norms, transformer }
    }

    /// What its cross-attentions attend to; `condition` is that of the size of its input.
    ///
    /// Fails with `adapter-missing` where it has a stream for an adapter that was not loaded.
    pub fn contexts(&self, condition: &LevelCondition) -> Result<Vec<CrossContext>> {
        match self.part {
            Operation::Layer { attention: Some(attention), .. } => attention.contexts(condition),
            _ => Ok(Vec::new()),
        }
    }

    /// `temb`: `[batch, time_embed_dim]`, as [`UNet2DConditionModel::embed`] makes it; `contexts`: as
    /// [`contexts`](Self::contexts) does.
    pub fn forward(
        &self,
        features: HiddenStates,
        temb: &Tensor<2>,
        contexts: &[CrossContext],
    ) -> HiddenStates {
        let HiddenStates { mut x, mut skips } = features;
        if self.skip == Skip::Takes
            && let Some(skip) = skips.pop()
        {
            x = Tensor::cat(vec![x, skip], 1);
        }
        x = match self.part {
            Operation::In { conv, center } => conv.forward(if center { x * 2.0 - 1.0 } else { x }),
            Operation::Layer { resnet, attention } => {
                let x = resnet.forward(x, temb);
                match attention {
                    Some(attention) => attention.forward(x, contexts),
                    None => x,
                }
            }
            Operation::Downsampler(downsampler) => downsampler.forward(x),
            Operation::Upsampler(upsampler) => {
                let [_, _, height, width] = x.dims();
                let finer =
                    skips.last().map_or([2 * height, 2 * width], |skip| [skip.dims()[2], skip.dims()[3]]);
                upsampler.forward(x, finer)
            }
            Operation::Out { norm, act, conv } => conv.forward(norm.activated(x, act)),
        };
        if self.skip == Skip::Leaves {
            skips.push(x.clone());
        }
        HiddenStates { x, skips }
    }
}

impl UNet2DConditionModel {
    /// All of it but the timestep's embedding, in order.
    pub fn segments(&self) -> Vec<Segment<'_>> {
        let coarsest = self.down_blocks.len().saturating_sub(1);
        let whole = |skip, level, part| Segment { skip, level, part };
        let conv = Operation::In { conv: &self.conv_in, center: self.center_input_sample };
        let mut segments = vec![whole(Skip::Leaves, 0, conv)];
        for (level, block) in self.down_blocks.iter().enumerate() {
            segments.extend(layers(Skip::Leaves, level, &block.resnets, &block.attentions));
            let parts = block.downsamplers.iter().map(Operation::Downsampler);
            segments.extend(parts.map(|part| whole(Skip::Leaves, level, part)));
        }
        if let Some(block) = &self.mid_block {
            segments.extend(layers(Skip::Passes, coarsest, &block.resnets, &block.attentions));
        }
        for (level, block) in (0..=coarsest).rev().zip(&self.up_blocks) {
            segments.extend(layers(Skip::Takes, level, &block.resnets, &block.attentions));
            let parts = block.upsamplers.iter().map(Operation::Upsampler);
            segments.extend(parts.map(|part| whole(Skip::Passes, level, part)));
        }
        let out = Operation::Out { norm: &self.conv_norm_out, act: self.act, conv: &self.conv_out };
        segments.push(whole(Skip::Passes, 0, out));
        segments
    }
}

/// A block's layers: there are as many attentions as ResNet blocks, one fewer, or none.
fn layers<'a>(
    skip: Skip,
    level: usize,
    resnets: &'a [ResnetBlock2D],
    attentions: &'a [Transformer2DModel],
) -> impl Iterator<Item = Segment<'a>> {
    let parts = resnets
        .iter()
        .enumerate()
        .map(|(i, resnet)| Operation::Layer { resnet, attention: attentions.get(i) });
    parts.map(move |part| Segment { skip, level, part })
}
