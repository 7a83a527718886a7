//! What a run needs to go on as if it had never stopped.

use std::fs;
use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::optim::AdamW;
use crate::error::{Error, Result};
use crate::weights::{SafetensorsFile, Tensors, apply, collect, write_file, write_tensors};

/// Where a run stands, beside its tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Updates that the optimiser made (a step with an infinite gradient makes none).
    pub updates: u64,
    /// Seconds of training done, over all sessions.
    pub elapsed: f64,
    /// The run's seed.
    pub seed: u64,
    /// `(step, loss)`, smoothed, thinned as the run grows.
    pub losses: Vec<(u64, f32)>,
}

/// Writes `<folder>/checkpoint`. The new one is complete before it takes the old one's place.
pub fn save<M: Module>(folder: &Path, model: &M, optimizer: &AdamW, progress: &Progress) -> Result<()> {
    let (new, current, old) =
        (folder.join("checkpoint.new"), folder.join("checkpoint"), folder.join("checkpoint.old"));
    remove(&new)?;
    fs::create_dir_all(&new).map_err(|e| Error::io(new.display(), &e))?;
    // `valid` folds what the last forward passes gathered into the running statistics.
    drop(model.valid());
    let (updates, state) = optimizer.state();
    let progress = Progress { updates, ..progress.clone() };
    write(&new.join("model.safetensors"), model)?;
    write_tensors(&new.join("optimizer.safetensors"), &state)?;
    let json = serde_json::to_vec(&progress).map_err(|e| Error::internal("json", e.to_string()))?;
    write_file(&new.join("progress.json"), &json)?;
    remove(&old)?;
    if current.exists() {
        fs::rename(&current, &old).map_err(|e| Error::io(current.display(), &e))?;
    }
    fs::rename(&new, &current).map_err(|e| Error::io(new.display(), &e))?;
    remove(&old)
}

/// Reads `<folder>/checkpoint` (or the one before, if the last session died between two renames) into `model` and
/// `optimizer`.
pub fn load<M: Module>(folder: &Path, model: M, optimizer: &mut AdamW) -> Result<(M, Progress)> {
    let mut from = folder.join("checkpoint");
    if !from.exists() {
        from = folder.join("checkpoint.old");
    }
    let json = read(&from.join("progress.json"))?;
    let progress: Progress = serde_json::from_slice(&json).map_err(|e| {
        Error::weights(
            "checkpoint",
            format!("{}: {e}", from.display()),
            "start the run again without --resume",
        )
    })?;
    let weights = tensors(&from.join("model.safetensors"))?;
    optimizer.restore(progress.updates, tensors(&from.join("optimizer.safetensors"))?, &weights)?;
    let model = apply(model, &weights, "").map_err(|e| {
        let message = format!("{} is not of this network: {}", from.display(), e.message);
        Error::weights("checkpoint", message, "start the run again without --resume")
    })?;
    Ok((model, progress))
}

/// Writes `model`'s parameters as one safetensors file.
pub fn write<M: Module>(path: &Path, model: &M) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder.display(), &e))?;
    }
    write_tensors(path, &collect(model, "")?.views())
}

/// As `write`, of a component of a model folder. What it takes the place of goes: the
/// component's other weights, and the folder's manifest, which would call the new ones damaged.
pub fn export<M: Module>(path: &Path, model: &M) -> Result<()> {
    write(path, model)?;
    let Some(component) = path.parent() else { return Ok(()) };
    let listed = fs::read_dir(component).map_err(|e| Error::io(component.display(), &e))?;
    let others = listed
        .flatten()
        .map(|entry| entry.path())
        .filter(|other| other != path && other.to_str().is_some_and(|name| name.ends_with(".safetensors")));
    let manifest = component.parent().map(|model| model.join("manifest.json")).filter(|path| path.exists());
    for stale in others.chain(manifest) {
        fs::remove_file(&stale).map_err(|e| Error::io(stale.display(), &e))?;
    }
    Ok(())
}

/// Writes a config as indented JSON.
pub fn export_json(path: &Path, config: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder.display(), &e))?;
    }
    let mut json = serde_json::to_vec_pretty(config).map_err(|e| Error::internal("json", e.to_string()))?;
    json.push(b'\n');
    write_file(path, &json)
}

fn tensors(path: &Path) -> Result<Tensors> {
    SafetensorsFile::new(read(path)?)
        .and_then(SafetensorsFile::into_tensors)
        .map_err(|e| e.context(path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io(path.display(), &e))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| Error::io(folder.display(), &e))?;
    }
    Ok(())
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::nn::LinearConfig;

    #[test]
    fn a_trained_component_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("unet")).unwrap();
        for old in [
            "manifest.json",
            "unet/config.json",
            "unet/model-00001-of-00002.safetensors",
            "unet/new.safetensors",
        ] {
            fs::write(at(old), "old").unwrap();
        }
        export(&at("unet/new.safetensors"), &LinearConfig::new(2, 3).init(&Device::flex())).unwrap();
        let mut left: Vec<_> = fs::read_dir(at("unet")).unwrap().map(|f| f.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["config.json", "new.safetensors"]);
        assert!(!at("manifest.json").exists());
        assert!(tensors(&at("unet/new.safetensors")).is_ok());
    }
}
