//! The sampling loop on given latents, embeddings and noise; every step can be held against any reference.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor};
use facestudio::condition::{Condition, LayerScale, Masks, Places, Projection as Layers, Stream};
use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::guidance::ip_adapter::{Features, IpAdapterConfig, Needs, Projection};
use facestudio::pipeline::prompt::{Said, cut};
use facestudio::pipeline::{Canvas, Denoiser, Held, denoise, start};
use facestudio::sampling::{Scheduler, SchedulerConfig, StepOutput};
use facestudio::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use facestudio::weights::{
    CheckedFolder, Component, Files, Quantization, Tensors, check_output, encode, write_file,
};
use facestudio::{Notice, Result};

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
    /// height, width], 1 where they may change; for adapter N, counted from 0, what its projection reads of each image:
    /// `image_embeds.N` [images, dim], `hidden_states.N` [images, tokens, hidden] or `id_embeds.N` [images, dim], with
    /// `negative_hidden_states.N` for guidance (the others' negatives are zeros unless given), and `ip_mask.N` [images,
    /// height, width] where each of several images acts.
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

/// Runs the loop and writes the latents after each step; `notice` hears what was done otherwise than asked.
///
/// Fails where the folder, its weights or the tensors do not belong together.
pub fn run(args: &Args, device: &Device, notice: &dyn Fn(&Notice)) -> Result<()> {
    check_output(&args.output)?;
    let inputs = Inputs::read(&args.inputs)?;
    let outputs = latents(args, &inputs, device, notice)?;
    write_file(&args.output, &encode(&outputs, Quantization::None, &BTreeMap::new())?)?;
    Ok(())
}

fn latents(args: &Args, inputs: &Inputs, device: &Device, notice: &dyn Fn(&Notice)) -> Result<Tensors> {
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
    let held = if inputs.has("mask") {
        let init = init
            .as_ref()
            .map_or_else(|| inputs.tensor("init_latents", shape, device), |init| Ok(init.clone()))?;
        inputs.shape("mask", [Exactly(1), Exactly(1), shape[2], shape[3]])?;
        let (_, values) = inputs.values("mask")?;
        let canvas = Canvas { width, height, latent_width: width, latent_height: height };
        Some(Held::new(&init, values, &noise_at_start, &canvas))
    } else {
        None
    };
    let latents = start(&scheduler, &noise_at_start, init.as_ref().zip(strength), held.as_ref())?;

    let mut unet = UNet2DConditionModel::load(&unet_folder, device)?;
    let condition = condition(args, inputs, &folder, &mut unet, &config, device, notice)?;
    let guidance_scale = Some(args.guidance_scale).filter(|scale| *scale != 1.0);
    let denoiser = Denoiser { unet: &unet, condition, guidance_scale, dtype: DType::F32 };
    let mut seen = Vec::with_capacity(schedule.len());
    let after = async |_, output: StepOutput| {
        seen.push(output.sample);
        Ok(())
    };
    pollster::block_on(denoise(&denoiser, scheduler, latents, fresh, held.as_ref(), after))?;
    let mut outputs = Tensors::default();
    outputs.insert("steps", Tensor::stack::<5>(seen, 0))?;
    let timesteps = schedule.timesteps();
    outputs.0.insert("timesteps".to_owned(), (vec![timesteps.len()], timesteps));
    Ok(outputs)
}

/// What the UNet attends to, with the null half of guidance where there is any.
fn condition(
    args: &Args,
    inputs: &Inputs,
    folder: &CheckedFolder,
    unet: &mut UNet2DConditionModel,
    config: &UNet2DConditionConfig,
    device: &Device,
    notice: &dyn Fn(&Notice),
) -> Result<Condition> {
    let guided = args.guidance_scale != 1.0;
    let (text, null_text) = texts(args, inputs, folder, config, device, notice)?;
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    let names = folder.folders("")?;
    let adapters = (1..)
        .map(|k| if k == 1 { "ip_adapter".to_owned() } else { format!("ip_adapter_{k}") })
        .take_while(|name| names.contains(name));
    let adapters: Vec<String> = adapters.collect();
    scale_of(&args.ip_scale, 0, adapters.len())?;
    for (n, name) in adapters.iter().enumerate() {
        let component = Component::new(folder, name);
        let adapter = IpAdapterConfig::read(&component)?;
        let source = component.tensors()?;
        unet.add_adapter(source.as_ref(), device)?;
        let projection = adapter.projection.load(source.as_ref(), device)?;
        let given = read(inputs, "", n, projection.needs(), None, device)?;
        let Some(images) = images(&given) else {
            // A mask without an image is a mistake, an adapter without one is left out.
            if inputs.has(&format!("ip_mask.{n}")) {
                let needs = projection.needs();
                let what = needs
                    .hidden_states
                    .map(|_| "hidden_states")
                    .or(needs.image_embeds.map(|_| "image_embeds"));
                inputs.values(&format!("{}.{n}", what.unwrap_or("id_embeds")))?;
            }
            continue;
        };
        let places = places(inputs, n, images)?;
        let scale = match (scale_of(&args.ip_scale, n, adapters.len())?, adapter.block_scales.is_empty()) {
            (Some(scale), _) => LayerScale::All(scale),
            (None, true) => LayerScale::All(adapter.scale),
            (None, false) => unet.layer_scale(&adapter.block_scales)?.times(adapter.scale),
        };
        let stream = |features: &Features| -> Result<Stream> {
            let stream = adapter_stream(n, &projection, features, places.clone())?;
            let [start, end] = adapter.interval;
            Ok(Stream { scale: scale.clone(), interval: start..end, ..stream })
        };
        positive.push(stream(&given)?);
        if guided {
            let nothing = read(inputs, "negative_", n, projection.needs(), Some(&given), device)?;
            negative.push(stream(&nothing)?);
        }
    }
    let own = |text| Stream::everywhere(Layers::Own, text);
    let condition = Condition::new([vec![own(text)], positive].concat());
    match null_text {
        Some(null) => Condition::cat(Condition::new([vec![own(null)], negative].concat()), condition),
        None => Ok(condition),
    }
}

/// The text's tokens and, for guidance, those of the negative one: as given, or of the prompts.
fn texts(
    args: &Args,
    inputs: &Inputs,
    folder: &CheckedFolder,
    config: &UNet2DConditionConfig,
    device: &Device,
    notice: &dyn Fn(&Notice),
) -> Result<(Tensor<3>, Option<Tensor<3>>)> {
    let guided = args.guidance_scale != 1.0;
    if let Some(prompt) = &args.prompt {
        let tokenizer = Tokenizer::load(&Component::new(folder, "tokenizer"))?;
        let encoder = TextEncoder::load(&Component::new(folder, "text_encoder"), device)?;
        let states = |said: Said, text: &str| -> Result<Tensor<3>> {
            cut(&tokenizer, encoder.context_length(), said, text)?.iter().for_each(notice);
            encoder.states(&tokenizer, text)
        };
        let negative = guided.then(|| states(Said::NegativePrompt, &args.negative_prompt)).transpose()?;
        return Ok((states(Said::Prompt, prompt)?, negative));
    }
    let axes = [Exactly(1), Any("tokens"), Exactly(config.cross_attention_dim)];
    let text = inputs.tensor("encoder_hidden_states", axes, device)?;
    let axes = [Exactly(1), Exactly(text.dims()[1]), Exactly(config.cross_attention_dim)];
    let null = || inputs.tensor("negative_encoder_hidden_states", axes, device);
    Ok((text, if guided { Some(null()?) } else { None }))
}

/// What adapter `n` reads of each image. Negatives that are not given are zeros like those of `given`, except states: what
/// an encoder says to nothing is not nothing.
fn read(
    inputs: &Inputs,
    prefix: &str,
    n: usize,
    needs: Needs,
    given: Option<&Features>,
    device: &Device,
) -> Result<Features> {
    let name = |what: &str| format!("{prefix}{what}.{n}");
    let embeds = |what: &str, width: Option<usize>, given: Option<Tensor<2>>| -> Result<Option<Tensor<2>>> {
        let Some(width) = width else { return Ok(None) };
        let found = inputs.optional(&name(what), [Any("images"), Exactly(width)], device)?;
        Ok(found.or(given.map(|given| given.zeros_like())))
    };
    let given = given.cloned().unwrap_or_default();
    let states = match needs.hidden_states {
        None => None,
        Some(hidden) => {
            let axes = [Any("images"), Any("tokens"), Exactly(hidden)];
            let states = name("hidden_states");
            if given.hidden_states.is_some() {
                Some(inputs.tensor(&states, axes, device)?)
            } else {
                inputs.optional(&states, axes, device)?
            }
        }
    };
    Ok(Features {
        image_embeds: embeds("image_embeds", needs.image_embeds, given.image_embeds)?,
        hidden_states: states,
        id_embeds: embeds("id_embeds", needs.id_embeds, given.id_embeds)?,
    })
}

/// How many images an adapter was given; `None` where none.
fn images(features: &Features) -> Option<usize> {
    let embeds =
        features.image_embeds.as_ref().or(features.id_embeds.as_ref()).map(|embeds| embeds.dims()[0]);
    embeds.or(features.hidden_states.as_ref().map(|states| states.dims()[0]))
}

/// Where each image of adapter `n` acts.
pub fn places(inputs: &Inputs, n: usize, images: usize) -> Result<Option<Places>> {
    let name = format!("ip_mask.{n}");
    if !inputs.has(&name) {
        return Ok(None);
    }
    let [_, height, width] = inputs.shape(&name, [Exactly(images), Any("height"), Any("width")])?;
    let (_, values) = inputs.values(&name)?;
    let masks = values.chunks(height * width).map(<[f32]>::to_vec).collect();
    Ok(Some(Places::Masks(Masks::new(height, width, masks)?)))
}

/// The images' tokens, each in its place; without places the tokens of all act everywhere, as one context.
fn adapter_stream(
    n: usize,
    projection: &Projection,
    features: &Features,
    places: Option<Places>,
) -> Result<Stream> {
    let tokens = projection.forward(features)?;
    let [images, count, channels] = tokens.dims();
    let tokens = match places {
        Some(_) => (0..images).map(|i| tokens.clone().narrow(0, i, 1)).collect(),
        None => vec![tokens.reshape([1, images * count, channels])],
    };
    Stream::new(Layers::Adapter(n), tokens, places)
}
