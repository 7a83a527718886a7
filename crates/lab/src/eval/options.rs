//! What is asked of an evaluation.

use serde::{Deserialize, Serialize};

use facestudio::request::Defaults;
use facestudio::sampling::Sampler;

/// What decides an evaluation's pictures and figures, beside the model and the encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalOptions {
    /// Held-out people, one trial each; experiments of many pictures a person take half of them.
    pub trials: usize,
    /// The sampler.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub sampler: Sampler,
    /// Denoising steps, except where they are what is measured.
    pub steps: usize,
    /// Classifier-free guidance scale.
    pub guidance_scale: f32,
    /// Seed of the first trial; trial `i` adds `i`.
    pub seed: u64,
    /// Steps in which the paper's baselines are tuned, to try them out; their recipes' own where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning_steps: Option<usize>,
    /// Leaves out what prompts decide, for models that read none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub images_only: bool,
}

/// The paper's sampler goes without saying: pictures that were made before there was another are found again.
pub(super) fn is_usual(sampler: &Sampler) -> bool {
    *sampler == Sampler::default()
}

impl Default for EvalOptions {
    fn default() -> Self {
        let Defaults { sampler, steps, guidance_scale } = Defaults::default();
        Self { trials: 24, sampler, steps, guidance_scale, seed: 0, tuning_steps: None, images_only: false }
    }
}

impl EvalOptions {
    /// Of ways to draw, each with whether a prompt decides it, those that are drawn.
    pub fn drawn<T>(&self, ways: impl IntoIterator<Item = (bool, T)>) -> Vec<T> {
        ways.into_iter().filter(|(words, _)| !(*words && self.images_only)).map(|(_, way)| way).collect()
    }

    /// Trials of experiments that draw many pictures of each person: half, but at least 2.
    pub fn half(&self) -> usize {
        (self.trials / 2).max(2)
    }
}
