//! One network, tensors in, tensors out.

mod adapter;
mod encoders;
mod flux2;
mod prior;
mod scheduler;
mod unet;
mod vae;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;
use facestudio::Result;
use facestudio::weights::{
    CheckedFolder, Component, Quantization, Tensors, check_output, encode, write_file,
};

use crate::inputs::Inputs;

/// Most repetitions: their times are kept.
const MAX_REPEAT: u64 = 1_000_000;

/// Which network, of which folder, on which tensors.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// The network.
    kind: Kind,
    /// Its folder, with config.json and safetensors.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Its inputs, a safetensors file.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Where its outputs go, a safetensors file.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Runs it so many times more, and prints what each took, in milliseconds, as JSON.
    #[arg(long, value_name = "RUNS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_REPEAT))]
    repeat: u64,
    /// Adapters of the unet, folders as `facestudio convert` makes them; the first is N = 0.
    #[arg(long, value_name = "DIR")]
    ip_adapter: Vec<PathBuf>,
    /// How much each adapter adds, in their order; 1 if absent.
    #[arg(long, value_name = "SCALE")]
    ip_scale: Vec<f32>,
    /// Denoising steps, for the scheduler.
    #[arg(long, default_value_t = 25)]
    steps: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// sample, timestep, encoder_hidden_states, and of adapter N ip_tokens.N [batch, images, tokens, channels] and ip_mask.N
    /// [images, height, width] → sample
    Unet,
    /// FLUX.2's: hidden_states, encoder_hidden_states, timestep, image_ids and text_ids [tokens, 4], and guidance where the
    /// model takes one → sample
    Transformer,
    /// input_ids, real (how many of each row are no padding), layers (counted from 1) → states
    Qwen3,
    /// image_embeds, hidden_states or id_embeds, as the adapter's config says → tokens
    IpProjection,
    /// sample → mean, and logvar where the encoder has one
    VaeEncode,
    /// latents (unscaled) → sample
    VaeDecode,
    /// input_ids → last_hidden_state, and text_embeds where it projects
    TextEncoder,
    /// pixel_values → image_embeds, and last_hidden_state for a transformer
    VisionEncoder,
    /// pixel_values → embedding (not normalised)
    FaceEncoder,
    /// pixel_values → detections of a YuNet; heatmap, boxes, landmarks, mask and offsets of our own detector
    Detector,
    /// pixel_values of one picture → logits, and pred_masks of all queries
    Segmenter,
    /// hidden_states, timestep, proj_embedding, encoder_hidden_states, attention_mask → predicted_image_embedding
    Prior,
    /// sample (unit variance), model_outputs [steps, ..], noise [steps, ..] → sample, timesteps, scaled_inputs
    Scheduler,
}

/// Runs the network and writes its outputs; gives what each repetition took, in milliseconds.
///
/// Fails where the folder, its weights or the tensors are not the network's.
pub fn run(args: &Args, device: &Device) -> Result<Vec<f64>> {
    check_output(&args.output)?;
    let inputs = Inputs::read(&args.inputs)?;
    let folder = CheckedFolder::new(args.model.clone());
    let forward = network(args, &Component::new(&folder, ""), &inputs, device)?;
    let outputs = forward()?;
    write_file(&args.output, &encode(&outputs, Quantization::None, &BTreeMap::new())?)?;
    let milliseconds = (0..args.repeat).map(|_| {
        let start = Instant::now();
        // Outputs are read back, which waits for the device.
        forward().map(|_| start.elapsed().as_secs_f64() * 1e3)
    });
    milliseconds.collect()
}

/// A loaded network with its inputs: computes its outputs when called.
type Forward = Box<dyn Fn() -> Result<Tensors>>;

fn network(args: &Args, component: &Component, inputs: &Inputs, device: &Device) -> Result<Forward> {
    match args.kind {
        Kind::Unet => unet::load(component, inputs, &args.ip_adapter, &args.ip_scale, device),
        Kind::Transformer => flux2::transformer(component, inputs, device),
        Kind::Qwen3 => flux2::qwen3(component, inputs, device),
        Kind::IpProjection => adapter::load(component, inputs, device),
        Kind::VaeEncode => vae::encode(component, inputs, device),
        Kind::VaeDecode => vae::decode(component, inputs, device),
        Kind::TextEncoder => encoders::text(component, inputs, device),
        Kind::VisionEncoder => encoders::vision(component, inputs, device),
        Kind::FaceEncoder => encoders::face(component, inputs, device),
        Kind::Detector => encoders::detector(component, inputs, device),
        Kind::Segmenter => encoders::segmenter(component, inputs, device),
        Kind::Prior => prior::load(component, inputs, device),
        Kind::Scheduler => scheduler::load(component, inputs, args.steps, device),
    }
}
