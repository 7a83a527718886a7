//! `facestudio inspect`: what a model, a component or a file holds, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use facestudio::weights::{
    CheckedFolder, Component, FileEntry, Files, Folder, Manifest, SafetensorsHeader, TensorSource, open_file,
    read_file, sha256_file,
};
use facestudio::{Error, Result};
use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::kind::{self, Recognized};
use serde::Serialize;
use serde_json::Value;

use crate::output::{line, print, print_json};

#[derive(clap::Args)]
pub struct Args {
    /// A model folder, a component's folder, a file of weights (safetensors, PyTorch, GGUF, ONNX) or a generated picture.
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    path: String,
    kind: &'static str,
    /// Name, family, version, licence and provenance, where there is a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Value>,
    /// What a single file is, by its tensors, what it fits, and what can be done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    recognized: Option<Recognized>,
    components: Vec<ComponentReport>,
    parameters: usize,
    bytes: u64,
    /// Files that the manifest lists and that are missing or damaged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<String>,
}

#[derive(Serialize)]
struct ComponentReport {
    name: String,
    /// The class that the config names.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    parameters: usize,
    /// Parameters by stored type.
    dtypes: BTreeMap<String, usize>,
    bytes: u64,
    files: Vec<FileReport>,
    /// The config's plain values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    config: BTreeMap<String, Value>,
    /// A safetensors file's own metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// Tensors by name; only for a single file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(Serialize)]
struct FileReport {
    path: String,
    bytes: u64,
    sha256: String,
    /// Against the manifest.
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Verified,
    Damaged,
    Unlisted,
}

/// Most bytes of a picture.
const MAX_FILE: u64 = 1 << 30;
/// What PNG files begin with.
const PNG: &[u8] = b"\x89PNG";

pub fn run(args: Args) -> anyhow::Result<()> {
    let report = inspect(&args.path)?;
    if args.json {
        print_json(&report, true)?;
    } else {
        print(&table(&report))?;
    }
    if report.damaged.is_empty() {
        return Ok(());
    }
    Err(Error::weights(
        "file-corrupt",
        format!("missing or damaged: {}", report.damaged.join(", ")),
        "fetch these files again",
    )
    .into())
}

fn inspect(path: &Path) -> Result<Report> {
    if !path.is_dir() {
        return file(path);
    }
    CheckedFolder::new(path).check_exported()?;
    let folder = Folder(path.to_owned());
    let is_component = folder.list("")?.iter().any(|n| n.ends_with(".safetensors") || is_config(n));
    let manifest = if folder.list("")?.iter().any(|name| name == Manifest::NAME) {
        Some(Manifest::read(&folder)?)
    } else {
        None
    };
    let listed: BTreeMap<&str, &FileEntry> =
        manifest.iter().flat_map(Manifest::files).map(|file| (file.path.as_str(), file)).collect();
    let names = if is_component { vec![String::new()] } else { folder.folders("")? };
    let mut components = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        components.push(component(&folder, name, &listed)?);
    }
    components.retain(|c| !c.files.is_empty());
    if components.is_empty() {
        return Err(Error::weights(
            "not-a-model",
            format!("{} holds neither configs nor weights", path.display()),
            "point to a model folder, a component's folder, a safetensors file or a generated PNG",
        ));
    }
    let damaged = manifest.iter().flat_map(Manifest::files);
    let damaged = damaged.filter(|file| folder.read(&file.path).and_then(|b| file.verify(&b)).is_err());
    let card = |m: &Manifest| {
        let Manifest { name, family, version, license, people, provenance, .. } = m;
        serde_json::json!({ "name": name, "family": family, "version": version, "license": license,
            "people": people, "provenance": provenance })
    };
    Ok(Report {
        path: path.display().to_string(),
        kind: if is_component { "component" } else { "model" },
        manifest: manifest.as_ref().map(card),
        parameters: components.iter().map(|c| c.parameters).sum(),
        bytes: components.iter().map(|c| c.bytes).sum(),
        damaged: damaged.map(|file| file.path.clone()).collect(),
        recognized: None,
        components,
    })
}

fn is_config(name: &str) -> bool {
    name == "config.json" || name == "scheduler_config.json"
}

fn component(folder: &Folder, name: &str, listed: &BTreeMap<&str, &FileEntry>) -> Result<ComponentReport> {
    let mut report = ComponentReport {
        name: if name.is_empty() { ".".to_owned() } else { name.to_owned() },
        class: None,
        parameters: 0,
        dtypes: BTreeMap::new(),
        bytes: 0,
        files: Vec::new(),
        config: BTreeMap::new(),
        metadata: BTreeMap::new(),
        tensors: BTreeMap::new(),
    };
    let files = folder.list(name)?;
    for file in files.iter().filter(|file| !file.starts_with('.') && *file != Manifest::NAME) {
        let path = if name.is_empty() { file.clone() } else { format!("{name}/{file}") };
        let bytes = folder.read(&path)?;
        let state = match listed.get(path.as_str()) {
            None => State::Unlisted,
            Some(entry) if entry.verify(&bytes).is_ok() => State::Verified,
            Some(_) => State::Damaged,
        };
        report.bytes += bytes.len() as u64;
        let sha256 = facestudio::weights::sha256(&bytes);
        report.files.push(FileReport { path, bytes: bytes.len() as u64, sha256, state });
    }
    let component = Component::new(folder, name);
    let damaged = report.files.iter().any(|file| file.state == State::Damaged);
    if !damaged && files.iter().any(|file| file.ends_with(".safetensors")) {
        component.headers()?.iter().for_each(|header| count(&mut report, header));
    }
    if let Some(config) = files.iter().find(|file| is_config(file))
        && !damaged
    {
        let config: BTreeMap<String, Value> = component.json(config)?;
        let class = config.get("_class_name").or_else(|| config.get("model_type"));
        report.class = class.and_then(Value::as_str).map(str::to_owned);
        report.config =
            config.into_iter().filter(|(key, value)| !key.starts_with('_') && is_plain(value)).collect();
    }
    Ok(report)
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Object(_) => false,
        Value::Array(values) => values.len() <= 8 && values.iter().all(|v| !v.is_array() && !v.is_object()),
        _ => true,
    }
}

fn count(report: &mut ComponentReport, header: &SafetensorsHeader) {
    for name in header.names() {
        let count = header.shape(&name).unwrap_or_default().iter().product::<usize>();
        report.parameters += count;
        *report.dtypes.entry(header.dtype(&name).unwrap_or_default()).or_default() += count;
    }
}

fn file(path: &Path) -> Result<Report> {
    let name = path.display().to_string();
    let (mut start, mut file) = (Vec::new(), open_file(path)?);
    file.by_ref().take(PNG.len() as u64).read_to_end(&mut start).map_err(|e| Error::io(&name, &e))?;
    let bytes = file.metadata().map_err(|e| Error::io(&name, &e))?.len();
    let mut report = ComponentReport {
        name: name.clone(),
        class: None,
        parameters: 0,
        dtypes: BTreeMap::new(),
        bytes,
        files: vec![FileReport {
            path: name.clone(),
            bytes,
            sha256: sha256_file(path)?,
            state: State::Unlisted,
        }],
        config: BTreeMap::new(),
        metadata: BTreeMap::new(),
        tensors: BTreeMap::new(),
    };
    let (kind, recognized) = if start == PNG {
        let texts = facestudio::image::codec::read_png_texts(&read_file(path, MAX_FILE)?);
        report.metadata = texts.map_err(|e| e.context(&name))?.into_iter().collect();
        ("picture", None)
    } else {
        let checkpoint = Checkpoint::open(path)?;
        let shape = |name: &String| checkpoint.shape(name).unwrap_or_default();
        report.tensors = checkpoint.names().into_iter().map(|name| (name.clone(), shape(&name))).collect();
        match checkpoint.header() {
            Some(header) => {
                report.metadata = header.metadata().clone();
                count(&mut report, header);
            }
            None => {
                report.parameters = report.tensors.values().map(|shape| shape.iter().product::<usize>()).sum()
            }
        }
        (checkpoint.format(), Some(kind::of(&checkpoint)))
    };
    Ok(Report {
        path: name,
        kind,
        manifest: None,
        recognized,
        parameters: report.parameters,
        bytes,
        components: vec![report],
        damaged: Vec::new(),
    })
}

fn table(report: &Report) -> String {
    let mut out = format!("{} {}\n", report.kind, line(&report.path));
    if let Some(recognized) = &report.recognized {
        let _ = writeln!(out, "  {}", line(&recognized.to_string()));
    }
    for key in ["name", "family", "version", "license", "people"] {
        if let Some(value) = report.manifest.as_ref().and_then(|m| m[key].as_str()) {
            let _ = writeln!(out, "  {key:<8} {}", line(value));
        }
    }
    let width = report.components.iter().map(|c| line(&c.name).chars().count()).max().unwrap_or(0).max(9);
    let _ = writeln!(
        out,
        "\n{:<width$}  {:<28}  {:>11}  {:<9}  {:>10}  files",
        "component", "class", "parameters", "stored", "bytes"
    );
    let row =
        |out: &mut String, name: &str, class: &str, parameters, stored: &str, bytes: u64, files: &str| {
            let _ = writeln!(
                out,
                "{name:<width$}  {class:<28}  {:>11}  {stored:<9}  {:>10}  {files}",
                short(parameters as f64, 1e3),
                short(bytes as f64, 1024.0)
            );
        };
    for c in &report.components {
        let stored = c.dtypes.iter().max_by_key(|(_, count)| **count).map_or("-", |(dtype, _)| dtype);
        let states = [State::Verified, State::Damaged, State::Unlisted].map(|state| {
            let count = c.files.iter().filter(|file| file.state == state).count();
            (count > 0).then(|| format!("{count} {}", format!("{state:?}").to_lowercase()))
        });
        let states = states.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let (name, class) = (line(&c.name), line(c.class.as_deref().unwrap_or("-")));
        row(&mut out, &name, &class, c.parameters, stored, c.bytes, &states);
    }
    row(&mut out, "total", "", report.parameters, "", report.bytes, "");
    for c in &report.components {
        details(&mut out, c);
    }
    out
}

fn details(out: &mut String, component: &ComponentReport) {
    if !component.config.is_empty() || !component.metadata.is_empty() || !component.tensors.is_empty() {
        let _ = writeln!(out, "\n{}", line(&component.name));
    }
    let config = component.config.iter().map(|(key, value)| (key, value.to_string()));
    let metadata = component.metadata.iter().map(|(key, value)| (key, value.clone()));
    for (key, value) in config.chain(metadata) {
        let _ = writeln!(out, "  {}: {}", line(key), line(&value));
    }
    for (name, shape) in &component.tensors {
        let _ = writeln!(out, "  {} {shape:?}", line(name));
    }
}

/// A count in thousands, millions and so on.
fn short(value: f64, step: f64) -> String {
    let units = ["", "k", "M", "G", "T"];
    let power = (0..units.len() - 1).find(|p| value < step.powi(*p as i32 + 1)).unwrap_or(units.len() - 1);
    let scaled = value / step.powi(power as i32);
    if power == 0 { format!("{scaled}") } else { format!("{scaled:.2} {}", units[power]) }
}
