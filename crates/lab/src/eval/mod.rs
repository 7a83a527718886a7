//! The paper's experiments as numbers and pictures, on held-out rendered people, with an identity encoder that conditions
//! nothing; and how reliable the watermark is.
//!
//! An experiment is a file: it plans the pictures that it needs ([`Drawing`](drawing::Drawing)s, which several experiments
//! may share) and measures figures once they are all there; a template of its name says them in words. [`Evaluation::run`]
//! draws what is missing, measures, and writes `report.json` and `index.html`.

mod alpha;
mod attributes;
mod baselines;
mod clip;
mod creatures;
mod diversity;
mod drawing;
mod experiments;
mod frechet;
mod html;
mod image_to_image;
mod judge;
mod lab;
mod likeness;
mod mixing;
mod non_human;
mod options;
mod plot;
mod precision;
mod psnr;
mod report;
mod section;
mod several;
mod statistics;
mod steps;
mod store;
mod style_swap;
mod styles;
mod table_1;
mod tuner;
mod views;
mod watermark;
mod words;

pub use experiments::{EXPERIMENTS, EvalEvent, Evaluation, Experiment, Named, Run};
pub use options::EvalOptions;
pub use report::{Findings, Report};
pub use section::{Cell, Figure, Table, Target, Unit};
pub use statistics::Estimate;
pub use watermark::{ATTACKS, Attack, SCORES, Scores, WatermarkOptions, WatermarkReport, watermark};
