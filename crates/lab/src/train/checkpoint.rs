//! What a run needs to go on as if it had never stopped.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::optim::AdamW;
use facestudio::error::{Error, Result};
use facestudio::internal::{check_finite, sync_folder};
use facestudio::weights::{SafetensorsFile, Tensors, apply, collect, sha256_file, write_file, write_tensors};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "progress.json";
/// The hashes of the others.
const SUMS: &str = "SHA256SUMS";

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
    write(&new.join(MODEL), model)?;
    write_tensors(&new.join(OPTIMIZER), &state)?;
    let json = serde_json::to_vec(&progress).map_err(|e| Error::internal("json", e.to_string()))?;
    write_file(&new.join(PROGRESS), &json)?;
    write_file(&new.join(SUMS), sums(&new)?.as_bytes())?;
    remove(&old)?;
    if current.exists() {
        fs::rename(&current, &old).map_err(|e| Error::io(current.display(), &e))?;
    }
    fs::rename(&new, &current)
        .and_then(|()| sync_folder(folder))
        .map_err(|e| Error::io(new.display(), &e))?;
    remove(&old)
}

/// The hashes of a checkpoint's files, as `sha256sum` lists them.
fn sums(folder: &Path) -> Result<String> {
    let line = |name| Ok(format!("{}  {name}\n", sha256_file(&folder.join(name))?));
    [MODEL, OPTIMIZER, PROGRESS].into_iter().map(line).collect()
}

/// Reads `<folder>/checkpoint` (or the one before, if the last session died between two renames) into `model` and
/// `optimizer`.
///
/// Fails with `checkpoint` where a file is not what was written, and with `not-finite` where training diverged.
pub fn load<M: Module>(folder: &Path, model: M, optimizer: &mut AdamW) -> Result<(M, Progress)> {
    let mut from = folder.join("checkpoint");
    if !from.exists() {
        from = folder.join("checkpoint.old");
    }
    verify(&from)?;
    let json = read(&from.join(PROGRESS))?;
    let progress: Progress =
        serde_json::from_slice(&json).map_err(|e| damaged(format!("{}: {e}", from.display())))?;
    let weights = tensors(&from.join(MODEL))?;
    for (name, (_, values)) in &weights.0 {
        check_finite(name, values).map_err(|e| e.context(from.display()))?;
    }
    optimizer.restore(progress.updates, tensors(&from.join(OPTIMIZER))?, &weights)?;
    let model = apply(model, &weights, "")
        .map_err(|e| damaged(format!("{} is not of this network: {}", from.display(), e.message)))?;
    Ok((model, progress))
}

fn damaged(message: String) -> Error {
    Error::weights("checkpoint", message, "start the run again without --resume")
}

/// Holds a checkpoint's files against their hashes.
fn verify(folder: &Path) -> Result<()> {
    let path = folder.join(SUMS);
    let listed = match fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::weights(
                "checkpoint",
                format!("{} is missing: nothing says that the checkpoint is whole", path.display()),
                format!(
                    "start the run again without --resume; or, if you trust it, as one of an older version: cd '{}' && \
                     sha256sum {MODEL} {OPTIMIZER} {PROGRESS} > {SUMS}",
                    folder.display()
                ),
            ));
        }
        Err(e) if e.kind() == ErrorKind::InvalidData => String::new(),
        listed => listed.map_err(|e| Error::io(path.display(), &e))?,
    };
    let found = sums(folder)?;
    let lines = found.lines().zip(listed.lines().chain(std::iter::repeat("")));
    for ((found, listed), name) in lines.zip([MODEL, OPTIMIZER, PROGRESS]) {
        if found != listed {
            let message =
                format!("{} is damaged: its sha256 is not that of {SUMS}", folder.join(name).display());
            return Err(damaged(message));
        }
    }
    if found == listed { Ok(()) } else { Err(damaged(format!("{} is damaged", path.display()))) }
}

/// Writes `model`'s parameters as one safetensors file.
pub fn write<M: Module>(path: &Path, model: &M) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder.display(), &e))?;
    }
    write_tensors(path, &collect(model, "")?.views())
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
