//! A picture made again: its recipe, from its PNG, and the pictures that it was made from.

use std::path::{Path, PathBuf};

use facestudio::Result;
use facestudio::image::codec;
use facestudio::request::{Embedding, GenerateRequest, Recipe};
use facestudio::weights::read_file;

use crate::picture::{open, open_mask};

/// The recipe of a PNG.
pub fn read(path: &Path) -> Result<Recipe> {
    codec::read_recipe(&read_file(path, codec::MAX_FILE)?).map_err(|e| e.context(path.display()))
}

/// The request behind a PNG. `words` are the prompt and the negative prompt, where the PNG leaves them out.
pub fn request(
    path: &Path,
    photos: &[PathBuf],
    embeddings: &[Embedding],
    words: [Option<&str>; 2],
) -> Result<GenerateRequest> {
    let recipe = read(path)?;
    let pictures = photos.iter().map(|photo| open(photo)).collect::<Result<Vec<_>>>()?;
    let masks = photos.iter().map(|photo| open_mask(photo)).collect::<Result<Vec<_>>>()?;
    recipe.request(&pictures, &masks, embeddings, words).map_err(|e| e.context(path.display()))
}
