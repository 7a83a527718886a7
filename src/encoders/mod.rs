//! One pretrained network each: words and pictures to embeddings. Knows nothing of guidance or the denoiser.

pub mod detector;
pub mod face;
pub mod text;
pub mod tokenizer;
pub mod vision;

mod transformer;

use crate::error::{Error, Result};

/// Checks that a config's number lies in `bounds`, so that a damaged config is an error and not a panic or an
/// allocation of terabytes.
fn check_range(name: &str, value: usize, bounds: std::ops::RangeInclusive<usize>) -> Result<()> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(config_range(format!("{name} is {value}; it must lie in {}..={}", bounds.start(), bounds.end())))
}

fn config_range(message: String) -> Error {
    Error::weights("config-range", message, "use the config.json that belongs to the weights")
}
