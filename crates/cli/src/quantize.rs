//! `facestudio quantize`: a model folder with its weights in fewer bits, and its manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use facestudio::weights::{
    CheckedFolder, Component, Files, MAX_SHARD, Manifest, ModelCard, NewFolder, People, Quantization,
    TensorSource, check_output_folder, write_folder_until, write_shards,
};
use facestudio::{Error, Result};
use serde_json::json;

use crate::interrupt;
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
    /// Which people it has seen.
    #[arg(long, value_enum)]
    people: Option<Seen>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Seen {
    /// The renderer's alone: the page warns of photos.
    Drawn,
    /// Those of photographs.
    Photographed,
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
    let source = CheckedFolder::new(args.model.clone());
    let stop = interrupt::stop();
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
    // Before anything is written: files and folders that are links to elsewhere are no part of the model.
    for folder in folders.iter().map(String::as_str).chain([""]) {
        for name in source.list(folder)? {
            source.check_inside(&path(folder, &name))?;
        }
    }
    write_folder_until(&args.out, &stop, |out| {
        copy_files(&source, "", out)?;
        for folder in &folders {
            copy_files(&source, folder, out)?;
            quantize(&source, folder, quantization, out)?;
        }
        out.write(Manifest::NAME, &Manifest::build(&out.files(), card)?.to_json()?)
    })?;
    Ok(())
}

/// What the new manifest says: the old one's words, unless flags say otherwise.
fn card(args: &Args, source: &CheckedFolder, quantization: Quantization) -> Result<ModelCard> {
    let has_manifest = source.list("")?.iter().any(|name| name == Manifest::NAME);
    let old = if has_manifest { Some(Manifest::read(source)?) } else { None };
    let folder_name = args.model.file_name().map(|name| name.to_string_lossy().into_owned());
    let or_old = |flag: &Option<String>, old: Option<&String>, default: &str| {
        flag.as_ref().or(old).map_or(default.to_owned(), Clone::clone)
    };
    let old = old.as_ref();
    let mut provenance = old.map(|m| m.provenance.clone()).unwrap_or_default();
    let program = concat!("facestudio ", env!("CARGO_PKG_VERSION"));
    provenance.insert("quantization".to_owned(), json!({ "dtype": quantization.name(), "program": program }));
    let people = args.people.map(|seen| match seen {
        Seen::Drawn => People::Drawn,
        Seen::Photographed => People::Photographed,
    });
    Ok(ModelCard {
        name: or_old(&args.name, old.map(|m| &m.name), folder_name.as_deref().unwrap_or("model")),
        family: or_old(&args.family, old.map(|m| &m.family), "unknown"),
        version: or_old(&args.version, old.map(|m| &m.version), "1"),
        license: or_old(&args.license, old.map(|m| &m.license), "unknown"),
        people: people.or(old.and_then(|m| m.people)),
        provenance,
    })
}

fn path(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Copies everything but weights, their index and the manifest.
fn copy_files(source: &CheckedFolder, folder: &str, out: &NewFolder) -> Result<()> {
    let names = source.list(folder)?;
    let wanted = names
        .iter()
        .filter(|name| !is_weights(name) && *name != Manifest::NAME && !name.starts_with('.'))
        .filter(|name| !is_index(name));
    for name in wanted {
        let path = path(folder, name);
        out.write(&path, &source.read(&path)?)?;
    }
    Ok(())
}

fn quantize(source: &CheckedFolder, folder: &str, quantization: Quantization, out: &NewFolder) -> Result<()> {
    if !source.list(folder)?.iter().any(|name| is_weights(name)) {
        return Ok(());
    }
    let tensors = Component::new(source, folder).tensors()?;
    let watched = Watched { tensors: tensors.as_ref(), out };
    let write = |name: &str, bytes: &[u8]| out.write(&format!("{folder}/{name}"), bytes);
    write_shards(&watched, quantization, &BTreeMap::new(), MAX_SHARD, write).map_err(|e| e.context(folder))
}

/// Tensors that are read as long as their writer is not to stop.
struct Watched<'a> {
    tensors: &'a dyn TensorSource,
    out: &'a NewFolder<'a>,
}

impl TensorSource for Watched<'_> {
    fn names(&self) -> Vec<String> {
        self.tensors.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.out.go_on()?;
        self.tensors.read(name)
    }
}

/// Also a variant's: `model.safetensors.index.fp16.json`.
fn is_index(name: &str) -> bool {
    name.contains(".safetensors.") && name.ends_with(".json") && name.contains(".index")
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}
