//! `facestudio enlarge`: a picture, two or four times as large.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::Result;
use facestudio::image::codec;
use facestudio::pipeline::Enlarger;
use facestudio::weights::{CheckedFolder, check_output, read_file, write_file};
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::Backend;
use crate::place::check_model;
use crate::{interrupt, output};

/// Flags of `facestudio enlarge`.
#[derive(clap::Args)]
pub struct Args {
    /// The picture.
    picture: PathBuf,
    /// A model folder with an upscaler, as `facestudio convert --upscaler` makes one.
    #[arg(long)]
    model: PathBuf,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// Output PNG. What a generated picture says of itself it says as well.
    #[arg(long, default_value = "larger.png")]
    out: PathBuf,
}

/// Writes the larger picture; Ctrl-C stops within a tile and leaves no file.
pub fn run(args: Args) -> Result<()> {
    check_output(&args.out)?;
    check_model(&args.model)?;
    let file = read_file(&args.picture, codec::MAX_FILE)?;
    let place = |e: facestudio::Error| e.context(args.picture.display());
    let picture = codec::decode(&file).map_err(place)?;
    let enlarger = Enlarger::load(&CheckedFolder::new(args.model), &args.backend.device()?)?;
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len}  {eta} left")?);
    bar.set_message("enlarge");
    let cancelled = interrupt::stop();
    let watch = async |tile, tiles| {
        bar.set_length(tiles as u64);
        bar.set_position(tile as u64);
        if cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let (larger, recipe) = pollster::block_on(enlarger.enlarge(&picture, watch)).map_err(place)?;
    bar.finish_and_clear();
    write_file(&args.out, &codec::encode_enlarged_png(&larger, &recipe, &file)?)?;
    Ok(output::print(&format!("{}\n", args.out.display()))?)
}
