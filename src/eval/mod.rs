//! The paper's questions as numbers, asked of held-out rendered people with an encoder that conditions nothing.

mod identity;

pub use identity::{IdentityOptions, IdentityReport, Trial, identity};
