//! Tells the people of a photograph apart, outlines and all: a segmentation network in transformers' layout.

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::tensor::Device;
use burn::tensor::activation::{sigmoid, softmax};
use serde::{Deserialize, Serialize};

use super::detector::read_outputs;
use crate::encoders::{check_range, config_range};
use crate::error::{Error, Result};
use crate::image::mask::Mask;
use crate::image::preprocess::normalized_tensor;
use crate::weights::{self, Component};

pub mod detr;
mod resnet;

pub use detr::{Detr, DetrConfig};
pub use resnet::ResNetConfig;

/// ImageNet's mean and deviation, which transformers' `DetrImageProcessor` takes.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// See [`MEAN`].
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// An object counts from this probability on (Carion et al. 2020, section 4.4).
const LEAST_SCORE: f32 = 0.85;
/// A position belongs to a person from this probability on.
const INSIDE: f32 = 0.5;
/// People of no more positions of the mask than this are none, as upstream's panoptic post-processing has it.
const SPECKLE: usize = 4;

/// `config.json` of a segmenter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename = "detr")]
pub struct SegmenterConfig {
    /// The network's.
    #[serde(flatten)]
    pub network: DetrConfig,
    /// The label of people.
    pub person_label: usize,
    /// Pictures are brought to this shorter side, in pixels,
    #[serde(default = "shortest_edge")]
    pub shortest_edge: usize,
    /// unless the longer one would be over this.
    #[serde(default = "longest_edge")]
    pub longest_edge: usize,
}

/// Of `DetrImageProcessor`.
const fn shortest_edge() -> usize {
    800
}

/// Of `DetrImageProcessor`.
const fn longest_edge() -> usize {
    1333
}

/// The network, and how pictures are brought to it.
#[derive(Debug)]
pub struct Segmenter {
    network: Detr,
    config: SegmenterConfig,
}

impl SegmenterConfig {
    /// Creates the segmenter with random weights. Fails with `config-range` on sizes that make none.
    pub fn init(self, device: &Device) -> Result<Segmenter> {
        check_range("shortest_edge", self.shortest_edge, 32..=4096)?;
        check_range("longest_edge", self.longest_edge, self.shortest_edge..=4096)?;
        if self.person_label >= self.network.num_labels {
            return Err(config_range(format!(
                "person_label is {}, but there are {} labels",
                self.person_label, self.network.num_labels
            )));
        }
        Ok(Segmenter { network: self.network.init(device)?, config: self })
    }
}

impl Segmenter {
    /// Loads the segmenter of a component folder.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: SegmenterConfig = component.json("config.json")?;
        let Segmenter { network, config } = config.init(device)?;
        Ok(Self { network: weights::apply(network, component.tensors()?.as_ref(), "")?, config })
    }

    /// The network alone.
    pub fn network(&self) -> &Detr {
        &self.network
    }

    /// The people of a picture, each with a mask over the whole of it, a quarter of the network's input in size. No position
    /// is in two of them. Fails with `image-empty` on a picture without pixels.
    pub async fn people(&self, picture: &RgbImage, device: &Device) -> Result<Vec<Mask>> {
        let (width, height) = self.input_size(picture)?;
        let resized = imageops::resize(picture, width, height, FilterType::Triangle);
        let seen = self.network.look(normalized_tensor(&resized, MEAN, STD, device)?)?;
        let labels = seen.logits.dims()[1];
        let scores = read_outputs(softmax(seen.logits.clone(), 1)).await?;
        let queries: Vec<usize> = scores
            .chunks_exact(labels)
            .enumerate()
            .filter(|(_, scores)| {
                let person = scores[self.config.person_label];
                person >= LEAST_SCORE && scores.iter().all(|score| *score <= person)
            })
            .map(|(query, _)| query)
            .collect();
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let masks = self.network.masks(&seen, &queries)?;
        let [_, rows, columns] = masks.dims();
        let inside = apart(&read_outputs(sigmoid(masks)).await?, rows * columns);
        let person = |values: Vec<f32>| Mask::new(columns, rows, values);
        inside.into_iter().filter(|values| values.iter().sum::<f32>() > SPECKLE as f32).map(person).collect()
    }

    /// The size that a picture is brought to, `(width, height)`, as transformers' `get_size_with_aspect_ratio` finds it; a pixel
    /// at least.
    fn input_size(&self, picture: &RgbImage) -> Result<(u32, u32)> {
        let (width, height) = picture.dimensions();
        let (shorter, longer) = (f64::from(width.min(height)), f64::from(width.max(height)));
        if shorter == 0.0 {
            return Err(Error::input(
                "image-empty",
                format!("a {width}×{height} picture shows nobody"),
                "use a picture with at least one pixel",
            ));
        }
        let (shortest, longest) = (self.config.shortest_edge as f64, self.config.longest_edge as f64);
        let bounded = longer / shorter * shortest > longest;
        let side = if bounded { longest * shorter / longer } else { shortest };
        // The shorter side is rounded, the longer one cut off.
        if side.round() == shorter {
            return Ok((width, height));
        }
        let short = side.round().max(1.0);
        let long = (side * longer / shorter).floor().max(1.0);
        Ok(if width < height { (short as u32, long as u32) } else { (long as u32, short as u32) })
    }
}

/// Each position to the person that has it most surely, `1.0` inside and `0.0` outside; `masks` one after the other.
fn apart(masks: &[f32], positions: usize) -> Vec<Vec<f32>> {
    let count = masks.len() / positions.max(1);
    let mut inside = vec![vec![0.0; positions]; count];
    for position in 0..positions {
        let of = |person: usize| masks[person * positions + position];
        // The first of equals.
        let best = (0..count).rev().max_by(|a, b| of(*a).total_cmp(&of(*b)));
        if let Some(best) = best.filter(|best| of(*best) > INSIDE) {
            inside[best][position] = 1.0;
        }
    }
    inside
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_the_surest_persons() {
        let masks = [[0.9, 0.6, 0.2, 0.5], [0.8, 0.7, 0.4, 0.4]].concat();
        assert_eq!(apart(&masks, 4), [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]);
        assert!(apart(&[], 4).is_empty());
    }

    fn tiny() -> SegmenterConfig {
        let backbone_config = ResNetConfig { embedding_size: 4, hidden_sizes: [8, 8, 8, 8], depths: [1; 4] };
        let network = DetrConfig {
            d_model: 16,
            encoder_layers: 1,
            encoder_ffn_dim: 8,
            encoder_attention_heads: 8,
            decoder_layers: 1,
            decoder_ffn_dim: 8,
            decoder_attention_heads: 8,
            num_queries: 3,
            num_labels: 2,
            backbone_config,
        };
        SegmenterConfig { network, person_label: 1, shortest_edge: 64, longest_edge: 96 }
    }

    #[test]
    fn pictures_are_brought_to_the_networks_size() {
        let segmenter = tiny().init(&Device::flex()).unwrap();
        let size = |width, height| segmenter.input_size(&RgbImage::new(width, height)).unwrap();
        assert_eq!(size(128, 128), (64, 64));
        assert_eq!(size(100, 128), (64, 81));
        assert_eq!(size(400, 100), (96, 24));
        assert_eq!(size(16_000, 1), (96, 1));
        let none = pollster::block_on(segmenter.people(&RgbImage::new(0, 3), &Device::flex()));
        assert_eq!(none.unwrap_err().code, "image-empty");
    }

    #[test]
    fn sizes_that_make_no_network_are_refused() {
        let refused = |change: &dyn Fn(&mut SegmenterConfig)| {
            let mut config = tiny();
            change(&mut config);
            assert_eq!(config.init(&Device::flex()).unwrap_err().code, "config-range");
        };
        refused(&|config| config.person_label = 2);
        refused(&|config| config.network.d_model = 24);
        refused(&|config| config.network.num_queries = 0);
        refused(&|config| config.network.backbone_config.hidden_sizes[2] = 10);
        refused(&|config| config.network.encoder_attention_heads = 3);
        refused(&|config| config.longest_edge = 32);
    }
}
