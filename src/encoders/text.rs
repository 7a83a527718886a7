//! CLIP's text encoder: transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::prompt::Chunk;
use super::token_ids;
use super::tokenizer::Tokenizer;
use super::transformer::{Encoder, EncoderConfig};
use super::{MASKED, check_range, refuse_others};
use crate::error::{Error, Result};
use crate::nn::{Activation, Embedding, LayerNorm, Linear, LinearConfig};
use crate::weights::{self, Component};

/// The `eos_token_id` of configs written before transformers 4.31. It is not the id of any end-of-text token;
/// the end is then the highest id, as in OpenAI's own code.
const LEGACY_EOS_TOKEN_ID: u32 = 2;

/// `config.json` of a text encoder; names and defaults are transformers' `CLIPTextConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// The classes that the checkpoint was saved from; `CLIPTextModel` has no projection, all others have one.
    pub architectures: Option<Vec<String>>,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Width inside its MLPs.
    pub intermediate_size: usize,
    /// Width of `text_embeds`.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Largest number of tokens, also the context length that prompts are padded to.
    pub max_position_embeddings: usize,
    /// Activation inside the MLPs.
    pub hidden_act: Activation,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Id of the end-of-text token; 2 means "the highest id in the sequence", see [`TextEncoder::forward`].
    pub eos_token_id: u32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            architectures: None,
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49_407,
        }
    }
}

/// A whole CLIP's config, which nests its text half.
#[derive(Deserialize)]
struct ClipConfig {
    model_type: Option<String>,
    text_config: Option<TextConfig>,
    /// Of old versions of transformers; it counts where there are both.
    text_config_dict: Option<TextConfig>,
    projection_dim: Option<usize>,
}

impl TextConfig {
    /// Reads `config.json`, either a text encoder's own or a whole CLIP's with a nested `text_config`.
    pub fn read(component: &Component) -> Result<Self> {
        let clip: ClipConfig = component.json("config.json")?;
        refuse_others(clip.model_type.as_deref(), &["clip", "clip_text_model"])?;
        let Some(mut config) = clip.text_config_dict.or(clip.text_config) else {
            return component.json("config.json");
        };
        // The whole model's own width wins, and it always projects, as in `CLIPModel`.
        config.architectures = None;
        config.projection_dim = clip.projection_dim.unwrap_or(config.projection_dim);
        Ok(config)
    }

    /// Whether the encoder ends in `text_projection`.
    pub fn projects(&self) -> bool {
        !self.architectures.iter().flatten().any(|name| name == "CLIPTextModel")
    }

    fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }

    /// Creates the encoder with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<TextEncoder> {
        self.init_with_table(device, device)
    }

    /// [`TextConfig::init`] with the tokens' table on a device of its own.
    fn init_with_table(&self, device: &Device, table_device: &Device) -> Result<TextEncoder> {
        self.encoder().validate()?;
        check_range("vocab_size", self.vocab_size, 1..=4_000_000)?;
        check_range("max_position_embeddings", self.max_position_embeddings, 1..=65_536)?;
        check_range("projection_dim", self.projection_dim, 1..=16_384)?;
        let hidden = self.hidden_size;
        // 0.02: CLIP's initial deviation of both tables.
        let table = |count, device| Embedding::new(count, hidden, 0.02, device);
        let projection = LinearConfig::new(hidden, self.projection_dim).with_bias(false);
        Ok(TextEncoder {
            text_model: TextTransformer {
                embeddings: TextEmbeddings {
                    token_embedding: table(self.vocab_size, table_device),
                    position_embedding: table(self.max_position_embeddings, device),
                },
                encoder: self.encoder().init(device),
                final_layer_norm: LayerNorm::new(hidden, self.layer_norm_eps, device),
            },
            text_projection: self.projects().then(|| projection.init(device)),
            vocab_size: self.vocab_size,
            context_length: self.max_position_embeddings,
            heads: self.num_attention_heads,
            eos_token_id: self.eos_token_id,
        })
    }
}

/// What a [`TextEncoder`] says about a batch of token sequences.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// Every token's state after the final layer norm, `[batch, tokens, hidden]`.
    pub last_hidden_state: Tensor<3>,
    /// The state at the end of the text, `[batch, hidden]`.
    pub pooled: Tensor<2>,
    /// `pooled` projected into the space shared with images, `[batch, projection_dim]`; `None` without a projection.
    pub text_embeds: Option<Tensor<2>>,
}

/// CLIP's text encoder.
#[derive(Module, Debug)]
pub struct TextEncoder {
    text_model: TextTransformer,
    text_projection: Option<Linear>,
    vocab_size: usize,
    context_length: usize,
    heads: usize,
    #[module(skip)]
    eos_token_id: u32,
}

#[derive(Module, Debug)]
struct TextTransformer {
    embeddings: TextEmbeddings,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct TextEmbeddings {
    token_embedding: Embedding,
    position_embedding: Embedding,
}

impl TextEncoder {
    /// Loads the encoder of a component folder. Names may lack their `text_model.`, as transformers 5 saves
    /// a `CLIPTextModel`.
    ///
    /// The tokens' table stays with the processor: a prompt reads 77 of its rows, and in full size it is larger than what a
    /// WebGPU device need bind at once (CLIP-L's has 152 MB, `maxStorageBufferBindingSize` is 128 MiB).
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let encoder = TextConfig::read(component)?.init_with_table(device, &table_device(device))?;
        let source = component.tensors()?;
        let has = |name: &str| source.shape(name).is_some();
        if has("final_layer_norm.weight") && !has("text_projection.weight") {
            let text_model = weights::apply(encoder.text_model, source.as_ref(), "")?;
            return Ok(Self { text_model, text_projection: None, ..encoder });
        }
        weights::apply(encoder, source.as_ref(), "")
    }

    /// The tokens' embeddings, `[vocab_size, hidden]`.
    pub fn token_embedding(&self) -> Tensor<2> {
        self.text_model.embeddings.token_embedding.weight.val()
    }

    /// The number of tokens that prompts are padded and cut to.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Encodes `input_ids`, one sequence a row, all of one length of at most [`TextEncoder::context_length`].
    ///
    /// The ids come from the host, so that the end of each text is found without reading anything back from the
    /// device: the first `eos_token_id`, or the first of the highest ids where the config says 2 (transformers'
    /// two rules). Layers run in `dtype`.
    pub fn forward(&self, input_ids: &[Vec<u32>], dtype: DType) -> Result<TextOutput> {
        self.encode(input_ids, None, dtype)
    }

    /// [`TextEncoder::forward`] with `embeds`, `[batch, width]`, in the place of the embedding of `token` wherever a sequence
    /// has it. They are filled up with zeros to the transformer's width.
    ///
    /// Fails with `projection-input` where they are wider, or not one for each sequence.
    pub fn forward_with(
        &self,
        input_ids: &[Vec<u32>],
        token: u32,
        embeds: Tensor<2>,
        dtype: DType,
    ) -> Result<TextOutput> {
        self.encode(input_ids, Some((token, embeds)), dtype)
    }

    /// The last states of a prompt that is padded to the context length, `[1, tokens, hidden]`: what Stable Diffusion's
    /// cross-attention reads.
    pub fn states(&self, tokenizer: &Tokenizer, text: &str) -> Result<Tensor<3>> {
        let ids = tokenizer.encode(&tokenizer.written_out(text), self.context_length)?;
        Ok(self.forward(&[ids], DType::F32)?.last_hidden_state)
    }

    /// The states of a prompt's chunks, one after the other, `[1, chunks · tokens, hidden]`: each chunk's multiplied by its weights and
    /// then, all alike, brought back to the mean that they had (AUTOMATIC1111's web UI, `EmphasisOriginal`).
    ///
    /// `clip_skip` counts as there: 1 reads the last layer, 2 the one before it, and so on; the final norm follows any of them. Fails
    /// with `clip-skip-range` where there are not as many layers, and with `embedding-width` on vectors of another width.
    pub fn weighted(&self, chunks: &[Chunk], clip_skip: usize) -> Result<Tensor<3>> {
        let depth = self.text_model.encoder.depth();
        if !(1..=depth).contains(&clip_skip) {
            return Err(Error::input(
                "clip-skip-range",
                format!("clip skip is {clip_skip}; the model's text encoder has {depth} layers"),
                format!("use 1, which skips none, to {depth}"),
            ));
        }
        let input_ids: Vec<Vec<u32>> = chunks.iter().map(|chunk| chunk.ids.clone()).collect();
        self.check(&input_ids)?;
        let embedded = self.learnt(self.embedded(&input_ids), chunks)?;
        let states = self.states_of(embedded, clip_skip - 1, DType::F32);
        let [count, tokens, hidden] = states.dims();
        let states = chunks.iter().enumerate().map(|(i, chunk)| {
            let states = states.clone().narrow(0, i, 1);
            if chunk.weights.iter().all(|weight| *weight == 1.0) {
                return states;
            }
            let weights = TensorData::new(chunk.weights.clone(), [1, tokens, 1]);
            let weighted = states.clone() * Tensor::<3>::from_data(weights, &states.device());
            let mean = |states: Tensor<3>| states.mean().reshape([1, 1, 1]);
            let (had, has) = (mean(states), mean(weighted.clone()));
            // A mean of nothing cannot be brought back to anything.
            let none = has.clone().equal_elem(0.0);
            weighted * (had / has).mask_fill(none, 1.0)
        });
        Ok(Tensor::cat(states.collect(), 0).reshape([1, count * tokens, hidden]))
    }

    /// `embedded`, `[chunks, tokens, hidden]`, with the chunks' vectors in their places.
    fn learnt(&self, embedded: Tensor<3>, chunks: &[Chunk]) -> Result<Tensor<3>> {
        let [count, tokens, hidden] = embedded.dims();
        if chunks.iter().all(|chunk| chunk.vectors.is_empty()) {
            return Ok(embedded);
        }
        let (mut values, mut here) = (vec![0f32; count * tokens * hidden], vec![0f32; count * tokens]);
        for (row, chunk) in chunks.iter().enumerate() {
            for (place, embedding) in &chunk.vectors {
                if embedding.width() != hidden {
                    return Err(Error::input(
                        "embedding-width",
                        format!(
                            "the embedding '{}' has vectors of {} values, the model's text encoder of {hidden}",
                            embedding.word(),
                            embedding.width()
                        ),
                        "use one that was learnt with this kind of model: Stable Diffusion 1 has 768, Stable Diffusion 2 has 1024",
                    ));
                }
                let from = row * tokens + place;
                here[from..from + embedding.count()].fill(1.0);
                values[from * hidden..(from + embedding.count()) * hidden]
                    .copy_from_slice(embedding.vectors());
            }
        }
        let device = embedded.device();
        let values = Tensor::<3>::from_data(TensorData::new(values, [count, tokens, hidden]), &device);
        let here = Tensor::<3>::from_data(TensorData::new(here, [count, tokens, 1]), &device);
        Ok(embedded * (here.ones_like() - here) + values)
    }

    /// The tokens' embeddings, `[batch, tokens, hidden]`, on the layers' device.
    fn embedded(&self, input_ids: &[Vec<u32>]) -> Tensor<3> {
        let embeddings = &self.text_model.embeddings;
        let table_device = embeddings.token_embedding.weight.val().device();
        let ids: Vec<i32> = input_ids.iter().flatten().map(|id| *id as i32).collect();
        let shape = [input_ids.len(), ids.len() / input_ids.len().max(1)];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &table_device);
        let embedded = embeddings.token_embedding.forward(ids);
        let device = embeddings.position_embedding.weight.val().device();
        if device == table_device { embedded } else { Tensor::from_data(embedded.into_data(), &device) }
    }

    /// The states of embedded tokens after the layers, but for the last `left_out`, and the final norm.
    fn states_of(&self, embedded: Tensor<3>, left_out: usize, dtype: DType) -> Tensor<3> {
        let [batch, tokens, _] = embedded.dims();
        let device = embedded.device();
        let positions = self.text_model.embeddings.position_embedding.weight.val();
        let positions = positions.narrow(0, 0, tokens).unsqueeze::<3>();
        let hidden_states = (embedded + positions).cast(dtype);
        let bias = causal_bias(tokens, &device).cast(dtype).expand([batch, self.heads, tokens, tokens]);
        let hidden_states = self.text_model.encoder.forward_without(left_out, hidden_states, Some(bias));
        self.text_model.final_layer_norm.forward(hidden_states)
    }

    fn encode(
        &self,
        input_ids: &[Vec<u32>],
        replaced: Option<(u32, Tensor<2>)>,
        dtype: DType,
    ) -> Result<TextOutput> {
        let (batch, tokens) = self.check(input_ids)?;
        let ends = input_ids
            .iter()
            .enumerate()
            .map(|(row, ids)| Ok((row * tokens + self.end_of_text(ids)?) as i32))
            .collect::<Result<Vec<i32>>>()?;

        let mut embedded = self.embedded(input_ids);
        if let Some((token, embeds)) = replaced {
            embedded = replace(embedded, input_ids, token, embeds)?;
        }
        let last_hidden_state = self.states_of(embedded, 0, dtype);
        let [_, _, hidden] = last_hidden_state.dims();
        let ends = TensorData::new(ends, [batch]);
        let ends = Tensor::<1, Int>::from_data(ends, &last_hidden_state.device());
        let pooled = last_hidden_state.clone().reshape([batch * tokens, hidden]).select(0, ends);
        let text_embeds = self.text_projection.as_ref().map(|layer| layer.forward(pooled.clone()));
        Ok(TextOutput { last_hidden_state, pooled, text_embeds })
    }

    fn check(&self, input_ids: &[Vec<u32>]) -> Result<(usize, usize)> {
        let tokens = token_ids::check(input_ids, self.context_length, self.vocab_size)?;
        Ok((input_ids.len(), tokens))
    }

    fn end_of_text(&self, ids: &[u32]) -> Result<usize> {
        let end = if self.eos_token_id == LEGACY_EOS_TOKEN_ID { ids.iter().max().copied() } else { None };
        let end = end.unwrap_or(self.eos_token_id);
        ids.iter().position(|id| *id == end).ok_or_else(|| {
            Error::input(
                "token-ids",
                format!("a token sequence has no end-of-text token {end}"),
                "tokenize with this encoder's own tokenizer",
            )
        })
    }
}

/// Where the tokens' table of an encoder on `device` lies.
#[cfg(feature = "cpu")]
fn table_device(_: &Device) -> Device {
    Device::flex()
}

#[cfg(not(feature = "cpu"))]
fn table_device(device: &Device) -> Device {
    device.clone()
}

/// `embedded` `[batch, tokens, hidden]` with `embeds` `[batch, width]` and zeros wherever `input_ids` is `token`.
fn replace(embedded: Tensor<3>, input_ids: &[Vec<u32>], token: u32, embeds: Tensor<2>) -> Result<Tensor<3>> {
    let ([batch, tokens, hidden], [rows, width]) = (embedded.dims(), embeds.dims());
    if rows != batch || width > hidden {
        return Err(Error::input(
            "projection-input",
            format!("{rows} embeddings {width} wide for {batch} sequences of a text encoder {hidden} wide"),
            "give one for each sequence, at most as wide as the text encoder",
        ));
    }
    let device = embedded.device();
    let padded = if width < hidden {
        Tensor::cat(vec![embeds, Tensor::zeros([batch, hidden - width], &device)], 1)
    } else {
        embeds
    };
    let here: Vec<f32> = input_ids.iter().flatten().map(|id| if *id == token { 1.0 } else { 0.0 }).collect();
    let here = Tensor::<3>::from_data(TensorData::new(here, [batch, tokens, 1]), &device);
    Ok(embedded * (here.ones_like() - here.clone()) + padded.unsqueeze_dim::<3>(1) * here)
}

/// 0 where a query may look (itself and before), [`MASKED`] after it; `[1, 1, tokens, tokens]`.
fn causal_bias(tokens: usize, device: &Device) -> Tensor<4> {
    let bias: Vec<f32> = (0..tokens)
        .flat_map(|query| (0..tokens).map(move |key| if key > query { MASKED } else { 0.0 }))
        .collect();
    Tensor::from_data(TensorData::new(bias, [1, 1, tokens, tokens]), device)
}
