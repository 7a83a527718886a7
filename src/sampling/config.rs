//! `scheduler_config.json`, with diffusers' names and defaults.

use serde::{Deserialize, Serialize};

use super::solver::Clips;
use super::{Prediction, Sampler};
use crate::error::{Error, Result};
use crate::weights::{Component, config_range, without_mark};

/// How β grows over the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// β linear in t (DDPM).
    Linear,
    /// √β linear in t (latent diffusion).
    ScaledLinear,
    /// ᾱ a squared cosine, β at most 0.999 (Nichol and Dhariwal 2021, equation 17).
    SquaredcosCapV2,
}

/// Which training steps are visited (Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed",
/// table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Evenly from the last to the first.
    Linspace,
    /// Multiples of a whole stride, from 0 up.
    Leading,
    /// Back from the last in fractional strides.
    Trailing,
}

/// The noise level after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// None.
    Zero,
    /// That of training step 0.
    SigmaMin,
}

/// How flow matching's levels are shifted by μ (Esser et al. 2024, arXiv 2403.03206, section 5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeShift {
    /// By a factor of `exp μ` in noise to signal.
    Exponential,
    /// By a factor of μ.
    Linear,
}

/// `scheduler_config.json`.
///
/// `_class_name` decides the default sampler, and whether the model is of diffusion or of flow matching: every sampler of
/// the same kind runs on the config. A value that the file does not
/// state has the default of the class that runs, as with diffusers' `from_config`; but `clip_sample` is off unless
/// the file states it or is a `DDIMScheduler`'s. For latents [`SchedulerConfig::for_latents`] has the last word.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The class in diffusers.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Training steps, 1000.
    pub num_train_timesteps: Option<usize>,
    /// β of the first training step.
    pub beta_start: Option<f64>,
    /// β of the last training step.
    pub beta_end: Option<f64>,
    /// Between them.
    pub beta_schedule: Option<BetaSchedule>,
    /// Every β; takes the place of the three above.
    pub trained_betas: Option<Vec<f64>>,
    /// What the denoiser predicts.
    pub prediction_type: Option<Prediction>,
    /// Which training steps are visited.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to the timesteps of leading spacing.
    pub steps_offset: Option<usize>,
    /// Rescales β so that the last training step is pure noise (Lin et al. 2023, algorithm 1).
    pub rescale_betas_zero_snr: Option<bool>,
    /// Noise levels of Karras et al. 2022 (equation 5); Euler, Heun, DPM-Solver++ and UniPC.
    pub use_karras_sigmas: Option<bool>,
    /// Lowest level of Karras' schedule.
    pub sigma_min: Option<f64>,
    /// Highest level of Karras' schedule.
    pub sigma_max: Option<f64>,
    /// The level after the last step; Euler, DPM-Solver++ and UniPC.
    pub final_sigmas_type: Option<FinalSigmas>,
    /// Whether DDIM's last step ends without noise, or at the level of training step 0.
    pub set_alpha_to_one: Option<bool>,
    /// Whether x₀ is clipped; DDIM, LCM and Heun.
    pub clip_sample: Option<bool>,
    /// To ± this.
    pub clip_sample_range: Option<f64>,
    /// Steps of the distillation that LCM's timesteps are taken from.
    pub original_inference_steps: Option<usize>,
    /// Factor on LCM's timesteps in the boundary condition.
    pub timestep_scaling: Option<f64>,
    /// 1 or 2, and 3 with UniPC; DPM-Solver++ and UniPC.
    pub solver_order: Option<usize>,
    /// `dpmsolver++`.
    pub algorithm_type: Option<String>,
    /// `midpoint`; `bh1` or `bh2` with UniPC.
    pub solver_type: Option<String>,
    /// First order at the last of fewer than 15 steps; with UniPC falling orders at the last of any number.
    pub lower_order_final: Option<bool>,
    /// First order at the last step.
    pub euler_at_final: Option<bool>,
    /// Lowest λ that is visited; DPM-Solver++ on the cosine schedule.
    pub lambda_min_clipped: Option<f64>,
    /// Not supported when true.
    pub thresholding: Option<bool>,
    /// Not supported when true.
    pub use_exponential_sigmas: Option<bool>,
    /// Not supported when true.
    pub use_beta_sigmas: Option<bool>,
    /// Not supported when true.
    pub use_lu_lambdas: Option<bool>,
    /// Not supported when true.
    pub use_flow_sigmas: Option<bool>,
    /// `linear`.
    pub interpolation_type: Option<String>,
    /// `discrete`.
    pub timestep_type: Option<String>,
    /// Not supported when set.
    pub variance_type: Option<String>,
    /// Steps after which UniPC does not correct, counted from 0.
    pub disable_corrector: Option<Vec<usize>>,
    /// Not supported when false; UniPC.
    pub predict_x0: Option<bool>,
    /// Not supported when set; UniPC.
    pub solver_p: Option<serde_json::Value>,
    /// Flow matching: whether levels are shifted by the picture's size and the steps ([`SchedulerConfig::for_image_tokens`]),
    /// in place of `shift`. Not supported with UniPC.
    pub use_dynamic_shifting: Option<bool>,
    /// How levels are shifted by the size; flow matching.
    pub time_shift_type: Option<TimeShift>,
    /// Levels are `s σ / (1 + (s − 1) σ)` for this s, 1; flow matching.
    pub shift: Option<f64>,
    /// The level that the last step begins at: all are stretched to it. Flow matching.
    pub shift_terminal: Option<f64>,
    /// Whether every step draws fresh noise; flow matching.
    pub stochastic_sampling: Option<bool>,
    /// Not supported when true.
    pub invert_sigmas: Option<bool>,
    /// Tokens of the picture, where a pipeline gives them: [`SchedulerConfig::for_image_tokens`].
    #[serde(skip)]
    pub image_tokens: Option<usize>,
}

/// Most training steps: bounds what a hostile config can allocate.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

impl SchedulerConfig {
    /// Reads `scheduler_config.json`.
    pub fn from_component(component: &Component) -> Result<Self> {
        let name = "scheduler_config.json";
        Self::from_json(&component.read(name)?).map_err(|error| error.context(name))
    }

    /// Parses the text of a `scheduler_config.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        // Python writes the default of `lambda_min_clipped` as -Infinity, which JSON does not know.
        let text = String::from_utf8_lossy(without_mark(bytes)).replace("-Infinity", "null");
        let config: Self = serde_json::from_str(&text).map_err(|e| {
            Error::weights("config", e.to_string(), "use the config of a supported scheduler")
        })?;
        config.default_sampler()?;
        Ok(config)
    }

    /// [`SchedulerConfig::from_component`] for latents of Stable Diffusion's kind: see [`SchedulerConfig::for_latents`].
    pub fn of_latents(component: &Component) -> Result<Self> {
        Self::from_component(component)?.for_latents().map_err(|error| error.context("scheduler_config.json"))
    }

    /// As diffusers' pipelines of Stable Diffusion take a scheduler's config, whatever it states: x₀ is not clipped, since
    /// that is meant for pixels, and leading spacing starts at training step 1. Fails with `config-unsupported` on flow
    /// matching, which those models are not trained for.
    pub fn for_latents(self) -> Result<Self> {
        if self.default_sampler()?.is_of_flow_matching() {
            return Err(unknown_class(&self.class_name, Sampler::of_diffusion()));
        }
        Ok(Self { clip_sample: Some(false), steps_offset: Some(1), ..self })
    }

    /// [`SchedulerConfig::from_component`] for a model of flow matching. Fails with `config-unsupported` on diffusion.
    pub fn of_flow_matching(component: &Component) -> Result<Self> {
        let config = Self::from_component(component)?;
        if config.default_sampler()?.is_of_flow_matching() {
            return Ok(config);
        }
        let known = Sampler::ALL.iter().copied().filter(|sampler| sampler.is_of_flow_matching());
        Err(unknown_class(&config.class_name, known).context("scheduler_config.json"))
    }

    /// As diffusers' pipelines of FLUX.2 take a scheduler's config for a picture of so many tokens: levels fall evenly from 1,
    /// and are shifted by size and steps where the config has `use_dynamic_shifting`.
    #[must_use]
    pub fn for_image_tokens(self, tokens: usize) -> Self {
        Self { image_tokens: Some(tokens), ..self }
    }

    /// What the denoiser predicts: the noise, unless the config says otherwise.
    pub fn prediction(&self) -> Prediction {
        let flow = Sampler::of_class(&self.class_name).is_some_and(Sampler::is_of_flow_matching);
        self.prediction_type.unwrap_or(if flow { Prediction::Flow } else { Prediction::Epsilon })
    }

    /// The sampler of the config's class; Euler ancestral, the paper's, where this crate does not have the class but its
    /// config means the same.
    pub fn default_sampler(&self) -> Result<Sampler> {
        Sampler::of_class(&self.class_name)
            .ok_or_else(|| unknown_class(&self.class_name, Sampler::ALL.iter().copied()))
    }

    /// Training steps.
    pub fn train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(1000)
    }

    /// ᾱ of every training step (`alphas_cumprod`), for the config's own class: what training noises with.
    pub fn alphas_cumprod(&self) -> Result<Vec<f64>> {
        self.alphas_cumprod_for(self.default_sampler()?)
    }

    pub(super) fn alphas_cumprod_for(&self, sampler: Sampler) -> Result<Vec<f64>> {
        let count = self.train_timesteps();
        if !(2..=MAX_TRAIN_TIMESTEPS).contains(&count) {
            return Err(range(format!("num_train_timesteps is {count}")));
        }
        if self.steps_offset.is_some_and(|offset| offset >= count) {
            return Err(range(format!("steps_offset is {:?} of {count} training steps", self.steps_offset)));
        }
        let mut product = 1.0;
        let mut alphas_cumprod = Vec::with_capacity(count);
        for beta in self.betas(sampler, count)? {
            if !(0.0..1.0).contains(&beta) {
                return Err(range(format!("a β is {beta}")));
            }
            // Models were trained with f32 β: near 1 the rounding is felt.
            product *= f64::from(1.0 - beta as f32);
            alphas_cumprod.push(product);
        }
        if self.rescale_betas_zero_snr.unwrap_or(false) {
            rescale_zero_terminal_snr(&mut alphas_cumprod);
            if !sampler.about().begins_at_pure_noise
                && let Some(last) = alphas_cumprod.last_mut()
            {
                // Close to zero, so that σ stays finite (diffusers' value).
                *last = 2f64.powi(-24);
            }
        }
        Ok(alphas_cumprod)
    }

    fn betas(&self, sampler: Sampler, count: usize) -> Result<Vec<f64>> {
        if let Some(betas) = &self.trained_betas {
            if betas.len() != count {
                return Err(range(format!("{} trained_betas for {count} training steps", betas.len())));
            }
            return Ok(betas.clone());
        }
        let (start, end, schedule) = sampler.about().betas;
        let (start, end) = (self.beta_start.unwrap_or(start), self.beta_end.unwrap_or(end));
        if !((0.0..1.0).contains(&start) && (0.0..1.0).contains(&end)) {
            return Err(range(format!("beta_start is {start}, beta_end {end}")));
        }
        Ok(match self.beta_schedule.unwrap_or(schedule) {
            BetaSchedule::Linear => super::spacing::linspace(start, end, count),
            BetaSchedule::ScaledLinear => super::spacing::linspace(start.sqrt(), end.sqrt(), count)
                .into_iter()
                .map(|root| root * root)
                .collect(),
            BetaSchedule::SquaredcosCapV2 => {
                let alpha_bar = |t: usize| {
                    let t = t as f64 / count as f64;
                    ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
                };
                (0..count).map(|t| (1.0 - alpha_bar(t + 1) / alpha_bar(t)).min(0.999)).collect()
            }
        })
    }

    /// The bound that x₀ is clipped to with `sampler`, if any.
    pub(super) fn clip(&self, sampler: Sampler) -> Option<f64> {
        let clips = match sampler.about().clips {
            Clips::Never => false,
            Clips::IfStated => self.clip_sample.unwrap_or(false),
            Clips::Unless => {
                let own = !self.class_name.is_empty() && Sampler::of_class(&self.class_name) == Some(sampler);
                self.clip_sample.unwrap_or(own)
            }
        };
        clips.then_some(self.clip_sample_range.unwrap_or(1.0))
    }

    /// Whether `sampler`'s class clips x₀ in a config that does not state it.
    pub fn clips_unless_told(sampler: Sampler) -> bool {
        sampler.about().clips == Clips::Unless
    }

    /// The name of what the config asks for and `sampler` does not have.
    fn refused_by(&self, sampler: Sampler) -> Option<&'static str> {
        if self.use_flow_sigmas == Some(true) {
            return Some("use_flow_sigmas");
        }
        if !self.suits(sampler) {
            return Some("prediction_type");
        }
        sampler.solver().refuses(self)
    }

    /// Whether both are of diffusion, or both of flow matching.
    fn suits(&self, sampler: Sampler) -> bool {
        (self.prediction() == Prediction::Flow) == sampler.is_of_flow_matching()
    }

    /// Fails, naming it, if the config asks `sampler` for something this crate does not have. The remedy names the samplers
    /// that draw with this config.
    pub(super) fn check_supported(&self, sampler: Sampler) -> Result<()> {
        let Some(name) = self.refused_by(sampler) else { return Ok(()) };
        let draws = |other: &&Sampler| self.refused_by(**other).is_none() && other.distilled_for().is_none();
        let others: Vec<_> =
            Sampler::ALL.iter().filter(draws).map(|other| other.name().replace('_', "-")).collect();
        let remedy = "use a scheduler config without it".to_owned();
        let message = if self.suits(sampler) {
            format!("the scheduler config's {name} is not supported with the sampler {sampler}")
        } else {
            let kind = if sampler.is_of_flow_matching() { "flow matching" } else { "diffusion" };
            format!(
                "the sampler {sampler} draws with models of {kind}, and by the scheduler config this is none"
            )
        };
        Err(Error::weights(
            "config-unsupported",
            message,
            if others.is_empty() {
                remedy
            } else {
                format!("{remedy}, or another sampler: --sampler {}", others.join(" or "))
            },
        ))
    }
}

/// Shifts and stretches √ᾱ so that its last value is 0 and its first is kept (Lin et al. 2023, algorithm 1).
fn rescale_zero_terminal_snr(alphas_cumprod: &mut [f64]) {
    let (Some(first), Some(last)) =
        (alphas_cumprod.first().map(|a| a.sqrt()), alphas_cumprod.last().map(|a| a.sqrt()))
    else {
        return;
    };
    for alpha in alphas_cumprod {
        *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
    }
}

fn unknown_class(class: &str, known: impl Iterator<Item = Sampler>) -> Error {
    let classes: Vec<_> = known.map(Sampler::scheduler_class).collect();
    Error::weights(
        "config-unsupported",
        format!("scheduler class '{class}' is not supported"),
        format!("use the scheduler config of another class: {}", classes.join(", ")),
    )
}

pub(super) fn range(message: String) -> Error {
    config_range(format!("scheduler config: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_that_are_not_built_in_are_read_as_they_are_meant_or_refused() {
        let of = |class: &str| {
            SchedulerConfig::from_json(format!(r#"{{ "_class_name": "{class}" }}"#).as_bytes())
                .and_then(|config| config.default_sampler())
        };
        assert_eq!(of("").unwrap(), Sampler::EulerAncestral);
        assert_eq!(of("PNDMScheduler").unwrap(), Sampler::EulerAncestral);
        assert_eq!(of("DDIMParallelScheduler").unwrap(), Sampler::Ddim);
        let error = of("UnCLIPScheduler").unwrap_err();
        assert_eq!(error.code, "config-unsupported");
        assert!(error.message.contains("UnCLIPScheduler") && !error.remedy.contains("--sampler"), "{error}");
    }

    #[test]
    fn a_refusal_names_samplers_that_draw_with_the_config() {
        for json in [
            r#"{"thresholding": true}"#,
            r#"{"use_beta_sigmas": true}"#,
            r#"{"solver_order": 4}"#,
            r#"{"predict_x0": false}"#,
            r#"{"use_flow_sigmas": true}"#,
            r#"{"timestep_type": "continuous"}"#,
        ] {
            let config = SchedulerConfig::from_json(json.as_bytes()).unwrap();
            let refused = Sampler::ALL.iter().filter_map(|sampler| {
                config.schedule(*sampler, 3, None).err().map(|error| (*sampler, error))
            });
            let mut count = 0;
            for (sampler, error) in refused {
                count += 1;
                assert_eq!(error.code, "config-unsupported", "{sampler}: {error}");
                let Some((_, named)) = error.remedy.split_once("--sampler ") else {
                    assert!(json.contains("flow"), "{error}");
                    continue;
                };
                for name in named.split(" or ") {
                    let named: Sampler = name.replace('-', "_").parse().unwrap();
                    config.schedule(named, 3, None).unwrap();
                }
            }
            assert!(count > 0, "{json}");
        }
    }
}
