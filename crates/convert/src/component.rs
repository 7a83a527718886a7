//! One component's checkpoint, in whichever layout, under our names and with our config.

use std::path::Path;

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::clip::{self, Layers, Tower};
use super::layout::Layout;
use super::open_clip::OpenClip;
use super::{
    Plan, Slot, declared, detector, face, flux2, ip_adapter, json_file, ldm, segmenter, tiny, upscaler,
};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// What makes a UNet in diffusers' config one that is told more than timestep and text.
const OTHER_INPUTS: [&str; 5] = [
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
];

/// A component's checkpoint.
pub fn open(slot: Slot, path: &Path) -> Result<Checkpoint> {
    // diffusers' folder has a config.
    if slot == Slot::TinyVae
        && !path.join("config.json").exists()
        && let Some(taesd) = Checkpoint::open_parts(path, &tiny::PARTS)?
    {
        return Ok(taesd);
    }
    Checkpoint::open(path)
}

/// The folder in diffusers' or transformers' layout that a checkpoint is of: itself, or the one around its file; `None` for files
/// in layouts that need no config.
pub fn described_in<'a>(slot: Slot, path: &'a Path, checkpoint: &Checkpoint) -> Option<&'a Path> {
    if path.is_dir() { Some(path) } else { path.parent().filter(|_| needs_config(slot, checkpoint)) }
}

/// Whether a component's tensors have the names of diffusers or transformers, which leave the rest to a config.
fn needs_config(slot: Slot, checkpoint: &Checkpoint) -> bool {
    let has = |name: &str| checkpoint.shape(name).is_some();
    match slot {
        Slot::Unet => has("conv_in.weight"),
        Slot::Transformer => flux2::is_diffusers(checkpoint),
        Slot::Vae => has("encoder.down_blocks.0.resnets.0.conv1.weight"),
        Slot::TinyVae => has("encoder.layers.0.weight"),
        Slot::TextEncoder => clip::is_transformers(checkpoint, Tower::Text) || flux2::is_qwen3(checkpoint),
        Slot::VisionEncoder => clip::is_transformers(checkpoint, Tower::Vision),
        Slot::Segmenter | Slot::Prior => true,
        Slot::Detector => checkpoint.graph().is_none(),
        Slot::FaceEncoder | Slot::Upscaler | Slot::IpAdapter(_) => false,
    }
}

/// Whether a config is one of the networks that a component may be.
fn is_of(slot: Slot, config: &Value) -> bool {
    let (model, class) = (config["model_type"].as_str(), config["_class_name"].as_str());
    match slot {
        Slot::Unet => class.is_some_and(|class| class.starts_with("UNet")),
        Slot::Transformer => class.is_some_and(|class| class.starts_with("Flux2Transformer")),
        Slot::Vae | Slot::TinyVae => class.is_some_and(|class| class.starts_with("Autoencoder")),
        Slot::TextEncoder => matches!(model, Some("clip" | "clip_text_model" | "qwen3")),
        Slot::VisionEncoder => matches!(model, Some("clip" | "clip_vision_model")),
        _ => true,
    }
}

/// The config and the tensors of a component, under our names.
pub fn read<'a>(
    slot: Slot,
    path: &Path,
    checkpoint: &'a Checkpoint,
    plan: &Plan,
) -> Result<(Value, Layout<'a>)> {
    let own = if ldm::is_ldm(checkpoint) { None } else { OpenClip::beside(path)? };
    let act = own.as_ref().map_or(plan.clip_act.as_str(), |own| own.act());
    let read = || {
        if let Slot::IpAdapter(i) = slot
            && let Some(adapter) = plan.adapters.get(i)
        {
            return ip_adapter::ip_adapter(checkpoint, adapter, plan.face_id_plus);
        }
        if checkpoint.is_of_parts() {
            return tiny::taesd(checkpoint);
        }
        if matches!(slot, Slot::Unet | Slot::Vae) {
            declared::refuse_architecture(checkpoint)?;
        }
        let folder = described_in(slot, path, checkpoint);
        let config = folder.filter(|folder| folder.join("config.json").is_file());
        let config = config.map(|folder| json_file(folder, "config.json")).transpose()?;
        // Beside a single file may lie another network's.
        match config.filter(|config| path.is_dir() || is_of(slot, config)) {
            Some(config) => with_config(slot, folder.unwrap_or(path), checkpoint, config),
            None => without_config(slot, checkpoint, act),
        }
    };
    let (mut config, layout) = read().map_err(|e| e.context(path.display()))?;
    if let Some(own) = &own {
        own.complete(slot, &mut config).map_err(|e| e.context(path.display()))?;
    }
    if layout.names().is_empty() {
        return Err(Error::weights(
            "checkpoint-layout",
            format!("{} holds nothing of {}", path.display(), slot.folder()),
            "check what kind of checkpoint it is: docs/weights.md lists those that can be converted",
        ));
    }
    Ok((config, layout))
}

/// A component of a folder in diffusers' or transformers' layout, with its `config.json`.
fn with_config<'a>(
    slot: Slot,
    folder: &Path,
    checkpoint: &'a Checkpoint,
    config: Value,
) -> Result<(Value, Layout<'a>)> {
    if let Some(method) = config.get("quantization_config").filter(|method| !method.is_null()) {
        let name = method["quant_method"].as_str().unwrap_or("another program's");
        return Err(Error::weights(
            "quantization-scheme",
            format!("its config.json says that its weights are quantised: {name}"),
            "use the model as it was before, in f32, f16 or bf16: facestudio quantises it itself",
        ));
    }
    // Of open_clip's repositories, which hold both layouts.
    let act = config["hidden_act"].as_str().unwrap_or("quick_gelu").to_owned();
    match slot {
        Slot::TextEncoder if config["model_type"] == "qwen3" => {
            let layout = flux2::qwen3(checkpoint, &config)?;
            Ok((config, layout))
        }
        // Its publisher's file may lie in the folder, beside diffusers' config.
        Slot::Transformer if flux2::is_publishers(checkpoint) => {
            let (_, layout) = flux2::transformer(checkpoint)?;
            Ok((config, layout))
        }
        Slot::TextEncoder if checkpoint.shape("positional_embedding").is_some() => {
            clip::openai_text(checkpoint, "", &act, Layers::All)
        }
        Slot::TextEncoder => clip::transformers(checkpoint, Some(&config), Tower::Text, &act),
        Slot::VisionEncoder if checkpoint.shape("visual.conv1.weight").is_some() => {
            clip::openai_vision(checkpoint, &act)
        }
        Slot::VisionEncoder if config["model_type"] != "clip_resnet" => {
            clip::transformers(checkpoint, Some(&config), Tower::Vision, &act)
        }
        Slot::Segmenter if config["person_label"].is_null() => {
            let name = "preprocessor_config.json";
            let beside = folder.join(name).exists();
            let preprocessor = if beside { json_file(folder, name)? } else { Value::Null };
            segmenter::detr(checkpoint, &config, &preprocessor)
        }
        Slot::Unet => {
            refuse_other_unets(&config)?;
            Ok((config, whole(checkpoint)?))
        }
        _ => Ok((config, whole(checkpoint)?)),
    }
}

/// Fails, naming it, where a UNet's config is that of another kind of model, before its gigabytes are written.
fn refuse_other_unets(config: &Value) -> Result<()> {
    let side = |name: &str| config[name].as_u64().unwrap_or(4);
    let (takes, gives) = (side("in_channels"), side("out_channels"));
    let told = OTHER_INPUTS.iter().find(|name| !config[**name].is_null());
    let what = match told {
        None if takes == gives => return Ok(()),
        None => format!("its UNet takes {takes} channels and gives {gives}, as those for inpainting do"),
        Some(name) => {
            format!(
                "its UNet is told more than a text, as Stable Diffusion XL's is: {name} is {}",
                config[*name]
            )
        }
    };
    Err(Error::weights(
        "checkpoint-layout",
        what,
        "use a plain Stable Diffusion 1 or 2: it draws and inpaints",
    ))
}

/// A component of a file whose tensors tell what it is.
fn without_config<'a>(slot: Slot, checkpoint: &'a Checkpoint, act: &str) -> Result<(Value, Layout<'a>)> {
    match slot {
        Slot::Unet if !needs_config(slot, checkpoint) => ldm::unet(checkpoint),
        Slot::Transformer if flux2::is_publishers(checkpoint) => flux2::transformer(checkpoint),
        Slot::Vae if !needs_config(slot, checkpoint) => ldm::vae(checkpoint),
        Slot::TextEncoder if ldm::is_ldm(checkpoint) => {
            let v2 = format!("{}ln_final.weight", ldm::TEXT_V2);
            if checkpoint.shape(&v2).is_some() {
                let layers = Layers::penultimate(checkpoint, ldm::TEXT_V2);
                clip::openai_text(checkpoint, ldm::TEXT_V2, "gelu", layers)
            } else {
                clip::text_without_config(checkpoint, ldm::TEXT_V1, ldm::is_v2(checkpoint))
            }
        }
        Slot::TextEncoder if clip::is_transformers(checkpoint, Tower::Text) => {
            clip::transformers(checkpoint, None, Tower::Text, act)
        }
        Slot::TextEncoder => {
            // open_clip's `CustomTextCLIP` puts its text tower beside the vision tower.
            let custom = checkpoint.shape("text.token_embedding.weight").is_some();
            clip::openai_text(checkpoint, if custom { "text." } else { "" }, act, Layers::All)
        }
        Slot::VisionEncoder if clip::is_transformers(checkpoint, Tower::Vision) => {
            clip::transformers(checkpoint, None, Tower::Vision, act)
        }
        Slot::VisionEncoder => clip::openai_vision(checkpoint, act),
        Slot::FaceEncoder => face::iresnet(checkpoint),
        Slot::Upscaler => upscaler::upscaler(checkpoint),
        Slot::Detector if let Some(graph) = checkpoint.graph() => detector::yunet(checkpoint, graph),
        _ => Err(Error::input(
            "convert-config",
            format!("{} needs its config.json", slot.folder()),
            "give the folder that holds it beside the weights",
        )),
    }
}

fn whole(checkpoint: &Checkpoint) -> Result<Layout<'_>> {
    let mut layout = Layout::new(checkpoint);
    for name in checkpoint.names() {
        if !name.ends_with("num_batches_tracked") && !declared::is_mark(&name) {
            layout.keep(&name, name.clone())?;
        }
    }
    Ok(layout)
}
