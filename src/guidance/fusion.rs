//! The shared Linear of the paper: `e = Linear(style ‖ identity)`, and hybrid guidance between its two uses.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::nn::{Linear, LinearConfig};
use crate::weights::{Component, apply, config_range};

/// Sizes of the [`Fusion`]: `guidance/config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FusionConfig {
    /// Width of the style embedding: the vision ensemble's, 768 + 512 + 512 in the paper.
    pub image_embed_dim: usize,
    /// Width of the identity embedding, 512 for ArcFace.
    pub id_embed_dim: usize,
    /// Guidance tokens that the Linear's output is cut into. With 1, the paper's literal reading, cross-attention
    /// degenerates: softmax over one key is 1 and adds the same vector at every position.
    pub n_tokens: usize,
    /// Channels of a token: the UNet's `cross_attention_dim`.
    pub cross_attention_dim: usize,
}

/// Largest accepted value of any size: bounds what a hostile config can allocate.
const MAX_SIZE: usize = 1 << 16;

impl FusionConfig {
    /// Creates the layer.
    pub fn init(&self, device: &Device) -> Result<Fusion> {
        let sizes = [self.image_embed_dim, self.id_embed_dim, self.n_tokens, self.cross_attention_dim];
        let out = self.n_tokens.saturating_mul(self.cross_attention_dim);
        if sizes.iter().any(|s| !(1..=MAX_SIZE).contains(s)) || out > MAX_SIZE * 8 {
            return Err(config_range(format!("guidance config has impossible sizes: {self:?}")));
        }
        Ok(Fusion {
            proj: LinearConfig::new(self.image_embed_dim + self.id_embed_dim, out).init(device),
            id_embed_dim: self.id_embed_dim,
            n_tokens: self.n_tokens,
        })
    }
}

/// `e = Linear(style ‖ identity)`, reshaped to guidance tokens. One layer serves the image branch `e_i` and the
/// text branch `e_p` (paper section 3.2).
#[derive(Module, Debug)]
pub struct Fusion {
    /// The paper's Linear.
    pub proj: Linear,
    id_embed_dim: usize,
    n_tokens: usize,
}

impl Fusion {
    /// Loads `config.json` and weights.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: FusionConfig = component.json("config.json")?;
        apply(config.init(device)?, component.tensors()?.as_ref(), "")
    }

    /// Style embeddings `[batch, image_embed_dim]` (unit variance) and identity embeddings `[batch, id_embed_dim]`
    /// (unit norm, or zero for "no identity") → tokens `[batch, n_tokens, cross_attention_dim]`.
    ///
    /// Unit-norm identities are scaled by √dim, so that both inputs of the Linear have unit variance.
    pub fn forward(&self, image_embeds: Tensor<2>, id_embeds: Tensor<2>) -> Tensor<3> {
        let id_embeds = id_embeds * (self.id_embed_dim as f64).sqrt();
        let fused = self.proj.forward(Tensor::cat(vec![image_embeds, id_embeds], 1));
        let [batch, channels] = fused.dims();
        fused.reshape([batch, self.n_tokens, channels / self.n_tokens])
    }
}

/// Hybrid guidance, `e_g = α e_i + (1 − α) e_p` (paper section 3.3), on tokens or on styles of one shape.
pub fn hybrid<const D: usize>(image_branch: Tensor<D>, text_branch: Tensor<D>, alpha: f32) -> Tensor<D> {
    image_branch * alpha + text_branch * (1.0 - alpha)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    fn fusion() -> Fusion {
        let config =
            FusionConfig { image_embed_dim: 6, id_embed_dim: 4, n_tokens: 3, cross_attention_dim: 5 };
        config.init(&Device::flex()).unwrap()
    }

    #[test]
    fn hybrid_of_one_style_is_independent_of_alpha() {
        let (fusion, device) = (fusion(), Device::flex());
        let style = Tensor::random([2, 6], Distribution::Default, &device);
        let id = Tensor::random([2, 4], Distribution::Default, &device);
        let tokens = fusion.forward(style, id);
        assert_eq!(tokens.dims(), [2, 3, 5]);
        let mixed = hybrid(tokens.clone(), tokens.clone(), 0.3);
        assert!(mixed.all_close(tokens, Some(1e-5), Some(1e-6)));
    }

    #[test]
    fn the_identity_changes_the_tokens() {
        let (fusion, device) = (fusion(), Device::flex());
        let style = Tensor::random([1, 6], Distribution::Default, &device);
        let none = fusion.forward(style.clone(), Tensor::zeros([1, 4], &device));
        let some = fusion.forward(style, Tensor::ones([1, 4], &device) * 0.5);
        assert!(!some.all_close(none, Some(1e-3), Some(1e-3)));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let config =
            FusionConfig { image_embed_dim: 0, id_embed_dim: 4, n_tokens: 1, cross_attention_dim: 5 };
        assert_eq!(config.init(&Device::flex()).unwrap_err().code, "config-range");
        let config = FusionConfig {
            image_embed_dim: usize::MAX,
            id_embed_dim: 4,
            n_tokens: 1,
            cross_attention_dim: 5,
        };
        assert_eq!(config.init(&Device::flex()).unwrap_err().code, "config-range");
    }
}
