//! What flags name, looked at before any work is done.

use std::path::Path;

use facestudio::{Error, Result};

/// A number of a flag, at most `MOST`: lists are made of so many.
pub fn up_to<const MOST: usize>(text: &str) -> std::result::Result<usize, String> {
    let number: usize = text.parse().map_err(|e: std::num::ParseIntError| e.to_string())?;
    if number <= MOST { Ok(number) } else { Err(format!("it must be at most {MOST}")) }
}

/// Fails where there is no model folder.
pub fn check_model(path: &Path) -> Result<()> {
    let Err(e) = std::fs::read_dir(path) else { return Ok(()) };
    let remedy = "name a model folder with --model; `facestudio presets` lists how to make one. Without --model, `generate` and \
                  `faces` take mini, which the program carries";
    Err(Error { remedy: remedy.to_owned(), ..Error::io(path.display(), &e) })
}
