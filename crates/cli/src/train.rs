//! `facestudio train`: trains one stage of a model.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use facestudio::error::{Error, Result};
use facestudio::weights::check_output_folder;
use facestudio_lab::train::export::finish;
use facestudio_lab::train::run::{Defaults, Event, Options, Report};
use facestudio_lab::train::{
    Drops, Rendered, Setup, Source, clip, consistency, detector, diffusion, face, prior, vae,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::TrainingBackend;
use crate::place::{check_model, up_to};
use crate::{interrupt, output};

/// Flags of `facestudio train`.
#[derive(clap::Args)]
pub struct Args {
    /// What to train.
    #[command(subcommand)]
    stage: Stage,
}

#[derive(clap::Subcommand)]
enum Stage {
    /// The autoencoder.
    #[command(after_help = suits(vae::DEFAULTS))]
    Vae(VaeArgs),
    /// The text encoder and the vision ensemble, with their tokenizer.
    #[command(after_help = suits(clip::DEFAULTS))]
    Clip(PlainArgs),
    /// The identity encoder.
    #[command(after_help = suits(face::DEFAULTS))]
    Face(FaceArgs),
    /// The detector of faces and people.
    #[command(after_help = suits(detector::DEFAULTS))]
    Detector(DetectorArgs),
    /// From prompts to vision embeddings; needs vae, clip and face.
    #[command(after_help = suits(prior::DEFAULTS))]
    Prior(PlainArgs),
    /// The UNet and the shared Linear; needs vae, clip and face.
    #[command(after_help = suits(diffusion::DEFAULTS))]
    Diffusion(DiffusionArgs),
    /// A UNet of 2 to 4 steps without guidance, distilled from that of --base; needs the base's other components.
    #[command(after_help = suits(consistency::DEFAULTS))]
    Consistency(ConsistencyArgs),
}

fn suits(Defaults { batch, lr }: Defaults) -> String {
    format!("Without them: --batch {batch} --lr {lr:e}")
}

#[derive(clap::Args)]
struct VaeArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Model folder whose weights and sizes to start from, instead of random ones of mini's sizes.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Train the decoder alone, against a discriminator: the latents, and a UNet that knows them, stay as they are.
    #[arg(long, requires = "base")]
    decoder_only: bool,
    /// Give the base one level more, which halves the latents' sides: so many channels, at first the principal components of 2x2 of the
    /// base's positions.
    #[arg(long, requires = "base", conflicts_with = "decoder_only", value_parser = up_to::<4096>, value_name = "CHANNELS")]
    deepen: Option<usize>,
}

/// What clip and prior take.
#[derive(clap::Args)]
struct PlainArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Model folder whose weights and sizes to start from, instead of random ones of mini's sizes.
    #[arg(long)]
    base: Option<PathBuf>,
}

#[derive(clap::Args)]
struct FaceArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    rendered: RenderedArgs,
    /// Which encoder.
    #[arg(long, value_enum, default_value = "mini")]
    preset: FacePreset,
}

#[derive(Clone, Copy, ValueEnum)]
enum FacePreset {
    /// The model's own, which goes to --out.
    Mini,
    /// One of other sizes that learnt from other people, to measure a model with; it goes to the run's folder.
    MiniEval,
}

#[derive(clap::Args)]
struct DetectorArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    rendered: RenderedArgs,
}

#[derive(clap::Args)]
struct DiffusionArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Model folder whose weights and sizes to start from, instead of random ones of mini's sizes.
    #[arg(long)]
    base: Option<PathBuf>,
    #[command(flatten)]
    drops: DropArgs,
    /// Guidance tokens of a new Linear; by default 4 for mini, 16 for a base that has none.
    #[arg(long, value_parser = up_to::<4096>)]
    n_tokens: Option<usize>,
    /// Compute each layer again for its gradients instead of keeping all of them: a third more time, a fraction of the memory.
    #[arg(long)]
    gradient_checkpointing: bool,
}

#[derive(clap::Args)]
struct ConsistencyArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Model folder whose UNet is distilled.
    #[arg(long)]
    base: PathBuf,
    #[command(flatten)]
    drops: DropArgs,
}

/// What every stage takes.
#[derive(clap::Args)]
struct CommonArgs {
    /// Model folder that gets the trained component.
    #[arg(long)]
    out: PathBuf,
    /// Folder for checkpoints, loss curves, sample sheets and the pictures made ready.
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
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

#[derive(clap::Args)]
struct RenderedArgs {
    /// Pictures to render once and train on.
    #[arg(long, value_parser = up_to::<100_000_000>)]
    pictures: Option<usize>,
    /// Render animals' heads in the place of people's (docs/eval.md).
    #[arg(long)]
    creatures: bool,
}

#[derive(clap::Args)]
struct SourceArgs {
    #[command(flatten)]
    rendered: RenderedArgs,
    /// Folder of photographs with a metadata.jsonl, or FFHQ's; without it, portraits are rendered.
    #[arg(long, conflicts_with_all = ["pictures", "creatures"])]
    data: Option<PathBuf>,
}

#[derive(clap::Args)]
struct DropArgs {
    /// How often the style is dropped, 0 to 1; by default as often as in the paper.
    #[arg(long, value_name = "P", default_value_t = Drops::default().style)]
    drop_style: f32,
    /// How often the identity is dropped, 0 to 1; by default as often as in the paper.
    #[arg(long, value_name = "P", default_value_t = Drops::default().identity)]
    drop_identity: f32,
}

impl CommonArgs {
    /// The run's folder is named after the stage, whom it renders and what it starts from: each has its checkpoint.
    fn setup(
        self,
        stage: &str,
        creatures: bool,
        start: Start,
        suits: Defaults,
        stop: &Arc<AtomicBool>,
    ) -> Result<Setup> {
        if self.batch == Some(0) || self.accumulate == 0 || self.steps == Some(0) {
            let message = "--batch, --accumulate and --steps must be at least 1";
            return Err(Error::input("count-range", message, "leave them out"));
        }
        if self.lr.is_some_and(|lr| !lr.is_finite() || lr <= 0.0) {
            return Err(Error::input("lr-range", "--lr must be above 0", "leave it out"));
        }
        if self.minutes.is_some_and(|minutes| !minutes.is_finite() || minutes <= 0.0) {
            let message = "--minutes must be a number above 0";
            return Err(Error::input("minutes-range", message, "leave it out, and give --steps"));
        }
        let suffix = match start {
            Start::Random => "",
            Start::Base(base) => {
                check_model(base)?;
                "-base"
            }
            // A decoder's optimiser knows the decoder alone.
            Start::Decoder(base) => {
                check_model(base)?;
                "-decoder"
            }
            Start::Deeper(base) => {
                check_model(base)?;
                "-deeper"
            }
        };
        check_output_folder(&self.out)?;
        check_output_folder(&self.runs)?;
        // An earlier training may have been killed while it put its networks there.
        finish(&self.out)?;
        let folder = format!("{stage}{}{suffix}", if creatures { "-creatures" } else { "" });
        let defaults = Defaults { batch: self.batch.unwrap_or(suits.batch), lr: self.lr.unwrap_or(suits.lr) };
        let run = Options {
            stop: stop.clone(),
            backend: self.backend.into(),
            accumulate: self.accumulate,
            steps: self.steps,
            minutes: self.minutes,
            resume: self.resume,
            seed: self.seed,
            ..Options::new(self.runs.join(folder), defaults)
        };
        Ok(Setup { out: self.out, cache: self.runs.join("cache"), run })
    }
}

/// What a run starts from.
#[derive(Clone, Copy)]
enum Start<'a> {
    Random,
    Base(&'a Path),
    Decoder(&'a Path),
    Deeper(&'a Path),
}

impl<'a> Start<'a> {
    fn from(base: &'a Option<PathBuf>) -> Self {
        base.as_deref().map_or(Self::Random, Self::Base)
    }
}

impl RenderedArgs {
    fn rendered(&self) -> Result<Rendered> {
        if self.pictures == Some(0) {
            return Err(Error::input("count-range", "--pictures must be at least 1", "leave it out"));
        }
        Ok(Rendered { pictures: self.pictures, creatures: self.creatures })
    }
}

impl SourceArgs {
    fn source(self) -> Result<Source> {
        let rendered = self.rendered.rendered()?;
        Ok(self.data.map_or(Source::Rendered(rendered), Source::Photographs))
    }
}

impl DropArgs {
    fn drops(&self) -> Result<Drops> {
        let drops = Drops { style: self.drop_style, identity: self.drop_identity };
        if [drops.style, drops.identity].iter().all(|p| (0.0..=1.0).contains(p)) {
            return Ok(drops);
        }
        let message = "--drop-style and --drop-identity are probabilities";
        Err(Error::input("drop-range", message, "use 0 to 1"))
    }
}

/// Trains the stage until its end, or until Ctrl-C, which leaves a checkpoint and what was learnt so far, and fails with
/// `cancelled`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let stop = interrupt::stop();
    let mut console = Console::default();
    args.stage.train(&stop, &mut |event| console.show(event))?;
    // What follows in a script is not to take this stage for finished.
    if stop.load(Ordering::Relaxed) { Err(Error::cancelled().into()) } else { Ok(()) }
}

impl Stage {
    fn train(self, stop: &Arc<AtomicBool>, log: &mut dyn FnMut(Event)) -> Result<()> {
        match self {
            Self::Vae(VaeArgs { common, source, base, decoder_only, deepen }) => {
                let creatures = source.rendered.creatures;
                let source = source.source()?;
                let folder = match &base {
                    Some(base) if decoder_only => Start::Decoder(base),
                    Some(base) if deepen.is_some() => Start::Deeper(base),
                    _ => Start::from(&base),
                };
                let setup = common.setup("vae", creatures, folder, vae::DEFAULTS, stop)?;
                let start = match base {
                    None => vae::Start::Random,
                    Some(base) if decoder_only => vae::Start::Decoder(base),
                    Some(base) => match deepen {
                        Some(channels) => vae::Start::Deeper(base, channels),
                        None => vae::Start::Base(base),
                    },
                };
                vae::train(&vae::Options { setup, source, start }, log)
            }
            Self::Clip(PlainArgs { common, source, base }) => {
                let creatures = source.rendered.creatures;
                let source = source.source()?;
                let setup = common.setup("clip", creatures, Start::from(&base), clip::DEFAULTS, stop)?;
                clip::train(&clip::Options { setup, source, base }, log)
            }
            Self::Face(FaceArgs { common, rendered, preset }) => {
                let rendered = rendered.rendered()?;
                let (stage, preset) = match preset {
                    FacePreset::Mini => ("face", face::Preset::Mini),
                    FacePreset::MiniEval => ("face-eval", face::Preset::MiniEval),
                };
                let setup = common.setup(stage, rendered.creatures, Start::Random, face::DEFAULTS, stop)?;
                face::train(&face::Options { setup, rendered, preset }, log)
            }
            Self::Detector(DetectorArgs { common, rendered }) => {
                let rendered = rendered.rendered()?;
                let setup =
                    common.setup("detector", rendered.creatures, Start::Random, detector::DEFAULTS, stop)?;
                detector::train(&detector::Options { setup, rendered }, log)
            }
            Self::Prior(PlainArgs { common, source, base }) => {
                let creatures = source.rendered.creatures;
                let source = source.source()?;
                let setup = common.setup("prior", creatures, Start::from(&base), prior::DEFAULTS, stop)?;
                prior::train(&prior::Options { setup, source, base }, log)
            }
            Self::Diffusion(args) => {
                let DiffusionArgs { common, source, base, drops, n_tokens, gradient_checkpointing } = args;
                if n_tokens == Some(0) {
                    return Err(Error::input("count-range", "--n-tokens must be at least 1", "leave it out"));
                }
                let (creatures, drops) = (source.rendered.creatures, drops.drops()?);
                let source = source.source()?;
                let start = Start::from(&base);
                let setup = common.setup("diffusion", creatures, start, diffusion::DEFAULTS, stop)?;
                let options =
                    diffusion::Options { setup, source, base, drops, n_tokens, gradient_checkpointing };
                diffusion::train(&options, log)
            }
            Self::Consistency(ConsistencyArgs { common, source, base, drops }) => {
                let (creatures, drops) = (source.rendered.creatures, drops.drops()?);
                let source = source.source()?;
                let start = Start::Base(&base);
                let setup = common.setup("consistency", creatures, start, consistency::DEFAULTS, stop)?;
                consistency::train(&consistency::Options { setup, source, base, drops }, log)
            }
        }
    }
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
