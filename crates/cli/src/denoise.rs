//! `facestudio denoise`: the sampling loop on given tensors; every step can be held against any reference.

use facestudio_parity::denoise;

use crate::backend::Backend;
use crate::place::check_model;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: denoise::Args,
    /// Where it runs.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
}

pub fn run(Args { run, backend }: Args) -> anyhow::Result<()> {
    check_model(&run.model)?;
    Ok(denoise::run(&run, &backend.device()?)?)
}
