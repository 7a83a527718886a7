//! One pretrained network each: words and pictures to embeddings. Knows nothing of guidance or the denoiser.

pub mod arc2face;
pub mod detector;
pub mod face;
pub mod prompt;
pub mod qwen3;
pub mod segmenter;
pub mod text;
pub mod tokenizer;
pub mod vision;

mod bottleneck;
mod table;
mod token_ids;
mod transformer;

use crate::error::{Error, Result};
use crate::weights::{check_range, config_range};

/// Added to the scores of tokens that a text encoder's query must not see. Large enough that their softmax weight is exactly 0,
/// small enough for f16.
const MASKED: f32 = -1e4;

/// Fails with `config-unsupported` on a config of another network: some have tensors of the same names.
fn refuse_others(model_type: Option<&str>, known: &[&str]) -> Result<()> {
    match model_type.filter(|model_type| !known.contains(model_type)) {
        None => Ok(()),
        Some(other) => Err(Error::weights(
            "config-unsupported",
            format!("config.json: model_type '{other}' is not supported"),
            format!("use a model of transformers whose model_type is one of {}", known.join(", ")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::GradientsParams;
    use burn::tensor::{DType, Device, Distribution, Tensor};

    use super::text::TextConfig;
    use super::vision::{ClipResNetConfig, ClipVitConfig};
    use crate::weights;

    /// Fails unless the sum of `output` has a gradient with respect to each parameter of `module`.
    fn assert_trains<M: Module>(module: &M, output: Tensor<2>) {
        let gradients = GradientsParams::from_grads(output.square().sum().backward(), module);
        let names = weights::collect(module, "").unwrap().0;
        let trained = names.keys().filter(|name| !name.contains("running_")).count();
        assert_eq!(gradients.len(), trained);
    }

    #[test]
    fn every_parameter_receives_a_gradient() {
        let device = Device::flex().autodiff();
        let text = TextConfig {
            vocab_size: 20,
            hidden_size: 8,
            intermediate_size: 8,
            projection_dim: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 6,
            eos_token_id: 19,
            ..TextConfig::default()
        };
        let text = text.init(&device).unwrap();
        let output = text.forward(&[vec![18, 3, 4, 19, 19, 19]], DType::F32).unwrap();
        assert_trains(&text, output.text_embeds.unwrap());

        let pixels = Tensor::random([2, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
        let vit = ClipVitConfig {
            hidden_size: 8,
            intermediate_size: 8,
            projection_dim: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 16,
            ..ClipVitConfig::default()
        };
        let vit = vit.init(&device).unwrap();
        assert_trains(&vit, vit.forward(pixels.clone()).image_embeds);

        let resnet = ClipResNetConfig { layers: [1; 4], embed_dim: 4, heads: 2, image_size: 32, width: 2 };
        let resnet = resnet.init(&device).unwrap();
        assert_trains(&resnet, resnet.forward(pixels).image_embeds);
    }
}
