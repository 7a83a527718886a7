use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::blocks::Sizes;
use super::references::References;
use crate::error::Result;
use crate::nn::{Linear, LinearConfig, Rotary, TokenRmsNorm, merge_heads, split_heads, swiglu};

fn linear(from: usize, to: usize, device: &Device) -> Linear {
    LinearConfig::new(from, to).with_bias(false).init(device)
}

/// Attention over text and pictures together, with projections for each.
#[derive(Module, Debug)]
pub struct JointAttention {
    /// Of pictures.
    pub to_q: Linear,
    /// Of pictures.
    pub to_k: Linear,
    /// Of pictures.
    pub to_v: Linear,
    /// Over a head's channels.
    pub norm_q: TokenRmsNorm,
    /// Over a head's channels.
    pub norm_k: TokenRmsNorm,
    /// Of pictures; checkpoints number it, because of a dropout behind it.
    pub to_out: Vec<Linear>,
    /// Of the text.
    pub add_q_proj: Linear,
    /// Of the text.
    pub add_k_proj: Linear,
    /// Of the text.
    pub add_v_proj: Linear,
    /// Over a head's channels.
    pub norm_added_q: TokenRmsNorm,
    /// Over a head's channels.
    pub norm_added_k: TokenRmsNorm,
    /// Of the text.
    pub to_add_out: Linear,
    heads: usize,
}

impl JointAttention {
    pub(super) fn new(sizes: &Sizes, device: &Device) -> Self {
        let linear = || linear(sizes.width, sizes.width, device);
        let norm = || TokenRmsNorm::new(sizes.head_dim, sizes.eps, device);
        Self {
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            norm_q: norm(),
            norm_k: norm(),
            to_out: vec![linear()],
            add_q_proj: linear(),
            add_k_proj: linear(),
            add_v_proj: linear(),
            norm_added_q: norm(),
            norm_added_k: norm(),
            to_add_out: linear(),
            heads: sizes.heads,
        }
    }

    /// Pictures' and text's tokens, `[batch, tokens, width]` both → the same shapes.
    pub(super) fn forward(
        &self,
        image: Tensor<3>,
        text: Tensor<3>,
        rotary: &Rotary,
        references: &mut References,
    ) -> Result<(Tensor<3>, Tensor<3>)> {
        let (tokens, of_text) = (image.dims()[1], text.dims()[1]);
        let joint = |of_text: &Linear, of_image: &Linear, norms: Option<[&TokenRmsNorm; 2]>| {
            let heads = |linear: &Linear, x: &Tensor<3>| split_heads(linear.forward(x.clone()), self.heads);
            let both = [heads(of_text, &text), heads(of_image, &image)];
            let both = match norms {
                Some(norms) => {
                    let [text, image] = both;
                    [norms[0].forward(text), norms[1].forward(image)]
                }
                None => both,
            };
            Tensor::cat(both.to_vec(), 2)
        };
        let query = joint(&self.add_q_proj, &self.to_q, Some([&self.norm_added_q, &self.norm_q]));
        let key = joint(&self.add_k_proj, &self.to_k, Some([&self.norm_added_k, &self.norm_k]));
        let value = joint(&self.add_v_proj, &self.to_v, None);
        let out = merge_heads(references.attend(rotary.forward(query), rotary.forward(key), value)?);
        let image = out.clone().narrow(1, of_text, tokens);
        let image = self.to_out.iter().fold(image, |x, linear| linear.forward(x));
        Ok((image, self.to_add_out.forward(out.narrow(1, 0, of_text))))
    }
}

/// Attention and feed-forward side by side (Dehghani et al. 2023, arXiv 2302.05442, section 2), with one product into both
/// and one out of them.
#[derive(Module, Debug)]
pub struct ParallelAttention {
    /// Width → queries, keys, values, and the two halves of SwiGLU.
    pub to_qkv_mlp_proj: Linear,
    /// Over a head's channels.
    pub norm_q: TokenRmsNorm,
    /// Over a head's channels.
    pub norm_k: TokenRmsNorm,
    /// What was attended to, and the feed-forward's inner tokens → width.
    pub to_out: Linear,
    heads: usize,
}

impl ParallelAttention {
    pub(super) fn new(sizes: &Sizes, device: &Device) -> Self {
        let norm = || TokenRmsNorm::new(sizes.head_dim, sizes.eps, device);
        Self {
            to_qkv_mlp_proj: linear(sizes.width, 3 * sizes.width + 2 * sizes.inner, device),
            norm_q: norm(),
            norm_k: norm(),
            to_out: linear(sizes.width + sizes.inner, sizes.width, device),
            heads: sizes.heads,
        }
    }

    /// `[batch, tokens, width]` → the same shape.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        rotary: &Rotary,
        references: &mut References,
    ) -> Result<Tensor<3>> {
        let [_, _, width] = x.dims();
        let projected = self.to_qkv_mlp_proj.forward(x);
        let [_, _, all] = projected.dims();
        let head = |i| split_heads(projected.clone().narrow(2, i * width, width), self.heads);
        let query = rotary.forward(self.norm_q.forward(head(0)));
        let key = rotary.forward(self.norm_k.forward(head(1)));
        let attended = merge_heads(references.attend(query, key, head(2))?);
        let gated = swiglu(projected.narrow(2, 3 * width, all - 3 * width));
        Ok(self.to_out.forward(Tensor::cat(vec![attended, gated], 2)))
    }
}
