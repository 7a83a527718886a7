//! `facestudio presets`: named recipes, from published files to a model folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use facestudio::weights::{CheckedFolder, Manifest, check_output_folder, read_text, sha256_file, write_file};
use facestudio::{Error, Result};
use facestudio_convert::presets::{Part, Preset, SourceFile};

use crate::convert::{Dtype, converted};
use crate::hub::{Expected, Hub};
use crate::output;

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("source").multiple(true)))]
pub struct Args {
    /// The recipe, or its file (recipe.json); all are listed without one.
    name: Option<PathBuf>,
    /// Where its files are, each as REPOSITORY/PATH below; says which are there. Nothing is downloaded without --fetch.
    #[arg(long, value_name = "DIR", group = "source")]
    files: Option<PathBuf>,
    /// Fetches what is not there from Hugging Face's hub, into the cache that Hugging Face's own programs use, and checks it. Read the
    /// licences first; HF_TOKEN says who asks, where a publisher wants to know.
    #[arg(long, group = "source")]
    fetch: bool,
    /// Converts them to this new model folder.
    #[arg(long, value_name = "DIR", requires = "source")]
    out: Option<PathBuf>,
    /// How weights are stored.
    #[arg(long, value_enum, default_value = "q8")]
    dtype: Dtype,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        let mut list = String::new();
        for preset in Preset::all()? {
            let gigabytes = preset.bytes() as f64 / 1e9;
            let _ = writeln!(list, "{:<22} {} ({gigabytes:.1} GB to fetch)", preset.name, preset.says);
        }
        return Ok(output::print(&list)?);
    };
    let preset = chosen(name)?;
    output::print(&told(&preset, args.files.as_deref()))?;
    args.out.as_deref().map_or(Ok(()), check_output_folder)?;
    let folders = if args.fetch { fetched(&preset, args.files.as_deref())? } else { Vec::new() };
    let Some(out) = &args.out else { return Ok(()) };
    let folders = match &args.files {
        Some(files) if !args.fetch => {
            // Before gigabytes are hashed.
            if let Some((part, missing)) = preset.files().find(|(part, file)| !part.at(files, file).is_file())
            {
                return Err(absent(part, &part.at(files, missing)).into());
            }
            compare(&preset, files)?;
            preset.parts.iter().map(|part| files.join(&part.repository)).collect()
        }
        _ => folders,
    };
    converted(&preset.plan(&folders, args.dtype.into()), out, None)?;
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

/// The folder of each part's repository, after what is not below `files` was fetched.
fn fetched(preset: &Preset, files: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut hub = None;
    let mut folders = Vec::new();
    for part in &preset.parts {
        let by_hand = files.filter(|files| part.files.iter().all(|file| part.at(files, file).is_file()));
        if let Some(files) = by_hand {
            for file in &part.files {
                let path = part.at(files, file);
                check(part, file, &path, &sha256_file(&path)?)?;
            }
            folders.push(files.join(&part.repository));
            continue;
        }
        if part.url.is_some() || part.archive.is_some() {
            let place = files.map(|files| part.at(files, &part.files[0])).unwrap_or_default();
            return Err(absent(part, &place));
        }
        let hub: &Hub = match &mut hub {
            Some(hub) => hub,
            none => none.insert(Hub::from_env()?),
        };
        let mut folder = PathBuf::new();
        for file in &part.files {
            let expected = Expected { bytes: file.bytes, sha256: file.sha256.as_deref() };
            let revision = part.revision.as_deref().unwrap_or("main");
            let path = hub.fetch(&part.repository, revision, &file.path, expected)?;
            let depth = file.path.split('/').count();
            folder = path.ancestors().nth(depth).map(Path::to_owned).unwrap_or_default();
        }
        output::print(&(output::line(&format!("{} is in {}", part.what, folder.display())) + "\n"))?;
        folders.push(folder);
    }
    Ok(folders)
}

fn absent(part: &Part, place: &Path) -> Error {
    let what = if place.as_os_str().is_empty() { part.what.clone() } else { place.display().to_string() };
    Error::input(
        "preset-file",
        format!("{what} is not there"),
        format!(
            "fetch it from {} into a folder that --files names, and read its licence first: {}",
            part.host(),
            part.license_url
        ),
    )
}

/// A recipe by its name, or in a file.
fn chosen(name: &Path) -> Result<Preset> {
    let is_file = name.extension().is_some_and(|extension| extension == "json");
    if is_file { Preset::read(name) } else { Preset::named(&name.to_string_lossy()) }
}

/// The recipe's files as a table, with what is there below `files`.
fn told(preset: &Preset, files: Option<&Path>) -> String {
    let mut table = format!("{}: {}\n", output::line(&preset.name), output::line(&preset.says));
    for part in &preset.parts {
        let research = if part.research_only { ", for research only" } else { "" };
        let revision = part.revision.as_deref().map(|of| format!(" at {of}")).unwrap_or_default();
        let (what, license) = (output::line(&part.what), output::line(&part.license));
        let _ = writeln!(table, "\n{what}\n  {license}{research}: {}", output::line(&part.license_url));
        let _ = writeln!(table, "  {}{}", output::line(part.host()), output::line(&revision));
        for file in &part.files {
            let there = |files| if part.at(files, file).is_file() { "there    " } else { "missing  " };
            let path = output::line(&format!("{}/{}", part.repository, file.path));
            let _ = writeln!(table, "  {}{:>13}  {path}", files.map(there).unwrap_or_default(), size(file));
        }
    }
    table
}

/// A file's size, `about` where it is computed.
fn size(file: &SourceFile) -> String {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    match (file.bytes, file.about_bytes) {
        (Some(bytes), _) => megabytes(bytes),
        (None, Some(bytes)) => format!("about {}", megabytes(bytes)),
        (None, None) => "?".to_owned(),
    }
}

/// Holds the files against the SHA-256 that the recipe states, and those of which it states none against the first conversion,
/// which writes all of them beside the files, in the format of `sha256sum`. Fails with `preset-file` where one is another.
fn compare(preset: &Preset, files: &Path) -> Result<()> {
    let list = files.join(format!("{}.sha256", preset.name));
    let mut found = String::new();
    for (part, file) in preset.files() {
        let path = part.at(files, file);
        let hash = sha256_file(&path)?;
        check(part, file, &path, &hash)?;
        let _ = writeln!(found, "{hash}  {}/{}", part.repository, file.path);
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

/// Fails with `preset-file` unless a file has the size and the SHA-256 that the recipe states, as far as it does.
fn check(part: &Part, file: &SourceFile, path: &Path, hash: &str) -> Result<()> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path.display(), &e))?.len();
    let bytes = file.bytes.filter(|bytes| *bytes != size);
    let bytes = bytes.map(|bytes| (format!("{size} bytes"), format!("{bytes} bytes")));
    let sha256 = file.sha256.as_ref().filter(|stated| *stated != hash);
    let sha256 = sha256.map(|stated| (format!("the SHA-256 {hash}"), format!("the SHA-256 {stated}")));
    match bytes.or(sha256) {
        None => Ok(()),
        Some((has, states)) => Err(Error::input(
            "preset-file",
            format!("{} has {has}, and the recipe states {states}", path.display()),
            format!("fetch it again from {}", part.host()),
        )),
    }
}
