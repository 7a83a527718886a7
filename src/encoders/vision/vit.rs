//! CLIP's vision transformer: transformers' `CLIPVisionModelWithProjection`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use super::VisionOutput;
use crate::encoders::transformer::{Encoder, EncoderConfig};
use crate::encoders::{check_range, config_range};
use crate::error::Result;
use crate::nn::{Activation, Conv2d, Conv2dConfig, Embedding, LayerNorm, Linear, LinearConfig, lazy};

/// `config.json` of a vision transformer; names and defaults are transformers' `CLIPVisionConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVitConfig {
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Width inside its MLPs.
    pub intermediate_size: usize,
    /// Width of `image_embeds`.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Channels of the picture.
    pub num_channels: usize,
    /// Side of the square picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation inside the MLPs.
    pub hidden_act: Activation,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
}

impl Default for ClipVitConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipVitConfig {
    /// Creates the encoder with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<ClipVit> {
        let encoder = EncoderConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        };
        encoder.validate()?;
        check_range("projection_dim", self.projection_dim, 1..=16_384)?;
        // Pictures are RGB throughout.
        check_range("num_channels", self.num_channels, 3..=3)?;
        check_range("image_size", self.image_size, 1..=4096)?;
        check_range("patch_size", self.patch_size, 1..=self.image_size)?;
        let (hidden, eps) = (self.hidden_size, self.layer_norm_eps);
        let tokens = (self.image_size / self.patch_size).pow(2) + 1;
        if tokens > 65_536 {
            return Err(config_range(format!(
                "image_size {} in patches of {} makes {tokens} tokens; at most 65536 are supported",
                self.image_size, self.patch_size
            )));
        }
        let patches = Conv2dConfig::new(self.num_channels, hidden, self.patch_size)
            .with_stride(self.patch_size)
            .with_bias(false);
        // CLIP's initial deviations: 1/√hidden for the class token, 0.02 for the positions.
        let class_std = (hidden as f64).powf(-0.5);
        Ok(ClipVit {
            vision_model: VisionTransformer {
                embeddings: VisionEmbeddings {
                    class_embedding: lazy([hidden], device, move |shape, device| {
                        Tensor::random(shape, Distribution::Normal(0.0, class_std), device)
                    }),
                    patch_embedding: patches.init(device),
                    position_embedding: Embedding::new(tokens, hidden, 0.02, device),
                },
                pre_layrnorm: LayerNorm::new(hidden, eps, device),
                encoder: encoder.init(device),
                post_layernorm: LayerNorm::new(hidden, eps, device),
            },
            visual_projection: LinearConfig::new(hidden, self.projection_dim).with_bias(false).init(device),
        })
    }
}

/// CLIP's vision transformer with its projection.
#[derive(Module, Debug)]
pub struct ClipVit {
    vision_model: VisionTransformer,
    visual_projection: Linear,
}

#[derive(Module, Debug)]
struct VisionTransformer {
    embeddings: VisionEmbeddings,
    /// Spelled as in every CLIP checkpoint.
    pre_layrnorm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
}

#[derive(Module, Debug)]
struct VisionEmbeddings {
    class_embedding: Param<Tensor<1>>,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
}

impl VisionEmbeddings {
    /// `[n, channels, s, s]` → `[n, tokens, hidden]`, class token first.
    fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let (n, dtype) = (pixel_values.dims()[0], pixel_values.dtype());
        let patches = self.patch_embedding.forward(pixel_values).flatten::<3>(2, 3).swap_dims(1, 2);
        let [_, _, hidden] = patches.dims();
        let class = self.class_embedding.val().cast(dtype).reshape([1, 1, hidden]).expand([n, 1, hidden]);
        let positions = self.position_embedding.weight.val().cast(dtype).unsqueeze::<3>();
        Tensor::cat(vec![class, patches], 1) + positions
    }
}

impl ClipVit {
    /// `pixel_values`: `[n, channels, image_size, image_size]`, normalised → `image_embeds` `[n, projection_dim]`.
    ///
    /// # Panics
    /// On pictures of another size than the config's.
    pub fn forward(&self, pixel_values: Tensor<4>) -> VisionOutput {
        let model = &self.vision_model;
        let hidden_states = model.pre_layrnorm.forward(model.embeddings.forward(pixel_values));
        let (penultimate, last_hidden_state) = model.encoder.last_two(hidden_states, None);
        let class: Tensor<2> = last_hidden_state.clone().narrow(1, 0, 1).squeeze_dim(1);
        let pooled = model.post_layernorm.forward(class);
        VisionOutput {
            image_embeds: self.visual_projection.forward(pooled),
            last_hidden_state: Some(last_hidden_state),
            penultimate_hidden_state: Some(penultimate),
        }
    }
}
