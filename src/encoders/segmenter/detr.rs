//! DETR with its mask head (Carion et al. 2020, *End-to-End Object Detection with Transformers*): transformers'
//! `DetrForSegmentation`, with its names but for the prefixes `detr.` and `detr.model.`, and without its boxes.

use burn::module::Module;
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::resnet::{ResNet, ResNetConfig};
use crate::encoders::{check_range, config_range};
use crate::error::{Error, Result};
use crate::nn::{
    Conv2d, Conv2dConfig, Embedding, GroupNorm, LayerNorm, Linear, LinearConfig, attention, merge_heads,
    split_heads,
};

/// PyTorch's default, of layer and group norms alike.
const NORM_EPS: f64 = 1e-5;
/// Largest period of the sinusoids that say where a position is (`temperature` upstream).
const TEMPERATURE: f64 = 10_000.0;
/// Groups of the mask head's norms, where there are as many channels.
const GROUPS: usize = 8;

/// `config.json` of a DETR: transformers' `DetrConfig`, and of its backbone the sizes alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DetrConfig {
    /// Width of the transformer.
    pub d_model: usize,
    /// Layers that read the picture.
    pub encoder_layers: usize,
    /// Width inside their perceptrons.
    pub encoder_ffn_dim: usize,
    /// Their heads, and the maps that masks are made of.
    pub encoder_attention_heads: usize,
    /// Layers that read the objects.
    pub decoder_layers: usize,
    /// Width inside their perceptrons.
    pub decoder_ffn_dim: usize,
    /// Their heads.
    pub decoder_attention_heads: usize,
    /// Most objects in a picture.
    pub num_queries: usize,
    /// Kinds of objects; one more says that there is none.
    pub num_labels: usize,
    /// The network under it.
    pub backbone_config: ResNetConfig,
}

impl Default for DetrConfig {
    /// `facebook/detr-resnet-50-panoptic`.
    fn default() -> Self {
        Self {
            d_model: 256,
            encoder_layers: 6,
            encoder_ffn_dim: 2048,
            encoder_attention_heads: 8,
            decoder_layers: 6,
            decoder_ffn_dim: 2048,
            decoder_attention_heads: 8,
            num_queries: 100,
            num_labels: 250,
            backbone_config: ResNetConfig::default(),
        }
    }
}

impl DetrConfig {
    /// Creates the network with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<Detr> {
        check_range("d_model", self.d_model, 16..=4096)?;
        check_range("encoder_layers", self.encoder_layers, 1..=64)?;
        check_range("decoder_layers", self.decoder_layers, 1..=64)?;
        check_range("encoder_ffn_dim", self.encoder_ffn_dim, 1..=65_536)?;
        check_range("decoder_ffn_dim", self.decoder_ffn_dim, 1..=65_536)?;
        check_range("num_queries", self.num_queries, 1..=4096)?;
        check_range("num_labels", self.num_labels, 1..=65_536)?;
        let (width, heads) = (self.d_model, self.encoder_attention_heads);
        for heads in [heads, self.decoder_attention_heads] {
            check_range("attention_heads", heads, 1..=1024)?;
            if !width.is_multiple_of(heads) {
                return Err(config_range(format!("d_model {width} is no multiple of its {heads} heads")));
            }
        }
        // Halved four times in the mask head, each with a norm; a half of the positions' sinusoids for either axis.
        if !width.is_multiple_of(16)
            || [width + heads, width / 2, width / 4, width / 8, width / 16]
                .into_iter()
                .any(|c| !c.is_multiple_of(c.min(GROUPS)))
        {
            return Err(config_range(format!("d_model {width} with {heads} heads makes no mask head")));
        }
        let backbone = self.backbone_config.init(device)?;
        let [fine, middle, coarse, last] = self.backbone_config.hidden_sizes;
        let norm = || LayerNorm::new(width, NORM_EPS, device);
        let attention = |heads| Attention::new(width, heads, device);
        let perceptron = |inside| {
            (LinearConfig::new(width, inside).init(device), LinearConfig::new(inside, width).init(device))
        };
        let encoder_layer = |_| {
            let (fc1, fc2) = perceptron(self.encoder_ffn_dim);
            let self_attn = attention(heads);
            EncoderLayer { self_attn, self_attn_layer_norm: norm(), fc1, fc2, final_layer_norm: norm() }
        };
        let decoder_layer = |_| {
            let (fc1, fc2) = perceptron(self.decoder_ffn_dim);
            DecoderLayer {
                self_attn: attention(self.decoder_attention_heads),
                self_attn_layer_norm: norm(),
                encoder_attn: attention(self.decoder_attention_heads),
                encoder_attn_layer_norm: norm(),
                fc1,
                fc2,
                final_layer_norm: norm(),
            }
        };
        let same = |channels_in: usize, channels_out: usize| {
            Conv2dConfig::new(channels_in, channels_out, 3).with_padding(1).init(device)
        };
        let across = |channels_in: usize, channels_out: usize| {
            Conv2dConfig::new(channels_in, channels_out, 1).init(device)
        };
        let groups = |channels: usize| GroupNorm::new(GROUPS.min(channels), channels, NORM_EPS, device);
        let linear = || LinearConfig::new(width, width).init(device);
        Ok(Detr {
            backbone,
            input_projection: across(last, width),
            query_position_embeddings: Embedding::new(self.num_queries, width, 1.0, device),
            encoder: Encoder { layers: (0..self.encoder_layers).map(encoder_layer).collect() },
            decoder: Decoder {
                layers: (0..self.decoder_layers).map(decoder_layer).collect(),
                layernorm: norm(),
            },
            class_labels_classifier: LinearConfig::new(width, self.num_labels + 1).init(device),
            bbox_attention: AttentionMaps { q_linear: linear(), k_linear: linear(), heads },
            mask_head: MaskHead {
                lay1: same(width + heads, width + heads),
                gn1: groups(width + heads),
                lay2: same(width + heads, width / 2),
                gn2: groups(width / 2),
                lay3: same(width / 2, width / 4),
                gn3: groups(width / 4),
                lay4: same(width / 4, width / 8),
                gn4: groups(width / 8),
                lay5: same(width / 8, width / 16),
                gn5: groups(width / 16),
                out_lay: same(width / 16, 1),
                adapter1: across(coarse, width / 2),
                adapter2: across(middle, width / 4),
                adapter3: across(fine, width / 8),
            },
        })
    }
}

/// The network; see the module's description.
#[derive(Module, Debug)]
pub struct Detr {
    backbone: ResNet,
    input_projection: Conv2d,
    query_position_embeddings: Embedding,
    encoder: Encoder,
    decoder: Decoder,
    class_labels_classifier: Linear,
    bbox_attention: AttentionMaps,
    mask_head: MaskHead,
}

/// What the network made of a picture: all that masks are drawn from.
#[derive(Debug, Clone)]
pub struct DetrOutput {
    /// Of each query, `[queries, num_labels + 1]`, not activated; the last says that there is no object.
    pub logits: Tensor<2>,
    /// `[1, queries, d_model]`.
    queries: Tensor<3>,
    /// `[1, positions, d_model]`.
    memory: Tensor<3>,
    /// `[1, d_model, h/32, w/32]`.
    projected: Tensor<4>,
    /// The backbone's stages of stride 4, 8 and 16.
    features: [Tensor<4>; 3],
}

impl Detr {
    /// `pixel_values`: one picture, `[1, 3, h, w]`, normalised; fails with `segmenter-input` on anything else.
    pub fn look(&self, pixel_values: Tensor<4>) -> Result<DetrOutput> {
        let [n, channels, height, width] = pixel_values.dims();
        if n != 1 || channels != 3 || height == 0 || width == 0 {
            return Err(Error::input(
                "segmenter-input",
                format!(
                    "the segmentation network takes one picture of 3 channels, not {n}×{channels}×{height}×{width}"
                ),
                "give pixel_values as [1, 3, height, width]",
            ));
        }
        let [fine, middle, coarse, last] = self.backbone.forward(pixel_values);
        let projected = self.input_projection.forward(last);
        let memory = projected.clone().flatten::<3>(2, 3).swap_dims(1, 2);
        let positions = positions(&projected).cast(memory.dtype());
        let memory = self.encoder.layers.iter().fold(memory, |x, layer| layer.forward(x, &positions));
        let objects = self.query_position_embeddings.weight.val().cast(memory.dtype()).unsqueeze::<3>();
        let queries = Tensor::zeros_like(&objects);
        let queries = self
            .decoder
            .layers
            .iter()
            .fold(queries, |x, layer| layer.forward(x, &objects, &memory, &positions));
        let queries = self.decoder.layernorm.forward(queries);
        let logits = self.class_labels_classifier.forward(queries.clone()).squeeze_dim(0).cast(DType::F32);
        Ok(DetrOutput { logits, queries, memory, projected, features: [fine, middle, coarse] })
    }

    /// The masks of some queries, `[count, h/4, w/4]` (rounded up), not activated. Fails with `segmenter-query` on an index
    /// that is none.
    pub fn masks(&self, seen: &DetrOutput, queries: &[usize]) -> Result<Tensor<3>> {
        let count = seen.queries.dims()[1];
        if let Some(query) = queries.iter().find(|query| **query >= count) {
            let message = format!("there is no query {query}: the network has {count}");
            return Err(Error::input("segmenter-query", message, "count from 0"));
        }
        let device = seen.queries.device();
        let [_, _, height, width] = seen.projected.dims();
        // One after the other: what the mask head makes of a query is larger than the picture.
        let mask = |query: &usize| {
            let query = seen.queries.clone().narrow(1, *query, 1);
            let maps = self.bbox_attention.forward(query, seen.memory.clone());
            let maps = maps.reshape([1, self.bbox_attention.heads, height, width]);
            self.mask_head.forward(seen.projected.clone(), maps, &seen.features).squeeze_dim(1)
        };
        let masks: Vec<Tensor<3>> = queries.iter().map(mask).collect();
        let [_, _, rows, columns] = seen.features[0].dims();
        Ok(if masks.is_empty() { Tensor::zeros([0, rows, columns], &device) } else { Tensor::cat(masks, 0) }
            .cast(DType::F32))
    }
}

/// Where each position of a map is: sinusoids of its row, then of its column, counted from 1 and scaled to 2π
/// (transformers' `DetrSinePositionEmbedding`, normalised) → `[1, positions, channels]`.
fn positions(map: &Tensor<4>) -> Tensor<3> {
    let [_, channels, height, width] = map.dims();
    let half = channels / 2;
    let scaled = |at: usize, count: usize| {
        // The divisor's offset is upstream's guard against division by zero.
        (at + 1) as f64 / (count as f64 + 1e-6) * std::f64::consts::TAU
    };
    let mut values = Vec::with_capacity(height * width * channels);
    for y in 0..height {
        for x in 0..width {
            for at in [scaled(y, height), scaled(x, width)] {
                values.extend((0..half).map(|i| {
                    let angle = at / TEMPERATURE.powf((i / 2 * 2) as f64 / half as f64);
                    (if i % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
                }));
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [1, height * width, channels]), &map.device())
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        let projection = || LinearConfig::new(width, width).init(device);
        Self {
            q_proj: projection(),
            k_proj: projection(),
            v_proj: projection(),
            out_proj: projection(),
            heads,
        }
    }

    fn forward(&self, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
        let heads = |layer: &Linear, x| split_heads(layer.forward(x), self.heads);
        let out =
            attention(heads(&self.q_proj, query), heads(&self.k_proj, key), heads(&self.v_proj, value), None);
        self.out_proj.forward(merge_heads(out))
    }
}

#[derive(Module, Debug)]
struct Encoder {
    layers: Vec<EncoderLayer>,
}

#[derive(Module, Debug)]
struct EncoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

impl EncoderLayer {
    fn forward(&self, x: Tensor<3>, positions: &Tensor<3>) -> Tensor<3> {
        let placed = x.clone() + positions.clone();
        let x =
            self.self_attn_layer_norm.forward(x.clone() + self.self_attn.forward(placed.clone(), placed, x));
        self.final_layer_norm.forward(x.clone() + self.fc2.forward(relu(self.fc1.forward(x))))
    }
}

#[derive(Module, Debug)]
struct Decoder {
    layers: Vec<DecoderLayer>,
    layernorm: LayerNorm,
}

#[derive(Module, Debug)]
struct DecoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    encoder_attn: Attention,
    encoder_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

impl DecoderLayer {
    /// `objects` tells the queries apart, `positions` those of `memory`.
    fn forward(
        &self,
        x: Tensor<3>,
        objects: &Tensor<3>,
        memory: &Tensor<3>,
        positions: &Tensor<3>,
    ) -> Tensor<3> {
        let placed = x.clone() + objects.clone();
        let x =
            self.self_attn_layer_norm.forward(x.clone() + self.self_attn.forward(placed.clone(), placed, x));
        let keys = memory.clone() + positions.clone();
        let read = self.encoder_attn.forward(x.clone() + objects.clone(), keys, memory.clone());
        let x = self.encoder_attn_layer_norm.forward(x + read);
        self.final_layer_norm.forward(x.clone() + self.fc2.forward(relu(self.fc1.forward(x))))
    }
}

/// How much a query attends to each position: scores without values.
#[derive(Module, Debug)]
struct AttentionMaps {
    q_linear: Linear,
    k_linear: Linear,
    heads: usize,
}

impl AttentionMaps {
    /// `[1, 1, c]` and `[1, positions, c]` → `[heads, positions]`, which sum to 1 over both.
    fn forward(&self, query: Tensor<3>, memory: Tensor<3>) -> Tensor<2> {
        let query = split_heads(self.q_linear.forward(query), self.heads);
        let keys = split_heads(self.k_linear.forward(memory), self.heads);
        let [_, heads, positions, width] = keys.dims();
        let scores = (query * (width as f64).powf(-0.5)).matmul(keys.swap_dims(2, 3));
        softmax(scores.reshape([1, heads * positions]), 1).reshape([heads, positions])
    }
}

#[derive(Module, Debug)]
struct MaskHead {
    lay1: Conv2d,
    gn1: GroupNorm,
    lay2: Conv2d,
    gn2: GroupNorm,
    lay3: Conv2d,
    gn3: GroupNorm,
    lay4: Conv2d,
    gn4: GroupNorm,
    lay5: Conv2d,
    gn5: GroupNorm,
    out_lay: Conv2d,
    adapter1: Conv2d,
    adapter2: Conv2d,
    adapter3: Conv2d,
}

impl MaskHead {
    /// `[1, d_model, h, w]` and `[1, heads, h, w]` → `[1, 1, 8h, 8w]`, or as large as the finest of the `features`.
    fn forward(&self, projected: Tensor<4>, maps: Tensor<4>, features: &[Tensor<4>; 3]) -> Tensor<4> {
        let layer = |conv: &Conv2d, norm: &GroupNorm, x| relu(norm.forward(conv.forward(x)));
        let joined = |adapter: &Conv2d, feature: &Tensor<4>, x| {
            let feature = adapter.forward(feature.clone());
            let [_, _, height, width] = feature.dims();
            feature + nearest(x, height, width)
        };
        let [fine, middle, coarse] = features;
        let x = layer(&self.lay1, &self.gn1, Tensor::cat(vec![projected, maps], 1));
        let x = layer(&self.lay2, &self.gn2, x);
        let x = layer(&self.lay3, &self.gn3, joined(&self.adapter1, coarse, x));
        let x = layer(&self.lay4, &self.gn4, joined(&self.adapter2, middle, x));
        let x = layer(&self.lay5, &self.gn5, joined(&self.adapter3, fine, x));
        self.out_lay.forward(x)
    }
}

/// PyTorch's `interpolate(mode="nearest")` to any size.
fn nearest(x: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let device = x.device();
    let sources = |from: usize, to: usize| {
        let indices: Vec<i32> = (0..to).map(|i| (i * from / to) as i32).collect();
        Tensor::<1, Int>::from_ints(indices.as_slice(), &device)
    };
    let [_, _, rows, columns] = x.dims();
    x.select(2, sources(rows, height)).select(3, sources(columns, width))
}
