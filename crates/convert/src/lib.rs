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
pub mod embedding;
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
mod upscaler;

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
    Blocks, Folder, MAX_SHARD, Manifest, ModelCard, NewFolder, Quantization, SafetensorsHeader, TensorSource,
    read_file, write_folder_until, write_shards,
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
    /// `upscaler/`.
    Upscaler,
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
            Self::Upscaler => "upscaler",
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

/// Where the files of a model folder go as they are made.
pub trait Output {
    /// Writes a file at its path in the model folder, with `/` between parts.
    fn write(&self, path: &str, bytes: &[u8]) -> Result<()>;
    /// What was written so far.
    fn files(&self) -> Folder;
}

impl Output for NewFolder<'_> {
    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.write(path, bytes)
    }

    fn files(&self) -> Folder {
        self.files()
    }
}

/// Who hears of every tensor as it is written, by its component and its name, and says when to stop.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Ends the work between two tensors, with `cancelled`.
    pub stop: &'a AtomicBool,
    /// Hears of them.
    pub tell: &'a dyn Fn(&str, &str),
}

/// Is given each shard as it was written, and what its tensors come from.
pub type Written<'a> = dyn FnMut(&dyn TensorSource, &[u8]) -> Result<()> + 'a;

/// What is made of a plan at a time: one component.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its folder in the model folder.
    pub component: String,
    /// The files and folders that its weights are made of: without those of other steps it can be made all the same.
    pub reads: Vec<PathBuf>,
    slot: Slot,
    path: PathBuf,
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
    plan.check()?;
    let watch = Watch { stop, tell: watch };
    let mut reports = Vec::new();
    write_folder_until(out, stop, |out| {
        for step in plan.steps()? {
            let mut report = ComponentReport {
                component: step.component.clone(),
                source: step.path.display().to_string(),
                parameters: 0,
                bytes: 0,
                lora_updates: 0,
                errors: BTreeMap::new(),
            };
            report.lora_updates =
                plan.make(&step, out, watch, &mut |source, shard| measure(source, shard, &mut report))?;
            reports.push(report);
        }
        plan.finish(out)
    })?;
    Ok(reports)
}

impl Plan {
    /// What is made at a time, in order. Which that is needs the small files of the sources alone, and the folders that the large
    /// ones will lie in.
    ///
    /// Fails with `convert-twice` or `convert-nothing`.
    pub fn steps(&self) -> Result<Vec<Step>> {
        let step = |(component, slot, path): (String, Slot, PathBuf)| {
            let loras = self.loras.iter().map(|(path, _)| path).filter(|_| slot.lora().is_some());
            // FaceID brings a LoRA for the UNet.
            let adapters = self.adapters.iter().map(|adapter| &adapter.path).filter(|_| slot == Slot::Unet);
            let reads = [&path].into_iter().chain(loras).chain(adapters).cloned().collect();
            Step { component, reads, slot, path }
        };
        Ok(components(self)?.into_iter().map(step).collect())
    }

    /// Fails where what it would make cannot be drawn with; all of its sources are there.
    fn check(&self) -> Result<()> {
        let opened = self.loras.iter().map(|(path, _)| lora::open(path)).collect::<Result<Vec<_>>>()?;
        let loras = self.opened(&opened)?;
        self.check_beside()?;
        let components = components(self)?;
        for (_, slot, path) in &components {
            supported::check(self, *slot, path)?;
        }
        let networks: Vec<_> = components.iter().filter_map(|(_, slot, _)| slot.lora()).collect();
        loras.iter().try_for_each(|lora| lora.refuse_idle(&networks))?;
        if !components.iter().any(|(_, slot, _)| *slot == Slot::Unet) {
            refuse_loras(self)?;
        }
        Ok(())
    }

    /// Fails where the small files beside the weights, the schedule's and the tokenizer's, cannot be used.
    pub fn check_beside(&self) -> Result<()> {
        supported::schedule(self)?;
        beside::check_tokenizer(self)
    }

    /// The LoRAs that are asked for.
    fn opened<'a>(&'a self, opened: &'a [(Checkpoint, lora::Config)]) -> Result<Vec<Lora<'a>>> {
        let loras = self.loras.iter().zip(opened);
        loras.map(|((path, scale), (source, config))| Lora::new(path, source, config, *scale)).collect()
    }

    /// Makes one component. Returns how many updates of LoRAs were merged.
    pub fn make(&self, step: &Step, out: &dyn Output, watch: Watch, written: &mut Written) -> Result<usize> {
        let Step { component: folder, slot, path, .. } = step;
        let (slot, path) = (*slot, path.as_path());
        supported::check(self, slot, path)?;
        let wanted = if slot.lora().is_some() { self.loras.as_slice() } else { &[] };
        let opened = wanted.iter().map(|(path, _)| lora::open(path)).collect::<Result<Vec<_>>>()?;
        let loras = if opened.is_empty() { Vec::new() } else { self.opened(&opened)? };
        let adapters = self.adapters.iter().filter(|_| slot == Slot::Unet);
        let adapters = adapters.map(|adapter| Checkpoint::open(&adapter.path)).collect::<Result<Vec<_>>>()?;
        let checkpoint = open(slot, path)?;
        if slot == Slot::Unet {
            let described = described_in(slot, path, &checkpoint);
            let says = Declared::read(&checkpoint, path, described, self.prediction_type);
            scheduler::write(self, Some(&says.map_err(|e| e.context(path.display()))?), out)?;
        }
        let (config, layout) = read(slot, path, &checkpoint, self)?;
        let of_adapters = adapter_loras(self, &adapters, &layout)?;
        // FaceID is trained with its LoRA whole (`lora_scale`, 1 upstream).
        let plain = lora::Config::default();
        let of_adapters = of_adapters
            .iter()
            .map(|(path, source)| Lora::new(path, source, &plain, 1.0))
            .collect::<Result<Vec<_>>>()?;
        let updates: Vec<&Lora> = loras.iter().chain(&of_adapters).collect();
        let merged = slot.lora().map(|network| Merged::new(&layout, network, &updates)).transpose()?;
        let source: &dyn TensorSource = merged.as_ref().map_or(&layout, |merged| merged);
        let watched = Watched { source, watch, component: folder };
        write_shards(&watched, self.quantization, &BTreeMap::new(), MAX_SHARD, |name, bytes| {
            out.write(&format!("{folder}/{name}"), bytes)?;
            written(source, bytes)
        })
        .map_err(|e| e.context(path.display()))?;
        out.write(&format!("{folder}/config.json"), &pretty(&config)?)?;
        beside::carry(slot, path, folder, out)?;
        Ok(merged.as_ref().map_or(0, Merged::count))
    }

    /// Makes what lies beside the components, and the manifest, once all of them are made. It reads the small files of the sources
    /// alone.
    pub fn finish(&self, out: &dyn Output) -> Result<()> {
        let steps = self.steps()?;
        beside::tokenizer(self, out)?;
        beside::index(self, out)?;
        if self.arc2face {
            // The text and the word are the encoder's own defaults.
            out.write("arc2face/config.json", &pretty(&json!({ "model_type": "arc2face" }))?)?;
        }
        if !steps.iter().any(|step| step.slot == Slot::Unet) {
            scheduler::write(self, None, out)?;
        }
        beside::defaults(self, out)?;
        let mut card = self.card.clone();
        card.provenance.insert("conversion".to_owned(), provenance(self, &steps));
        out.write(Manifest::NAME, &Manifest::build(&out.files(), card)?.to_json()?)
    }
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
fn refuse_loras(plan: &Plan) -> Result<()> {
    for adapter in &plan.adapters {
        if Checkpoint::open(&adapter.path)?.names().iter().any(|name| ip_adapter::is_lora(name)) {
            return Err(Error::input(
                "convert-config",
                format!("{} brings a LoRA for a unet that is not converted with it", adapter.path.display()),
                "give --base or --unet as well: the LoRA is merged into it",
            ));
        }
    }
    Ok(())
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
    watch: Watch<'a>,
    component: &'a str,
}

impl Watched<'_> {
    fn told(&self, name: &str) -> Result<()> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        (self.watch.tell)(self.component, name);
        Ok(())
    }
}

impl TensorSource for Watched<'_> {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.told(name)?;
        self.source.read(name)
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let blocks = self.source.blocks(name)?;
        if blocks.is_some() {
            self.told(name)?;
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

fn provenance(plan: &Plan, steps: &[Step]) -> Value {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let sources: BTreeMap<_, _> =
        steps.iter().map(|step| (step.component.clone(), name(&step.path))).collect();
    let loras: Vec<_> =
        plan.loras.iter().map(|(path, scale)| json!({ "file": name(path), "scale": scale })).collect();
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
