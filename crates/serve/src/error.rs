//! What keeps the page from being served.

use std::{fmt, io as system};

/// Why nothing is served.
#[derive(Debug)]
pub enum Error {
    /// What was asked for cannot be.
    Refused {
        /// A code of docs/errors.md.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The system failed.
    Io {
        /// The folder or the address that it is about.
        place: String,
        /// What it says.
        source: system::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message, remedy } => write!(f, "{message} [{code}]\n  help: {remedy}"),
            Self::Io { place, source } => write!(f, "{place}: {source}"),
        }
    }
}

impl std::error::Error for Error {}

pub(crate) fn cannot_serve(code: &'static str, message: String, remedy: &'static str) -> Error {
    Error::Refused { code, message, remedy }
}

pub(crate) fn io(place: impl fmt::Display, source: system::Error) -> Error {
    Error::Io { place: place.to_string(), source }
}
