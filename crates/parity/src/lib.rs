//! Single networks, and the sampling loop, on given tensors: numbers that can be held against any reference.
//!
//! The tests that hold them against PyTorch's lie in `tests/parity`, each beside its fixtures and the script that made them.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod component;
pub mod denoise;
mod given;
mod inputs;
