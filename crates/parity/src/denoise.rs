//! The sampling loop on given latents, embeddings and noise; every step can be held against any reference.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor};
use facestudio::Result;
use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::internal::{AdapterGuidance, Guided};
use facestudio::pipeline::prompt::TextReader;
use facestudio::pipeline::{Canvas, Denoiser, InpaintMask, denoise, start};
use facestudio::sampling::{Scheduler, SchedulerConfig, StepOutput};
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{
    CheckedFolder, Component, Quantization, Tensors, check_output, encode, write_file,
};

use crate::given::Given;
use crate::inputs::{Axis::Any, Axis::Exactly, Inputs, scale_of};

/// Which model, on which tensors, by which steps.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// A model folder; its unet, scheduler and ip_adapter folders are used, and with --prompt tokenizer and text_encoder.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A safetensors file with `latents` [1, channels, height, width] of unit variance, `encoder_hidden_states` [1, tokens,
    /// channels] and, for samplers that take any, `noise` [steps, 1, channels, height, width].
    ///
    /// Beside them, for guidance, `negative_encoder_hidden_states`; for image-to-image `init_latents`, and `mask` [1, 1,
    /// height, width], 1 where they may change; for adapter N, counted from 0, what its projection reads of the style image,
    /// or of each person: `image_embeds.N` [people, dim], `hidden_states.N` [people, tokens, hidden] or `id_embeds.N`
    /// [people, dim], with `negative_hidden_states.N` for guidance, the same for all (the others' negatives are zeros), and
    /// `ip_mask.N` [people, height, width] where each of several people acts.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    inputs: PathBuf,
    /// Where `steps` [steps, 1, channels, height, width] and `timesteps` go: the latents after each.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// What the picture shows: read by the model's tokenizer and text_encoder, in place of `encoder_hidden_states`.
    #[arg(long)]
    prompt: Option<String>,
    /// What it should not show, likewise.
    #[arg(long, default_value = "", requires = "prompt")]
    negative_prompt: String,
    /// The layer of the text encoder that is read for it, counted from the last.
    #[arg(long, default_value_t = 1, requires = "prompt", value_name = "N")]
    clip_skip: usize,
    /// Denoising steps.
    #[arg(long, default_value_t = 25)]
    steps: usize,
    /// Classifier-free guidance; 1 turns it off.
    #[arg(long, default_value_t = 1.0)]
    guidance_scale: f32,
    /// How far image-to-image goes, 0 to 1.
    #[arg(long, default_value_t = 1.0)]
    strength: f32,
    /// How much each adapter adds, in the folders' order, in place of what its config says.
    #[arg(long, value_name = "SCALE")]
    ip_scale: Vec<f32>,
}

/// Runs the loop and writes the latents after each step.
///
/// Fails where the folder, its weights or the tensors do not belong together.
pub fn run(args: &Args, device: &Device) -> Result<()> {
    check_output(&args.output)?;
    let inputs = Inputs::read(&args.inputs)?;
    let outputs = latents(args, &inputs, device)?;
    write_file(&args.output, &encode(&outputs, Quantization::None, &BTreeMap::new())?)?;
    Ok(())
}

fn latents(args: &Args, inputs: &Inputs, device: &Device) -> Result<Tensors> {
    let folder = CheckedFolder::new(args.model.clone());
    let unet_folder = Component::new(&folder, "unet");
    let config: UNet2DConditionConfig = unet_folder.json("config.json")?;
    let scheduler = SchedulerConfig::of_latents(&Component::new(&folder, "scheduler"))?;
    let axes = [Exactly(1), Exactly(config.in_channels), Any("height"), Any("width")];
    let noise_at_start: Tensor<4> = inputs.tensor("latents", axes, device)?;
    let shape = noise_at_start.dims().map(Exactly);
    let init = inputs.optional("init_latents", shape, device)?;
    let strength = init.as_ref().map(|_| args.strength);
    let schedule = scheduler.schedule(scheduler.default_sampler()?, args.steps, strength)?;
    let scheduler = Scheduler::new(schedule.clone());

    let needs_noise = (0..schedule.len()).any(|i| scheduler.needs_noise(i));
    let axes = [Exactly(schedule.len()), shape[0], shape[1], shape[2], shape[3]];
    let noise: Option<Tensor<5>> =
        if needs_noise { Some(inputs.tensor("noise", axes, device)?) } else { None };
    let fresh = |i| noise.as_ref().map(|noise| noise.clone().narrow(0, i, 1).squeeze_dim::<4>(0));
    let [_, _, height, width] = noise_at_start.dims();
    let inpaint = if inputs.has("mask") {
        let init = init
            .as_ref()
            .map_or_else(|| inputs.tensor("init_latents", shape, device), |init| Ok(init.clone()))?;
        inputs.shape("mask", [Exactly(1), Exactly(1), shape[2], shape[3]])?;
        let (_, values) = inputs.values("mask")?;
        let canvas = Canvas { width, height, latent_width: width, latent_height: height };
        Some(InpaintMask::new(&init, values, &noise_at_start, &canvas))
    } else {
        None
    };
    let latents = start(&scheduler, &noise_at_start, init.as_ref().zip(strength), inpaint.as_ref())?;

    let mut unet = UNet2DConditionModel::load(&unet_folder, device)?;
    let texts = texts(args, inputs, &folder, &config, device)?;
    let mut family = AdapterGuidance::load(&folder, &mut unet, device)?;
    let count = family.reads().count();
    for n in 0..count.max(1) {
        if let Some(scale) = scale_of(&args.ip_scale, n, count)? {
            family.set_scale(n, scale);
        }
    }
    let given = Given::read(inputs, family.reads(), texts, args.guidance_scale, device)?;
    let Guided { condition, guidance_scale } = given.guided(&family, device)?;
    let denoiser = Denoiser { network: &unet, condition, guidance_scale, dtype: DType::F32 };
    let mut seen = Vec::with_capacity(schedule.len());
    let after = async |_, output: StepOutput| {
        seen.push(output.sample);
        Ok(())
    };
    pollster::block_on(denoise(&denoiser, scheduler, latents, fresh, inpaint.as_ref(), after))?;
    let mut outputs = Tensors::default();
    outputs.insert("steps", Tensor::stack::<5>(seen, 0))?;
    let timesteps = schedule.timesteps();
    outputs.0.insert("timesteps".to_owned(), (vec![timesteps.len()], timesteps));
    Ok(outputs)
}

/// The text's tokens and, for guidance, those of the negative one: as given, or of the prompts.
fn texts(
    args: &Args,
    inputs: &Inputs,
    folder: &CheckedFolder,
    config: &UNet2DConditionConfig,
    device: &Device,
) -> Result<Vec<Tensor<3>>> {
    let guided = args.guidance_scale != 1.0;
    if let Some(prompt) = &args.prompt {
        let tokenizer = Tokenizer::load(&Component::new(folder, "tokenizer"))?;
        let encoder = TextEncoder::load(&Component::new(folder, "text_encoder"), device)?;
        let reader = TextReader { tokenizer, encoder };
        let states = |text: &str| Ok(reader.weighted(text, args.clip_skip, &[])?.0);
        let negative = guided.then(|| states(&args.negative_prompt)).transpose()?;
        return Ok([vec![states(prompt)?], negative.into_iter().collect()].concat());
    }
    let axes = [Exactly(1), Any("tokens"), Exactly(config.cross_attention_dim)];
    let text = inputs.tensor("encoder_hidden_states", axes, device)?;
    let axes = [Exactly(1), Exactly(text.dims()[1]), Exactly(config.cross_attention_dim)];
    let null = || inputs.tensor("negative_encoder_hidden_states", axes, device);
    Ok(if guided { vec![text, null()?] } else { vec![text] })
}
