//! Which files of a folder hold its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use facestudio::error::{Error, Result};
use facestudio::internal::{WEIGHT_ENDINGS, WeightName, check_listed, missing_piece, preferred};
use facestudio::weights::open_file;

/// Longest index of a checkpoint in pieces.
const MOST_INDEX: u64 = 64 << 20;
/// What diffusers and transformers call their files of weights.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];
/// What trainers leave beside weights.
const NO_WEIGHTS: [&str; 5] = ["optimizer", "scheduler", "training_args", "scaler", "rng_state"];

/// The files that hold a folder's weights: one, or pieces with an index or by their numbers. Safetensors are preferred to
/// PyTorch's files, the usual names to all others, and files without a variant (`fp16` and so on) to one.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: &std::io::Error| Error::io(folder.display(), e);
    let entries = std::fs::read_dir(folder).map_err(|e| failed(&e))?;
    let names = entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()));
    let names: BTreeSet<String> = names.collect::<std::io::Result<_>>().map_err(|e| failed(&e))?;
    let files: Vec<WeightName> = names.iter().filter_map(|name| WeightName::parse(name)).collect();
    for ending in WEIGHT_ENDINGS {
        let of_ending = files.iter().filter(|file| file.ending == ending && !NO_WEIGHTS.contains(&file.stem));
        let mut by_stem: BTreeMap<&str, Vec<WeightName>> = BTreeMap::new();
        of_ending.for_each(|file| by_stem.entry(file.stem).or_default().push(*file));
        if let Some(usual) = STEMS.iter().find_map(|stem| by_stem.get(stem)) {
            return chosen(folder, usual);
        }
        let mut others = by_stem.values();
        match (others.next(), others.next()) {
            (None, _) => {}
            (Some(one), None) => return chosen(folder, one),
            (Some(first), Some(second)) => return Err(ambiguous(folder, &first[0], &second[0])),
        }
    }
    Err(Error::weights(
        "weights-missing",
        format!("{} holds no .{} file", folder.display(), WEIGHT_ENDINGS.join(", .")),
        "point to the file, or to the folder that holds it",
    ))
}

/// Of the files of one stem and ending those to read.
fn chosen(folder: &Path, files: &[WeightName]) -> Result<Vec<PathBuf>> {
    let taken = preferred(files);
    if let Some(other) = taken.iter().find(|file| file.variant != taken[0].variant) {
        return Err(ambiguous(folder, &taken[0], other));
    }
    if let Some(index) = taken.iter().find(|file| file.index) {
        let named = indexed(folder, index.name)?;
        let variants: Vec<WeightName> =
            files.iter().filter(|file| file.variant != index.variant).copied().collect();
        // An index is small: it is there also where another variant was fetched.
        let there = variants.is_empty() || named.iter().all(|file| file.is_file());
        return if there { Ok(named) } else { chosen(folder, &variants) };
    }
    let (pieces, whole): (Vec<_>, Vec<_>) = taken.into_iter().partition(|file| file.piece.is_some());
    if let Some(whole) = whole.first() {
        return Ok(vec![folder.join(whole.name)]);
    }
    match missing_piece(&pieces) {
        None => Ok(pieces.iter().map(|file| folder.join(file.name)).collect()),
        Some(absent) => Err(Error::weights(
            "weights-missing",
            format!("{} holds {}, but not {absent}", folder.display(), pieces[0].name),
            "fetch the checkpoint again",
        )),
    }
}

fn ambiguous(folder: &Path, first: &WeightName, second: &WeightName) -> Error {
    Error::weights(
        "weights-ambiguous",
        format!("{} holds {}, {}", folder.display(), first.name, second.name),
        "keep the one to be converted, or name it instead of the folder",
    )
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that an index names: Hugging Face's `weight_map`, from tensors to files.
fn indexed(folder: &Path, index: &str) -> Result<Vec<PathBuf>> {
    let path = folder.join(index);
    let invalid = |reason: String| {
        Error::weights("weights-index", format!("{}: {reason}", path.display()), "fetch the checkpoint again")
    };
    check_listed(&path)?;
    let file = open_file(&path)?;
    let index: Index =
        serde_json::from_reader(BufReader::new(file.take(MOST_INDEX))).map_err(|e| invalid(e.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(outside) = files.iter().find(|name| name.contains(['/', '\\', ':']) || name.starts_with('.'))
    {
        return Err(invalid(format!("'{outside}' is no file beside it")));
    }
    if files.is_empty() {
        return Err(invalid("it names no file".to_owned()));
    }
    Ok(files.into_iter().map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of empty files, and what is read of it.
    fn read(names: &[&str]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let text = if name.ends_with("index.json") || name.contains(".index.") {
                let fp16 = if name.contains("fp16") { ".fp16" } else { "" };
                let end = if name.contains(".bin.") { "bin" } else { "safetensors" };
                let piece = |i: usize| format!("model-0000{i}-of-00002{fp16}.{end}");
                serde_json::json!({ "weight_map": { "a": piece(1), "b": piece(2) } }).to_string()
            } else {
                String::new()
            };
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let files = weight_files(folder.path())?;
        Ok(files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn pieces_and_variants_are_found_by_every_name_that_libraries_write() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["model.SAFETENSORS", "config.json"], &["model.SAFETENSORS"]),
            (&["model.fp16.safetensors", "model.non_ema.safetensors"], &["model.fp16.safetensors"]),
            (&["model.non_ema.bin"], &["model.non_ema.bin"]),
            (&["pytorch_model.bin", "optimizer.pt", "scheduler.pt"], &["pytorch_model.bin"]),
            (&["weights.pth"], &["weights.pth"]),
            (
                &[
                    "model.safetensors.index.fp16.json",
                    "model-00001-of-00002.fp16.safetensors",
                    "model-00002-of-00002.fp16.safetensors",
                ],
                &["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"],
            ),
            (
                &[
                    "model.bin.fp16.index.json",
                    "model-00001-of-00002.fp16.bin",
                    "model-00002-of-00002.fp16.bin",
                ],
                &["model-00001-of-00002.fp16.bin", "model-00002-of-00002.fp16.bin"],
            ),
            // An index without its pieces, beside a variant that is there.
            (&["model.safetensors.index.json", "model.fp16.safetensors"], &["model.fp16.safetensors"]),
            // Without an index, as this program writes them.
            (
                &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
                &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ),
            (
                &["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
                &["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
            ),
        ];
        for (names, expected) in cases {
            assert_eq!(read(names).unwrap(), *expected, "{names:?}");
        }
    }

    #[test]
    fn what_is_not_there_and_what_could_be_either_is_named() {
        let cases: [(&[&str], &str, &str); 5] = [
            (&["config.json"], "weights-missing", ".safetensors"),
            (&["optimizer.pt"], "weights-missing", ".pt"),
            (&["model-00001-of-00002.safetensors"], "weights-missing", "model-00002-of-00002.safetensors"),
            (&["model.bf16.safetensors", "model.fp16.safetensors"], "weights-ambiguous", "model.bf16"),
            (&["encoder.pth", "decoder.pth"], "weights-ambiguous", "encoder.pth"),
        ];
        for (names, code, part) in cases {
            let error = read(names).unwrap_err();
            assert!(error.code == code && error.message.contains(part), "{names:?}: {error}");
        }
    }
}
