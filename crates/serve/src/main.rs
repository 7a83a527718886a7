//! `facestudio serve` alone: what it takes is built in a minute, where the whole program takes many.

use std::process::ExitCode;

use clap::Parser;
use facestudio_serve::{Args, Error, listen};

/// FaceStudio's page and models, served on this machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let served = listen(Cli::parse().args).and_then(|page| {
        println!("FaceStudio is at http://{}/ (stop with Ctrl-C)", page.address());
        page.serve()
    });
    let Err(error) = served else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    // The program's own statuses: what was asked for, and the system.
    ExitCode::from(match error {
        Error::Refused { .. } => 2,
        Error::Io { .. } => 5,
    })
}
