//! CLIP's vision encoders, and the ensemble of them that the paper calls `CLIP_V`.

mod ensemble;
mod resnet;
mod vit;

pub use ensemble::{
    PREPROCESSOR, VisionConfig, VisionEncoder, VisionEnsemble, VisionNetwork, preprocessing,
    preprocessor_config, unit_variance,
};
pub use resnet::{ClipResNet, ClipResNetConfig};
pub use vit::{ClipVit, ClipVitConfig};

use burn::tensor::Tensor;

/// What a vision encoder says about a batch of pictures.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// Pooled and projected, in the space shared with texts, `[batch, embed_dim]`; not normalised.
    pub image_embeds: Tensor<2>,
    /// A transformer's states before its last norm, class token first, `[batch, tokens, hidden]`; `None` for a ResNet.
    pub last_hidden_state: Option<Tensor<3>>,
    /// A transformer's states before its last layer (transformers' `hidden_states[-2]`), of the same shape.
    pub penultimate_hidden_state: Option<Tensor<3>>,
}
