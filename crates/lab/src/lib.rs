//! Training and evaluation: what makes models, and what says how good they are.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod chart;
pub mod eval;
mod matrix;
mod read_back;
pub mod train;
