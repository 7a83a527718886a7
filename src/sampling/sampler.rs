//! Which samplers there are. A sampler is a file with its [`Solver`], and a row here: command line, serde, the page's list
//! and the documentation read [`Sampler::ALL`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::solver::{About, Solver, Space};
use super::{ddim, dpmpp_2m, euler, euler_ancestral, flow_match_euler, heun, lcm, tcd, unipc};
use crate::error::Error;

macro_rules! samplers {
    ($($(#[$about:meta])* $sampler:ident: $solver:path;)*) => {
        /// The samplers, named as in the field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum Sampler {
            $($(#[$about])* $sampler,)*
        }

        impl Sampler {
            /// Every sampler, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$sampler,)*];

            pub(super) fn solver(self) -> &'static dyn Solver {
                match self {
                    $(Self::$sampler => &$solver,)*
                }
            }
        }
    };
}

samplers! {
    /// Euler with ancestral noise, the paper's choice.
    #[default]
    EulerAncestral: euler_ancestral::EulerAncestral;
    /// Euler, deterministic.
    Euler: euler::Euler;
    /// DDIM with η = 0.
    Ddim: ddim::Ddim;
    /// DPM-Solver++ 2M.
    Dpmpp2m: dpmpp_2m::Dpmpp2m;
    /// Latent consistency sampling, for distilled models.
    Lcm: lcm::Lcm;
    /// Heun's method: two evaluations of the denoiser a step.
    Heun: heun::Heun;
    /// UniPC: a multistep predictor, corrected by the evaluation after it.
    Unipc: unipc::UniPc;
    /// Trajectory consistency sampling, for distilled models.
    Tcd: tcd::Tcd;
    /// Euler's method of flow matching: for models that predict its velocity, and for no others.
    FlowMatchEuler: flow_match_euler::FlowMatchEuler;
}

impl Sampler {
    /// Those that draw with a model of diffusion, whatever it predicts: the others are for flow matching.
    pub fn of_diffusion() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|sampler| !sampler.is_of_flow_matching())
    }

    /// Whether it draws with models of flow matching, and with no others.
    pub fn is_of_flow_matching(self) -> bool {
        self.about().space == Space::Flow
    }

    pub(super) fn about(self) -> &'static About {
        self.solver().about()
    }

    /// As requests, files and the page name it, in snake case.
    pub fn name(self) -> &'static str {
        self.about().name
    }

    /// As people write it.
    pub fn label(self) -> &'static str {
        self.about().label
    }

    /// diffusers' class, as `scheduler_config.json` names it.
    pub fn scheduler_class(self) -> &'static str {
        self.about().class
    }

    /// Where its formulas are from.
    pub fn source(self) -> &'static str {
        self.about().source
    }

    /// How many times the denoiser runs for a picture of `steps` steps: once each, and twice each but the last with Heun's
    /// method, which ends without noise.
    pub fn evaluations(self, steps: usize) -> usize {
        let each = self.about().evaluations;
        (steps * each).saturating_sub(each - 1)
    }

    /// Steps and guidance scale of the models that are distilled for this sampler; `None` if it draws with any.
    pub fn distilled_for(self) -> Option<(usize, f32)> {
        self.about().distilled_for
    }

    /// The sampler that a scheduler's class in diffusers is read as, if any.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|sampler| {
            let About { class: own, stands_in_for, .. } = sampler.about();
            *own == class || stands_in_for.contains(&class)
        })
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Sampler> for &'static str {
    fn from(sampler: Sampler) -> Self {
        sampler.name()
    }
}

impl FromStr for Sampler {
    type Err = Error;

    /// Fails with `sampler-unknown`.
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|sampler| sampler.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|sampler| sampler.name()).collect();
            Error::input(
                "sampler-unknown",
                format!("there is no sampler '{name}'"),
                format!("use one of {}", names.join(", ")),
            )
        })
    }
}

impl TryFrom<String> for Sampler {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_lead_back_to_their_sampler() {
        for sampler in Sampler::ALL.iter().copied() {
            assert_eq!(sampler.name().parse::<Sampler>().unwrap(), sampler);
            assert_eq!(Sampler::of_class(sampler.scheduler_class()), Some(sampler));
            let json = serde_json::to_value(sampler).unwrap();
            assert_eq!(json, sampler.name());
            assert_eq!(serde_json::from_value::<Sampler>(json).unwrap(), sampler);
        }
        let error = serde_json::from_str::<Sampler>("\"fastest\"").unwrap_err().to_string();
        assert!(error.contains("fastest") && error.contains("unipc"), "{error}");
    }

    #[test]
    fn a_class_is_read_as_one_sampler() {
        let mut classes: Vec<&str> = Sampler::ALL.iter().map(|sampler| sampler.scheduler_class()).collect();
        classes.extend(Sampler::ALL.iter().flat_map(|sampler| sampler.about().stands_in_for));
        let count = classes.len();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), count);
    }

    #[test]
    fn evaluations_are_what_a_schedule_has() {
        use crate::sampling::SchedulerConfig;

        let flow = SchedulerConfig {
            class_name: Sampler::FlowMatchEuler.scheduler_class().to_owned(),
            ..Default::default()
        };
        for sampler in Sampler::ALL.iter().copied() {
            let config =
                if sampler.is_of_flow_matching() { flow.clone() } else { SchedulerConfig::default() };
            for steps in [1, 2, 25] {
                let schedule = config.schedule(sampler, steps, None).unwrap();
                assert_eq!(schedule.len(), sampler.evaluations(steps), "{sampler} {steps}");
            }
        }
        assert_eq!(Sampler::Heun.evaluations(25), 49);
        assert_eq!(Sampler::Euler.evaluations(25), 25);
    }
}
