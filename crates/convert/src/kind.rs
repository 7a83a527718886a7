//! What a file of weights is, told by its tensors: whoever has one file need not know what it is called in this program.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::clip::{self, Tower};
use super::ip_adapter::{self, Role};
use super::layout::Layout;
use super::lora::{self, Network};
use super::{declared, detector, face, ldm, upscaler};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A whole Stable Diffusion.
    Checkpoint,
    /// A denoiser.
    Unet,
    /// An autoencoder.
    Vae,
    /// A tiny autoencoder for previews.
    TinyVae,
    /// A text encoder.
    TextEncoder,
    /// A vision encoder.
    VisionEncoder,
    /// A CLIP with both towers.
    Clip,
    /// An unCLIP prior.
    Prior,
    /// Updates of weights.
    Lora,
    /// An adapter of the IP-Adapter family.
    Adapter,
    /// Learnt words (textual inversion).
    Embedding,
    /// A recognition network.
    FaceNetwork,
    /// A face detector.
    Detector,
    /// A network that finds people's outlines.
    Segmenter,
    /// A network that makes pictures larger.
    Upscaler,
    /// A network that steers a denoiser by a drawing.
    ControlNet,
    /// None of these.
    Unknown,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recognized {
    /// What it is.
    pub kind: Kind,
    /// The same in words.
    pub what: String,
    /// What it fits, in words; empty where that is not known.
    pub fits: String,
    /// How `facestudio convert` takes it: the flag; `None` where it does not.
    pub flag: Option<&'static str>,
    /// What can be done with it, or why nothing can, in words.
    pub advice: String,
    /// Whose picture an adapter reads, where its tensors tell.
    #[serde(skip)]
    pub role: Option<Role>,
}

impl fmt::Display for Recognized {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.fits.is_empty() {
            write!(f, ", for {}", self.fits)?;
        }
        write!(f, ". {}", self.advice)
    }
}

/// Opens a file, or a folder in diffusers' or transformers' layout, and says what it is. Fails as [`Checkpoint::open`] does; a file of
/// nothing that is known is [`Kind::Unknown`].
pub fn recognize(path: &Path) -> Result<Recognized> {
    if path.join("unet").is_dir() {
        return Ok(found(Kind::Checkpoint, "a model in diffusers' folders", "", Some("--base"), ""));
    }
    Ok(of(&Checkpoint::open(path)?))
}

/// Says what a checkpoint is.
pub fn of(checkpoint: &Checkpoint) -> Recognized {
    let names = Names(checkpoint.names(), checkpoint);
    // From what says most to what says least: a whole model holds an autoencoder, and an adapter may hold a LoRA.
    exported(checkpoint)
        .or_else(|| adapter(&names))
        .or_else(|| lora(&names))
        .or_else(|| control_net(&names))
        .or_else(|| stable_diffusion(checkpoint, &names))
        .or_else(|| unet(&names))
        .or_else(|| vae(&names))
        .or_else(|| clip(checkpoint, &names))
        .or_else(|| others(&names))
        .unwrap_or_else(|| {
            found(
                Kind::Unknown,
                "weights of no kind that is known",
                "",
                None,
                "docs/weights.md lists what can be converted",
            )
        })
}

fn found(
    kind: Kind,
    what: impl Into<String>,
    fits: impl Into<String>,
    flag: Option<&'static str>,
    advice: &str,
) -> Recognized {
    let advice = match flag {
        Some(flag) if advice.is_empty() => format!("Convert it with {flag}"),
        _ => advice.to_owned(),
    };
    Recognized { kind, what: what.into(), fits: fits.into(), flag, advice, role: None }
}

/// A checkpoint's names, sorted, and its shapes.
struct Names<'a>(Vec<String>, &'a dyn TensorSource);

impl Names<'_> {
    fn has(&self, name: &str) -> bool {
        self.1.shape(name).is_some()
    }

    fn any(&self, part: &str) -> bool {
        self.0.iter().any(|name| name.contains(part))
    }

    /// A side of the first tensor whose name ends so.
    fn side(&self, ending: &str, axis: usize) -> Option<usize> {
        let name = self.0.iter().find(|name| name.ends_with(ending))?;
        self.1.shape(name)?.get(axis).copied()
    }
}

/// The Stable Diffusion whose text has tokens of some width.
fn of_width(width: Option<usize>) -> String {
    match width {
        Some(768) => "Stable Diffusion 1".to_owned(),
        Some(1024) => "Stable Diffusion 2".to_owned(),
        Some(1280 | 2048) => "Stable Diffusion XL, which is not supported".to_owned(),
        Some(width) => format!("models whose text has {width} numbers a token"),
        None => String::new(),
    }
}

/// Networks of ONNX files, which are followed to be known.
fn exported(checkpoint: &Checkpoint) -> Option<Recognized> {
    let graph = checkpoint.graph()?;
    if detector::yunet(checkpoint, graph).is_ok() {
        return Some(found(Kind::Detector, "a face detector (YuNet)", "every model", Some("--detector"), ""));
    }
    if face::iresnet(checkpoint).is_ok() {
        return Some(face_network());
    }
    let advice = "Of ONNX files only recognition networks of InsightFace's kind and YuNet can be converted";
    Some(found(Kind::Unknown, "an ONNX network of no kind that is known", "", None, advice))
}

fn face_network() -> Recognized {
    let fits = "models whose adapters or guidance read the embeddings that it makes";
    found(Kind::FaceNetwork, "a face recognition network (iresnet)", fits, Some("--face-encoder"), "")
}

fn adapter(names: &Names) -> Option<Recognized> {
    if !names.0.iter().any(|name| name.starts_with("image_proj.")) {
        return None;
    }
    let mut layout = Layout::new(names.1);
    for name in names.0.iter().filter(|name| name.starts_with("image_proj.")) {
        layout.keep(name, name.clone()).ok()?;
    }
    let kind = ip_adapter::kind(&layout);
    let (what, role) = match kind {
        Some("image") => ("an IP-Adapter that reads a style image", Some(Role::Style)),
        Some("full_face") => ("an IP-Adapter that reads faces (Full-Face)", Some(Role::Identity)),
        Some("plus") => {
            ("an IP-Adapter Plus, which reads a style image, or Plus-Face, which reads faces", None)
        }
        Some("face_id_plus") => {
            ("an IP-Adapter that reads face embeddings (FaceID-Plus)", Some(Role::Identity))
        }
        Some("face_id") => ("an IP-Adapter that reads face embeddings (FaceID)", Some(Role::Identity)),
        _ => ("an adapter of the IP-Adapter family of no known kind", None),
    };
    let fits = of_width(names.side("to_k_ip.weight", 1));
    let (flag, advice) = match role {
        Some(Role::Style) => (Some("--style-adapter"), ""),
        Some(Role::Identity) => (Some("--identity-adapter"), ""),
        None if kind.is_none() => {
            (None, "Use an IP-Adapter for Stable Diffusion 1.5 as its authors publish it")
        }
        None => {
            (None, "Its tensors do not tell which: convert it with --style-adapter or --identity-adapter")
        }
    };
    Some(Recognized { role, ..found(Kind::Adapter, what, fits, flag, advice) })
}

fn lora(names: &Names) -> Option<Recognized> {
    let said = lora::describe(&names.0)?;
    let networks: Vec<&str> = said
        .networks
        .iter()
        .map(|network| match network {
            Network::Unet => "the UNet",
            Network::Text => "the text encoder",
        })
        .collect();
    let what = match networks.is_empty() {
        true => format!("{} for networks of another kind of model", said.kind),
        false => format!("{} for {}", said.kind, networks.join(" and ")),
    };
    if let Some(reason) = said.refused {
        return Some(found(Kind::Lora, what, "", None, &format!("It cannot be merged: {reason}")));
    }
    // Keys and values of cross-attention are made of the text; a text encoder's own width is the same.
    let ends = [
        "attn2_to_k.lora_down.weight",
        "attn2.to_k.lora_A.weight",
        "attn2.to_k.lora.down.weight",
        "attn2_to_k.lora_A.weight",
        "q_proj.lora_down.weight",
        "q_proj.lora_A.weight",
        "q_proj.lora_linear_layer.down.weight",
        "to_k_lora.down.weight",
    ];
    let width = ends.iter().find_map(|ending| names.side(ending, 1));
    Some(found(
        Kind::Lora,
        what,
        of_width(width),
        Some("--lora"),
        "Merge it into a model with --lora, beside --base",
    ))
}

fn control_net(names: &Names) -> Option<Recognized> {
    let is = names.any("controlnet_cond_embedding.") || names.any("input_hint_block.");
    let advice = "Nothing here draws with one";
    is.then(|| {
        found(Kind::ControlNet, "a ControlNet", of_width(names.side("attn2.to_k.weight", 1)), None, advice)
    })
}

/// The original code's layout.
fn stable_diffusion(checkpoint: &Checkpoint, names: &Names) -> Option<Recognized> {
    let prefix = ldm::unet_prefix(checkpoint)?;
    let whole = names.any("first_stage_model.");
    let (kind, flag) = if whole { (Kind::Checkpoint, "--base") } else { (Kind::Unet, "--unet") };
    let thing = if whole { "a whole Stable Diffusion" } else { "a UNet in the original code's layout" };
    if let Err(error) =
        declared::refuse_architecture(checkpoint).and_then(|()| ldm::unet(checkpoint).map(|_| ()))
    {
        return Some(found(kind, thing, "", None, &format!("It cannot be converted: {}", error.message)));
    }
    let version = if ldm::is_v2(checkpoint) { 2 } else { 1 };
    let text = names.any("cond_stage_model.");
    let missing = match (whole, text) {
        (true, true) => "Convert it with --base, and give --tokenizer, which no single file holds",
        (true, false) => "Convert it with --base, --text-encoder and --tokenizer, which it does not hold",
        (false, _) => "Convert it with --unet, beside --base for the rest",
    };
    let what = if whole { format!("{thing} {version}") } else { thing.to_owned() };
    let fits = if whole {
        String::new()
    } else {
        of_width(names.side(&format!("{prefix}middle_block.1.transformer_blocks.0.attn2.to_k.weight"), 1))
    };
    Some(found(kind, what, fits, Some(flag), missing))
}

fn unet(names: &Names) -> Option<Recognized> {
    let is = names.has("conv_in.weight")
        && names.has("time_embedding.linear_1.weight")
        && names.any("down_blocks.0.");
    if !is {
        return None;
    }
    let (takes, gives) = (names.side("conv_in.weight", 1), names.side("conv_out.weight", 0));
    let (what, fits) = ("a UNet in diffusers' layout", of_width(names.side("attn2.to_k.weight", 1)));
    if takes != gives || names.any("add_embedding.") || fits.contains("not supported") {
        let advice = "It cannot be converted: it takes more than latents and a text, as those for inpainting or of Stable Diffusion XL do";
        return Some(found(Kind::Unet, what, fits, None, advice));
    }
    Some(found(
        Kind::Unet,
        what,
        fits,
        Some("--unet"),
        "Convert it with --unet; its config.json must lie beside it",
    ))
}

fn vae(names: &Names) -> Option<Recognized> {
    if names.has("encoder.layers.0.weight") && names.has("decoder.layers.0.weight") {
        let advice = "Convert it with --tiny-vae; its config.json must lie beside it";
        return Some(found(
            Kind::TinyVae,
            "a tiny autoencoder (TAESD)",
            "previews of Stable Diffusion 1 and 2",
            Some("--tiny-vae"),
            advice,
        ));
    }
    // Each half in a file of its own, whose layers have no names.
    let channels = |name: &str| names.1.shape(name).filter(|shape| shape.len() == 4).map(|shape| shape[1]);
    let encoder = channels("0.weight") == Some(3) && names.has("1.conv.0.weight");
    let decoder = channels("1.weight") == Some(4) && names.has("3.conv.0.weight");
    if encoder || decoder {
        let advice = "Convert the folder that holds taesd_encoder and taesd_decoder with --tiny-vae";
        return Some(found(
            Kind::TinyVae,
            "half of a tiny autoencoder (TAESD)",
            "previews of Stable Diffusion 1 and 2",
            None,
            advice,
        ));
    }
    let original = names.any("encoder.down.0.block.0.conv1.weight");
    let diffusers = names.has("encoder.down_blocks.0.resnets.0.conv1.weight");
    if !original && !diffusers {
        return None;
    }
    let channels = names.side("decoder.conv_in.weight", 1);
    let fits = match channels {
        Some(4) => "Stable Diffusion 1 and 2".to_owned(),
        Some(channels) => format!("models whose latents have {channels} channels"),
        None => String::new(),
    };
    let beside = if diffusers { "; its config.json must lie beside it" } else { "" };
    Some(found(
        Kind::Vae,
        "an autoencoder (VAE)",
        fits,
        Some("--vae"),
        &format!("Convert it with --vae{beside}"),
    ))
}

fn clip(checkpoint: &Checkpoint, names: &Names) -> Option<Recognized> {
    let openai = names.has("positional_embedding") || names.has("text.positional_embedding");
    let text =
        clip::is_transformers(checkpoint, Tower::Text) || openai && names.any("token_embedding.weight");
    let vision = clip::is_transformers(checkpoint, Tower::Vision) || names.has("visual.conv1.weight");
    let width = names.side("token_embedding.weight", 1);
    Some(match (text, vision) {
        (true, true) => {
            let advice = "Convert its towers with --text-encoder and --vision-encoder";
            found(Kind::Clip, "a CLIP with both towers", "models that were trained with it", None, advice)
        }
        (true, false) => {
            found(Kind::TextEncoder, "a text encoder (CLIP)", of_width(width), Some("--text-encoder"), "")
        }
        (false, true) => {
            let fits = "adapters and guidance that were trained with it";
            found(Kind::VisionEncoder, "a vision encoder (CLIP)", fits, Some("--vision-encoder"), "")
        }
        (false, false) => return None,
    })
}

fn others(names: &Names) -> Option<Recognized> {
    if names.has("layer1.0.conv1.weight") && names.has("fc.weight") && names.any("features.") {
        return Some(face_network());
    }
    if names.has("backbone.model0.conv1.weight") {
        let advice = "Convert its folder with --detector";
        return Some(found(
            Kind::Detector,
            "a face detector (YuNet)",
            "every model",
            Some("--detector"),
            advice,
        ));
    }
    if names.any("detr.") || names.any("query_position_embeddings.weight") {
        let masks = names.any("mask_head.out_lay.weight");
        let flag = masks.then_some("--segmenter");
        let advice = if masks {
            "Convert its folder, with config.json, with --segmenter"
        } else {
            "It draws boxes only: it has no mask head"
        };
        return Some(found(
            Kind::Segmenter,
            "a network that finds objects (DETR)",
            "every model",
            flag,
            advice,
        ));
    }
    if names.has("prd_embedding") || names.any("encoder_hidden_states_proj.") && names.has("clip_mean") {
        let advice = "Convert its folder, with config.json and its scheduler's, with --prior";
        return Some(found(
            Kind::Prior,
            "an unCLIP prior",
            "models whose vision encoders are as wide",
            Some("--prior"),
            advice,
        ));
    }
    if upscaler::is_upscaler(names.1) {
        let fits = "finished pictures, which `facestudio enlarge` makes larger with it";
        return Some(found(Kind::Upscaler, "an upscaler (Real-ESRGAN)", fits, Some("--upscaler"), ""));
    }
    if names.any("rdb1.conv1.weight") || names.any("RDB1.conv1.0.weight") || names.any("residual_group.") {
        return Some(other_upscaler());
    }
    // A plain chain of convolutions whose last one makes several pixels of each.
    if names.has("body.0.weight") && names.has("body.1.weight") && names.side("body.0.weight", 1) == Some(3) {
        return Some(other_upscaler());
    }
    let words = names.0.iter().all(|name| {
        let text = |part: &str| name.starts_with(part);
        text("emb_params")
            || text("string_to_param")
            || text("<")
            || ["clip_l", "clip_g"].contains(&name.as_str())
    });
    // One matrix, or one word's numbers, and nothing else.
    let width = names.0.first().and_then(|name| names.1.shape(name)?.last().copied());
    let single = names.0.len() == 1 && matches!(width, Some(768 | 1024 | 1280));
    if !names.0.is_empty() && (words || single) {
        let advice = "Nothing to convert: name it with `facestudio generate --embedding`, and write its word in the prompt";
        return Some(found(
            Kind::Embedding,
            "an embedding (textual inversion)",
            of_width(width),
            None,
            advice,
        ));
    }
    None
}

fn other_upscaler() -> Recognized {
    let advice = "Use one in the layout of Real-ESRGAN's repository: SRVGGNetCompact or RRDBNet";
    found(Kind::Upscaler, "an upscaler (ESRGAN or its kin)", "pictures, not latents", None, advice)
}

/// Fails with `file-kind` where `convert` takes no such file without a flag.
pub fn flag_of(path: &Path, recognized: &Recognized) -> Result<&'static str> {
    recognized.flag.ok_or_else(|| {
        Error::input(
            "file-kind",
            format!("{} is {}, which convert does not take by itself", path.display(), recognized.what),
            recognized.advice.clone(),
        )
    })
}
