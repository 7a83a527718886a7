use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::{JointAttention, ParallelAttention};
use super::modulation::Modulations;
use super::references::References;
use super::within_range;
use crate::error::Result;
use crate::nn::{Linear, LinearConfig, Rotary, swiglu};

/// Sizes of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub width: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Width inside a feed-forward layer.
    pub inner: usize,
    pub eps: f64,
}

/// SwiGLU and a linear layer.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Width → twice the inner width.
    pub linear_in: Linear,
    /// Inner width → width.
    pub linear_out: Linear,
}

impl FeedForward {
    fn new(sizes: &Sizes, device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        Self { linear_in: linear(sizes.width, 2 * sizes.inner), linear_out: linear(sizes.inner, sizes.width) }
    }

    /// `[batch, tokens, width]` → the same shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.linear_out.forward(swiglu(self.linear_in.forward(x)))
    }
}

/// A double-stream block: joint attention, then a feed-forward layer for pictures and one for the text.
#[derive(Module, Debug)]
pub struct DoubleBlock {
    /// Over both.
    pub attn: JointAttention,
    /// Of pictures.
    pub ff: FeedForward,
    /// Of the text.
    pub ff_context: FeedForward,
    eps: f64,
}

impl DoubleBlock {
    pub(super) fn new(sizes: &Sizes, device: &Device) -> Self {
        Self {
            attn: JointAttention::new(sizes, device),
            ff: FeedForward::new(sizes, device),
            ff_context: FeedForward::new(sizes, device),
            eps: sizes.eps,
        }
    }

    /// Pictures' and text's tokens, `[batch, tokens, width]` both → the same shapes.
    pub(super) fn forward(
        &self,
        image: Tensor<3>,
        text: Tensor<3>,
        of_image: &Modulations,
        of_text: &Modulations,
        rotary: &Rotary,
        references: &mut References,
    ) -> Result<(Tensor<3>, Tensor<3>)> {
        let norm = |modulations: &Modulations, part: usize, x: &Tensor<3>| {
            modulations.sets[part].norm(x.clone(), self.eps)
        };
        let (image_out, text_out) =
            self.attn.forward(norm(of_image, 0, &image), norm(of_text, 0, &text), rotary, references)?;
        let image = of_image.sets[0].add(image, image_out);
        let text = of_text.sets[0].add(text, text_out);
        let (image_out, text_out) =
            (self.ff.forward(norm(of_image, 1, &image)), self.ff_context.forward(norm(of_text, 1, &text)));
        Ok((of_image.sets[1].add(image, image_out), within_range(of_text.sets[1].add(text, text_out))))
    }
}

/// A single-stream block.
#[derive(Module, Debug)]
pub struct SingleBlock {
    /// With its feed-forward layer.
    pub attn: ParallelAttention,
    eps: f64,
}

impl SingleBlock {
    pub(super) fn new(sizes: &Sizes, device: &Device) -> Self {
        Self { attn: ParallelAttention::new(sizes, device), eps: sizes.eps }
    }

    /// `[batch, tokens, width]` → the same shape.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        modulations: &Modulations,
        rotary: &Rotary,
        references: &mut References,
    ) -> Result<Tensor<3>> {
        let set = &modulations.sets[0];
        let out = self.attn.forward(set.norm(x.clone(), self.eps), rotary, references)?;
        Ok(within_range(set.add(x, out)))
    }
}
