//! Under which names LoRA files know a network's modules.

use std::collections::HashMap;

use super::names::Network;
use crate::ldm::Blocks;
use facestudio::weights::TensorSource;

/// A network's modules by all their names.
pub struct Modules(HashMap<String, String>);

impl Modules {
    /// The modules of `inner`, which has diffusers' names, or transformers'.
    pub fn new(inner: &dyn TensorSource, network: Network) -> Self {
        let blocks = Blocks::of(inner);
        let mut all = HashMap::new();
        for name in inner.names() {
            let Some(path) = name.strip_suffix(".weight") else { continue };
            let mut names = match network {
                Network::Unet => unet(path, &blocks),
                Network::Text => text(path),
            };
            names.push(path.to_owned());
            for name in names {
                // kohya's names have underscores alone.
                all.entry(name.replace('.', "_")).or_insert_with(|| path.to_owned());
                all.entry(name).or_insert_with(|| path.to_owned());
            }
        }
        Self(all)
    }

    /// The module that a file calls `name`, in the network's own spelling.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn unet(path: &str, blocks: &Blocks) -> Vec<String> {
    let mut names: Vec<String> = blocks.original(path).into_iter().collect();
    // Attention processors, in which diffusers kept updates before version 0.26, counted no list for the output.
    if let Some((attention, layer)) = path.rsplit_once(".to_") {
        let layer = layer.trim_end_matches(".0");
        names.push(format!("{attention}.processor.to_{layer}"));
        names.push(format!("{attention}.to_{layer}"));
    }
    names
}

fn text(path: &str) -> Vec<String> {
    // transformers 5 has no model in the model.
    let inner = path.strip_prefix("text_model.").unwrap_or(path);
    let mut names = vec![inner.to_owned(), format!("text_model.{inner}")];
    // diffusers before 0.26 called the text encoder's layers as the UNet's.
    if let Some((attention, layer)) = inner.rsplit_once(".self_attn.") {
        let layer = layer.trim_end_matches("_proj");
        names.push(format!("{attention}.self_attn.to_{layer}"));
        names.push(format!("text_model.{attention}.self_attn.to_{layer}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio::weights::Tensors;

    fn of(paths: &[&str], network: Network) -> Modules {
        let one = |path: &&str| (format!("{path}.weight"), (vec![1], vec![0.0]));
        Modules::new(&Tensors(paths.iter().map(one).collect()), network)
    }

    #[test]
    fn a_unets_modules_have_the_original_codes_names_too() {
        let paths = [
            "conv_in",
            "down_blocks.0.resnets.0.conv1",
            "down_blocks.0.resnets.1.conv_shortcut",
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
            "down_blocks.0.downsamplers.0.conv",
            "down_blocks.1.resnets.0.conv1",
            "down_blocks.1.resnets.0.time_emb_proj",
            "mid_block.attentions.0.proj_in",
            "mid_block.resnets.1.conv2",
            "up_blocks.0.resnets.1.conv1",
            "up_blocks.0.upsamplers.0.conv",
            "up_blocks.1.resnets.0.conv1",
            "up_blocks.1.attentions.0.proj_out",
            "up_blocks.1.upsamplers.0.conv",
            "time_embedding.linear_2",
            "conv_out",
        ];
        let modules = of(
            &[
                &paths[..],
                &[
                    "down_blocks.0.resnets.1.conv1",
                    "up_blocks.0.resnets.0.conv1",
                    "up_blocks.1.attentions.0.proj_in",
                ],
            ]
            .concat(),
            Network::Unet,
        );
        let originals = [
            "input_blocks_0_0",
            "input_blocks_1_0_in_layers_2",
            "input_blocks_2_0_skip_connection",
            "input_blocks_2_1_transformer_blocks_0_attn1_to_out_0",
            "input_blocks_3_0_op",
            "input_blocks_4_0_in_layers_2",
            "input_blocks_4_0_emb_layers_1",
            "middle_block_1_proj_in",
            "middle_block_2_out_layers_3",
            "output_blocks_1_0_in_layers_2",
            "output_blocks_1_1_conv",
            "output_blocks_2_0_in_layers_2",
            "output_blocks_2_1_proj_out",
            "output_blocks_2_2_conv",
            "time_embed_2",
            "out_2",
        ];
        for (path, original) in paths.iter().zip(originals) {
            assert_eq!(modules.find(original), Some(*path), "{original}");
            assert_eq!(modules.find(path), Some(*path));
            assert_eq!(modules.find(&path.replace('.', "_")), Some(*path));
        }
        let to_out = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_out";
        assert_eq!(modules.find(to_out), Some(paths[3]));
        assert_eq!(modules.find("input_blocks_9_0_op"), None);
    }

    #[test]
    fn a_text_encoders_modules_are_found_with_and_without_the_model_in_the_model() {
        let path = "text_model.encoder.layers.0.self_attn.out_proj";
        let modules = of(&[path, "text_projection"], Network::Text);
        for name in [
            path,
            "text_model_encoder_layers_0_self_attn_out_proj",
            "encoder.layers.0.self_attn.out_proj",
            "text_model.encoder.layers.0.self_attn.to_out",
            "encoder.layers.0.self_attn.to_out",
        ] {
            assert_eq!(modules.find(name), Some(path), "{name}");
        }
        assert_eq!(modules.find("text_projection"), Some("text_projection"));
    }
}
