//! `facestudio convert`: other programs' checkpoints as a model folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use facestudio::sampling::TimestepSpacing;
use facestudio::weights::{ModelCard, Quantization, check_output, check_output_folder, write_file};
use facestudio::{Error, Result};
use facestudio_convert::ip_adapter::{Adapter, FaceIdPlus, Role};
use facestudio_convert::kind::{Kind, flag_of, recognize};
use facestudio_convert::scheduler::Sampling;
use facestudio_convert::{ComponentReport, Plan, Slot, convert};
use indicatif::{ProgressBar, ProgressStyle};

use crate::generate::SamplerName;
use crate::interrupt;
use crate::output;

#[derive(clap::Args)]
pub struct Args {
    /// Files, or folders of diffusers, that are told by their tensors, and each taken for what it is: a checkpoint, an autoencoder,
    /// a LoRA and so on. `facestudio inspect FILE` says what one is.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The new model folder; must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A whole Stable Diffusion 1 or 2: a diffusers folder, or a single .safetensors or .ckpt file. Or diffusers' folder of a FLUX.2
    /// klein.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// The denoiser alone: a diffusers folder, or a single file to take it from.
    #[arg(long, value_name = "PATH")]
    unet: Option<PathBuf>,
    /// FLUX.2 klein's transformer alone: a diffusers folder, or a single file with its publisher's or ComfyUI's names.
    #[arg(long, value_name = "PATH", conflicts_with = "unet")]
    transformer: Option<PathBuf>,
    /// The autoencoder alone: a diffusers folder, or a single file to take it from.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// A tiny autoencoder (TAESD) for previews: a diffusers folder, or one with taesd_encoder and taesd_decoder.
    #[arg(long, value_name = "DIR")]
    tiny_vae: Option<PathBuf>,
    /// A text encoder: a transformers folder of a CLIP, or of FLUX.2 klein's Qwen3, or a file of open_clip or OpenAI.
    #[arg(long, value_name = "PATH")]
    text_encoder: Option<PathBuf>,
    /// A CLIP vision encoder, likewise; again for each one of an ensemble.
    #[arg(long, value_name = "PATH")]
    vision_encoder: Vec<PathBuf>,
    /// An InsightFace identity encoder (iresnet): its PyTorch, safetensors or ONNX file.
    #[arg(long, value_name = "PATH")]
    face_encoder: Option<PathBuf>,
    /// A face detector: YuNet's ONNX file, or the `detector` of another model folder.
    #[arg(long, value_name = "PATH")]
    detector: Option<PathBuf>,
    /// A network that tells people apart by their outlines (DETR with a mask head): a transformers folder.
    #[arg(long, value_name = "DIR")]
    segmenter: Option<PathBuf>,
    /// A network that makes pictures larger, for `facestudio enlarge`: Real-ESRGAN's .pth file (SRVGGNetCompact or RRDBNet, 2 or 4 times).
    #[arg(long, value_name = "FILE")]
    upscaler: Option<PathBuf>,
    /// An unCLIP prior: a diffusers folder.
    #[arg(long, value_name = "DIR")]
    prior: Option<PathBuf>,
    /// An IP-Adapter that reads the style image, and how much it adds (1 if absent); again for each.
    #[arg(long, value_name = "FILE[:SCALE]")]
    style_adapter: Vec<String>,
    /// Blocks of the unet in which style adapters act, with a factor for each transformer; everywhere without. Again for
    /// each block.
    #[arg(long, value_name = "BLOCK:FACTOR[,FACTOR…]")]
    style_blocks: Vec<String>,
    /// An IP-Adapter that reads faces (Plus-Face, Full-Face, FaceID and so on), likewise. FaceID's LoRA is merged into the
    /// unet.
    #[arg(long, value_name = "FILE[:SCALE]")]
    identity_adapter: Vec<String>,
    /// Arc2Face, which draws from faces alone: its folder with `arc2face` and `encoder`, which become unet and text encoder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["unet", "text_encoder", "style_adapter", "identity_adapter"])]
    arc2face: Option<PathBuf>,
    /// Which FaceID-Plus it is: the file does not say.
    #[arg(long, value_enum)]
    face_id_plus: Option<Version>,
    /// A folder with vocab.json and merges.txt, or tokenizer.json, where the base has none.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// A LoRA to merge into UNet and text encoder, and how much of it (1 if absent); again for each. A file of kohya, diffusers
    /// or peft, or the folder that one of the latter saved.
    #[arg(long, value_name = "PATH[:SCALE]")]
    lora: Vec<String>,
    /// Activation of CLIP files that do not say: quick_gelu for OpenAI's, gelu for open_clip's own.
    #[arg(long, default_value = "quick_gelu", value_parser = ["quick_gelu", "gelu"])]
    clip_act: String,
    /// What the UNet predicts, in the place of what its checkpoint says; epsilon where neither says.
    #[arg(long, value_enum)]
    prediction_type: Option<PredictionType>,
    /// The sampler that the model is made for, in place of the base's: distilled ones need theirs.
    #[arg(long, value_enum)]
    sampler: Option<SamplerName>,
    /// Which training steps are visited, in place of what the base says.
    #[arg(long, value_enum)]
    timestep_spacing: Option<Spacing>,
    /// Steps of pictures whose request does not say.
    #[arg(long)]
    steps: Option<usize>,
    /// Guidance scale of pictures whose request does not say; 1 is none.
    #[arg(long)]
    guidance_scale: Option<f32>,
    /// How weights are stored.
    #[arg(long, value_enum, default_value = "f16")]
    dtype: Dtype,
    /// Writes the error of every tensor and the size of every component as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The model's name in the manifest; the folder's if absent.
    #[arg(long)]
    name: Option<String>,
    /// Its family; klein with a transformer, else sd15, if absent.
    #[arg(long)]
    family: Option<String>,
    /// Its version.
    #[arg(long = "model-version", value_name = "VERSION", default_value = "1")]
    version: String,
    /// Its licence, an SPDX expression: that of the checkpoints.
    #[arg(long, default_value = "unknown")]
    license: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity.
    VPrediction,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Version {
    /// FaceID-Plus.
    V1,
    /// FaceID-Plus V2.
    V2,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Spacing {
    /// Evenly from the last to the first.
    Linspace,
    /// Multiples of a whole stride, from 0 up.
    Leading,
    /// Back from the last: what Turbo and Hyper-SD need.
    Trailing,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Dtype {
    /// 8-bit integers in blocks of 32 with a scale each.
    Q8,
    /// 4-bit integers in blocks of 32 with a scale each; tensors that this would spoil get 8 bits.
    Q4,
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
}

impl From<Dtype> for Quantization {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Q8 => Self::Q8,
            Dtype::Q4 => Self::Q4,
            Dtype::F16 => Self::F16,
            Dtype::F32 => Self::None,
        }
    }
}

impl Args {
    /// Puts the files that came without a flag where they belong, and says of each what it is.
    fn sort_files(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.files) {
            let recognized = recognize(&path)?;
            output::print(&(output::line(&format!("{}: {recognized}", path.display())) + "\n"))?;
            let flag = flag_of(&path, &recognized)?;
            let given = match recognized.kind {
                Kind::Checkpoint => self.base.replace(path),
                Kind::Unet => self.unet.replace(path),
                Kind::Vae => self.vae.replace(path),
                Kind::TinyVae => self.tiny_vae.replace(path),
                Kind::TextEncoder => self.text_encoder.replace(path),
                Kind::FaceNetwork => self.face_encoder.replace(path),
                Kind::Detector => self.detector.replace(path),
                Kind::Segmenter => self.segmenter.replace(path),
                Kind::Upscaler => self.upscaler.replace(path),
                Kind::Prior => self.prior.replace(path),
                Kind::VisionEncoder => {
                    self.vision_encoder.push(path);
                    None
                }
                kind => {
                    let text = path.display().to_string();
                    match (kind, recognized.role) {
                        (Kind::Lora, _) => self.lora.push(text),
                        (_, Some(Role::Style)) => self.style_adapter.push(text),
                        _ => self.identity_adapter.push(text),
                    }
                    None
                }
            };
            if let Some(other) = given {
                return Err(Error::input(
                    "convert-twice",
                    format!("{flag} is given twice: {} is the first", other.display()),
                    "give it once",
                ));
            }
        }
        Ok(())
    }
}

pub fn run(mut args: Args) -> anyhow::Result<()> {
    args.sort_files()?;
    let one = |slot, path: &Option<PathBuf>| path.clone().map(|path| (slot, path));
    let of_arc2face = |slot, part| args.arc2face.as_ref().map(|folder| (slot, folder.join(part)));
    let parts = [
        one(Slot::Unet, &args.unet),
        one(Slot::Transformer, &args.transformer),
        one(Slot::Vae, &args.vae),
        one(Slot::TinyVae, &args.tiny_vae),
        one(Slot::TextEncoder, &args.text_encoder),
        one(Slot::FaceEncoder, &args.face_encoder),
        one(Slot::Detector, &args.detector),
        one(Slot::Segmenter, &args.segmenter),
        one(Slot::Upscaler, &args.upscaler),
        one(Slot::Prior, &args.prior),
        of_arc2face(Slot::Unet, "arc2face"),
        of_arc2face(Slot::TextEncoder, "encoder"),
    ];
    let vision = args.vision_encoder.iter().map(|path| (Slot::VisionEncoder, path.clone()));
    let style_blocks =
        args.style_blocks.iter().map(|text| block(text)).collect::<Result<BTreeMap<_, _>>>()?;
    let adapter = |role: Role, text: &String| {
        let (path, scale) = scaled(text)?;
        let block_scales = if role == Role::Style { style_blocks.clone() } else { BTreeMap::new() };
        Ok(Adapter { path, role, scale, block_scales })
    };
    let identity = args.identity_adapter.iter().map(|text| adapter(Role::Identity, text));
    let style = args.style_adapter.iter().map(|text| adapter(Role::Style, text));
    let adapters = identity.chain(style).collect::<Result<Vec<_>>>()?;
    let folder_name = args.out.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut plan = Plan {
        base: args.base,
        parts: parts.into_iter().flatten().chain(vision).collect(),
        adapters,
        arc2face: args.arc2face.is_some(),
        face_id_plus: args.face_id_plus.map(|version| match version {
            Version::V1 => FaceIdPlus::V1,
            Version::V2 => FaceIdPlus::V2,
        }),
        tokenizer: args.tokenizer,
        loras: args.lora.iter().map(|lora| scaled(lora)).collect::<Result<_>>()?,
        clip_act: args.clip_act,
        prediction_type: args.prediction_type.map(|of| match of {
            PredictionType::Epsilon => "epsilon",
            PredictionType::VPrediction => "v_prediction",
        }),
        sampling: Sampling {
            sampler: args.sampler.map(|name| name.0),
            timestep_spacing: args.timestep_spacing.map(|spacing| match spacing {
                Spacing::Linspace => TimestepSpacing::Linspace,
                Spacing::Leading => TimestepSpacing::Leading,
                Spacing::Trailing => TimestepSpacing::Trailing,
            }),
            steps: args.steps,
            guidance_scale: args.guidance_scale,
        },
        quantization: args.dtype.into(),
        card: ModelCard {
            name: args.name.or(folder_name).unwrap_or_else(|| "model".to_owned()),
            family: args.family.unwrap_or_default(),
            version: args.version,
            license: args.license,
            ..ModelCard::default()
        },
    };
    if plan.card.family.is_empty() {
        plan.card.family = plan.family().to_owned();
    }
    converted(&plan, &args.out, args.report.as_deref())
}

/// Converts with a progress bar, tells what came out, and writes the report where one is asked for. Ctrl-C leaves nothing.
pub fn converted(plan: &Plan, out: &Path, report: Option<&Path>) -> anyhow::Result<()> {
    check_output_folder(out)?;
    report.map_or(Ok(()), check_output)?;
    let stop = interrupt::stop();
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {pos} tensors, {msg}")?);
    let reports = convert(plan, out, &stop, &|component, name| {
        bar.set_message(output::line(&format!("{component}: {name}")));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let reports = reports?;
    reports.iter().try_for_each(tell)?;
    if let Some(path) = report {
        write_file(path, &serde_json::to_vec_pretty(&reports)?)?;
    }
    Ok(())
}

/// `FILE` or `FILE:SCALE`; what names a file as a whole is that file.
fn scaled(lora: &str) -> Result<(PathBuf, f32)> {
    if Path::new(lora).exists() {
        return Ok((lora.into(), 1.0));
    }
    let Some((path, scale)) = lora.rsplit_once(':').filter(|(_, scale)| !scale.contains(['/', '\\'])) else {
        return Ok((lora.into(), 1.0));
    };
    match scale.parse::<f32>() {
        Ok(scale) if scale.is_finite() => Ok((path.into(), scale)),
        _ => Err(Error::input(
            "lora-scale",
            format!("'{scale}' is no number"),
            "write the file, a colon and how much of it to take: style.safetensors:0.8",
        )),
    }
}

/// `up_blocks.1:0,1,0`.
fn block(text: &str) -> Result<(String, Vec<f32>)> {
    let factors = |list: &str| list.split(',').map(|f| f.trim().parse().ok()).collect::<Option<Vec<f32>>>();
    let parsed = text.split_once(':').and_then(|(block, list)| Some((block.to_owned(), factors(list)?)));
    parsed.filter(|(_, factors)| factors.iter().all(|factor| factor.is_finite())).ok_or_else(|| {
        Error::input(
            "style-blocks",
            format!("'{text}' is no block with its factors"),
            "write the block, a colon and a factor for each of its transformers: up_blocks.1:0,1,0",
        )
    })
}

fn tell(report: &ComponentReport) -> Result<()> {
    let ComponentReport { component, parameters, bytes, lora_updates, errors, source } = report;
    let millions = *parameters as f64 / 1e6;
    let mut line = format!("{component:<16} {millions:>8.1} M parameters {:>8.1} MB", *bytes as f64 / 1e6);
    if let Some((name, error)) = errors.iter().max_by(|a, b| a.1.total_cmp(b.1)) {
        line += &format!("  largest error {error:.1e} ({name})");
    }
    if *lora_updates > 0 {
        line += &format!("  {lora_updates} LoRA updates");
    }
    output::print(&(output::line(&format!("{line}  from {source}")) + "\n"))
}
