//! The paper's questions as numbers, asked of held-out rendered people with an encoder that conditions nothing; and how
//! reliable the watermark is.

mod identity;
mod watermark;

pub use identity::{IdentityOptions, IdentityReport, Trial, identity};
pub use watermark::{ATTACKS, Attack, SCORES, Scores, WatermarkOptions, WatermarkReport, watermark};
