//! Pictures that flags name.

use std::path::Path;

use facestudio::Result;
use facestudio::image::codec;
use facestudio::weights::read_file;
use image::{GrayImage, RgbImage};

/// What is wrong with it is told with its path.
pub fn open(path: &Path) -> Result<RgbImage> {
    codec::decode(&read_file(path, codec::MAX_FILE)?).map_err(|e| e.context(path.display()))
}

/// As [`open`], a mask.
pub fn open_mask(path: &Path) -> Result<GrayImage> {
    codec::decode_mask(&read_file(path, codec::MAX_FILE)?).map_err(|e| e.context(path.display()))
}

/// Whether there is a picture, whole.
pub fn is_there(path: &Path) -> bool {
    path.exists() && open(path).is_ok()
}
