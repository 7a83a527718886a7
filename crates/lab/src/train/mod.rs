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
mod batches;
pub mod checkpoint;
pub mod clip;
pub mod consistency;
pub mod data;
mod deepen;
pub mod denoiser;
pub mod detector;
pub mod diffusion;
mod discriminator;
pub mod dreambooth;
pub mod encoded;
pub mod export;
pub mod face;
mod levels;
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
pub mod style;
pub mod subject;
pub mod textual_inversion;
pub mod vae;

use std::path::PathBuf;

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use facestudio::error::{Error, Result};

pub use batches::Drops;

/// What every stage is told; each has [`Options`](vae::Options) of its own beside it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The model folder that gets the stage's components.
    pub out: PathBuf,
    /// Where rendered and decoded pictures are kept between runs.
    pub cache: PathBuf,
    /// How long, how fast, where.
    pub run: run::Options,
}

/// What a stage that learns from pictures of all kinds learns from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Rendered portraits.
    Rendered(Rendered),
    /// A folder of photographs with `metadata.jsonl`, or FFHQ's.
    Photographs(PathBuf),
}

/// Whom to render, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rendered {
    /// How many pictures; the stage's own number if it is not given.
    pub pictures: Option<usize>,
    /// Animals' heads in the place of people's.
    pub creatures: bool,
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
        "build with `--features torch` (docs/train.md), or use `--backend cpu`",
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use facestudio::encoders::detector::Detector;
    use facestudio::encoders::face::FaceEncoder;
    use facestudio::sampling::Sampler;
    use facestudio::sampling::SchedulerConfig;
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

    /// One step of two pictures, to see that a stage leaves what the pipeline can load.
    fn setup(folder: &Path, defaults: run::Defaults) -> Setup {
        let defaults = run::Defaults { batch: 2, ..defaults };
        let run = run::Options { steps: Some(1), ..run::Options::new(folder.join("run"), defaults) };
        Setup { out: folder.join("model"), cache: folder.join("cache"), run }
    }

    /// As `setup`, into other folders.
    fn second(folder: &Path, setup: &Setup) -> Setup {
        let run = run::Options { folder: folder.join("run 2"), ..setup.run.clone() };
        Setup { out: folder.join("second"), run, ..setup.clone() }
    }

    fn rendered(pictures: usize) -> Rendered {
        Rendered { pictures: Some(pictures), creatures: false }
    }

    fn autoencoder(folder: &Path) -> vae::Options {
        vae::Options {
            setup: setup(folder, vae::DEFAULTS),
            source: Source::Rendered(rendered(4)),
            start: vae::Start::Random,
        }
    }

    #[test]
    fn the_autoencoder_stage_leaves_a_vae_with_its_latent_statistics() {
        let folder = tempfile::tempdir().unwrap();
        let options = autoencoder(folder.path());
        vae::train(&options, &mut |_| ()).unwrap();
        let Setup { out, run, .. } = options.setup;
        let files = Folder(out);
        let component = Component::new(&files, "vae");
        let vae = Vae::load(&component, &Device::flex()).unwrap();
        assert_eq!((vae.latent_channels(), vae.downsampling()), (32, 16));
        let config: serde_json::Value = component.json("config.json").unwrap();
        let std = config["latents_std"].as_array().unwrap();
        assert!(std.len() == 32 && std.iter().all(|v| v.as_f64().is_some_and(|v| v > 0.0)), "{config}");
        assert!(run.folder.join("samples.png").exists() && run.folder.join("loss.svg").exists());
    }

    #[test]
    fn a_decoder_that_learns_alone_leaves_the_latents_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let first = autoencoder(folder.path());
        vae::train(&first, &mut |_| ()).unwrap();
        let mut setup = second(folder.path(), &first.setup);
        (setup.run.steps, setup.run.lr) = (Some(2), 1e-2);
        let second =
            vae::Options { setup, start: vae::Start::Decoder(first.setup.out.clone()), ..first.clone() };
        vae::train(&second, &mut |_| ()).unwrap();
        let [before, after] = [&first, &second].map(|options| {
            let out = &options.setup.out;
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
        let first = clip::Options {
            setup: setup(folder.path(), clip::DEFAULTS),
            source: Source::Rendered(rendered(260)),
            base: None,
        };
        clip::train(&first, &mut |_| ()).unwrap();
        let mut setup = second(folder.path(), &first.setup);
        setup.run.lr = 1e-9;
        let second = clip::Options { setup, base: Some(first.setup.out.clone()), ..first.clone() };
        clip::train(&second, &mut |_| ()).unwrap();
        let [first, out] = [&first, &second].map(|options| options.setup.out.clone());
        for part in ["text_encoder", "vision_encoder", "vision_encoder_2", "vision_encoder_3"] {
            let [before, after] = [&first, &out].map(|out| {
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
        assert_eq!(tokens(&first), tokens(&out));
        std::fs::write(out.join("tokenizer/merges.txt"), "x y").unwrap();
        assert_eq!(clip::train(&second, &mut |_| ()).unwrap_err().code, "base-mismatch");
    }

    #[test]
    fn the_identity_stage_leaves_a_face_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = face::Options {
            setup: setup(folder.path(), face::DEFAULTS),
            rendered: rendered(24),
            preset: face::Preset::Mini,
        };
        face::train(&options, &mut |_| ()).unwrap();
        let files = Folder(options.setup.out.clone());
        let encoder = FaceEncoder::load(&Component::new(&files, "face_encoder"), &Device::flex()).unwrap();
        assert_eq!(encoder.image_size(), 64);
        let [own, measure] = ["face_encoder", "eval_face_encoder"];
        assert!(!options.setup.run.folder.join(measure).exists());

        // What measures a model is no part of it.
        options.preset = face::Preset::MiniEval;
        std::fs::remove_dir_all(options.setup.out.join(own)).unwrap();
        face::train(&options, &mut |_| ()).unwrap();
        let files = Folder(options.setup.run.folder.clone());
        FaceEncoder::load(&Component::new(&files, measure), &Device::flex()).unwrap();
        assert!([own, measure].iter().all(|folder| !options.setup.out.join(folder).exists()));
    }

    #[test]
    fn the_detector_stage_leaves_a_detector() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path(), detector::DEFAULTS);
        detector::train(&detector::Options { setup: setup.clone(), rendered: rendered(4) }, &mut |_| ())
            .unwrap();
        let files = Folder(setup.out);
        let detector = Detector::load(&Component::new(&files, "detector"), &Device::flex()).unwrap();
        assert!(matches!(detector, Detector::FaceStudio(network) if network.image_size() == 128));
    }

    #[test]
    fn the_consistency_stage_leaves_a_model_of_few_steps() {
        let folder = tempfile::tempdir().unwrap();
        let mini = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini");
        let setup = setup(folder.path(), consistency::DEFAULTS);
        let (out, run_folder) = (setup.out.clone(), setup.run.folder.clone());
        let copy = |out: &Path, parts: &[&str]| {
            for part in parts {
                std::fs::create_dir_all(out.join(part)).unwrap();
                for entry in std::fs::read_dir(mini.join(part)).unwrap() {
                    let from = entry.unwrap().path();
                    std::fs::copy(&from, out.join(part).join(from.file_name().unwrap())).unwrap();
                }
            }
        };
        let shared =
            ["vae", "face_encoder", "vision_encoder", "vision_encoder_2", "vision_encoder_3", "guidance"];
        copy(&out, &shared);
        let distilled = consistency::Options {
            setup,
            source: Source::Rendered(rendered(6)),
            base: mini.clone(),
            drops: Drops::default(),
        };
        std::fs::write(out.join("defaults.json"), r#"{"steps": 25, "guidance_scale": 3}"#).unwrap();
        let mut own = distilled.clone();
        own.setup.out = mini.clone();
        assert_eq!(consistency::train(&own, &mut |_| ()).unwrap_err().code, "base-mismatch");
        let config = out.join("vae/config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.clone() + "\n").unwrap();
        assert_eq!(consistency::train(&distilled, &mut |_| ()).unwrap_err().code, "base-mismatch");
        std::fs::write(&config, text).unwrap();
        consistency::train(&distilled, &mut |_| ()).unwrap();
        let [before, after] = [&mini, &out].map(|model| {
            let files = Folder(model.clone());
            Component::new(&files, "unet").tensors().unwrap().names()
        });
        assert_eq!(before, after);
        let weights = std::fs::read(out.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
        let values = SafetensorsFile::new(weights).unwrap().into_tensors().unwrap().0;
        let files = Folder(mini.clone());
        let teacher = Component::new(&files, "unet").tensors().unwrap();
        let moved = before.iter().filter(|name| teacher.read(name).unwrap() != values[*name].1);
        assert!(moved.count() > before.len() / 2, "the student learns");
        assert!(!out.join("defaults.json").exists(), "those of the base's many steps");
        assert!(run_folder.join("samples.png").exists());
        let defaults = facestudio::pipeline::defaults(&Folder(out.clone())).unwrap();
        assert_eq!((defaults.sampler, defaults.steps, defaults.guidance_scale), (Sampler::Lcm, 4, 1.0));

        let again = consistency::Options { base: out.clone(), ..distilled.clone() };
        assert_eq!(consistency::train(&again, &mut |_| ()).unwrap_err().code, "base-distilled");

        // A base whose last step has nothing of the picture.
        let zero = folder.path().join("zero");
        copy(&zero, &shared);
        copy(&zero, &["unet", "scheduler"]);
        let config = zero.join("scheduler/scheduler_config.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        json["rescale_betas_zero_snr"] = true.into();
        std::fs::write(&config, json.to_string()).unwrap();
        std::fs::remove_dir_all(&run_folder).unwrap();
        let zero_snr = consistency::Options { base: zero, ..distilled };
        consistency::train(&zero_snr, &mut |_| ()).unwrap();
        let files = Folder(out);
        let scheduler = SchedulerConfig::from_component(&Component::new(&files, "scheduler")).unwrap();
        assert_eq!(scheduler.alphas_cumprod().unwrap().last(), Some(&0.0));
        json["prediction_type"] = "epsilon".into();
        std::fs::write(&config, json.to_string()).unwrap();
        assert_eq!(consistency::train(&zero_snr, &mut |_| ()).unwrap_err().code, "config-unsupported");
    }

    #[test]
    fn a_stage_that_cannot_write_all_its_files_writes_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = autoencoder(folder.path());
        let out = options.setup.out.clone();
        let weights = out.join("vae/diffusion_pytorch_model.safetensors");
        // What fails here fails after the config was written.
        std::fs::create_dir_all(weights.join("in the way")).unwrap();
        assert!(vae::train(&options, &mut |_| ()).is_err());
        assert!(!out.join("vae/config.json").exists(), "a new config beside old weights");
        std::fs::remove_dir_all(weights).unwrap();
        options.setup.run.resume = true;
        vae::train(&options, &mut |_| ()).unwrap();
        Vae::load(&Component::new(&Folder(out), "vae"), &Device::flex()).unwrap();
    }
}
