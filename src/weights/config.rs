//! What a config is refused with whose numbers cannot be a network's: damaged, or written to exhaust memory.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// Checks that a config's number lies in `bounds`, so that a damaged config is an error and not a panic or an
/// allocation of terabytes. Fails with `config-range`.
pub(crate) fn check_range(name: &str, value: usize, bounds: RangeInclusive<usize>) -> Result<()> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(config_range(format!("{name} is {value}; it must lie in {}..={}", bounds.start(), bounds.end())))
}

/// The error `config-range`.
pub(crate) fn config_range(message: impl Into<String>) -> Error {
    Error::weights("config-range", message, "use the config.json that belongs to the weights")
}
