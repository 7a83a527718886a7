//! `facestudio eval`: how well a model keeps identities, on held-out rendered people.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Result;
use facestudio::encoders::face::FaceEncoder;
use facestudio::eval::{IdentityOptions, Trial, identity};
use facestudio::pipeline::FaceStudio;
use facestudio::request::GenerateRequest;
use facestudio::train::plot;
use facestudio::weights::{Component, Folder, write_file};
use indicatif::ProgressBar;

use crate::backend::Backend;
use crate::output;

/// Trials in a row of the sheet.
const TRIALS_A_ROW: usize = 4;

/// Flags of `facestudio eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folder.
    #[arg(long, default_value = "models/mini")]
    model: PathBuf,
    /// Identity encoder to measure with; not the model's own, or it would judge itself.
    #[arg(long)]
    encoder: PathBuf,
    /// Held-out people, one picture each.
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Denoising steps.
    #[arg(long, default_value_t = 25)]
    steps: usize,
    /// Classifier-free guidance scale.
    #[arg(long, default_value_t = GenerateRequest::default().guidance_scale)]
    guidance_scale: f32,
    /// Seed of the first trial.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder that gets `identity.json` and `identity.png`: four trials a row, each with photo, style and picture.
    #[arg(long)]
    out: PathBuf,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    backend: Backend,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    let device = args.backend.device()?;
    let studio = FaceStudio::load(&Folder(args.model.clone()), &device)?;
    let encoder = FaceEncoder::load(&Component::new(&Folder(args.encoder), ""), &device)?;
    let request = GenerateRequest {
        alpha: 1.0,
        steps: args.steps,
        guidance_scale: args.guidance_scale,
        seed: args.seed,
        ..GenerateRequest::default()
    };
    let bar = ProgressBar::new(args.trials as u64);
    let mut pictures = Vec::new();
    let watch = |done: usize, trial: &Trial| {
        bar.set_position(done as u64);
        let (width, height) = trial.picture.dimensions();
        for input in [trial.photo, trial.style] {
            pictures.push(image::imageops::thumbnail(input, width, height));
        }
        pictures.push(trial.picture.clone());
        ControlFlow::Continue(())
    };
    let options = IdentityOptions { trials: args.trials, request };
    let report = pollster::block_on(identity(&studio, &encoder, &options, &device, watch))?;
    bar.finish_and_clear();
    std::fs::create_dir_all(&args.out)?;
    let json = serde_json::to_string_pretty(&report)?;
    write_file(&args.out.join("identity.json"), json.as_bytes())?;
    plot::sheet(&args.out.join("identity.png"), &pictures, 3 * TRIALS_A_ROW)?;
    output::print(&format!("{json}\n"))?;
    Ok(())
}
