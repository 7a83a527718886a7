//! `facestudio train`: trains one stage of a model.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use facestudio::error::Error;
use facestudio::weights::check_output_folder;
use facestudio_lab::train::export::finish;
use facestudio_lab::train::run::{Event, Options, Report};
use facestudio_lab::train::{Setup, clip, consistency, detector, diffusion, face, prior, vae};
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::TrainingBackend;
use crate::place::{check_model, up_to};
use crate::{interrupt, output};

/// Flags of `facestudio train`.
#[derive(clap::Args)]
pub struct Args {
    /// What to train.
    stage: Stage,
    /// Model folder that gets the trained component.
    #[arg(long)]
    out: PathBuf,
    /// Sizes of the networks, where no --base says them.
    #[arg(long, default_value = "mini")]
    preset: String,
    /// Model folder whose weights and sizes to start from, instead of random ones (vae, clip, prior, diffusion); consistency needs
    /// one.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Train the autoencoder's decoder alone: the latents, and a UNet that knows them, stay as they are.
    #[arg(long, requires = "base")]
    decoder_only: bool,
    /// How often the style is dropped, 0 to 1 (diffusion, consistency); by default the paper's 0.64.
    #[arg(long, value_name = "P")]
    drop_style: Option<f32>,
    /// How often the identity is dropped, 0 to 1 (diffusion, consistency); by default the paper's 0.1.
    #[arg(long, value_name = "P")]
    drop_identity: Option<f32>,
    /// Guidance tokens of a new Linear (diffusion); by default 4 for mini, 16 for a base that has none.
    #[arg(long, value_parser = up_to::<4096>)]
    n_tokens: Option<usize>,
    /// Render animals' heads in the place of people's (docs/eval.md).
    #[arg(long, conflicts_with = "data")]
    creatures: bool,
    /// Folder of photographs with a metadata.jsonl, or FFHQ's (vae, clip, prior, diffusion, consistency); without it, portraits
    /// are rendered.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder for checkpoints, loss curves, sample sheets and the pictures made ready.
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Pictures to render once and train on.
    #[arg(long, conflicts_with = "data", value_parser = up_to::<100_000_000>)]
    pictures: Option<usize>,
    /// Stop after so many steps.
    #[arg(long)]
    steps: Option<u64>,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Samples of a batch.
    #[arg(long, value_parser = up_to::<65_536>)]
    batch: Option<usize>,
    /// Batches of a step, whose gradients are averaged: a larger batch in the memory of a smaller one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: u32,
    /// Compute each layer again for its gradients instead of keeping all of them: a third more time, a fraction of the
    /// memory (diffusion).
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Peak learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Decides every random number.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Go on from the last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    backend: TrainingBackend,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The autoencoder.
    Vae,
    /// The text encoder and the vision ensemble, with their tokenizer.
    Clip,
    /// The identity encoder.
    Face,
    /// The detector of faces and people.
    Detector,
    /// From prompts to vision embeddings; needs vae, clip and face.
    Prior,
    /// The UNet and the shared Linear; needs vae, clip and face.
    Diffusion,
    /// A UNet of 2 to 4 steps without guidance, distilled from that of --base; needs the base's other components.
    Consistency,
}

/// Trains the stage until its end, or until Ctrl-C, which leaves a checkpoint and what was learnt so far, and fails with
/// `cancelled`.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.batch == Some(0) || args.pictures == Some(0) || args.accumulate == 0 || args.steps == Some(0) {
        let message = "--batch, --accumulate, --pictures and --steps must be at least 1";
        let error = Error::input("count-range", message, "leave them out");
        return Err(error.into());
    }
    if args.lr.is_some_and(|lr| !lr.is_finite() || lr <= 0.0) {
        return Err(Error::input("lr-range", "--lr must be above 0", "leave it out").into());
    }
    if args.minutes.is_some_and(|minutes| !minutes.is_finite() || minutes <= 0.0) {
        let error = Error::input(
            "minutes-range",
            "--minutes must be a number above 0",
            "leave it out, and give --steps",
        );
        return Err(error.into());
    }
    let drops: Vec<f32> = [args.drop_style, args.drop_identity].into_iter().flatten().collect();
    if !drops.iter().all(|p| (0.0..=1.0).contains(p)) {
        let error =
            Error::input("drop-range", "--drop-style and --drop-identity are probabilities", "use 0 to 1");
        return Err(error.into());
    }
    if !drops.is_empty() && !matches!(args.stage, Stage::Diffusion | Stage::Consistency) {
        let message = "--drop-style and --drop-identity are for diffusion and consistency";
        return Err(Error::input("drop-unused", message, "leave them out").into());
    }
    if args.data.is_some() && matches!(args.stage, Stage::Face | Stage::Detector) {
        let message = "--data is not for face and detector, which learn from rendered people alone";
        return Err(Error::input("data-unused", message, "leave it out").into());
    }
    if args.n_tokens.is_some() && args.stage != Stage::Diffusion {
        return Err(Error::input("tokens-unused", "--n-tokens is for diffusion", "leave it out").into());
    }
    if args.n_tokens == Some(0) {
        return Err(Error::input("count-range", "--n-tokens must be at least 1", "leave it out").into());
    }
    if args.base.is_some() && matches!(args.stage, Stage::Face | Stage::Detector) {
        let error = Error::input("base-unused", "--base is not for face and detector", "leave it out");
        return Err(error.into());
    }
    if args.decoder_only && args.stage != Stage::Vae {
        let error = Error::input("base-unused", "--decoder-only is for vae", "leave it out");
        return Err(error.into());
    }
    if args.gradient_checkpointing && args.stage != Stage::Diffusion {
        let message = "--gradient-checkpointing is for diffusion";
        return Err(
            Error::input("checkpointing-unused", message, "leave it out, or make --batch smaller").into()
        );
    }
    args.base.iter().try_for_each(|base| check_model(base))?;
    check_output_folder(&args.out)?;
    check_output_folder(&args.runs)?;
    let stage = args.stage.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    let folder = match args.preset.strip_prefix("mini") {
        Some(variant) => format!("{stage}{variant}"),
        None => format!("{stage}-{}", args.preset),
    };
    // Who is learnt to be drawn, or told from others, is another run.
    let folder = if args.creatures { folder + "-creatures" } else { folder };
    // Another run than one from nothing, and a decoder's optimiser knows the decoder alone: each has its checkpoint.
    let folder = match (&args.base, args.decoder_only) {
        (_, true) => folder + "-decoder",
        (Some(_), false) => folder + "-base",
        (None, false) => folder,
    };
    let stopped = interrupt::stop();
    let options = Options {
        stop: stopped.clone(),
        backend: args.backend.into(),
        batch: args.batch.unwrap_or(0),
        accumulate: args.accumulate,
        gradient_checkpointing: args.gradient_checkpointing,
        lr: args.lr.unwrap_or(0.0),
        steps: args.steps,
        minutes: args.minutes,
        resume: args.resume,
        seed: args.seed,
        ..Options::new(args.runs.join(folder))
    };
    let setup = Setup {
        out: args.out,
        preset: args.preset,
        base: args.base,
        decoder_only: args.decoder_only,
        drop_style: args.drop_style.unwrap_or(diffusion::DROP_STYLE),
        drop_identity: args.drop_identity.unwrap_or(diffusion::DROP_IDENTITY),
        n_tokens: args.n_tokens,
        creatures: args.creatures,
        data: args.data,
        cache: args.runs.join("cache"),
        pictures: args.pictures,
        run: options,
    };
    // An earlier training may have been killed while it put its networks there.
    finish(&setup.out)?;
    let mut console = Console::default();
    let log = &mut |event| console.show(event);
    match args.stage {
        Stage::Vae => vae::train(&setup, log)?,
        Stage::Clip => clip::train(&setup, log)?,
        Stage::Face => face::train(&setup, log)?,
        Stage::Detector => detector::train(&setup, log)?,
        Stage::Prior => prior::train(&setup, log)?,
        Stage::Diffusion => diffusion::train(&setup, log)?,
        Stage::Consistency => consistency::train(&setup, log)?,
    }
    // What follows in a script is not to take this stage for finished.
    if stopped.load(Ordering::Relaxed) { Err(Error::cancelled().into()) } else { Ok(()) }
}

/// A bar on a terminal, a line now and then elsewhere.
#[derive(Default)]
struct Console {
    bar: Option<ProgressBar>,
    last: Option<Instant>,
}

/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Console {
    fn show(&mut self, event: Event) {
        match event {
            Event::Note(note) => self.line(&note),
            Event::Prepared(done, total) => {
                self.tick(done as f64 / total.max(1) as f64, &format!("prepared {done} of {total} pictures"));
            }
            Event::Step(report) => {
                if let Some(note) = &report.note {
                    self.line(&format!("step {}: {note}", report.step));
                }
                self.tick(report.progress, &describe(&report));
            }
        }
    }

    fn line(&self, text: &str) {
        let text = output::lines(text);
        match &self.bar {
            Some(bar) => bar.println(text),
            None => println!("{text}"),
        }
    }

    fn tick(&mut self, fraction: f64, text: &str) {
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
                let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                ProgressBar::new(10_000).with_style(style)
            });
            bar.set_position((fraction * 10_000.0) as u64);
            bar.set_message(text.to_owned());
        } else if fraction >= 1.0 || self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last = Some(Instant::now());
            println!("{:3.0}% {text}", 100.0 * fraction);
        }
    }
}

fn describe(report: &Report) -> String {
    let left = report.seconds_left as u64;
    format!(
        "step {} loss {:.4} |g| {:.2} lr {:.1e} {:.1}/s {}:{:02} left",
        report.step,
        report.loss,
        report.grad_norm,
        report.lr,
        report.samples_per_second,
        left / 60,
        left % 60
    )
}
