//! `facestudio eval`: the paper's experiments on held-out rendered people, as numbers and as a page.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Result;
use facestudio::pipeline::defaults;
use facestudio::weights::{CheckedFolder, check_output_folder};
use facestudio_lab::eval::{EvalEvent, EvalOptions, Evaluation, Named};
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::{Backend, TrainingBackend};
use crate::jobs::{self, Shard};
use crate::place::{check_model, up_to};
use crate::{interrupt, output};

/// Flags of `facestudio eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Model folder.
    #[arg(long, default_value = "models/mini")]
    model: PathBuf,
    /// Identity encoder to measure with, as `train face --preset mini-eval` makes one. The model's own would judge itself.
    #[arg(long)]
    encoder: PathBuf,
    /// Another model folder to compare with, for the experiment `precision`: usually the same weights in full precision.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// A model folder whose CLIP judges, in place of the model's own: for models that are compared with each other.
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
    /// Leave out what prompts decide: for models without a prior.
    #[arg(long)]
    images_only: bool,
    /// Folder for `report.json`, `index.html`, the pictures and the results of each experiment. What is there already, of
    /// the same model, encoder and flags, is kept.
    #[arg(long)]
    out: PathBuf,
    /// Only these, separated by commas: table-1, baselines (hours: run only where it is named), style-swap, styles, alpha,
    /// mixing, views, several, image-to-image, attributes, non-human, creatures (animals: run only where it is
    /// named), diversity, frechet, steps, precision.
    #[arg(long, value_delimiter = ',')]
    experiments: Vec<String>,
    /// Held-out people; experiments of many pictures a person take half of them.
    #[arg(long, default_value_t = EvalOptions::default().trials, value_parser = up_to::<100_000>)]
    trials: usize,
    /// Denoising steps; by default the model's own, and so is the sampler.
    #[arg(long)]
    steps: Option<usize>,
    /// Classifier-free guidance scale; by default the model's own.
    #[arg(long)]
    guidance_scale: Option<f32>,
    /// Seed of the first trial; trial i adds i.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw every Nth picture from the Ith on (from 0) and measure nothing. When all shares lie in one folder, run again
    /// without it.
    #[arg(long, value_name = "I/N", value_parser = jobs::parse_shard)]
    shard: Option<Shard>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    backend: Backend,
    /// Where `baselines` tunes models.
    #[arg(long, value_enum, default_value = "cpu")]
    tuning_backend: TrainingBackend,
    /// Steps in which `baselines` tunes a model, to try it out, in place of each recipe's own.
    #[arg(long, value_name = "N", value_parser = up_to::<1_000_000>)]
    tuning_steps: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    [Some(&args.model), args.against.as_ref(), args.clip.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|path| check_model(path))?;
    check_output_folder(&args.out)?;
    let device = args.backend.device()?;
    let cancelled = interrupt::stop();
    let [model, encoder] = [&args.model, &args.encoder].map(|path| CheckedFolder::new(path.clone()));
    let usual = defaults(&model)?;
    let [against, clip] = [&args.against, &args.clip]
        .map(|path| path.as_ref().map(|path| (name(path), CheckedFolder::new(path.clone()))));
    let evaluation = Evaluation {
        model: Named { name: name(&args.model), files: &model },
        against: against.as_ref().map(|(name, files)| Named { name: name.clone(), files }),
        clip: clip.as_ref().map(|(name, files)| Named { name: name.clone(), files }),
        encoder: Named { name: name(&args.encoder), files: &encoder },
        encoder_conditions: same_file(&args.encoder, &args.model.join("face_encoder")),
        options: EvalOptions {
            trials: args.trials,
            sampler: usual.sampler,
            steps: args.steps.unwrap_or(usual.steps),
            guidance_scale: args.guidance_scale.unwrap_or(usual.guidance_scale),
            seed: args.seed,
            tuning_steps: args.tuning_steps,
            images_only: args.images_only,
        },
        experiments: args.experiments,
        tuning: args.tuning_backend.into(),
        shard: args.shard.map(|shard| (shard.index, shard.count)),
        out: &args.out,
    };
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len}  {eta} left")?);
    bar.set_message("load");
    let mut watch = |doing: EvalEvent| match doing {
        EvalEvent::Drawing(done, all) => {
            bar.set_message("draw");
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        EvalEvent::Tuning(step, steps) => bar.set_message(format!("tune {step}/{steps}")),
        EvalEvent::Measuring(title) => {
            bar.set_style(ProgressStyle::default_spinner());
            bar.set_message(format!("measure: {title}"));
        }
    };
    let report = evaluation.run(&device, &mut watch, &|| cancelled.load(Ordering::Relaxed))?;
    bar.finish_and_clear();
    if report.is_some() {
        output::print(&format!("{}\n", args.out.join("index.html").display()))?;
    }
    Ok(())
}

/// What reports call a folder.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(a).is_some_and(|a| Some(a) == real(b))
}
