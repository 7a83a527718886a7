//! Other programs' checkpoints as a model folder.
//!
//! ```text
//! a file or folder ─ checkpoint (pickle, gguf, onnx) ─ layout (ldm, flux2, clip, face, detector, segmenter, tiny, ip_adapter) ─ lora ─
//! weights::write_shards ─ DIR/<component>/
//! ```
//!
//! Every step is a view: tensors are read from the disk when their shard is written, and one shard's are in memory at a time.
//! Nothing in a checkpoint is executed.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod beside;
pub mod checkpoint;
pub mod clip;
mod component;
pub mod declared;
pub mod detector;
pub mod face;
mod flux2;
mod folder;
pub mod gguf;
pub mod graph;
pub mod ip_adapter;
pub mod kind;
pub mod layout;
pub mod ldm;
pub mod lora;
pub mod onnx;
mod open_clip;
pub mod pickle;
pub mod presets;
mod scaled;
pub mod scheduler;
pub mod segmenter;
mod supported;
pub mod tiny;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use facestudio::error::{Error, Result};
use facestudio::internal::{check_listed, without_mark};
use facestudio::weights::{
    Blocks, MAX_SHARD, Manifest, ModelCard, Quantization, SafetensorsHeader, TensorSource, read_file,
    write_folder_until, write_shards,
};

use checkpoint::Checkpoint;
use component::{described_in, open, read};
use declared::Declared;
use ip_adapter::{Adapter, FaceIdPlus};
use layout::Layout;
use lora::{Lora, Merged};
use scheduler::Sampling;

/// Largest config that is read.
const MOST_CONFIG: u64 = 16 << 20;

/// What a checkpoint becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// `unet/`.
    Unet,
    /// `transformer/`.
    Transformer,
    /// `vae/`.
    Vae,
    /// `tiny_vae/`.
    TinyVae,
    /// `text_encoder/`.
    TextEncoder,
    /// `vision_encoder/`, `vision_encoder_2/` and so on.
    VisionEncoder,
    /// `face_encoder/`.
    FaceEncoder,
    /// `detector/`.
    Detector,
    /// `segmenter/`.
    Segmenter,
    /// `prior/`.
    Prior,
    /// `ip_adapter/`, `ip_adapter_2/` and so on: the plan's adapter of that number, counted from 0.
    #[serde(skip)]
    IpAdapter(usize),
}

impl Slot {
    fn folder(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Transformer => "transformer",
            Self::Vae => "vae",
            Self::TinyVae => "tiny_vae",
            Self::TextEncoder => "text_encoder",
            Self::VisionEncoder => "vision_encoder",
            Self::FaceEncoder => "face_encoder",
            Self::Detector => "detector",
            Self::Segmenter => "segmenter",
            Self::Prior => "prior",
            Self::IpAdapter(_) => "ip_adapter",
        }
    }

    fn lora(self) -> Option<lora::Network> {
        match self {
            Self::Unet => Some(lora::Network::Unet),
            Self::TextEncoder => Some(lora::Network::Text),
            _ => None,
        }
    }
}

/// What to convert, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A whole Stable Diffusion: a diffusers folder, or a single file in the original layout. Or diffusers' folder of a FLUX.2 klein.
    pub base: Option<PathBuf>,
    /// Single components; they take the place of the base's.
    pub parts: Vec<(Slot, PathBuf)>,
    /// Adapters of the IP-Adapter family, in the order of their folders.
    pub adapters: Vec<Adapter>,
    /// Whether UNet and text encoder are Arc2Face's.
    pub arc2face: bool,
    /// Which FaceID-Plus an adapter is, where one is.
    pub face_id_plus: Option<FaceIdPlus>,
    /// A folder with `vocab.json` and `merges.txt`, where the base has none.
    pub tokenizer: Option<PathBuf>,
    /// LoRAs to merge, files or folders, and how much of each.
    pub loras: Vec<(PathBuf, f32)>,
    /// Activation of CLIPs whose file does not say: OpenAI's is `quick_gelu`, open_clip's `gelu`.
    pub clip_act: String,
    /// diffusers' `prediction_type`, in the place of what the checkpoint says.
    pub prediction_type: Option<&'static str>,
    /// How pictures are sampled, where the base does not say or says otherwise.
    pub sampling: Sampling,
    /// How weights are stored.
    pub quantization: Quantization,
    /// What the manifest says.
    pub card: ModelCard,
}

impl Plan {
    /// The family of what it makes, by its denoiser.
    pub fn family(&self) -> &'static str {
        if flux2::is_planned(self) { "klein" } else { "sd15" }
    }
}

impl Default for Plan {
    /// Nothing to convert; the rest as the command line has it.
    fn default() -> Self {
        Self {
            base: None,
            parts: Vec::new(),
            adapters: Vec::new(),
            arc2face: false,
            face_id_plus: None,
            tokenizer: None,
            loras: Vec::new(),
            clip_act: "quick_gelu".to_owned(),
            prediction_type: None,
            sampling: Sampling::default(),
            quantization: Quantization::F16,
            card: ModelCard::default(),
        }
    }
}

/// What was written for one component.
#[derive(Debug, Clone, Serialize)]
pub struct ComponentReport {
    /// Its folder.
    pub component: String,
    /// Where its weights came from.
    pub source: String,
    /// Numbers in its weights.
    pub parameters: u64,
    /// Bytes of its weights as written.
    pub bytes: u64,
    /// Updates of LoRA files that were merged.
    pub lora_updates: usize,
    /// `‖stored − original‖ / ‖original‖` of each tensor that is not stored exactly.
    pub errors: BTreeMap<String, f64>,
}

/// Converts; `watch` hears of every tensor as it is written: its component and its name.
///
/// The folder appears whole or not at all. Raising `stop` ends the work between two tensors, with `cancelled`.
pub fn convert(
    plan: &Plan,
    out: &Path,
    stop: &AtomicBool,
    watch: &dyn Fn(&str, &str),
) -> Result<Vec<ComponentReport>> {
    let opened = plan.loras.iter().map(|(path, _)| lora::open(path)).collect::<Result<Vec<_>>>()?;
    let loras = plan.loras.iter().zip(&opened);
    let loras = loras
        .map(|((path, scale), (source, config))| Lora::new(path, source, config, *scale))
        .collect::<Result<Vec<_>>>()?;
    let adapters =
        plan.adapters.iter().map(|adapter| Checkpoint::open(&adapter.path)).collect::<Result<Vec<_>>>()?;
    supported::check(plan)?;
    let mut reports = Vec::new();
    write_folder_until(out, stop, |out| {
        let (mut converted, mut declared) = (Vec::new(), None);
        let plain = lora::Config::default();
        let components = components(plan)?;
        let networks: Vec<_> = components.iter().filter_map(|(_, slot, _)| slot.lora()).collect();
        loras.iter().try_for_each(|lora| lora.refuse_idle(&networks))?;
        for (folder, slot, path) in components {
            let checkpoint = open(slot, &path)?;
            if slot == Slot::Unet {
                let folder = described_in(slot, &path, &checkpoint);
                let says = Declared::read(&checkpoint, &path, folder, plan.prediction_type);
                declared = Some(says.map_err(|e| e.context(path.display()))?);
            }
            let (config, layout) = read(slot, &path, &checkpoint, plan)?;
            let of_adapters =
                if slot == Slot::Unet { adapter_loras(plan, &adapters, &layout)? } else { Vec::new() };
            // FaceID is trained with its LoRA whole (`lora_scale`, 1 upstream).
            let of_adapters = of_adapters
                .iter()
                .map(|(path, source)| Lora::new(path, source, &plain, 1.0))
                .collect::<Result<Vec<_>>>()?;
            let updates: Vec<&Lora> = loras.iter().chain(&of_adapters).collect();
            converted.push(slot);
            let merged = slot.lora().map(|network| Merged::new(&layout, network, &updates)).transpose()?;
            let found = merged.as_ref().map_or(0, Merged::count);
            let source: &dyn TensorSource = merged.as_ref().map_or(&layout, |merged| merged);
            let watched = Watched { source, stop, watch, component: &folder };
            let mut report = ComponentReport {
                component: folder.clone(),
                source: path.display().to_string(),
                parameters: 0,
                bytes: 0,
                lora_updates: found,
                errors: BTreeMap::new(),
            };
            write_shards(&watched, plan.quantization, &BTreeMap::new(), MAX_SHARD, |name, bytes| {
                measure(source, bytes, &mut report)?;
                out.write(&format!("{folder}/{name}"), bytes)
            })
            .map_err(|e| e.context(path.display()))?;
            out.write(&format!("{folder}/config.json"), &pretty(&config)?)?;
            beside::carry(slot, &path, &folder, out)?;
            reports.push(report);
        }
        if !converted.contains(&Slot::Unet) {
            refuse_loras(plan, &adapters)?;
        }
        beside::tokenizer(plan, out)?;
        beside::index(plan, out)?;
        if plan.arc2face {
            // The text and the word are the encoder's own defaults.
            out.write("arc2face/config.json", &pretty(&json!({ "model_type": "arc2face" }))?)?;
        }
        scheduler::write(plan, declared.as_ref(), out)?;
        beside::defaults(plan, out)?;
        let mut card = plan.card.clone();
        card.provenance.insert("conversion".to_owned(), provenance(plan, &reports));
        out.write(Manifest::NAME, &Manifest::build(&out.files(), card)?.to_json()?)
    })?;
    Ok(reports)
}

/// The LoRAs that adapters bring for the UNet, and the adapters' files.
fn adapter_loras<'a>(
    plan: &'a Plan,
    adapters: &'a [Checkpoint],
    unet: &dyn TensorSource,
) -> Result<Vec<(&'a Path, Layout<'a>)>> {
    let mut found = Vec::new();
    for (adapter, source) in plan.adapters.iter().zip(adapters) {
        let lora = ip_adapter::lora(source, unet).map_err(|e| e.context(adapter.path.display()))?;
        found.extend(lora.map(|lora| (&*adapter.path, lora)));
    }
    Ok(found)
}

/// Fails with `convert-config` if an adapter brings a LoRA: there is no UNet to merge it into.
fn refuse_loras(plan: &Plan, adapters: &[Checkpoint]) -> Result<()> {
    let with = |source: &Checkpoint| source.names().iter().any(|name| ip_adapter::is_lora(name));
    match plan.adapters.iter().zip(adapters).find(|(_, source)| with(source)) {
        None => Ok(()),
        Some((adapter, _)) => Err(Error::input(
            "convert-config",
            format!("{} brings a LoRA for a unet that is not converted with it", adapter.path.display()),
            "give --base or --unet as well: the LoRA is merged into it",
        )),
    }
}

/// Every component with its folder and where it comes from.
fn components(plan: &Plan) -> Result<Vec<(String, Slot, PathBuf)>> {
    let mut of_base = Vec::new();
    if let Some(base) = &plan.base {
        let denoiser = if flux2::is_planned(plan) { Slot::Transformer } else { Slot::Unet };
        let own = [denoiser, Slot::Vae, Slot::TextEncoder];
        let given = |slot: Slot| plan.parts.iter().any(|(part, _)| *part == slot);
        for slot in own.into_iter().filter(|slot| !given(*slot)) {
            let path = if base.is_dir() { base.join(slot.folder()) } else { base.clone() };
            of_base.push((slot, path));
        }
    }
    let adapters = plan.adapters.iter().enumerate();
    let adapters: Vec<_> = adapters.map(|(i, adapter)| (Slot::IpAdapter(i), adapter.path.clone())).collect();
    let mut found = Vec::new();
    let mut vision = 0;
    for (slot, path) in of_base.iter().chain(&plan.parts).chain(&adapters) {
        let number = match slot {
            Slot::VisionEncoder => {
                vision += 1;
                vision
            }
            Slot::IpAdapter(i) => i + 1,
            _ => 1,
        };
        let folder =
            if number == 1 { slot.folder().to_owned() } else { format!("{}_{number}", slot.folder()) };
        if found.iter().any(|(other, _, _)| *other == folder) {
            return Err(Error::input("convert-twice", format!("{folder} is given twice"), "give it once"));
        }
        found.push((folder, *slot, path.clone()));
    }
    if found.is_empty() {
        return Err(Error::input(
            "convert-nothing",
            "there is nothing to convert",
            "give --base or a component",
        ));
    }
    Ok(found)
}

/// A source that tells what is read of it.
struct Watched<'a> {
    source: &'a dyn TensorSource,
    stop: &'a AtomicBool,
    watch: &'a dyn Fn(&str, &str),
    component: &'a str,
}

impl TensorSource for Watched<'_> {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        (self.watch)(self.component, name);
        self.source.read(name)
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let blocks = self.source.blocks(name)?;
        if blocks.is_some() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            (self.watch)(self.component, name);
        }
        Ok(blocks)
    }
}

/// Adds a written shard to the report: its size, and how far its tensors are from the originals.
fn measure(source: &dyn TensorSource, shard: &[u8], report: &mut ComponentReport) -> Result<()> {
    let part = |range: Range<u64>| Cow::Borrowed(&shard[range.start as usize..range.end as usize]);
    report.bytes += shard.len() as u64;
    let stored = SafetensorsHeader::read(shard.len() as u64, |range| Ok(part(range).into_owned()))?;
    for name in stored.names() {
        let (stored, original) = (stored.decode(&name, |range| Ok(part(range)))?, source.read(&name)?);
        report.parameters += original.len() as u64;
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let error = square(&mut stored.iter().zip(&original).map(|(a, b)| f64::from(a - b)));
        let size = square(&mut original.iter().map(|v| f64::from(*v)));
        if error > 0.0 {
            report.errors.insert(name, (error / size.max(f64::MIN_POSITIVE)).sqrt());
        }
    }
    Ok(())
}

fn provenance(plan: &Plan, reports: &[ComponentReport]) -> Value {
    let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    let sources: BTreeMap<_, _> =
        reports.iter().map(|report| (report.component.clone(), name(&report.source))).collect();
    let loras: Vec<_> = plan
        .loras
        .iter()
        .map(|(path, scale)| json!({ "file": name(&path.to_string_lossy()), "scale": scale }))
        .collect();
    json!({
        "program": concat!("facestudio ", env!("CARGO_PKG_VERSION")), "dtype": plan.quantization.name(),
        "sources": sources, "loras": loras,
    })
}

fn json_file(folder: &Path, name: &str) -> Result<Value> {
    serde_json::from_slice(without_mark(&small_file(&folder.join(name))?))
        .map_err(|e| Error::weights("config", format!("{name}: {e}"), "use the config of a supported model"))
}

fn small_file(path: &Path) -> Result<Vec<u8>> {
    check_listed(path)?;
    read_file(path, MOST_CONFIG)
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::internal("json", e.to_string()))?;
    json.push(b'\n');
    Ok(json)
}
