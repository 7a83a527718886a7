//! Named recipes for whole models of published checkpoints: which files, from where, under which licence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ip_adapter::{Adapter, Role};
use super::scheduler::Sampling;
use super::{Plan, Slot};
use facestudio::error::{Error, Result};
use facestudio::sampling::Sampler;
use facestudio::weights::{ModelCard, People, Quantization};

/// A recipe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it gives.
    pub says: &'static str,
    /// Whether UNet and text encoder are Arc2Face's.
    pub arc2face: bool,
    /// How it samples.
    pub sampling: Sampling,
    /// Everything to fetch.
    pub sources: &'static [&'static [Source]],
}

/// One file of a published model repository.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source {
    /// Where the repository is.
    pub host: &'static str,
    /// Its owner and name.
    pub repository: &'static str,
    /// Inside the repository.
    pub path: &'static str,
    /// About how large it is.
    pub megabytes: f64,
    /// As its publisher states it; what counts is what stands beside the file.
    pub license: &'static str,
    /// What is made of it.
    pub kind: SourceKind,
}

/// What a source becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SourceKind {
    /// A file of a diffusers folder that is converted whole.
    Base,
    /// A file of the folder that becomes this component.
    Component(Slot),
    /// The one file of this component.
    File(Slot),
    /// An adapter that adds this much.
    Adapter(Role, f32),
    /// Updates, of which this much is merged.
    Lora(f32),
}

const HUGGING_FACE: &str = "huggingface.co";
const RAIL: &str = "CreativeML-OpenRAIL-M";
const APACHE: &str = "Apache-2.0";

const fn sd15(path: &'static str, megabytes: f64) -> Source {
    let repository = "stable-diffusion-v1-5/stable-diffusion-v1-5";
    Source { host: HUGGING_FACE, repository, path, megabytes, license: RAIL, kind: SourceKind::Base }
}

/// Stable Diffusion 1.5's networks that read and denoise, in half precision. Sizes are those of their parameters: 860 and 123
/// millions of two bytes.
const STABLE_DIFFUSION: &[Source] = &[
    sd15("unet/config.json", 0.0),
    sd15("unet/diffusion_pytorch_model.fp16.safetensors", 1719.0),
    sd15("text_encoder/config.json", 0.0),
    sd15("text_encoder/model.fp16.safetensors", 246.0),
];

/// What its fine-tuned kin share with it; 84 million parameters.
const SHARED: &[Source] = &[
    sd15("vae/config.json", 0.0),
    sd15("vae/diffusion_pytorch_model.fp16.safetensors", 167.0),
    sd15("tokenizer/vocab.json", 1.1),
    sd15("tokenizer/merges.txt", 0.5),
    sd15("scheduler/scheduler_config.json", 0.0),
];

/// YuNet finds the faces of photographs.
const DETECTOR: &[Source] = &[Source {
    host: "github.com, in Git LFS",
    repository: "opencv/opencv_zoo",
    path: "models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
    megabytes: 0.2,
    license: "MIT",
    kind: SourceKind::File(Slot::Detector),
}];

const fn adapter(path: &'static str, megabytes: f64, kind: SourceKind) -> Source {
    Source { host: HUGGING_FACE, repository: "h94/IP-Adapter", path, megabytes, license: APACHE, kind }
}

/// CLIP ViT-H/14, and the adapter for style that reads it, with a little more than half of its weight.
const STYLE: &[Source] = &[
    adapter("models/image_encoder/config.json", 0.0, SourceKind::Component(Slot::VisionEncoder)),
    adapter("models/image_encoder/model.safetensors", 2528.0, SourceKind::Component(Slot::VisionEncoder)),
    adapter("models/ip-adapter_sd15.safetensors", 45.0, SourceKind::Adapter(Role::Style, 0.6)),
];

const PLUS_FACE: &[Source] = &[adapter(
    "models/ip-adapter-plus-face_sd15.safetensors",
    98.0,
    SourceKind::Adapter(Role::Identity, 0.8),
)];

const RESEARCH: &str = "LicenseRef-InsightFace-research-only";

/// FaceID, and the recognition network that it was trained with: with another one it draws somebody else.
const FACE_ID: &[Source] = &[
    Source {
        host: HUGGING_FACE,
        repository: "h94/IP-Adapter-FaceID",
        path: "ip-adapter-faceid_sd15.bin",
        megabytes: 97.0,
        license: RESEARCH,
        kind: SourceKind::Adapter(Role::Identity, 1.0),
    },
    Source {
        host: "github.com, release v0.7, in buffalo_l.zip",
        repository: "deepinsight/insightface",
        path: "buffalo_l/w600k_r50.onnx",
        megabytes: 174.0,
        license: RESEARCH,
        kind: SourceKind::File(Slot::FaceEncoder),
    },
];

const fn arc2face(path: &'static str, megabytes: f64, kind: SourceKind) -> Source {
    Source { host: HUGGING_FACE, repository: "FoivosPar/Arc2Face", path, megabytes, license: "MIT", kind }
}

/// Arc2Face: its UNet and text encoder, of Stable Diffusion 1.5's sizes in single precision, and the recognition network that it
/// was trained with, an `iresnet100` of 65 million parameters.
const ARC2FACE: &[Source] = &[
    arc2face("arc2face/config.json", 0.0, SourceKind::Component(Slot::Unet)),
    arc2face("arc2face/diffusion_pytorch_model.safetensors", 3438.0, SourceKind::Component(Slot::Unet)),
    arc2face("encoder/config.json", 0.0, SourceKind::Component(Slot::TextEncoder)),
    arc2face("encoder/pytorch_model.bin", 492.0, SourceKind::Component(Slot::TextEncoder)),
    arc2face("arcface.onnx", 261.0, SourceKind::File(Slot::FaceEncoder)),
];

const fn taesd(path: &'static str, megabytes: f64) -> Source {
    let kind = SourceKind::Component(Slot::TinyVae);
    Source { host: HUGGING_FACE, repository: "madebyollin/taesd", path, megabytes, license: "MIT", kind }
}

const PREVIEWS: &[Source] = &[taesd("config.json", 0.0), taesd("diffusion_pytorch_model.safetensors", 10.0)];

const LCM: &[Source] = &[Source {
    host: HUGGING_FACE,
    repository: "latent-consistency/lcm-lora-sdv1-5",
    path: "pytorch_lora_weights.safetensors",
    megabytes: 135.0,
    license: "OpenRAIL++",
    kind: SourceKind::Lora(1.0),
}];

/// As the base says.
const BASES: Sampling = Sampling { sampler: None, timestep_spacing: None, steps: None, guidance_scale: None };
/// Between FaceStudio's 3 and the 7.5 of Stable Diffusion's own pipeline.
const GUIDED: Sampling = Sampling { guidance_scale: Some(5.0), ..BASES };

/// Every recipe.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "sd15-plus-face",
        says: "your face by one photo, prompts, style images; 25 steps",
        arc2face: false,
        sampling: GUIDED,
        sources: &[STABLE_DIFFUSION, SHARED, DETECTOR, STYLE, PLUS_FACE, PREVIEWS],
    },
    Preset {
        name: "sd15-faceid",
        says: "your face by its ArcFace embedding, so that faces can be mixed; for research only",
        arc2face: false,
        sampling: GUIDED,
        sources: &[STABLE_DIFFUSION, SHARED, DETECTOR, STYLE, FACE_ID, PREVIEWS],
    },
    Preset {
        name: "sd15-arc2face",
        says: "portraits of a face by its ArcFace embedding alone, without prompts or styles; faces can be mixed",
        arc2face: true,
        // As its authors use it: DPM-Solver++, 25 steps, guidance 3.
        sampling: Sampling { sampler: Some(Sampler::Dpmpp2m), ..BASES },
        sources: &[SHARED, DETECTOR, ARC2FACE, PREVIEWS],
    },
    Preset {
        name: "sd15-turbo-plus-face",
        says: "the same in 4 steps, by consistency distillation (LCM-LoRA)",
        arc2face: false,
        // Guidance is distilled into the LoRA.
        sampling: Sampling {
            sampler: Some(Sampler::Lcm),
            steps: Some(4),
            guidance_scale: Some(1.0),
            ..BASES
        },
        sources: &[STABLE_DIFFUSION, SHARED, DETECTOR, STYLE, PLUS_FACE, PREVIEWS, LCM],
    },
];

impl Preset {
    /// The recipe of that name. Fails with `preset`, naming those there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            Error::input(
                "preset",
                format!("there is no preset '{name}'"),
                format!("use one of {}", names.join(", ")),
            )
        })
    }

    /// Everything to fetch, in order.
    pub fn files(&self) -> impl Iterator<Item = &'static Source> {
        self.sources.iter().copied().flatten()
    }

    /// The licences of all sources, joined as an SPDX expression.
    pub fn license(&self) -> String {
        let mut licenses: Vec<&str> = self.files().map(|source| source.license).collect();
        licenses.sort_unstable();
        licenses.dedup();
        licenses.join(" AND ")
    }

    /// How to convert the files below `folder`, each at its repository's name and its path.
    pub fn plan(&self, folder: &Path, quantization: Quantization) -> Plan {
        let (mut base, mut parts, mut adapters, mut loras) = (None, Vec::new(), Vec::new(), Vec::new());
        for source in self.files() {
            let path = source.at(folder);
            let parent = path.parent().map(Path::to_owned).unwrap_or_default();
            match source.kind {
                SourceKind::Base => base = Some(folder.join(source.repository)),
                SourceKind::Component(slot) => {
                    // A component's files lie in one folder.
                    if !parts.contains(&(slot, parent.clone())) {
                        parts.push((slot, parent));
                    }
                }
                SourceKind::File(slot) => parts.push((slot, path)),
                SourceKind::Adapter(role, scale) => {
                    adapters.push(Adapter { path, role, scale, block_scales: BTreeMap::new() });
                }
                SourceKind::Lora(scale) => loras.push((path, scale)),
            }
        }
        Plan {
            base,
            parts,
            adapters,
            arc2face: self.arc2face,
            face_id_plus: None,
            tokenizer: None,
            loras,
            clip_act: "quick_gelu".to_owned(),
            prediction_type: None,
            sampling: self.sampling,
            quantization,
            card: ModelCard {
                name: self.name.to_owned(),
                family: "sd15".to_owned(),
                version: "1".to_owned(),
                license: self.license(),
                people: Some(People::Photographed),
                ..ModelCard::default()
            },
        }
    }
}

impl Source {
    /// Where it is looked for below `folder`.
    pub fn at(&self, folder: &Path) -> PathBuf {
        folder.join(self.repository).join(self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_names_every_part_once() {
        for preset in PRESETS {
            let plan = preset.plan(Path::new("files"), Quantization::Q8);
            let repository = "files/stable-diffusion-v1-5/stable-diffusion-v1-5";
            assert_eq!(plan.base.as_deref(), Some(Path::new(repository)));
            let slots: Vec<Slot> = plan.parts.iter().map(|(slot, _)| *slot).collect();
            let expected = match preset.name {
                "sd15-faceid" => vec![Slot::Detector, Slot::VisionEncoder, Slot::FaceEncoder, Slot::TinyVae],
                "sd15-arc2face" => {
                    vec![Slot::Detector, Slot::Unet, Slot::TextEncoder, Slot::FaceEncoder, Slot::TinyVae]
                }
                _ => vec![Slot::Detector, Slot::VisionEncoder, Slot::TinyVae],
            };
            assert_eq!(slots, expected, "{}", preset.name);
            assert_eq!(plan.arc2face, preset.name == "sd15-arc2face");
            assert_eq!(plan.adapters.len(), if plan.arc2face { 0 } else { 2 });
            assert_eq!(plan.loras.len(), usize::from(preset.name.contains("turbo")));
        }
        assert_eq!(Preset::named("sd15").unwrap_err().code, "preset");
    }
}
