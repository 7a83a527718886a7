//! Files that lie beside weights and decide what they mean: those of tokenizers, the preprocessing of vision encoders, the
//! schedule of priors, and the defaults of model folders. What is carried was read first, so that nothing is converted that cannot be used.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::open_clip::OpenClip;
use super::supported::SCHEDULER;
use super::{Output, Plan, Slot, flux2, small_file};
use facestudio::encoders::tokenizer::{FILES, Qwen2Tokenizer, Tokenizer};
use facestudio::encoders::vision::{PREPROCESSOR, VisionConfig, preprocessing, preprocessor_config};
use facestudio::error::{Error, Result};
use facestudio::internal::without_mark;
use facestudio::weights::{CheckedFolder, Component};

/// How a chat is written.
const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// What diffusers' pipelines say of a folder as a whole.
const MODEL_INDEX: &str = "model_index.json";
/// The token that open_clip fills texts up with, `!`.
const OPEN_CLIP_PAD: u32 = 0;

/// The folder of the tokenizer: the one that is given, the text encoder's own where it has one in its folder, or else the
/// base's.
fn tokenizer_folder(plan: &Plan) -> Option<PathBuf> {
    let holds =
        |folder: &Path| ["vocab.json", "tokenizer.json"].iter().any(|name| folder.join(name).exists());
    let of_text = text_encoder(plan).filter(|path| holds(path)).cloned();
    let of_base = plan.base.as_ref().filter(|base| base.is_dir()).map(|base| base.join("tokenizer"));
    plan.tokenizer.clone().or(of_text).or(of_base)
}

/// The text encoder that is given beside the base.
fn text_encoder(plan: &Plan) -> Option<&PathBuf> {
    plan.parts.iter().find(|(slot, _)| *slot == Slot::TextEncoder).map(|(_, path)| path)
}

/// Fails where the tokenizer cannot be used.
pub fn check_tokenizer(plan: &Plan) -> Result<()> {
    let Some(folder) = tokenizer_folder(plan) else { return Ok(()) };
    if flux2::is_planned(plan) { load_chat(&folder) } else { load(&folder).map(|_| ()) }
}

fn load(folder: &Path) -> Result<Tokenizer> {
    let files = CheckedFolder::new(folder);
    Tokenizer::load(&Component::new(&files, "")).map_err(|e| e.context(folder.display()))
}

/// Fails where the tokenizer of a chat cannot be used.
fn load_chat(folder: &Path) -> Result<()> {
    let files = CheckedFolder::new(folder);
    let tokenizer = Qwen2Tokenizer::load(&Component::new(&files, ""));
    tokenizer.map(|_| ()).map_err(|e| e.context(folder.display()))
}

/// Writes the tokenizer.
pub fn tokenizer(plan: &Plan, out: &dyn Output) -> Result<()> {
    let Some(folder) = tokenizer_folder(plan) else { return Ok(()) };
    if flux2::is_planned(plan) {
        load_chat(&folder)?;
        return copy_tokenizer(&folder, &[&FILES[..], &[CHAT_TEMPLATE]].concat(), out);
    }
    let tokenizer = load(&folder)?;
    let of_file = text_encoder(plan).is_none() && plan.base.as_ref().is_some_and(|base| base.is_file());
    if of_file && is_open_clips(out)? && tokenizer.pad_token_id() != OPEN_CLIP_PAD {
        return Err(Error::input(
            "convert-config",
            format!(
                "{} fills prompts up with another token than '!', with which Stable Diffusion 2 was trained",
                folder.display()
            ),
            "give --tokenizer the tokenizer of Stable Diffusion 2, whose pad_token is '!'",
        ));
    }
    copy_tokenizer(&folder, &FILES, out)
}

fn copy_tokenizer(folder: &Path, names: &[&str], out: &dyn Output) -> Result<()> {
    for name in names {
        let path = folder.join(name);
        if path.exists() {
            out.write(&format!("tokenizer/{name}"), &small_file(&path)?)?;
        }
    }
    Ok(())
}

/// Writes what diffusers says of the base as a whole, where it is a FLUX.2 klein.
pub fn index(plan: &Plan, out: &dyn Output) -> Result<()> {
    let base = plan.base.as_ref().filter(|base| base.is_dir() && flux2::is_planned(plan));
    let Some(file) = base.map(|base| base.join(MODEL_INDEX)) else { return Ok(()) };
    out.write(MODEL_INDEX, &small_file(&file)?)
}

/// Whether the text encoder that was written is open_clip's, as in the single files of Stable Diffusion 2.
fn is_open_clips(out: &dyn Output) -> Result<bool> {
    let config: Value = Component::new(&out.files(), "text_encoder").json("config.json")?;
    Ok(config["hidden_act"] == "gelu")
}

/// Adds what the base's `defaults.json` says of its steps and guidance to that of the new folder, which wins.
pub fn defaults(plan: &Plan, out: &dyn Output) -> Result<()> {
    const NAME: &str = "defaults.json";
    let base = plan.base.as_ref().map(|base| base.join(NAME)).filter(|file| file.exists());
    let Some(file) = base else { return Ok(()) };
    let mut said: Map<String, Value> =
        serde_json::from_slice(without_mark(&small_file(&file)?)).map_err(|e| {
            Error::weights(
                "config",
                format!("{}: {e}", file.display()),
                "use a model folder's own defaults.json",
            )
        })?;
    let written = out.files();
    let component = Component::new(&written, "");
    if component.contains(NAME)? {
        said.extend(component.json::<Map<String, Value>>(NAME)?);
    }
    out.write(NAME, &super::pretty(&said.into())?)
}

/// Writes what lies beside the weights at `path` into the component's new `folder`.
pub fn carry(slot: Slot, path: &Path, folder: &str, out: &dyn Output) -> Result<()> {
    match slot {
        Slot::VisionEncoder => vision(path, folder, out).map_err(|e| e.context(path.display())),
        Slot::Prior => prior(path, folder, out),
        _ => Ok(()),
    }
}

/// A vision encoder's `preprocessor_config.json`: its folder's, or that of the pipeline that the folder is in, or what
/// open_clip says.
fn vision(path: &Path, folder: &str, out: &dyn Output) -> Result<()> {
    let (root, own) = split(path);
    let files = CheckedFolder::new(root);
    let mut config = preprocessor_config(&Component::new(&files, &own))?;
    if config.is_none()
        && let Some(open_clip) = OpenClip::beside(path)?
    {
        config = open_clip.preprocessor()?;
    }
    let Some(config) = config else { return Ok(()) };
    out.write(&format!("{folder}/{PREPROCESSOR}"), &super::pretty(&config.into())?)?;
    let written = out.files();
    let component = Component::new(&written, folder);
    preprocessing(&component, VisionConfig::read(&component)?.image_size()).map(|_| ())
}

/// The file with a prior's schedule, which pipelines keep in a folder beside it.
pub fn prior_schedule(path: &Path) -> Option<PathBuf> {
    let (root, _) = split(path);
    [path.join(SCHEDULER), root.join("scheduler").join(SCHEDULER)].into_iter().find(|file| file.exists())
}

fn prior(path: &Path, folder: &str, out: &dyn Output) -> Result<()> {
    let Some(file) = prior_schedule(path) else { return Ok(()) };
    out.write(&format!("{folder}/{SCHEDULER}"), &small_file(&file)?)
}

/// The folder above a component's, and the component's name there; a file's component is the folder that it lies in.
fn split(path: &Path) -> (PathBuf, String) {
    // A path that cannot be resolved fails where it is read.
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = if full.is_dir() { full } else { full.parent().map(Path::to_owned).unwrap_or_default() };
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    (folder.parent().map(Path::to_owned).unwrap_or_default(), name)
}
