//! `facestudio presets`: named recipes, from published files to a model folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use facestudio::weights::{CheckedFolder, Manifest, check_output_folder, read_text, sha256_file, write_file};
use facestudio::{Error, Result};
use facestudio_convert::presets::{PRESETS, Preset};

use crate::convert::{Dtype, converted};
use crate::output;

#[derive(clap::Args)]
pub struct Args {
    /// The recipe; all are listed without one.
    name: Option<String>,
    /// Where its files are, each as REPOSITORY/PATH below; says which are there. Nothing is downloaded.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Converts them to this new model folder.
    #[arg(long, value_name = "DIR", requires = "files")]
    out: Option<PathBuf>,
    /// How weights are stored.
    #[arg(long, value_enum, default_value = "q8")]
    dtype: Dtype,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        let list = PRESETS.iter().fold(String::new(), |mut list, preset| {
            let megabytes: f64 = preset.files().map(|source| source.megabytes).sum();
            let _ =
                writeln!(list, "{:<22} {} ({:.1} GB to fetch)", preset.name, preset.says, megabytes / 1e3);
            list
        });
        return Ok(output::print(&list)?);
    };
    let preset = Preset::named(name)?;
    output::print(&table_of(preset, args.files.as_deref()))?;
    let (Some(files), Some(out)) = (&args.files, &args.out) else { return Ok(()) };
    if let Some(missing) = preset.files().find(|source| !source.at(files).is_file()) {
        return Err(Error::input(
            "preset-file",
            format!("{} is not there", missing.at(files).display()),
            "fetch it from its repository, and read its licence first",
        )
        .into());
    }
    // Before gigabytes are hashed.
    check_output_folder(out)?;
    compare(preset, files)?;
    converted(&preset.plan(files, args.dtype.into()), out, None)?;
    let manifest = Manifest::read(&CheckedFolder::new(out.clone()))?;
    let megabytes = manifest.bytes() as f64 / 1e6;
    let count = manifest.files().count();
    Ok(output::print(&format!(
        "\nTo host: the folder {} as it is, {count} files and manifest.json, {megabytes:.0} MB.\n\
         <face-studio model=\"URL/OF/THE/FOLDER\">, or: facestudio generate --model {}\n",
        out.display(),
        out.display()
    ))?)
}

/// The recipe's files as a table, with what is there below `files`.
fn table_of(preset: &Preset, files: Option<&Path>) -> String {
    let mut table = format!("{}: {}\n", preset.name, preset.says);
    for source in preset.files() {
        let there = files.map(|files| if source.at(files).is_file() { "there    " } else { "missing  " });
        let _ = writeln!(
            table,
            "{}{:>8.1} MB  {:<38} {}/{} ({})",
            there.unwrap_or_default(),
            source.megabytes,
            source.license,
            source.repository,
            source.path,
            source.host
        );
    }
    table
}

/// Compares the files' SHA-256 with those of the first conversion, which writes them beside the files, in the format of
/// `sha256sum`. Fails with `preset-file` where one has changed since.
fn compare(preset: &Preset, files: &Path) -> Result<()> {
    let list = files.join(format!("{}.sha256", preset.name));
    let mut found = String::new();
    for source in preset.files() {
        let _ = writeln!(found, "{}  {}/{}", sha256_file(&source.at(files))?, source.repository, source.path);
    }
    if !list.exists() {
        return write_file(&list, found.as_bytes());
    }
    let known = read_text(&list)?;
    match found.lines().find(|line| !known.lines().any(|known| known == *line)) {
        None => Ok(()),
        Some(line) => Err(Error::input(
            "preset-file",
            format!("'{line}' is not what {} says", list.display()),
            "fetch the file again, or delete the list if its publisher has changed it",
        )),
    }
}
