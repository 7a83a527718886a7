//! Training: one file a stage, its objective beside it, over one loop.
//!
//! ```text
//! synth ─ data::Pictures (rendered once, cached) ─ Step::rng ─ batch ─ objective ─ backward ─ optim::AdamW
//!                                                                                               │
//!                                        run::train: schedule, checkpoints, report, EMA ◄───────┘
//! ```
//!
//! A stage gives [`run::train`] a module and an objective. Everything random in a step is drawn from
//! [`Step::rng`](run::Step::rng), which depends on the seed and the step's number alone: a run that was stopped and
//! resumed is the run that was never stopped. The diffusion stage may make its gradients in parts ([`recompute`]), and says
//! beforehand how much memory it will take ([`memory`]).

pub mod augment;
pub mod checkpoint;
pub mod clip;
pub mod consistency;
pub mod data;
pub mod detector;
pub mod diffusion;
mod discriminator;
pub mod dreambooth;
pub mod encoded;
pub mod export;
pub mod face;
pub mod memory;
pub mod optim;
pub mod photographs;
mod plot;
pub mod portraits;
pub mod prior;
mod private;
mod realign;
pub mod recompute;
pub mod rng;
pub mod run;
mod shown;
pub mod style;
pub mod subject;
pub mod textual_inversion;
pub mod vae;

use std::path::PathBuf;

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use facestudio::error::{Error, Result};

/// What every stage is told; the stage decides the sizes, by the preset's name.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The model folder that gets the stage's components.
    pub out: PathBuf,
    /// Sizes by name: `mini`, and what else the stage knows.
    pub preset: String,
    /// A model folder whose weights and sizes the stage starts from, in place of random ones of the preset's sizes.
    pub base: Option<PathBuf>,
    /// Trains the autoencoder's decoder alone.
    pub decoder_only: bool,
    /// How often the stages of the UNet drop the style, in [0, 1].
    pub drop_style: f32,
    /// How often they drop the identity, in [0, 1].
    pub drop_identity: f32,
    /// Guidance tokens of a new Linear; the preset's number if it is not given.
    pub n_tokens: Option<usize>,
    /// Renders animals' heads in the place of people's.
    pub creatures: bool,
    /// A folder of photographs with `metadata.jsonl`; rendered portraits if there is none.
    pub data: Option<PathBuf>,
    /// Where rendered and decoded pictures are kept between runs.
    pub cache: PathBuf,
    /// How many pictures to render; the stage's own number if it is not given.
    pub pictures: Option<usize>,
    /// How long, how fast, where; the stage fills in the rate and the batch where they were not given.
    pub run: run::Options,
}

impl Setup {
    /// A preset that the stage does not know.
    pub fn unknown_preset(&self, known: &[&str]) -> Error {
        Error::input(
            "preset",
            format!("there is no preset '{}' for this stage", self.preset),
            format!("use one of: {}", known.join(", ")),
        )
    }
}

/// Where training computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// burn's own CPU backend, in f32.
    #[default]
    Cpu,
    /// libtorch on the CPU, activations in bf16 where the processor has it (needs the feature `torch`).
    Torch,
    /// libtorch on the first CUDA device, activations in bf16 (needs the feature `torch`).
    TorchCuda,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(match self {
            Self::Cpu => "burn's CPU backend",
            Self::Torch => "libtorch on the CPU",
            Self::TorchCuda => "libtorch on CUDA",
        })
    }
}

impl Backend {
    /// The device, recording gradients. Fails where this build lacks the backend.
    ///
    /// On x86 the calling thread, and each that it starts from then on (libtorch's and rayon's are started at their first use),
    /// takes denormal numbers for 0: where they are slow they made the training of an autoencoder take three times as long.
    pub fn device(self) -> Result<Device> {
        flush_denormals();
        match self {
            Self::Cpu => Ok(Device::flex().autodiff()),
            Self::Torch => torch(false),
            Self::TorchCuda => torch(true),
        }
    }

    /// Precision of the activations; weights and losses are always f32.
    ///
    /// On the CPU bf16 pays only where the processor multiplies tiles of it (AMX). With AVX-512's products of pairs f32 was faster,
    /// and emulated, convolutions ran ten times slower.
    pub fn dtype(self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Torch if !multiplies_bf16() => DType::F32,
            Self::Torch | Self::TorchCuda => DType::BF16,
        }
    }
}

/// Whether the processor has AMX's products of bf16.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Intel's manual, volume 2A, CPUID: leaf 7, EDX, bit 22 is AMX-BF16; its highest leaf is leaf 0's EAX.
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & 1 << 22 != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Makes this thread, and those that it starts, take denormal numbers for 0 and write 0 in their place.
#[allow(unsafe_code)] // a register that nothing else sets
fn flush_denormals() {
    #[cfg(target_arch = "x86_64")]
    {
        // Intel's manual, volume 1, 10.2.3: MXCSR's flush-to-zero is bit 15, denormals-are-zeros bit 6.
        let mut control = 0u32;
        // SAFETY: both instructions read or write the four bytes of `control` alone. They change how arithmetic rounds the smallest
        // numbers; no code here takes it to do otherwise.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut control, options(nostack, preserves_flags));
            control |= 1 << 15 | 1 << 6;
            std::arch::asm!("ldmxcsr [{}]", in(reg) &control, options(nostack, preserves_flags));
        }
    }
}

#[cfg(feature = "torch")]
#[allow(deprecated)] // burn deprecates libtorch; training alone uses it, behind this feature
fn torch(cuda: bool) -> Result<Device> {
    Ok(if cuda { Device::libtorch_cuda(0) } else { Device::libtorch() }.autodiff())
}

#[cfg(not(feature = "torch"))]
fn torch(_cuda: bool) -> Result<Device> {
    Err(Error::device(
        "backend-missing",
        "this build has no libtorch",
        "build with `--features torch` (README, \"Train\"), or use `--backend cpu`",
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use facestudio::encoders::detector::Detector;
    use facestudio::encoders::face::FaceEncoder;
    use facestudio::sampling::Sampler;
    use facestudio::vae::Vae;
    use facestudio::weights::{Component, Folder, SafetensorsFile};

    #[test]
    fn denormals_are_zero_where_training_computes() {
        std::thread::spawn(|| {
            Backend::Cpu.device().unwrap();
            let tiny = std::hint::black_box(f32::MIN_POSITIVE);
            let halved = || std::hint::black_box(std::hint::black_box(tiny) * std::hint::black_box(0.5));
            assert_eq!(halved(), if cfg!(target_arch = "x86_64") { 0.0 } else { tiny / 2.0 });
            std::thread::spawn(move || {
                let halved = std::hint::black_box(tiny) * std::hint::black_box(0.5);
                assert_eq!(halved == 0.0, cfg!(target_arch = "x86_64"));
            })
            .join()
            .unwrap();
        })
        .join()
        .unwrap();
    }

    /// One step on a few pictures, to see that a stage leaves what the pipeline can load.
    pub(super) fn setup(folder: &Path, pictures: usize) -> Setup {
        let run = run::Options { steps: Some(1), batch: 2, ..run::Options::new(folder.join("run")) };
        Setup {
            out: folder.join("model"),
            preset: "mini".to_owned(),
            base: None,
            decoder_only: false,
            drop_style: diffusion::DROP_STYLE,
            drop_identity: diffusion::DROP_IDENTITY,
            n_tokens: None,
            creatures: false,
            data: None,
            cache: folder.join("cache"),
            pictures: Some(pictures),
            run,
        }
    }

    #[test]
    fn the_autoencoder_stage_leaves_a_vae_with_its_latent_statistics() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path(), 4);
        vae::train(&setup, &mut |_| ()).unwrap();
        let files = Folder(setup.out.clone());
        let component = Component::new(&files, "vae");
        let vae = Vae::load(&component, &Device::flex()).unwrap();
        assert_eq!((vae.latent_channels(), vae.downsampling()), (64, 32));
        let config: serde_json::Value = component.json("config.json").unwrap();
        let std = config["latents_std"].as_array().unwrap();
        assert!(std.len() == 64 && std.iter().all(|v| v.as_f64().is_some_and(|v| v > 0.0)), "{config}");
        assert!(setup.run.folder.join("samples.png").exists() && setup.run.folder.join("loss.png").exists());
    }

    #[test]
    fn a_decoder_that_learns_alone_leaves_the_latents_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let first = setup(folder.path(), 4);
        vae::train(&first, &mut |_| ()).unwrap();
        let run = run::Options { steps: Some(2), lr: 1e-2, ..first.run.clone() };
        let second = Setup {
            base: Some(first.out.clone()),
            decoder_only: true,
            out: folder.path().join("second"),
            run: run::Options { folder: folder.path().join("run 2"), ..run },
            ..first.clone()
        };
        vae::train(&second, &mut |_| ()).unwrap();
        let [before, after] = [&first.out, &second.out].map(|out| {
            let files = Folder(out.clone());
            let config: serde_json::Value = Component::new(&files, "vae").json("config.json").unwrap();
            let weights = std::fs::read(out.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
            (config, SafetensorsFile::new(weights).unwrap().into_tensors().unwrap().0)
        });
        assert_eq!(before.0, after.0);
        for (name, values) in &before.1 {
            assert_eq!(values == &after.1[name], name.starts_with("encoder."), "{name}");
        }
    }

    #[test]
    fn the_contrastive_stage_goes_on_from_a_base() {
        let folder = tempfile::tempdir().unwrap();
        let first = setup(folder.path(), 260);
        clip::train(&first, &mut |_| ()).unwrap();
        let second = Setup {
            base: Some(first.out.clone()),
            out: folder.path().join("second"),
            run: run::Options { folder: folder.path().join("run 2"), lr: 1e-9, ..first.run.clone() },
            ..first.clone()
        };
        clip::train(&second, &mut |_| ()).unwrap();
        for part in ["text_encoder", "vision_encoder", "vision_encoder_2", "vision_encoder_3"] {
            let [before, after] = [&first.out, &second.out].map(|out| {
                let weights = std::fs::read(out.join(part).join("model.safetensors")).unwrap();
                SafetensorsFile::new(weights).unwrap().into_tensors().unwrap().0
            });
            // Running statistics follow the batches, whatever the rate.
            for (name, (_, values)) in before.iter().filter(|(name, _)| !name.contains("running")) {
                let near = values.iter().zip(&after[name].1).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(near, "{part} {name} does not go on");
            }
        }
        let tokens = |out: &Path| std::fs::read(out.join("tokenizer/vocab.json")).unwrap();
        assert_eq!(tokens(&first.out), tokens(&second.out));
        std::fs::write(second.out.join("tokenizer/merges.txt"), "x y").unwrap();
        assert_eq!(clip::train(&second, &mut |_| ()).unwrap_err().code, "base-mismatch");
    }

    #[test]
    fn the_identity_stage_leaves_a_face_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path(), 24);
        face::train(&setup, &mut |_| ()).unwrap();
        let files = Folder(setup.out);
        let encoder = FaceEncoder::load(&Component::new(&files, "face_encoder"), &Device::flex()).unwrap();
        assert_eq!(encoder.image_size(), 64);
    }

    #[test]
    fn the_detector_stage_leaves_a_detector() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path(), 4);
        detector::train(&setup, &mut |_| ()).unwrap();
        let files = Folder(setup.out);
        let detector = Detector::load(&Component::new(&files, "detector"), &Device::flex()).unwrap();
        assert!(matches!(detector, Detector::FaceStudio(network) if network.image_size() == 128));
    }

    #[test]
    fn the_consistency_stage_leaves_a_model_of_few_steps() {
        let folder = tempfile::tempdir().unwrap();
        let mini = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini");
        let first = setup(folder.path(), 6);
        assert_eq!(consistency::train(&first, &mut |_| ()).unwrap_err().code, "base-missing");
        for part in
            ["vae", "face_encoder", "vision_encoder", "vision_encoder_2", "vision_encoder_3", "guidance"]
        {
            std::fs::create_dir_all(first.out.join(part)).unwrap();
            for entry in std::fs::read_dir(mini.join(part)).unwrap() {
                let from = entry.unwrap().path();
                std::fs::copy(&from, first.out.join(part).join(from.file_name().unwrap())).unwrap();
            }
        }
        let distilled = Setup { base: Some(mini.clone()), ..first };
        std::fs::write(distilled.out.join("defaults.json"), r#"{"steps": 25, "guidance_scale": 3}"#).unwrap();
        let own = Setup { out: mini.clone(), ..distilled.clone() };
        assert_eq!(consistency::train(&own, &mut |_| ()).unwrap_err().code, "base-mismatch");
        let config = distilled.out.join("vae/config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.clone() + "\n").unwrap();
        assert_eq!(consistency::train(&distilled, &mut |_| ()).unwrap_err().code, "base-mismatch");
        std::fs::write(&config, text).unwrap();
        consistency::train(&distilled, &mut |_| ()).unwrap();
        let [before, after] = [&mini, &distilled.out].map(|model| {
            let files = Folder(model.clone());
            Component::new(&files, "unet").tensors().unwrap().names()
        });
        assert_eq!(before, after);
        let weights = std::fs::read(distilled.out.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
        let values = SafetensorsFile::new(weights).unwrap().into_tensors().unwrap().0;
        let files = Folder(mini.clone());
        let teacher = Component::new(&files, "unet").tensors().unwrap();
        let moved = before.iter().filter(|name| teacher.read(name).unwrap() != values[*name].1);
        assert!(moved.count() > before.len() / 2, "the student learns");
        assert!(!distilled.out.join("defaults.json").exists(), "those of the base's many steps");
        assert!(distilled.run.folder.join("samples.png").exists());
        let defaults = facestudio::pipeline::defaults(&Folder(distilled.out.clone())).unwrap();
        assert_eq!((defaults.sampler, defaults.steps, defaults.guidance_scale), (Sampler::Lcm, 4, 1.0));

        let again = Setup { base: Some(distilled.out.clone()), ..distilled };
        assert_eq!(consistency::train(&again, &mut |_| ()).unwrap_err().code, "base-distilled");
    }

    #[test]
    fn a_stage_that_cannot_write_all_its_files_writes_none() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path(), 4);
        let weights = setup.out.join("vae/diffusion_pytorch_model.safetensors");
        // What fails here fails after the config was written.
        std::fs::create_dir_all(weights.join("in the way")).unwrap();
        assert!(vae::train(&setup, &mut |_| ()).is_err());
        assert!(!setup.out.join("vae/config.json").exists(), "a new config beside old weights");
        std::fs::remove_dir_all(weights).unwrap();
        vae::train(
            &Setup { run: run::Options { resume: true, ..setup.run.clone() }, ..setup.clone() },
            &mut |_| (),
        )
        .unwrap();
        Vae::load(&Component::new(&Folder(setup.out), "vae"), &Device::flex()).unwrap();
    }

    #[test]
    fn an_unknown_preset_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { preset: "huge".to_owned(), ..setup(folder.path(), 4) };
        for result in [
            vae::train(&setup, &mut |_| ()),
            face::train(&setup, &mut |_| ()),
            detector::train(&setup, &mut |_| ()),
        ] {
            assert_eq!(result.map_err(|e| e.code), Err("preset"));
        }
    }
}
