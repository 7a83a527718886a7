//! Files of Textual Inversion: AUTOMATIC1111's (`.pt` with `string_to_param`, `.safetensors` with `emb_params`) and diffusers'
//! (`.safetensors`, `.bin` or `.pt` with one tensor under its word).

use std::path::Path;

use facestudio::error::{Error, Result};
use facestudio::request::Embedding;
use facestudio::weights::TensorSource;

use crate::checkpoint::Checkpoint;

/// The name that the web UI's safetensors files have for what their file's name is the word of.
const NAMELESS: &str = "emb_params";
/// Where its `.pt` files, and those of the authors, have it.
const PARAMETERS: &str = "string_to_param.";
/// What Stable Diffusion XL's two text encoders have.
const XL: [&str; 2] = ["clip_l", "clip_g"];

/// Reads a file. Its word is `word`, or else the one that diffusers wrote into it, or else the file's name without its ending, as in
/// the web UI.
///
/// Fails with `embedding-format` where it has no vectors of one word.
pub fn read(path: &Path, word: Option<&str>) -> Result<Embedding> {
    let checkpoint = Checkpoint::open(path)?;
    let names = checkpoint.names();
    let refuse = |reason: String| {
        Error::input(
            "embedding-format",
            format!("{}: {reason}", path.display()),
            "give a file of Textual Inversion for Stable Diffusion 1 or 2",
        )
    };
    if names.iter().any(|name| XL.contains(&name.as_str())) {
        return Err(refuse("it is an embedding for Stable Diffusion XL's two text encoders".to_owned()));
    }
    let [name] = &names[..] else {
        return Err(refuse(format!("it has {} tensors; an embedding has one", names.len())));
    };
    let shape = checkpoint.shape(name).unwrap_or_default();
    let width = match shape[..] {
        [width] | [_, width] => width,
        _ => return Err(refuse(format!("'{name}' has shape {shape:?}; vectors are one after the other"))),
    };
    let own = Some(name.as_str()).filter(|name| *name != NAMELESS && !name.starts_with(PARAMETERS));
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let word = word.or(own).or(stem).unwrap_or_default();
    Embedding::new(word, checkpoint.read(name)?, width).map_err(|e| e.context(path.display()))
}
