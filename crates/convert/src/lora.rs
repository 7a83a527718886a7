//! Low-rank updates (Hu et al. 2021) and their kin merged into the weights they were trained for: `W + scale · factor · up · down`, where
//! the factor is `alpha / rank` or what the file's settings make of them. `update.rs` has the arithmetic of every kind.
//!
//! kohya's header says `ss_network_alpha` too. It is not read, as by kohya's own programs: the tensors `alpha` say it, and a file
//! without them has the factor 1.

mod config;
mod modules;
mod names;
mod update;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use config::Config;
pub use names::Network;

use super::checkpoint::Checkpoint;
use super::small_file;
use facestudio::error::{Error, Result};
use facestudio::weights::{Blocks, TensorSource};
use modules::Modules;
use names::{Layer, LoraTensor, layers, mismatch};
use update::{Delta, Magnitude, Update};

/// What diffusers and peft call their files, in the order in which they are looked for.
const FILES: [&str; 4] = [
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
];
/// peft's settings, beside its file.
const SETTINGS: &str = "adapter_config.json";
/// How far a factor may be off that is stored as bf16.
const ROUNDING: f64 = 1e-2;
/// How names of tensors begin in peft's files.
const PEFT: &str = "base_model.model.";

/// Opens a LoRA's file, or the one in a folder of diffusers or peft, with its settings: those in its header, or in peft's
/// file beside it.
pub fn open(path: &Path) -> Result<(Checkpoint, Config)> {
    let inside = FILES.iter().map(|name| path.join(name)).find(|file| file.is_file());
    let file: PathBuf = inside.unwrap_or_else(|| path.to_owned());
    let checkpoint = Checkpoint::open(&file)?;
    if let Some(settings) = checkpoint.metadata(config::HEADER) {
        let config = Config::parse(settings).map_err(|e| e.context(file.display()))?;
        return Ok((checkpoint, config));
    }
    let folder = if file.is_dir() { Some(&*file) } else { file.parent() };
    let beside = folder.map(|folder| folder.join(SETTINGS)).filter(|beside| beside.is_file());
    let is_peft = file.file_stem().is_some_and(|stem| stem == "adapter_model")
        || checkpoint.names().iter().any(|name| name.starts_with(PEFT));
    let Some(beside) = beside.filter(|_| is_peft) else { return Ok((checkpoint, Config::default())) };
    let config = String::from_utf8(small_file(&beside)?)
        .map_err(|_| Error::weights("lora-config", "it is no text", "use the file as peft saved it"))
        .and_then(|settings| Config::parse(&settings));
    Ok((checkpoint, config.map_err(|e| e.context(beside.display()))?))
}

/// What the names of a file's tensors say of it.
pub struct Described {
    /// What its updates are, in words.
    pub kind: &'static str,
    /// Whose layers they are of.
    pub networks: Vec<Network>,
    /// Why it cannot be merged, if it cannot.
    pub refused: Option<String>,
}

/// What a file with tensors of these names updates, and how; `None` where it is no file of updates.
pub fn describe(names: &[String]) -> Option<Described> {
    let kinds = names::kinds(names);
    // DoRA is a LoRA, or one of its kin, with a tensor more.
    let dora = kinds.iter().find(|(_, kind)| *kind == names::DORA);
    let &(_, kind) = dora.or_else(|| kinds.iter().max_by_key(|(count, _)| *count))?;
    // Beside them may lie what is not understood, but not a whole network.
    if 2 * kinds.iter().map(|(count, _)| count).sum::<usize>() < names.len() {
        return None;
    }
    let (networks, refused) = match layers(names) {
        Ok(layers) => {
            let of = |network: &Network| layers.iter().any(|layer| layer.network == *network);
            (Network::ALL.into_iter().filter(of).collect(), None)
        }
        Err(error) => (Vec::new(), Some(error.message)),
    };
    Some(Described { kind, networks, refused })
}

/// A file's updates, and how much of them is taken.
pub struct Lora<'a> {
    path: &'a Path,
    source: &'a dyn TensorSource,
    config: &'a Config,
    scale: f32,
    layers: Vec<Layer>,
}

impl<'a> Lora<'a> {
    /// The updates of `source`, the tensors of the file at `path`: `scale` of them (1 takes them as they were trained), with
    /// the settings of `config`.
    ///
    /// Fails with `lora-kind` or `lora-mismatch` if there is a tensor that is not understood.
    pub fn new(path: &'a Path, source: &'a dyn TensorSource, config: &'a Config, scale: f32) -> Result<Self> {
        let layers = layers(&source.names()).map_err(|e| e.context(path.display()))?;
        Ok(Self { path, source, config, scale, layers })
    }

    /// Fails with `lora-mismatch` if it has nothing for any of the networks that were converted.
    pub fn refuse_idle(&self, networks: &[Network]) -> Result<()> {
        if self.layers.iter().any(|layer| networks.contains(&layer.network)) {
            return Ok(());
        }
        let of = self.layers.first().map_or("no network", |layer| layer.network.name());
        let message =
            format!("{} has updates of {of} alone, which is not converted with it", self.path.display());
        Err(Error::weights(
            "lora-mismatch",
            message,
            "convert that network with it: --base, --unet or --text-encoder",
        ))
    }
}

/// A network's weights with updates merged in as they are read.
pub struct Merged<'a> {
    inner: &'a dyn TensorSource,
    updates: BTreeMap<String, Vec<Update<'a>>>,
    layers: usize,
}

impl<'a> Merged<'a> {
    /// `inner` with what `loras` say about `network`.
    ///
    /// Fails with `lora-mismatch` for an update of a layer that `inner` lacks or that has other sides: merging the rest would
    /// give a model that nobody trained. Fails with `lora-config` if a file says two things of an update's strength.
    pub fn new(inner: &'a dyn TensorSource, network: Network, loras: &[&Lora<'a>]) -> Result<Self> {
        let mut merged = Self { inner, updates: BTreeMap::new(), layers: 0 };
        let modules = Modules::new(inner, network);
        for lora in loras {
            merged.add_all(lora, network, &modules).map_err(|e| e.context(lora.path.display()))?;
        }
        Ok(merged)
    }

    fn add_all(&mut self, lora: &Lora<'a>, network: Network, modules: &Modules) -> Result<()> {
        let (mut lost, mut met) = (Vec::new(), BTreeMap::new());
        for layer in lora.layers.iter().filter(|layer| layer.network == network) {
            let Some(module) = modules.find(&layer.module) else {
                lost.push(layer.first());
                continue;
            };
            if let Some(other) = met.insert(module, layer.first()) {
                return Err(mismatch(format!("'{other}' and '{}' both update '{module}'", layer.first())));
            }
            self.add(lora, layer, module)?;
        }
        match lost.first() {
            None => Ok(()),
            Some(first) => {
                let (count, network) = (lost.len(), network.name());
                Err(mismatch(format!("{count} updates have no place in the {network}, '{first}' among them")))
            }
        }
    }

    /// Adds a layer's update for the module that `inner` calls `module`.
    fn add(&mut self, lora: &Lora<'a>, layer: &Layer, module: &str) -> Result<()> {
        let (source, scale, weight) = (lora.source, lora.scale, format!("{module}.weight"));
        let shape = self.inner.shape(&weight).unwrap_or_default();
        let delta = match (Delta::of(layer), layer.name(LoraTensor::Down), layer.name(LoraTensor::Up)) {
            (None, Some(down), Some(up)) => {
                let rank = rank(&shape, &weight, source, [down, up])?;
                Some(Delta::Product { down: down.to_owned(), up: up.to_owned(), rank })
            }
            (delta, ..) => delta,
        };
        let factor = match &delta {
            // A difference is what it is.
            None | Some(Delta::Sum(_)) => 1.0,
            Some(delta) => factor(lora, layer, module, delta.rank(source))?,
        };
        // A bias that was trained with the rest is scaled as that is.
        let biases = [
            (LoraTensor::Bias, factor),
            (LoraTensor::BiasDifference, 1.0),
            (LoraTensor::NormBiasDifference, 1.0),
        ];
        for (tensor, factor) in biases {
            let Some(bias) = layer.name(tensor) else { continue };
            let name = format!("{module}.bias");
            let (ours, theirs) = (self.inner.shape(&name), source.shape(bias));
            if ours != theirs {
                return Err(mismatch(format!("'{bias}' {theirs:?} does not fit the bias {ours:?}")));
            }
            let delta = Delta::Sum(bias.to_owned());
            self.updates.entry(name).or_default().push(Update {
                source,
                delta,
                factor,
                scale,
                magnitude: None,
            });
        }
        if let Some(delta) = delta {
            delta.check(source, &shape, layer)?;
            let magnitude = Magnitude::of(layer, source, &shape)?;
            if magnitude.is_none() && lora.config.is_dora(layer.network) {
                return Err(mismatch(format!(
                    "'{}' has no magnitude, and its settings say DoRA",
                    layer.first()
                )));
            }
            self.updates.entry(weight).or_default().push(Update { source, delta, factor, scale, magnitude });
        }
        self.layers += 1;
        Ok(())
    }

    /// How many updates there are, over all layers.
    pub fn count(&self) -> usize {
        self.layers
    }
}

/// What a layer's update is multiplied with, as a whole.
fn factor(lora: &Lora, layer: &Layer, module: &str, rank: Option<usize>) -> Result<f32> {
    let invalid =
        |message: String| Error::weights("lora-config", message, "use the file as its trainer saved it");
    let said = lora.config.factor(layer.network, module, rank)?;
    let mut by_tensor = None;
    let alpha = layer.name(LoraTensor::Alpha);
    if let Some(name) = alpha {
        let single = lora.source.shape(name).is_some_and(|shape| shape.iter().all(|side| *side == 1));
        let alpha = if single { lora.source.read(name)?.first().copied() } else { None };
        let alpha = alpha.filter(|alpha| alpha.is_finite());
        let alpha = alpha.ok_or_else(|| invalid(format!("'{name}' is no number")))?;
        // LyCORIS writes it also where there is no rank to divide it by, and takes such an update as it is.
        by_tensor = Some(rank.map_or(1.0, |rank| f64::from(alpha) / rank as f64));
    }
    if let (Some(said), Some(tensor), Some(name)) = (said, by_tensor, alpha)
        && (said - tensor).abs() > ROUNDING * tensor.abs()
    {
        return Err(invalid(format!("'{name}' gives its update the factor {tensor}, the header {said}")));
    }
    Ok(by_tensor.or(said).unwrap_or(1.0) as f32)
}

/// The rank of an update: `down` is `[rank, in, …]` as the weight, `up` is `[out, rank]`. Sides of 1 may follow each.
fn rank(weight: &[usize], name: &str, source: &dyn TensorSource, [down, up]: [&str; 2]) -> Result<usize> {
    fn sides(shape: &[usize]) -> &[usize] {
        let ones = shape.iter().rev().take_while(|side| **side == 1).count();
        &shape[..shape.len() - ones]
    }
    let shape = |name: &str| source.shape(name).unwrap_or_default();
    let (of_down, of_up) = (shape(down), shape(up));
    if let (&[out, ref inputs @ ..], &[rank, ref ours @ ..], &[rows, columns, ref rest @ ..]) =
        (weight, &*of_down, &*of_up)
        && (rank, out, sides(inputs)) == (columns, rows, sides(ours))
        && sides(rest).is_empty()
        && rank > 0
    {
        return Ok(rank);
    }
    Err(mismatch(format!(
        "the update '{down}' {of_down:?}, '{up}' {of_up:?} of '{name}' does not fit its weight {weight:?}",
    )))
}

impl TensorSource for Merged<'_> {
    fn names(&self) -> Vec<String> {
        self.inner.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(name)
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        if self.updates.contains_key(name) { Ok(None) } else { self.inner.blocks(name) }
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut weight = self.inner.read(name)?;
        let shape = self.shape(name).unwrap_or_default();
        let mut updates = self.updates.get(name).into_iter().flatten();
        updates.try_for_each(|update| update.apply(&mut weight, &shape))?;
        Ok(weight)
    }
}

#[cfg(test)]
mod tests;
