//! Adapters of the IP-Adapter family in the UNet's cross-attentions.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::{Transformer2DModel, UNet2DConditionModel};
use crate::attention::{AdapterAttention, Attention};
use crate::condition::LayerScale;
use crate::error::{Error, Result};
use crate::weights::{TensorSource, apply};

impl UNet2DConditionModel {
    /// Adds an adapter's keys and values to every cross-attention: tensors `ip_adapter.{i}.to_k_ip.weight` and
    /// `ip_adapter.{i}.to_v_ip.weight`, where `i` is 1, 3, 5 and so on: upstream numbers all attentions, of which every
    /// other one is a cross-attention.
    ///
    /// Fails with `weights-mismatch` where the adapter was made for a UNet with other layers.
    pub fn add_adapter(&mut self, source: &dyn TensorSource, device: &Device) -> Result<()> {
        let layers = self.cross_attentions();
        let given = source.names().iter().filter(|name| name.ends_with(".to_k_ip.weight")).count();
        if given != layers.len() {
            return Err(Error::weights(
                "weights-mismatch",
                format!("the adapter is for {given} cross-attentions, the unet has {}", layers.len()),
                "use an adapter for this kind of Stable Diffusion",
            ));
        }
        for attention in layers {
            let adapter = AdapterAttention::new(attention, device);
            let name = format!("ip_adapter.{}", 2 * attention.layer + 1);
            attention.adapters.push(apply(adapter, source, &name)?);
        }
        Ok(())
    }

    /// A scale for each cross-attention from one for each transformer of some blocks, named `down_blocks.1`, `mid_block`
    /// and so on; a single value counts for the whole block. Blocks that are not named get none (diffusers'
    /// `set_ip_adapter_scale`): style alone may act where style lives, as in InstantStyle (arXiv 2404.02733).
    ///
    /// Fails with `adapter-scale` where a block has no cross-attention, or another number of transformers.
    pub fn layer_scale(&self, blocks: &BTreeMap<String, Vec<f32>>) -> Result<LayerScale> {
        let layers = self.cross_attention_places();
        for (name, scales) in blocks {
            let transformers =
                layers.iter().filter(|(block, _)| block == name).map(|(_, i)| i + 1).max().unwrap_or(0);
            if transformers == 0 || !(scales.len() == 1 || scales.len() == transformers) {
                return Err(Error::weights(
                    "adapter-scale",
                    format!("{} scales for {name}, which has {transformers} transformers", scales.len()),
                    "name blocks with cross-attention, with one scale or one for each transformer",
                ));
            }
        }
        let scale = |(block, transformer): (String, usize)| {
            let scales = blocks.get(&block);
            scales.map_or(0.0, |scales| scales.get(transformer).or(scales.first()).copied().unwrap_or(0.0))
        };
        Ok(LayerScale::Each(layers.into_iter().map(scale).collect()))
    }

    /// Every cross-attention's block and the number of its transformer there, in the order of `cross_attentions`.
    fn cross_attention_places(&self) -> Vec<(String, usize)> {
        let down = self.down_blocks.iter().map(|block| &block.attentions).enumerate();
        let up = self.up_blocks.iter().map(|block| &block.attentions).enumerate();
        let middle = self.mid_block.iter().map(|block| &block.attentions);
        let blocks = down
            .map(|(i, transformers)| (format!("down_blocks.{i}"), transformers))
            .chain(up.map(|(i, transformers)| (format!("up_blocks.{i}"), transformers)))
            .chain(middle.map(|transformers| ("mid_block".to_owned(), transformers)));
        let mut places = Vec::new();
        for (name, transformers) in blocks {
            for (i, transformer) in transformers.iter().enumerate() {
                places.extend(transformer.transformer_blocks.iter().map(|_| (name.clone(), i)));
            }
        }
        places
    }

    /// Every cross-attention in the order in which diffusers lists its attention processors, by which adapters are numbered:
    /// down, up, then middle.
    pub(super) fn cross_attentions(&mut self) -> Vec<&mut Attention> {
        let down = self.down_blocks.iter_mut().flat_map(|block| &mut block.attentions);
        let up = self.up_blocks.iter_mut().flat_map(|block| &mut block.attentions);
        let middle = self.mid_block.iter_mut().flat_map(|block| &mut block.attentions);
        let transformers = down.chain(up).chain(middle);
        let blocks =
            transformers.flat_map(|Transformer2DModel { transformer_blocks, .. }| transformer_blocks);
        blocks.map(|block| &mut block.attn2).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::condition::{Condition, Projection, Stream};
    use crate::unet::UNet2DConditionConfig;

    fn unet() -> UNet2DConditionModel {
        let config = UNet2DConditionConfig {
            block_out_channels: vec![4, 4, 8, 8],
            norm_num_groups: 2,
            cross_attention_dim: 3,
            attention_head_dim: crate::unet::PerLevel::All(2),
            ..UNet2DConditionConfig::default()
        };
        config.init(&Device::flex()).unwrap()
    }

    /// `list(unet.attn_processors)` of Stable Diffusion 1.5: 6 cross-attentions on the way down, 9 up, 1 in the middle.
    #[test]
    fn layers_are_numbered_as_upstream() {
        let mut unet = unet();
        let layers = unet.cross_attention_places();
        let blocks: Vec<&str> = layers.iter().map(|(block, _)| block.as_str()).collect();
        assert_eq!((blocks.len(), unet.cross_attentions().len()), (16, 16));
        assert_eq!(
            (blocks[0], blocks[5], blocks[6], blocks[15]),
            ("down_blocks.0", "down_blocks.2", "up_blocks.1", "mid_block")
        );
    }

    #[test]
    fn scales_by_block_reach_their_layers_alone() {
        let unet = unet();
        let blocks = [("up_blocks.1".to_owned(), vec![0.0, 0.7, 0.0]), ("mid_block".to_owned(), vec![0.5])];
        let scale = unet.layer_scale(&blocks.into()).unwrap();
        let expected = |layer| match layer {
            7 => 0.7,
            15 => 0.5,
            _ => 0.0,
        };
        assert!((0..16).all(|layer| scale.at(layer) == expected(layer)), "{scale:?}");
        for (name, scales) in [("down_blocks.3", vec![1.0]), ("up_blocks.1", vec![1.0; 2]), ("up", vec![1.0])]
        {
            let error = unet.layer_scale(&[(name.to_owned(), scales)].into()).unwrap_err();
            assert_eq!(error.code, "adapter-scale", "{name}");
        }
    }

    #[test]
    fn an_adapter_acts_in_its_part_of_the_steps_alone() {
        let device = Device::flex();
        let mut unet = unet();
        for attention in unet.cross_attentions() {
            let adapter = AdapterAttention::new(attention, &device);
            attention.adapters.push(adapter);
        }
        let waves = |count: usize| {
            Tensor::<1>::from_floats(&*(0..count).map(|i| (i as f32).sin()).collect::<Vec<_>>(), &device)
        };
        let sample = waves(4 * 8 * 8).reshape([1, 4, 8, 8]);
        let tokens = || waves(2 * 3).reshape([1, 2, 3]);
        let always = Stream::everywhere(Projection::Adapter(0), tokens());
        let early = Stream { interval: 0.0..0.5, ..always.clone() };
        let run = |streams: Vec<Stream>, progress| {
            let own = Stream::everywhere(Projection::Own, tokens());
            let condition = Condition::new([vec![own], streams].concat());
            let prepared = unet.prepare(&condition, &sample).unwrap().at(progress);
            let timestep = Tensor::from_floats([500.0], &device);
            unet.forward_prepared(sample.clone(), timestep, &prepared)
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()
        };
        let (with, without) = (run(vec![always], 0.5), run(Vec::new(), 0.5));
        assert_ne!(with, without);
        for (progress, expected) in [(0.0, &with), (0.49, &with), (0.5, &without), (0.96, &without)] {
            assert_eq!(&run(vec![early.clone()], progress), expected, "{progress}");
        }
    }

    #[test]
    fn a_stream_for_an_adapter_that_is_not_there_is_refused() {
        let device = Device::flex();
        let tokens = || Tensor::<3>::ones([1, 2, 3], &device);
        let sample = Tensor::<4>::zeros([1, 4, 8, 8], &device);
        let own = Stream::everywhere(Projection::Own, tokens());
        let other = Stream::everywhere(Projection::Adapter(1), tokens());
        let error = unet().prepare(&Condition::new(vec![own, other]), &sample).unwrap_err();
        assert_eq!(error.code, "adapter-missing");
        assert!(error.message.contains("adapter 1"), "{error}");
    }

    /// The own keys and values are a stream as any other: its scale and interval are obeyed.
    #[test]
    fn streams_of_the_own_projection_are_scaled_and_end_as_an_adapters() {
        let device = Device::flex();
        let mut unet = unet();
        for attention in unet.cross_attentions() {
            let mut adapter = AdapterAttention::new(attention, &device);
            (adapter.to_k_ip, adapter.to_v_ip) = (attention.to_k.clone(), attention.to_v.clone());
            attention.adapters.push(adapter);
        }
        let waves = |count: usize| {
            Tensor::<1>::from_floats(&*(0..count).map(|i| (i as f32).sin()).collect::<Vec<_>>(), &device)
        };
        let sample = waves(4 * 8 * 8).reshape([1, 4, 8, 8]);
        let run = |projection, scale: LayerScale, progress| {
            let stream = Stream::everywhere(projection, waves(2 * 3).reshape([1, 2, 3]));
            let stream = Stream { scale, interval: 0.0..0.5, ..stream };
            let prepared = unet.prepare(&Condition::new(vec![stream]), &sample).unwrap().at(progress);
            let timestep = Tensor::from_floats([500.0], &device);
            let predicted = unet.forward_prepared(sample.clone(), timestep, &prepared);
            predicted.into_data().try_to_vec::<f32>().unwrap()
        };
        let each = LayerScale::Each((0..16).map(|layer| layer as f32 / 8.0).collect());
        let [own, adapters] =
            [Projection::Own, Projection::Adapter(0)].map(|projection| run(projection, each.clone(), 0.25));
        assert_eq!(own, adapters);
        assert_ne!(own, run(Projection::Own, LayerScale::All(1.0), 0.25));
        assert_eq!(run(Projection::Own, each, 0.5), run(Projection::Own, LayerScale::All(0.0), 0.25));
    }
}
