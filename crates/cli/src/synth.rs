//! `facestudio synth`: rendered portraits with masks and captions, or a contact sheet of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use facestudio::Error;
use facestudio::image::codec;
use facestudio::weights::{check_output, check_output_folder, write_file, writing};
use facestudio_synth::{IdentitySplit, Rendered, Scene, SceneOptions, dataset, render};
use rayon::prelude::*;

#[derive(clap::Args)]
pub struct Args {
    /// How many pictures.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// Seed of the series.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder for pictures, masks and metadata.jsonl; with --sheet, the PNG to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Side of the pictures in pixels.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=1024))]
    size: u32,
    /// Write one contact sheet instead of a data set.
    #[arg(long)]
    sheet: bool,
    /// Draw animals' heads in the place of people's.
    #[arg(long)]
    creatures: bool,
    /// Show people whom training never sees.
    #[arg(long)]
    held_out: bool,
}

/// Pictures in memory at a time.
const BATCH: u64 = 64;
/// Most pictures on a contact sheet.
const SHEET: u64 = 400;

pub fn run(args: Args) -> anyhow::Result<()> {
    let identities = if args.held_out { IdentitySplit::HeldOut } else { IdentitySplit::Train };
    let options = SceneOptions { identities, creatures: args.creatures, ..SceneOptions::default() };
    let draw = |index: u64| {
        let scene = Scene::random(args.seed, index, &options);
        let rendered = render(&scene, args.size);
        (scene, rendered)
    };
    if args.sheet {
        if args.count > SHEET {
            return Err(Error::input(
                "sheet-size",
                format!("--count {} is too many for a contact sheet", args.count),
                format!("give at most {SHEET}"),
            )
            .into());
        }
        check_output(&args.out)?;
        let pictures: Vec<_> = (0..args.count).into_par_iter().map(|i| draw(i).1.image).collect();
        let columns = (1..).find(|c| u64::from(c * c) >= args.count).unwrap_or(1);
        return Ok(write_file(&args.out, &codec::encode_png(&dataset::sheet(&pictures, columns), &[])?)?);
    }
    check_output_folder(&args.out)?;
    fs::create_dir_all(&args.out).map_err(|e| Error::io(args.out.display(), &e))?;
    let list = args.out.join("metadata.jsonl");
    // An existing data set is not overwritten.
    let mut metadata = fs::File::create_new(&list).map_err(|e| Error::io(list.display(), &e))?;
    for start in (0..args.count).step_by(BATCH as usize) {
        let indices = start..(start + BATCH).min(args.count);
        let lines = indices
            .into_par_iter()
            .map(|index| {
                let (scene, rendered) = draw(index);
                store(&args.out, index, &scene, &rendered)
            })
            .collect::<anyhow::Result<Vec<String>>>()?;
        for line in lines {
            writeln!(metadata, "{line}").map_err(|e| Error::io(list.display(), &e))?;
        }
    }
    Ok(())
}

/// Writes one picture and its masks; returns its line of metadata.
fn store(folder: &Path, index: u64, scene: &Scene, rendered: &Rendered) -> anyhow::Result<String> {
    let file = format!("{index:07}.png");
    save(&folder.join(&file), |path| rendered.image.save(path))?;
    let mut masks = Vec::with_capacity(rendered.people.len());
    for (i, person) in rendered.people.iter().enumerate() {
        let mask = format!("{index:07}_mask{i}.png");
        save(&folder.join(&mask), |path| person.mask.save(path))?;
        masks.push(mask);
    }
    Ok(dataset::record(scene, rendered, &file, &masks).to_string())
}

fn save(path: &Path, write: impl FnOnce(&Path) -> image::ImageResult<()>) -> anyhow::Result<()> {
    // An interruption waits for it.
    let _writing = writing();
    write(path).map_err(|e| Error::io(path.display(), &std::io::Error::other(e)).into())
}
