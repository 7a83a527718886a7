//! `facestudio quantize`: a model folder with its weights in fewer bits, and its manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use facestudio::weights::{
    Component, Files, Folder, MAX_SHARD, Manifest, ModelCard, NewFolder, Quantization, check_output_folder,
    write_folder, write_shards,
};
use facestudio::{Error, Result};
use serde_json::json;

use crate::place::check_model;

#[derive(clap::Args)]
pub struct Args {
    /// The model folder: one folder per component.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The new folder; must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How weights are stored.
    #[arg(long, value_enum)]
    dtype: Dtype,
    /// The model's name in the manifest; that of the old manifest, or the folder's, if absent.
    #[arg(long)]
    name: Option<String>,
    /// Its family, for example mini or sd15.
    #[arg(long)]
    family: Option<String>,
    /// Its version.
    #[arg(long = "model-version", value_name = "VERSION")]
    version: Option<String>,
    /// Its licence, an SPDX expression.
    #[arg(long)]
    license: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    /// 8-bit integers in blocks of 32 with a scale each.
    Q8,
    /// 4-bit integers in blocks of 32 with a scale each; tensors that this would spoil get 8 bits.
    Q4,
    /// 16-bit floats.
    F16,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let quantization = match args.dtype {
        Dtype::Q8 => Quantization::Q8,
        Dtype::Q4 => Quantization::Q4,
        Dtype::F16 => Quantization::F16,
    };
    check_model(&args.model)?;
    check_output_folder(&args.out)?;
    let source = Folder(args.model.clone());
    let card = card(&args, &source, quantization)?;
    let folders: Vec<String> =
        source.folders("")?.into_iter().filter(|name| !name.starts_with('.')).collect();
    let any_weights = folders.iter().map(|folder| source.list(folder)).collect::<Result<Vec<_>>>()?;
    if !any_weights.iter().flatten().any(|name| is_weights(name)) {
        return Err(Error::weights(
            "weights-missing",
            format!("no component of {} has weights", args.model.display()),
            "point to a model folder that holds one folder per component",
        )
        .into());
    }
    write_folder(&args.out, |out| {
        copy_files(&source, "", out)?;
        for folder in &folders {
            copy_files(&source, folder, out)?;
            quantize(&source, folder, quantization, out)?;
        }
        out.write(Manifest::NAME, &Manifest::build(&out.files(), card)?.to_json()?)
    })?;
    Ok(())
}

/// What the new manifest says: the old one's words, unless flags say otherwise. An old manifest must be true.
fn card(args: &Args, source: &Folder, quantization: Quantization) -> Result<ModelCard> {
    let old = if source.list("")?.iter().any(|name| name == Manifest::NAME) {
        let manifest = Manifest::read(source)?;
        manifest.verify(source)?;
        Some(manifest)
    } else {
        None
    };
    let folder_name = args.model.file_name().map(|name| name.to_string_lossy().into_owned());
    let or_old = |flag: &Option<String>, old: Option<&String>, default: &str| {
        flag.as_ref().or(old).map_or(default.to_owned(), Clone::clone)
    };
    let old = old.as_ref();
    let mut provenance = old.map(|m| m.provenance.clone()).unwrap_or_default();
    let program = concat!("facestudio ", env!("CARGO_PKG_VERSION"));
    provenance.insert("quantization".to_owned(), json!({ "dtype": quantization.name(), "program": program }));
    Ok(ModelCard {
        name: or_old(&args.name, old.map(|m| &m.name), folder_name.as_deref().unwrap_or("model")),
        family: or_old(&args.family, old.map(|m| &m.family), "unknown"),
        version: or_old(&args.version, old.map(|m| &m.version), "1"),
        license: or_old(&args.license, old.map(|m| &m.license), "unknown"),
        provenance,
    })
}

/// Copies everything but weights, their index and the manifest.
fn copy_files(source: &Folder, folder: &str, out: &NewFolder) -> Result<()> {
    let names = source.list(folder)?;
    let wanted = names
        .iter()
        .filter(|name| !is_weights(name) && *name != Manifest::NAME && !name.starts_with('.'))
        .filter(|name| !is_index(name));
    for name in wanted {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        out.write(&path, &source.read(&path)?)?;
    }
    Ok(())
}

fn quantize(source: &Folder, folder: &str, quantization: Quantization, out: &NewFolder) -> Result<()> {
    if !source.list(folder)?.iter().any(|name| is_weights(name)) {
        return Ok(());
    }
    let tensors = Component::new(source, folder).tensors()?;
    let write = |name: &str, bytes: &[u8]| out.write(&format!("{folder}/{name}"), bytes);
    write_shards(tensors.as_ref(), quantization, &BTreeMap::new(), MAX_SHARD, write)
        .map_err(|e| e.context(folder))
}

/// Also a variant's: `model.safetensors.index.fp16.json`.
fn is_index(name: &str) -> bool {
    name.contains(".safetensors.") && name.ends_with(".json") && name.contains(".index")
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}
