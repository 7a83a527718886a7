//! `facestudio watermark`: look for the invisible mark of generated pictures, add it, and measure how reliable it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use facestudio::Result;
use facestudio::image::codec;
use facestudio::image::watermark::{FALSE_POSITIVE_RATE, detect, embed};
use facestudio::weights::{check_output, write_file};
use facestudio_lab::eval::{SCORES, Scores, WatermarkOptions, WatermarkReport, watermark};
use indicatif::ProgressBar;

use crate::output::{self, print, print_json};
use crate::picture::open;
use crate::place::up_to;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say of each picture whether it carries the mark. No mark does not mean that a picture was not generated.
    Detect {
        /// Pictures of any size, which may have been resized, cropped and compressed.
        #[arg(required = true)]
        pictures: Vec<PathBuf>,
        /// Print one JSON object a line: path, found, score, scale.
        #[arg(long)]
        json: bool,
    },
    /// Mark a picture.
    Embed {
        /// The picture.
        picture: PathBuf,
        /// The PNG to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Measure on rendered pictures how often the mark is found after which attack, and how often where there is none.
    Rates {
        /// Side of the pictures in pixels.
        #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=1024))]
        size: u32,
        /// Marked pictures, each measured after every attack.
        #[arg(long, default_value_t = 500, value_parser = up_to::<10_000_000>)]
        marked: usize,
        /// Unmarked pictures, each measured as it is and after one of the attacks.
        #[arg(long, default_value_t = 5000, value_parser = up_to::<10_000_000>)]
        unmarked: usize,
        /// Seed of the pictures.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Detect { pictures, json } => pictures.iter().try_for_each(|path| Ok(tell(path, json)?)),
        Command::Embed { picture, out } => {
            check_output(&out)?;
            let mut marked = open(&picture)?;
            embed(&mut marked);
            Ok(write_file(&out, &codec::encode_png(&marked, &[])?)?)
        }
        Command::Rates { size, marked, unmarked, seed, json } => {
            let bar = ProgressBar::new((marked + unmarked) as u64);
            let options = WatermarkOptions { size, marked, unmarked, seed };
            let report = watermark(&options, || bar.inc(1))?;
            bar.finish_and_clear();
            let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { tables(&report) };
            Ok(print(&text)?)
        }
    }
}

/// Says what is found in one picture.
fn tell(path: &Path, json: bool) -> Result<()> {
    let detection = detect(&open(path)?).map_err(|e| e.context(path.display()))?;
    let (found, score, scale) = (detection.found(), detection.score, detection.scale);
    let name = path.display().to_string();
    if json {
        let scale = found.then_some(scale);
        let line = serde_json::json!({ "path": name, "found": found, "score": score, "scale": scale });
        return print_json(&line, false);
    }
    let (name, odds) = (output::line(&name), 1.0 / FALSE_POSITIVE_RATE);
    print(&if found {
        format!(
            "{name}: generated: carries the watermark (score {score:.1}, at {:.0} % of its size)\n",
            100.0 * scale
        )
    } else {
        format!(
            "{name}: no watermark found (score {score:.1}; one unmarked picture in {odds} has 4 or more)\n"
        )
    })
}

/// The report in Markdown.
fn tables(report: &WatermarkReport) -> String {
    let WatermarkReport { size, psnr_least, psnr_median, .. } = report;
    let mut out = format!(
        "{size}×{size} pixels; PSNR of marked pictures: {psnr_median:.1} dB, least {psnr_least:.1} dB\n"
    );
    for (title, rows) in [("marked", &report.marked), ("unmarked", &report.unmarked)] {
        let heads = SCORES.map(|score| format!("score ≥ {score}")).join(" | ");
        let _ = writeln!(out, "\n| {title}, after | pictures | {heads} | least | median | greatest |");
        let _ = writeln!(out, "|---|---|{}---|---|---|", "---|".repeat(SCORES.len()));
        for Scores { attack, pictures, reached, least, median, greatest } in rows {
            let rates = reached.map(|count| match title {
                "marked" => format!("{:.1} %", 100.0 * count as f64 / *pictures as f64),
                _ => count.to_string(),
            });
            let rates = rates.join(" | ");
            let _ = writeln!(
                out,
                "| {attack} | {pictures} | {rates} | {least:.1} | {median:.1} | {greatest:.1} |"
            );
        }
    }
    out
}
