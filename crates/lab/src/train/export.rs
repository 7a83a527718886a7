//! A stage's networks into a model folder, all of them or none.
//!
//! They are written beside their places first, in [`EXPORT`](facestudio::internal::EXPORT), which gets that name when it is whole. From
//! then on the export counts as made: it is moved file by file, and where that is interrupted, the folder says so to whoever
//! opens it ([`CheckedFolder`](facestudio::weights::CheckedFolder)), and [`finish`] goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use facestudio::error::{Error, Result};
use facestudio::internal::{EXPORT, check_finite, is_inside, sync_folder, tensors_into};
use facestudio::weights::{Manifest, NewFolder, collect, write_folder, writing};

/// What is to be done, beside the files.
const PLAN: &str = "plan.json";

/// What an export does to the model folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Plan {
    /// What goes, by path in the model folder.
    remove: BTreeSet<String>,
    /// What comes.
    files: BTreeSet<String>,
}

/// New files on their way into a model folder.
pub struct Export<'a> {
    new: &'a NewFolder<'a>,
    plan: Plan,
}

impl Export<'_> {
    /// A config at `path` in the model folder, as indented JSON.
    pub fn json(&mut self, path: &str, config: &impl Serialize) -> Result<()> {
        let mut json =
            serde_json::to_vec_pretty(config).map_err(|e| Error::internal("json", e.to_string()))?;
        json.push(b'\n');
        self.plan.files.insert(path.to_owned());
        self.new.write(path, &json)
    }

    /// `model`'s parameters as the safetensors file at `path`, in the place of all others beside it. Fails with `not-finite`
    /// where training diverged.
    pub fn weights<M: Module>(&mut self, path: &str, model: &M) -> Result<()> {
        let tensors = collect(model, "")?;
        let mut values = tensors.0.iter();
        values.try_for_each(|(name, (_, values))| check_finite(name, values)).map_err(|e| e.context(path))?;
        self.plan.files.insert(path.to_owned());
        self.new.write_by(path, tensors_into(&tensors.views())?)
    }

    /// Removes what is at `path` in the model folder.
    pub fn remove(&mut self, path: &str) {
        self.plan.remove.insert(path.to_owned());
    }

    /// Adds what the new files take the place of: other weights beside theirs, and the folder's manifest, which would call them
    /// damaged.
    fn replace(&mut self, out: &Path) -> Result<()> {
        for path in self.plan.files.iter().filter(|path| path.ends_with(".safetensors")) {
            let folder = folder_of(path);
            let others = match fs::read_dir(out.join(folder)) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                others => others.map_err(|e| Error::io(out.join(folder).display(), &e))?,
            };
            let names = others.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let weights = names.filter(|name| name.ends_with(".safetensors"));
            self.plan.remove.extend(weights.map(|name| format!("{folder}/{name}")));
        }
        self.plan.remove.insert(Manifest::NAME.to_owned());
        self.plan.remove.retain(|path| !self.plan.files.contains(path));
        Ok(())
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Puts what `fill` says into the model folder `out`, all of it or nothing.
pub fn export(out: &Path, fill: impl FnOnce(&mut Export) -> Result<()>) -> Result<()> {
    finish(out)?;
    write_folder(&out.join(EXPORT), |new| {
        let mut export = Export { new, plan: Plan::default() };
        fill(&mut export)?;
        export.replace(out)?;
        export.plan.files.iter().try_for_each(|path| check_place(out, path))?;
        let plan = serde_json::to_vec(&export.plan).map_err(|e| Error::internal("json", e.to_string()))?;
        new.write(PLAN, &plan)
    })?;
    finish(out)
}

/// Fails where a file cannot be put at `path`, before anything is moved: a folder is in its place, or a link leads out of `out`.
fn check_place(out: &Path, path: &str) -> Result<()> {
    let (place, folder) = (out.join(path), out.join(folder_of(path)));
    if place.is_dir() {
        let message = format!("{} is a folder: a file is to go there", place.display());
        return Err(Error::input("output-exists", message, "remove it, or train into another folder"));
    }
    if fs::symlink_metadata(&folder).is_err() {
        return Ok(());
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(|e| Error::io(path.display(), &e));
    if real(&folder)?.starts_with(real(out)?) {
        return Ok(());
    }
    Err(Error::weights(
        "link-outside",
        format!("{} is a link out of the folder: what it leads to would be overwritten", folder.display()),
        "put a folder in the link's place, or train into another one",
    ))
}

/// Goes on with an export into `out` that was interrupted, if there is one.
pub fn finish(out: &Path) -> Result<()> {
    let staged = out.join(EXPORT);
    let json = match fs::read(staged.join(PLAN)) {
        Err(e) if e.kind() == ErrorKind::NotFound && !staged.exists() => return Ok(()),
        json => json.map_err(|e| Error::io(staged.join(PLAN).display(), &e))?,
    };
    let damaged = |reason: String| {
        let message = format!("{} is no export of ours: {reason}", staged.display());
        Error::weights("export-damaged", message, "remove it, and train the model again")
    };
    let plan: Plan = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    if let Some(outside) = plan.files.iter().chain(&plan.remove).find(|path| !is_inside(path)) {
        return Err(damaged(format!("'{outside}' is no path inside the model")));
    }
    let _writing = writing();
    for path in &plan.remove {
        match fs::remove_file(out.join(path)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(out.join(path).display(), &e)),
            _ => {}
        }
    }
    for path in &plan.files {
        let (from, to) = (staged.join(path), out.join(path));
        if !from.exists() {
            // Moved before the interruption.
            continue;
        }
        let folder = out.join(folder_of(path));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::rename(&from, &to))
            .and_then(|()| sync_folder(&folder))
            .map_err(|e| Error::io(to.display(), &e))?;
    }
    // Under a name that says that it is of no use any more; what is left of it is removed by the next export.
    let done = out.join(format!("{EXPORT}.partial-{}-0", std::process::id()));
    if done.exists() {
        fs::remove_dir_all(&done).map_err(|e| Error::io(done.display(), &e))?;
    }
    sync_folder(out)
        .and_then(|()| fs::rename(&staged, &done))
        .and_then(|()| sync_folder(out))
        .and_then(|()| fs::remove_dir_all(&done))
        .map_err(|e| Error::io(staged.display(), &e))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use burn::tensor::{Device, Tensor};

    use super::*;
    use facestudio::nn::{Linear, LinearConfig};
    use facestudio::weights::{CheckedFolder, Files, SafetensorsFile};

    fn network() -> Linear {
        LinearConfig::new(2, 3).init(&Device::flex())
    }

    /// A model folder with two networks, a manifest and what else may lie there.
    fn model() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        for file in [
            "manifest.json",
            "defaults.json",
            "unet/config.json",
            "unet/model-00001-of-00002.safetensors",
            "unet/new.safetensors",
            "guidance/model.safetensors",
            "vae/model.safetensors",
        ] {
            fs::create_dir_all(out.join(file).parent().unwrap()).unwrap();
            fs::write(out.join(file), "old").unwrap();
        }
        (folder, out)
    }

    fn two(export: &mut Export) -> Result<()> {
        export.json("unet/config.json", &"new")?;
        export.weights("unet/new.safetensors", &network())?;
        export.weights("guidance/model.safetensors", &network())?;
        export.remove("defaults.json");
        Ok(())
    }

    /// All files with what is in them.
    fn all(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let (path, name) = {
                let e = entry.unwrap();
                (e.path(), e.file_name().to_string_lossy().into_owned())
            };
            if path.is_dir() {
                found.extend(all(&path).into_iter().map(|(rest, bytes)| (format!("{name}/{rest}"), bytes)));
            } else {
                found.insert(name, fs::read(path).unwrap());
            }
        }
        found
    }

    #[test]
    fn trained_networks_take_the_places_of_the_old_ones() {
        let (_folder, out) = model();
        export(&out, two).unwrap();
        let files = all(&out);
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let expected = [
            "guidance/model.safetensors",
            "unet/config.json",
            "unet/new.safetensors",
            "vae/model.safetensors",
        ];
        assert_eq!(names, expected);
        for new in ["guidance/model.safetensors", "unet/new.safetensors"] {
            assert!(SafetensorsFile::new(files[new].clone()).is_ok());
        }
        assert_eq!(files["unet/config.json"], b"\"new\"\n");
    }

    #[test]
    fn an_export_that_fails_changes_nothing() {
        let (_folder, out) = model();
        let before = all(&out);
        let mut diverged = network();
        diverged.weight = burn::module::Param::from_tensor(Tensor::full([3, 2], f32::NAN, &Device::flex()));
        let failed = export(&out, |export| {
            two(export)?;
            export.weights("vae/model.safetensors", &diverged)
        });
        let error = failed.unwrap_err();
        assert!(error.code == "not-finite" && error.message.contains("vae/model.safetensors"), "{error}");
        assert_eq!(all(&out), before);
        fs::remove_file(out.join("guidance/model.safetensors")).unwrap();
        fs::create_dir(out.join("guidance/model.safetensors")).unwrap();
        fs::write(out.join("guidance/model.safetensors/x"), "1").unwrap();
        let before = all(&out);
        assert_eq!(export(&out, two).unwrap_err().code, "output-exists");
        assert_eq!(all(&out), before);
    }

    #[cfg(unix)]
    #[test]
    fn an_export_does_not_follow_links_out_of_the_folder() {
        let (folder, out) = model();
        let other = folder.path().join("other");
        fs::rename(out.join("unet"), &other).unwrap();
        std::os::unix::fs::symlink(&other, out.join("unet")).unwrap();
        let before = all(&other);
        assert_eq!(export(&out, two).unwrap_err().code, "link-outside");
        assert_eq!(all(&other), before);
    }

    /// Killed after each of its moves, an export is told of by whoever opens the folder, and then gone on with.
    #[test]
    fn an_interrupted_export_is_told_and_finished() {
        let (_folder, whole) = model();
        export(&whole, two).unwrap();
        let names: Vec<String> = all(&whole).into_keys().collect();
        for moved in 0..=3 {
            let (_folder, out) = model();
            let staged = out.join(EXPORT);
            write_folder(&staged, |new| {
                let mut export = Export { new, plan: Plan::default() };
                two(&mut export)?;
                export.replace(&out)?;
                new.write(PLAN, &serde_json::to_vec(&export.plan).unwrap())
            })
            .unwrap();
            let moves = ["guidance/model.safetensors", "unet/config.json", "unet/new.safetensors"];
            let bytes = moves.map(|path| fs::read(staged.join(path)).unwrap());
            for path in &moves[..moved] {
                fs::rename(staged.join(path), out.join(path)).unwrap();
            }
            for opened in [
                CheckedFolder::new(&out).read("unet/config.json"),
                CheckedFolder::new(out.join("vae")).read("x"),
            ] {
                let error = opened.unwrap_err();
                assert_eq!(
                    (error.code, error.fault),
                    ("export-unfinished", facestudio::error::Fault::Weights)
                );
            }
            finish(&out).unwrap();
            assert_eq!(all(&out).into_keys().collect::<Vec<_>>(), names, "{moved}");
            assert_eq!(moves.map(|path| fs::read(out.join(path)).unwrap()), bytes);
            assert!(CheckedFolder::new(&out).read("unet/config.json").is_ok());
            finish(&out).unwrap();
        }
    }

    #[test]
    fn a_strangers_plan_reaches_nothing_outside() {
        let (folder, out) = model();
        fs::write(folder.path().join("victim"), "1").unwrap();
        fs::create_dir(out.join(EXPORT)).unwrap();
        for plan in [r#"{"remove": ["../victim"], "files": []}"#, r#"{"remove": [], "files": ["/x"]}"#, "{"] {
            fs::write(out.join(EXPORT).join(PLAN), plan).unwrap();
            assert_eq!(finish(&out).unwrap_err().code, "export-damaged", "{plan}");
        }
        assert!(folder.path().join("victim").exists());
    }
}
