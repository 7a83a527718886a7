//! Named recipes for whole models of published checkpoints: which files, from where, under which licence, and what becomes of them.
//!
//! A recipe is a JSON document, [`Preset`] ([docs/recipes.md](../../../docs/recipes.md)). Those of `models/recipes` are carried; anyone can
//! give another by file. Parts that several share lie in `models/recipes/parts`, and are named in the place of being repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ip_adapter::{Adapter, FaceIdPlus, Role};
use super::scheduler::Sampling;
use super::{Plan, Slot, small_file};
use facestudio::error::{Error, Result};
use facestudio::internal::{is_inside, without_mark};
use facestudio::weights::{ModelCard, People, Quantization};

// RECIPES and PARTS: the documents by their names.
include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// Where repositories without an address of their own are.
const HUB: &str = "huggingface.co";

/// A recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What it is called on the command line, and the model that it makes: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it gives, in words.
    pub says: String,
    /// The model's family, as its manifest has it.
    pub family: String,
    /// Which people the model has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people: Option<People>,
    /// Whether UNet and text encoder are Arc2Face's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub arc2face: bool,
    /// Which FaceID-Plus an adapter is, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub face_id_plus: Option<FaceIdPlus>,
    /// How it samples, where the base does not say or says otherwise.
    #[serde(default)]
    pub sampling: Sampling,
    /// Everything to fetch: parts, or the names of carried ones.
    #[serde(deserialize_with = "parts")]
    pub parts: Vec<Part>,
}

/// Files of one repository that become one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What it is, in words.
    pub what: String,
    /// The repository's owner and name; its files lie below a folder of this name.
    pub repository: String,
    /// The commit, branch or tag of a repository on the hub; `main` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What stands before the files' paths, where they are not on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The archive that holds the files, which is fetched and opened by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// An SPDX expression, as its publisher states it; what counts is what stands beside the files.
    pub license: String,
    /// Where that can be read.
    pub license_url: String,
    /// Whether it is for research only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub research_only: bool,
    /// What is made of it.
    pub becomes: Becomes,
    /// Its files.
    pub files: Vec<SourceFile>,
}

/// One published file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Inside the repository.
    pub path: String,
    /// Its size, where public material gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// About how large it is, where that is computed from its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about_bytes: Option<u64>,
    /// Its SHA-256 in lower-case hexadecimal, where public material gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a part becomes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Becomes {
    /// Files of a diffusers folder that is converted whole.
    Base,
    /// The folder of this component.
    Component(Slot),
    /// The one file of this component.
    File(Slot),
    /// An adapter that adds this much.
    Adapter {
        /// Whose picture it reads.
        role: Role,
        /// How much it adds.
        scale: f32,
    },
    /// Updates, of which this much is merged.
    Lora {
        /// How much of them.
        scale: f32,
    },
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Parts as they are, or the names of carried ones.
fn parts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Part>, D::Error> {
    let part = |value: Value| -> Result<Part, D::Error> {
        let Value::String(name) = value else {
            return serde_json::from_value(value).map_err(D::Error::custom);
        };
        let known = PARTS.iter().find(|(known, _)| *known == name);
        let (_, text) = known.ok_or_else(|| D::Error::custom(format!("there is no part '{name}'")))?;
        serde_json::from_str(text).map_err(D::Error::custom)
    };
    Vec::<Value>::deserialize(deserializer)?.into_iter().map(part).collect()
}

impl Preset {
    /// Every carried recipe, by name.
    pub fn all() -> Result<Vec<Self>> {
        RECIPES.iter().map(|(_, text)| Self::parse(text.as_bytes())).collect()
    }

    /// The carried recipe of that name. Fails with `preset`, naming those there are.
    pub fn named(name: &str) -> Result<Self> {
        match RECIPES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text.as_bytes()),
            None => {
                let names: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
                Err(Error::input(
                    "preset",
                    format!("there is no preset '{name}'"),
                    format!("use one of {}, or give a recipe's file: recipe.json", names.join(", ")),
                ))
            }
        }
    }

    /// The recipe in a file. Fails with `preset-invalid` where it is none.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&small_file(path)?).map_err(|e| e.context(path.display()))
    }

    /// The recipe of a JSON document. Fails with `preset-invalid` where it is none.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let preset: Self = serde_json::from_slice(without_mark(json)).map_err(|e| invalid(e.to_string()))?;
        preset.check()?;
        Ok(preset)
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return Err(invalid(format!(
                "'{}' is no name: letters, digits, '-', '_' and '.' are",
                self.name
            )));
        }
        if self.parts.is_empty() {
            return Err(invalid("it has no parts"));
        }
        for part in &self.parts {
            let named = part.repository.split_once('/').is_some_and(|(_, name)| !name.contains('/'));
            if !named || !is_inside(&part.repository) {
                return Err(invalid(format!("'{}' is no repository: owner/name is", part.repository)));
            }
            let addresses = [&part.url, &part.archive].into_iter().flatten().chain([&part.license_url]);
            let is_address =
                |text: &String| ["https://", "http://"].iter().any(|start| text.starts_with(start));
            if let Some(other) = addresses.into_iter().find(|text| !is_address(text)) {
                return Err(invalid(format!("'{other}' is no address: https://… is")));
            }
            if part.files.is_empty() {
                return Err(invalid(format!("'{}' has no files", part.what)));
            }
            for file in &part.files {
                let hash = |text: &String| {
                    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                };
                if !is_inside(&file.path) {
                    return Err(invalid(format!("'{}' is no path inside a repository", file.path)));
                }
                if let Some(other) = file.sha256.as_ref().filter(|text| !hash(text)) {
                    return Err(invalid(format!("'{other}' is no SHA-256: 64 digits in lower case are")));
                }
            }
            if let Becomes::Adapter { scale, .. } | Becomes::Lora { scale } = part.becomes
                && !scale.is_finite()
            {
                return Err(invalid(format!("'{}' has no finite scale", part.what)));
            }
        }
        Ok(())
    }

    /// Everything to fetch, in order, with the part that it belongs to.
    pub fn files(&self) -> impl Iterator<Item = (&Part, &SourceFile)> {
        self.parts.iter().flat_map(|part| part.files.iter().map(move |file| (part, file)))
    }

    /// Bytes to fetch, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.size()).sum()
    }

    /// The licences of all parts, joined as an SPDX expression.
    pub fn license(&self) -> String {
        let mut licenses: Vec<&str> = self.parts.iter().map(|part| part.license.as_str()).collect();
        licenses.sort_unstable();
        licenses.dedup();
        licenses.join(" AND ")
    }

    /// How to convert the files, each at its path below the folder of its part's repository: `folders`, in the order of the parts.
    pub fn plan(&self, folders: &[PathBuf], quantization: Quantization) -> Plan {
        let (mut base, mut parts, mut adapters, mut loras) = (None, Vec::new(), Vec::new(), Vec::new());
        let below = self.parts.iter().zip(folders);
        let files = below.flat_map(|(part, folder)| part.files.iter().map(move |file| (part, folder, file)));
        for (part, folder, file) in files {
            let path = folder.join(&file.path);
            let parent = path.parent().map(Path::to_owned).unwrap_or_default();
            match part.becomes {
                Becomes::Base => base = Some(folder.clone()),
                Becomes::Component(slot) => {
                    // A component's files lie in one folder.
                    if !parts.contains(&(slot, parent.clone())) {
                        parts.push((slot, parent));
                    }
                }
                Becomes::File(slot) => parts.push((slot, path)),
                Becomes::Adapter { role, scale } => {
                    adapters.push(Adapter { path, role, scale, block_scales: BTreeMap::new() });
                }
                Becomes::Lora { scale } => loras.push((path, scale)),
            }
        }
        Plan {
            base,
            parts,
            adapters,
            arc2face: self.arc2face,
            face_id_plus: self.face_id_plus,
            loras,
            sampling: self.sampling,
            quantization,
            card: ModelCard {
                name: self.name.clone(),
                family: self.family.clone(),
                version: "1".to_owned(),
                license: self.license(),
                people: self.people,
                ..ModelCard::default()
            },
            ..Plan::default()
        }
    }
}

impl Part {
    /// Where a file of it is looked for below `folder`.
    pub fn at(&self, folder: &Path, file: &SourceFile) -> PathBuf {
        folder.join(&self.repository).join(&file.path)
    }

    /// Where the repository is, for people.
    pub fn host(&self) -> &str {
        self.archive.as_deref().or(self.url.as_deref()).unwrap_or(HUB)
    }
}

impl SourceFile {
    /// Its bytes, or about how many; 0 where nothing is known.
    pub fn size(&self) -> u64 {
        self.bytes.or(self.about_bytes).unwrap_or(0)
    }
}

fn invalid(reason: impl std::fmt::Display) -> Error {
    Error::input(
        "preset-invalid",
        format!("a recipe cannot be read: {reason}"),
        "docs/recipes.md says what a recipe's document holds",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(preset: &Preset) -> Vec<PathBuf> {
        preset.parts.iter().map(|part| Path::new("files").join(&part.repository)).collect()
    }

    #[test]
    fn every_carried_recipe_names_every_component_once() {
        let presets = Preset::all().unwrap();
        assert_eq!(presets.len(), RECIPES.len());
        for (preset, (file, _)) in presets.iter().zip(RECIPES) {
            assert_eq!(preset.name, *file, "a document is called as the recipe in it");
            let plan = preset.plan(&folders(preset), Quantization::Q8);
            let mut slots: Vec<Slot> = plan.parts.iter().map(|(slot, _)| *slot).collect();
            slots.sort();
            slots.dedup();
            assert_eq!(slots.len(), plan.parts.len(), "{file}");
            assert_eq!(Preset::parse(&serde_json::to_vec(preset).unwrap()).unwrap(), *preset, "{file}");
        }
        assert_eq!(Preset::named("sd15").unwrap_err().code, "preset");
    }

    #[test]
    fn stable_diffusions_recipes_are_what_they_say() {
        for (name, slots, adapters, loras) in [
            ("sd15-plus-face", vec![Slot::Detector, Slot::VisionEncoder, Slot::TinyVae], 2, 0),
            (
                "sd15-faceid",
                vec![Slot::Detector, Slot::VisionEncoder, Slot::FaceEncoder, Slot::TinyVae],
                2,
                0,
            ),
            (
                "sd15-arc2face",
                vec![Slot::Detector, Slot::Unet, Slot::TextEncoder, Slot::FaceEncoder, Slot::TinyVae],
                0,
                0,
            ),
            ("sd15-turbo-plus-face", vec![Slot::Detector, Slot::VisionEncoder, Slot::TinyVae], 2, 1),
        ] {
            let preset = Preset::named(name).unwrap();
            let plan = preset.plan(&folders(&preset), Quantization::Q8);
            let repository = Path::new("files/stable-diffusion-v1-5/stable-diffusion-v1-5");
            assert_eq!(plan.base.as_deref(), Some(repository), "{name}");
            assert_eq!(plan.parts.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), slots, "{name}");
            assert_eq!((plan.adapters.len(), plan.loras.len()), (adapters, loras), "{name}");
            assert_eq!(plan.arc2face, name == "sd15-arc2face");
            let research = preset.parts.iter().any(|part| part.research_only);
            assert_eq!(research, preset.license().contains("research-only"), "{name}");
        }
        let turbo = Preset::named("sd15-turbo-plus-face").unwrap().sampling;
        assert_eq!((turbo.steps, turbo.guidance_scale), (Some(4), Some(1.0)));
    }

    #[test]
    fn kleins_recipe_takes_the_whole_folder_and_a_detector() {
        let preset = Preset::named("klein-4b").unwrap();
        let plan = preset.plan(&folders(&preset), Quantization::Q4);
        assert_eq!(plan.base.as_deref(), Some(Path::new("files/black-forest-labs/FLUX.2-klein-4B")));
        assert_eq!(plan.parts.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [Slot::Detector]);
        assert_eq!((plan.card.family.as_str(), preset.license().as_str()), ("klein", "Apache-2.0 AND MIT"));
        let mut files = preset.parts.iter().flat_map(|part| &part.files);
        assert!(files.all(|file| file.bytes.is_some() && file.sha256.is_some()));
    }

    #[test]
    fn what_is_no_recipe_is_refused_by_what_is_wrong() {
        let good: Value = serde_json::from_str(RECIPES[0].1).unwrap();
        let with = |pointer: &str, value: Value| {
            let mut document =
                serde_json::to_value(Preset::parse(good.to_string().as_bytes()).unwrap()).unwrap();
            *document.pointer_mut(pointer).unwrap() = value;
            Preset::parse(document.to_string().as_bytes()).unwrap_err()
        };
        for (pointer, value, part) in [
            ("/name", "../x".into(), "'../x' is no name"),
            ("/parts", serde_json::json!([]), "no parts"),
            ("/parts", serde_json::json!(["none"]), "no part 'none'"),
            ("/parts/0/repository", "a/../b".into(), "no repository"),
            ("/parts/0/repository", "alone".into(), "no repository"),
            ("/parts/0/license_url", "file:///x".into(), "no address"),
            ("/parts/0/files", serde_json::json!([]), "no files"),
            ("/parts/0/files/0/path", "../../x".into(), "no path"),
            ("/parts/0/files/0/path", "/x".into(), "no path"),
            ("/parts/0/files/0/sha256", "ABC".into(), "no SHA-256"),
            ("/parts/0/becomes", serde_json::json!({ "component": "ip_adapter" }), "ip_adapter"),
            ("/sampling", serde_json::json!({ "timestep_spacing": "even" }), "even"),
            ("/sampling", serde_json::json!({ "stepps": 3 }), "stepps"),
        ] {
            let error = with(pointer, value);
            assert!(error.code == "preset-invalid" && error.message.contains(part), "{pointer}: {error}");
        }
        assert_eq!(Preset::parse(b"{").unwrap_err().code, "preset-invalid");
    }
}
