//! Pictures that flags name.

use std::path::Path;

use facestudio::image::codec;
use facestudio::{Error, Result};
use image::{GrayImage, RgbImage};

/// What is wrong with it is told with its path.
pub fn open(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path.display(), &e))?;
    codec::decode(&bytes).map_err(|e| e.context(path.display()))
}

/// As [`open`], a mask.
pub fn open_mask(path: &Path) -> Result<GrayImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path.display(), &e))?;
    codec::decode_mask(&bytes).map_err(|e| e.context(path.display()))
}
