//! The one error of the crate: whose fault it is, a stable code, what happened, and what to do about it.

use std::collections::BTreeMap;

/// Whose fault an [`Error`] is. Decides the exit status of the command line and how the page words it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request: a picture, a number, a flag or a prompt that cannot be used.
    Input,
    /// The model folder: a config, a manifest or a tensor that is missing, damaged or of the wrong shape.
    Weights,
    /// The device: none of the asked kind, out of memory, or lost.
    Device,
    /// The file system or the network.
    Io,
    /// The user cancelled.
    Cancelled,
    /// A broken invariant of this crate: please report it.
    Internal,
}

/// An error with a stable `code` for programs, and a message and a remedy for people.
///
/// The codes are listed in `docs/errors.md`; a test keeps the list complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{code}]{}", if remedy.is_empty() { String::new() } else { format!("\n  help: {remedy}") })]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// Stable, kebab-case, for example `alpha-range`.
    pub code: &'static str,
    /// What happened, naming the input.
    pub message: String,
    /// What to do about it; empty where nothing can be said.
    pub remedy: String,
}

/// What was done otherwise than a request asked, though its pictures were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Stable, kebab-case; listed in `docs/errors.md` as those of errors are.
    pub code: &'static str,
    /// What happened, in English.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// What the message names, by its role in it: for those who say it in another language.
    pub values: BTreeMap<&'static str, String>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A request that cannot be carried out.
    pub fn input(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Fault::Input, code, message, remedy)
    }

    /// A model folder or tensor file that cannot be used.
    pub fn weights(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Fault::Weights, code, message, remedy)
    }

    /// A device that is missing or failed.
    pub fn device(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Fault::Device, code, message, remedy)
    }

    /// A file that could not be read or written.
    pub fn io(path: impl std::fmt::Display, source: &std::io::Error) -> Self {
        Self::new(Fault::Io, "io", format!("{path}: {source}"), "")
    }

    /// The user cancelled.
    pub fn cancelled() -> Self {
        Self::new(Fault::Cancelled, "cancelled", "cancelled", "")
    }

    /// A broken invariant.
    pub fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Fault::Internal, code, message, "this is a bug: please report it")
    }

    fn new(fault: Fault, code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault, code, message: message.into(), remedy: remedy.into() }
    }

    /// The same error with `context` (usually a file or a component) in front of its message.
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}
