//! The denoiser of FLUX.2: diffusers' `Flux2Transformer2DModel`, read from `config.json`.
//!
//! Text and pictures are tokens of one sequence. Double-stream blocks attend over both and keep weights for each; single-stream
//! blocks have one set, and run attention and feed-forward side by side. What a block's norms are scaled and shifted by is
//! computed once from the timestep, for all blocks of a kind. Field names are diffusers' parameter names, so checkpoints load
//! without a remap.

mod attention;
mod blocks;
mod config;
mod latents;
mod modulation;
mod positions;
mod references;
mod sight;

pub use attention::{JointAttention, ParallelAttention};
pub use blocks::{DoubleBlock, FeedForward, SingleBlock};
pub use config::Flux2Transformer2DConfig;
pub use latents::PreparedFlux2Condition;
pub use modulation::{Modulation, TimestepGuidanceEmbedding};
pub use positions::{TokenId, image_ids, reference_ids, text_ids};
pub use references::ReferenceCache;
pub use sight::Sight;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use self::modulation::{AdaLayerNorm, modulated};
use self::positions::Positions;
use self::references::References;
use crate::error::{Error, Result};
use crate::nn::Linear;
use crate::weights::{Component, apply};

/// What the denoiser sees at a step.
#[derive(Debug, Clone)]
pub struct Flux2Input {
    /// Tokens of the noisy picture, and of reference pictures where there are any, `[batch, tokens, in_channels]`.
    pub hidden_states: Tensor<3>,
    /// Tokens of the prompt, `[batch, text tokens, joint_attention_dim]`.
    pub encoder_hidden_states: Tensor<3>,
    /// In training steps (0 to 1000), fractions allowed, `[batch]`.
    pub timestep: Tensor<1>,
    /// The guidance scale of models that are distilled for one, `[batch]`; `None` for all others.
    pub guidance: Option<Tensor<1>>,
    /// Where each token of `hidden_states` is, the same in the whole batch.
    pub image_ids: Vec<TokenId>,
    /// Where each token of `encoder_hidden_states` is, likewise.
    pub text_ids: Vec<TokenId>,
    /// What is added to the scores of every attention over text and pictures, the text first; `None` for the model as it is.
    pub sight: Option<Sight>,
}

/// Predicts flow matching's velocity in the tokens of a picture.
#[derive(Module, Debug)]
pub struct Flux2Transformer2DModel {
    /// Timestep, and guidance scale where there is one → embedding.
    pub time_guidance_embed: TimestepGuidanceEmbedding,
    /// Of the double-stream blocks' picture tokens.
    pub double_stream_modulation_img: Modulation,
    /// Of the double-stream blocks' text tokens.
    pub double_stream_modulation_txt: Modulation,
    /// Of the single-stream blocks.
    pub single_stream_modulation: Modulation,
    /// `in_channels` → width.
    pub x_embedder: Linear,
    /// `joint_attention_dim` → width.
    pub context_embedder: Linear,
    /// Double-stream blocks.
    pub transformer_blocks: Vec<DoubleBlock>,
    /// Single-stream blocks.
    pub single_transformer_blocks: Vec<SingleBlock>,
    /// After the blocks.
    pub norm_out: AdaLayerNorm,
    /// Width → `out_channels`.
    pub proj_out: Linear,
    eps: f64,
    in_channels: usize,
    joint_attention_dim: usize,
    #[module(skip)]
    positions: Positions,
}

impl Flux2Transformer2DModel {
    /// Loads `config.json` and weights.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let config: Flux2Transformer2DConfig = component.json("config.json")?;
        apply(config.init(device)?, component.tensors()?.as_ref(), "")
    }

    /// The velocity at each token of the input's `hidden_states`, `[batch, tokens, out_channels]`, in their precision; norms,
    /// positions and the timestep's embedding are always computed in f32.
    ///
    /// Reference tokens are seen as all others: they attend, and are attended to, in every step. Fails with `condition-shape`
    /// where ids, channels or batches do not fit, and with `condition-added` on a guidance scale for a model without its layers.
    pub fn forward(&self, input: &Flux2Input) -> Result<Tensor<3>> {
        self.run(input, &mut References::Tokens { sight: input.sight.as_ref() }, None)
    }

    /// As [`forward`](Self::forward) of a picture whose first `count` tokens are references', and the keys and values of those:
    /// reference tokens attend to each other alone, and are modulated as at timestep 0, so that they are the same in every step.
    /// The velocity is of the tokens behind them.
    pub fn forward_keeping(&self, input: &Flux2Input, count: usize) -> Result<(Tensor<3>, ReferenceCache)> {
        let [_, tokens, _] = input.hidden_states.dims();
        if count == 0 || count >= tokens || input.sight.is_some() {
            return Err(misfit(format!(
                "{count} reference tokens of {tokens}, kept, or kept with strengths"
            )));
        }
        let [_, text, _] = input.encoder_hidden_states.dims();
        let mut cache = ReferenceCache::default();
        let velocity =
            self.run(input, &mut References::Kept { text, count, cache: &mut cache }, Some(count))?;
        Ok((velocity, cache))
    }

    /// As [`forward`](Self::forward) of a picture without its reference tokens, which are those of the cache.
    pub fn forward_with(&self, input: &Flux2Input, cache: &ReferenceCache) -> Result<Tensor<3>> {
        let [_, text, _] = input.encoder_hidden_states.dims();
        if input.sight.is_some() {
            return Err(misfit("strengths for tokens whose keys are kept"));
        }
        self.run(input, &mut References::Cached { text, next: cache.blocks.iter() }, None)
    }

    fn run(&self, input: &Flux2Input, references: &mut References, kept: Option<usize>) -> Result<Tensor<3>> {
        self.check(input)?;
        let dtype = input.hidden_states.dtype();
        let [_, text, _] = input.encoder_hidden_states.dims();
        let device = input.hidden_states.device();

        let embed = |timestep: Tensor<1>| self.time_guidance_embed.forward(timestep, input.guidance.clone());
        let temb = embed(input.timestep.clone());
        let mut image_modulation = self.double_stream_modulation_img.forward(temb.clone());
        let text_modulation = self.double_stream_modulation_txt.forward(temb.clone());
        let mut single_modulation = self.single_stream_modulation.forward(temb.clone());
        if let Some(count) = kept {
            let still = embed(input.timestep.zeros_like());
            let [_, tokens, _] = input.hidden_states.dims();
            let of = |modulation: &Modulation| modulation.forward(still.clone());
            image_modulation =
                image_modulation.blended(of(&self.double_stream_modulation_img), 0, count, tokens);
            single_modulation =
                single_modulation.blended(of(&self.single_stream_modulation), text, count, text + tokens);
        }

        let ids: Vec<TokenId> = input.text_ids.iter().chain(&input.image_ids).copied().collect();
        let rotary = self.positions.rotary(&ids, &device);
        let mut image = self.x_embedder.forward(input.hidden_states.clone());
        let mut context = self.context_embedder.forward(input.encoder_hidden_states.clone().cast(dtype));
        for block in &self.transformer_blocks {
            (image, context) =
                block.forward(image, context, &image_modulation, &text_modulation, &rotary, references)?;
        }
        let mut x = Tensor::cat(vec![context, image], 1);
        for block in &self.single_transformer_blocks {
            x = block.forward(x, &single_modulation, &rotary, references)?;
        }
        if let References::Cached { next, .. } = references
            && next.next().is_some()
        {
            return Err(misfit("the references' keys are of a transformer with more blocks"));
        }
        let first = text + kept.unwrap_or(0);
        let [_, tokens, _] = x.dims();
        let x = x.narrow(1, first, tokens - first);
        let [scale, shift] = self.norm_out.forward(temb);
        Ok(self.proj_out.forward(modulated(x, &shift, &scale, self.eps)))
    }

    fn check(&self, input: &Flux2Input) -> Result<()> {
        let [batch, tokens, channels] = input.hidden_states.dims();
        let [of_text, text, width] = input.encoder_hidden_states.dims();
        if [channels, width] != [self.in_channels, self.joint_attention_dim] {
            return Err(misfit(format!(
                "tokens of {channels} channels and text of {width}, for {} and {}",
                self.in_channels, self.joint_attention_dim
            )));
        }
        let scalars = [Some(&input.timestep), input.guidance.as_ref()];
        if of_text != batch || scalars.into_iter().flatten().any(|scalar| scalar.dims() != [batch]) {
            return Err(misfit("picture, text, timestep and guidance scale are of different batches"));
        }
        if [input.image_ids.len(), input.text_ids.len()] != [tokens, text] || tokens * text == 0 {
            return Err(misfit(format!(
                "{} and {} ids for {tokens} tokens and {text} of text",
                input.image_ids.len(),
                input.text_ids.len()
            )));
        }
        let all = tokens + text;
        if input.sight.as_ref().is_some_and(|sight| sight.tokens() != [all, all]) {
            return Err(misfit(format!("strengths that are not of {all} tokens")));
        }
        if input.guidance.is_some() && !self.time_guidance_embed.takes_guidance() {
            return Err(Error::internal(
                "condition-added",
                "a guidance scale was given to a transformer that has no layers for it",
            ));
        }
        Ok(())
    }
}

fn misfit(message: impl Into<String>) -> Error {
    Error::internal("condition-shape", message)
}

/// f16's range, where sums leave it: as diffusers.
fn within_range(x: Tensor<3>) -> Tensor<3> {
    let most = half::f16::MAX.to_f64();
    if x.dtype() == DType::F16 { x.clamp(-most, most) } else { x }
}
