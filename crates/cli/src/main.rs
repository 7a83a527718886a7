//! The command line: one file a subcommand, each an `Args` and a `run`.

mod again;
mod backend;
mod component;
mod convert;
mod denoise;
mod enlarge;
mod eval;
mod faces;
mod generate;
mod hub;
mod inspect;
mod interrupt;
mod into;
mod jobs;
mod model;
mod output;
mod photos;
mod picture;
mod place;
mod presets;
mod quantize;
mod serve;
mod synth;
mod train;
mod watermark;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use facestudio::error::{Error, Fault};

/// Identity-preserving image generation (FaceStudio).
#[derive(Parser)]
#[command(version, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Print the notices and licences of the libraries inside.
    #[arg(long)]
    licenses: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Whose code is inside; `scripts/notices.mjs` writes it.
const NOTICES: &str = include_str!("../../../THIRD-PARTY-NOTICES.txt");

#[derive(Subcommand)]
enum Command {
    /// Run one network of a model on given tensors.
    Component(component::Args),
    /// Make a model folder of other programs' checkpoints.
    Convert(convert::Args),
    /// Run the sampling loop on given latents, embeddings and noise.
    Denoise(denoise::Args),
    /// Make a picture two or four times as large.
    Enlarge(enlarge::Args),
    /// Say which faces are found in photos, and how alike they are.
    Faces(faces::Args),
    /// Make portraits of the people in photos.
    Generate(generate::Args),
    /// Measure how well a model keeps identities.
    Eval(eval::Args),
    /// Say what a model, a component, a file of weights or a generated picture holds.
    Inspect(inspect::Args),
    /// Named recipes: what to fetch for a whole model, and its conversion.
    Presets(presets::Args),
    /// Store a model's weights in fewer bits.
    Quantize(quantize::Args),
    /// Serve the page and the models on this machine.
    Serve(serve::Args),
    /// Draw portraits of made-up people.
    Synth(synth::Args),
    /// Train one stage of a model.
    Train(train::Args),
    /// Look for the invisible mark of generated pictures.
    Watermark(watermark::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Component(args) => component::run(args),
            Self::Convert(args) => convert::run(args),
            Self::Denoise(args) => denoise::run(args),
            Self::Enlarge(args) => enlarge::run(args),
            Self::Eval(args) => eval::run(args),
            Self::Faces(args) => faces::run(args),
            Self::Generate(args) => generate::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Presets(args) => presets::run(args),
            Self::Quantize(args) => quantize::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Synth(args) => synth::run(args),
            Self::Train(args) => train::run(args),
            Self::Watermark(args) => watermark::run(args),
        }
    }
}

fn main() -> ExitCode {
    // A panic is a bug of ours: it is told like any other error, and has an exit status of its own.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("unknown");
        output::complain("", &Error::internal("bug", format!("{what}{place}")));
    }));
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and version are our own words; an argument that is wrong may be a stranger's file.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) => {
            eprint!("{}", output::lines(&e.to_string()));
            return ExitCode::from(2);
        }
    };
    let run = || {
        interrupt::install()?;
        // Without a subcommand there is one other thing to ask for.
        match command {
            Some(command) => command.run(),
            None => Ok(output::print_own(NOTICES)?),
        }
    };
    match std::panic::catch_unwind(run) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let error = to_error(error);
            output::complain("", &error);
            exit_code(error.fault)
        }
        Err(_) => exit_code(Fault::Internal),
    }
}

/// The crate's error behind `error`, or one made of it.
fn to_error(error: anyhow::Error) -> Error {
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.clone();
    }
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(source) => Error::io(&error, source),
        None => Error::internal("bug", format!("{error:#}")),
    }
}

/// Exit status 1 is left to nobody, 2 is also clap's own for a wrong flag.
fn exit_code(fault: Fault) -> ExitCode {
    ExitCode::from(match fault {
        Fault::Input => 2,
        Fault::Weights => 3,
        Fault::Device => 4,
        Fault::Io => 5,
        Fault::Internal => 70,
        Fault::Cancelled => interrupt::CANCELLED,
    })
}
