//! How strong a LoRA is, where settings beside the tensors say: peft's `LoraConfig`, which diffusers keeps in the header of its
//! safetensors files, and peft in `adapter_config.json`.

use std::collections::BTreeMap;
use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::names::{Network, other_kind};
use facestudio::error::{Error, Result};

/// The key of diffusers' settings in a safetensors header.
pub const HEADER: &str = "lora_adapter_metadata";
/// `r` and `lora_alpha` of peft's `LoraConfig`, where they are not given.
const DEFAULT: f64 = 8.0;
/// Most patterns that are read; a Stable Diffusion has some 800 modules.
const MOST_PATTERNS: usize = 2048;
/// Most bytes that a pattern takes; the name of a module takes some 10,000.
const MOST_PATTERN: usize = 128 << 10;

/// Settings that change no merged weight, or of which the tensors tell themselves.
const HARMLESS: [&str; 33] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "decompose_both",
    "decompose_factor",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "module_dropout",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "rank_dropout",
    "rank_dropout_scale",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_effective_conv2d",
];

/// peft's names of what is merged, in lower case.
const KINDS: [&str; 3] = ["lora", "loha", "lokr"];
/// Starts of training that leave the base's weights as they were. PiSSA, OLoRA and the like take something from them, so
/// that what is saved belongs to another base than the one at hand.
const STARTS: [&str; 5] = ["true", "false", "gaussian", "orthogonal", "eva"];

/// What settings say of each network's updates.
#[derive(Debug, Default)]
pub struct Config(BTreeMap<Option<Network>, Strength>);

/// peft's `LoraConfig`, `LoHaConfig` or `LoKrConfig`, as far as it tells factors.
#[derive(Debug)]
struct Strength {
    /// Whether each update has a magnitude.
    dora: bool,
    rank: f64,
    alpha: f64,
    /// `alpha / √rank` in place of `alpha / rank` (Kalajdzievski 2023).
    rank_stabilized: bool,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
}

impl Config {
    /// Reads a JSON object of settings: of every tensor, or of those of a network where they begin with its name and a dot, as
    /// diffusers writes them. Nothing, or `null`, says nothing.
    ///
    /// Fails with `lora-config` for what is no such object, and with `lora-kind` for settings of another kind of update.
    pub fn parse(json: &str) -> Result<Self> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let whole: Option<BTreeMap<String, Setting>> =
            serde_json::from_str(json.trim_start_matches('\u{feff}'))
                .map_err(|e| invalid(format!("they are no JSON object: {e}")))?;
        let mut parts: BTreeMap<Option<Network>, BTreeMap<String, Setting>> = BTreeMap::new();
        for (name, setting) in whole.unwrap_or_default() {
            let of = |network: &Network| {
                Some((Some(*network), name.strip_prefix(network.name())?.strip_prefix('.')?))
            };
            let (network, key) = Network::ALL.iter().find_map(of).unwrap_or((None, &name));
            // Those of a network that no Stable Diffusion 1 or 2 has; its tensors are refused.
            if !key.contains('.') {
                parts.entry(network).or_default().insert(key.to_owned(), setting);
            }
        }
        let parse = |(network, part)| Ok((network, Strength::parse(&part)?));
        Ok(Self(parts.into_iter().map(parse).collect::<Result<_>>()?))
    }

    fn strength(&self, network: Network) -> Option<&Strength> {
        let of_all = || self.0.get(&None).filter(|_| self.0.len() == 1);
        self.0.get(&Some(network)).or_else(of_all)
    }

    /// Whether a network's updates are said to have magnitudes, as DoRA's have.
    pub fn is_dora(&self, network: Network) -> bool {
        self.strength(network).is_some_and(|strength| strength.dora)
    }

    /// The factor of a module's update of rank `rank`, where it has one; `None` where nothing is said.
    ///
    /// Fails with `lora-config` if its rank is said to be another.
    pub fn factor(&self, network: Network, module: &str, rank: Option<usize>) -> Result<Option<f64>> {
        let Some(strength) = self.strength(network) else { return Ok(None) };
        let said = pick(&strength.ranks, module).unwrap_or(strength.rank);
        if let Some(rank) = rank.filter(|rank| said != *rank as f64) {
            return Err(invalid(format!(
                "they say that the update of '{module}' has rank {said}; it has {rank}"
            )));
        }
        let alpha = pick(&strength.alphas, module).unwrap_or(strength.alpha);
        let divisor = if strength.rank_stabilized { said.sqrt() } else { said };
        Ok(Some(alpha / divisor))
    }
}

/// The value of the first pattern that matches, as in peft's `get_pattern_key`.
fn pick(patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
    // transformers 5 has no model in the model.
    let inner = module.strip_prefix("text_model.").unwrap_or(module);
    let matches = |pattern: &Regex| [module, inner].iter().any(|name| pattern.is_match(name.as_bytes()));
    patterns.iter().find(|(pattern, _)| matches(pattern)).map(|(_, value)| *value)
}

impl Strength {
    fn parse(settings: &BTreeMap<String, Setting>) -> Result<Self> {
        for (name, setting) in settings {
            let value = setting.text();
            let known = match name.as_str() {
                "r" | "lora_alpha" | "alpha" | "use_rslora" | "use_dora" | "rank_pattern"
                | "alpha_pattern" => true,
                "peft_type" if !KINDS.contains(&value.as_str()) => {
                    return Err(other_kind(format!("its settings are of {value}")));
                }
                "init_lora_weights" => setting.is_empty() || STARTS.contains(&value.as_str()),
                _ => HARMLESS.contains(&name.as_str()) || setting.is_empty(),
            };
            if !known {
                return Err(other_kind(format!("its settings ask for {name} {value}")));
            }
        }
        let rank = number(settings, "r")?;
        let ranks = patterns(settings, "rank_pattern")?;
        let whole = |rank: &f64| *rank >= 1.0 && rank.fract() == 0.0;
        if let Some(rank) = ranks.iter().map(|(_, rank)| rank).chain([&rank]).find(|rank| !whole(rank)) {
            return Err(invalid(format!("{rank} is no rank")));
        }
        let (rank_stabilized, dora) = (flag(settings, "use_rslora")?, flag(settings, "use_dora")?);
        // Of LoHa and LoKr it is called without the prefix.
        let alpha = if settings.contains_key("alpha") { "alpha" } else { "lora_alpha" };
        let (alpha, alphas) = (number(settings, alpha)?, patterns(settings, "alpha_pattern")?);
        Ok(Self { dora, rank, alpha, rank_stabilized, ranks, alphas })
    }
}

fn flag(settings: &BTreeMap<String, Setting>, name: &str) -> Result<bool> {
    match settings.get(name) {
        Some(Setting::Other(Value::Bool(is))) => Ok(*is),
        None | Some(Setting::Other(Value::Null)) => Ok(false),
        Some(other) => Err(invalid(format!("{name} is {}", other.text()))),
    }
}

fn number(settings: &BTreeMap<String, Setting>, name: &str) -> Result<f64> {
    match settings.get(name) {
        None => Ok(DEFAULT),
        Some(Setting::Other(Value::Number(number))) if let Some(number) = number.as_f64() => Ok(number),
        Some(other) => Err(invalid(format!("{name} is {}", other.text()))),
    }
}

fn patterns(settings: &BTreeMap<String, Setting>, name: &str) -> Result<Vec<(Regex, f64)>> {
    let patterns = match settings.get(name) {
        Some(Setting::Numbers(Pairs(patterns))) => patterns,
        None | Some(Setting::Other(Value::Null)) => return Ok(Vec::new()),
        Some(other) => return Err(invalid(format!("{name} is {}", other.text()))),
    };
    if patterns.len() > MOST_PATTERNS {
        return Err(invalid(format!("{name} has {} patterns", patterns.len())));
    }
    let compiled = |(pattern, value): &(String, f64)| {
        // Names of modules are ASCII; without Unicode's tables a pattern takes little room.
        let whole = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .unicode(false)
            .size_limit(MOST_PATTERN)
            .dfa_size_limit(MOST_PATTERN)
            .build()
            .map_err(|_| invalid(format!("{name} has '{pattern}', which cannot be read as a pattern")))?;
        Ok((whole, *value))
    };
    patterns.iter().map(compiled).collect()
}

fn invalid(message: String) -> Error {
    Error::weights(
        "lora-config",
        format!("a LoRA's settings cannot be used: {message}"),
        "use the file, or the folder with adapter_config.json, as diffusers or peft saved it",
    )
}

/// A setting's value.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Setting {
    Numbers(Pairs),
    Other(Value),
}

impl Setting {
    /// Whether it asks for nothing.
    fn is_empty(&self) -> bool {
        match self {
            Self::Numbers(Pairs(pairs)) => pairs.is_empty(),
            Self::Other(Value::Null | Value::Bool(false)) => true,
            Self::Other(Value::Array(items)) => items.is_empty(),
            Self::Other(_) => false,
        }
    }

    /// In lower case, for comparing and for messages.
    fn text(&self) -> String {
        match self {
            Self::Numbers(Pairs(pairs)) => format!("{pairs:?}"),
            Self::Other(Value::String(text)) => text.to_lowercase(),
            Self::Other(value) => value.to_string(),
        }
    }
}

/// An object of numbers in the order of the file, in which peft tries patterns.
#[derive(Debug)]
struct Pairs(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_Q: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    const FC1: &str = "text_model.encoder.layers.1.mlp.fc1";

    fn factor(json: &str, network: Network, module: &str, rank: usize) -> Option<f64> {
        Config::parse(json).unwrap().factor(network, module, Some(rank)).unwrap()
    }

    #[test]
    fn each_networks_settings_are_its_own() {
        let json = r#"{"unet.r": 4, "unet.lora_alpha": 16, "text_encoder.r": 4, "text_encoder.lora_alpha": 2,
                       "text_encoder.use_rslora": true, "text_encoder_2.r": 0, "unet.init_lora_weights": "gaussian"}"#;
        assert_eq!(factor(json, Network::Unet, TO_Q, 4), Some(4.0));
        assert_eq!(factor(json, Network::Text, FC1, 4), Some(1.0));
        let of_one = r#"{"unet.r": 4, "unet.lora_alpha": 16}"#;
        assert_eq!(factor(of_one, Network::Text, FC1, 4), None);
        // peft's own default, and one config for all.
        assert_eq!(factor(r#"{"r": 4}"#, Network::Text, FC1, 4), Some(2.0));
        assert_eq!(factor(r#"{"lora_alpha": 2}"#, Network::Unet, TO_Q, 8), Some(0.25));
        for nothing in ["{}", "null", ""] {
            assert_eq!(factor(nothing, Network::Unet, TO_Q, 3), None);
        }
    }

    #[test]
    fn other_kinds_say_it_in_other_words() {
        let json =
            r#"{"peft_type": "LOKR", "r": 4, "alpha": 6, "decompose_factor": -1, "init_weights": "lycoris"}"#;
        let config = Config::parse(json).unwrap();
        assert_eq!(config.factor(Network::Unet, TO_Q, None).unwrap(), Some(1.5));
        assert!(!config.is_dora(Network::Unet));
        let dora = Config::parse(r#"{"unet.use_dora": true, "unet.r": 2}"#).unwrap();
        assert!(dora.is_dora(Network::Unet) && !dora.is_dora(Network::Text));
    }

    #[test]
    fn the_first_pattern_that_matches_a_whole_ending_counts() {
        let of = |patterns: &str, module: &str| {
            factor(
                &format!(r#"{{"r": 2, "lora_alpha": 2, "alpha_pattern": {{{patterns}}}}}"#),
                Network::Unet,
                module,
                2,
            )
        };
        assert_eq!(of(r#""to_q": 8, "attn1.to_q": 6"#, TO_Q), Some(4.0));
        assert_eq!(of(r#""attn1.to_q": 6, "to_q": 8"#, TO_Q), Some(3.0));
        assert_eq!(of(r#""o_q": 8, "attn1": 6"#, TO_Q), Some(1.0));
        assert_eq!(of(r#""^to_q": 8, "^down_blocks.*(to_k|to_q)": 6"#, TO_Q), Some(3.0));
        assert_eq!(of(r#""^encoder.layers.1.mlp.fc1": 8"#, FC1), Some(4.0));
        let ranks = r#"{"r": 4, "lora_alpha": 4, "rank_pattern": {"attn1.to_q": 16}, "use_rslora": true}"#;
        assert_eq!(factor(ranks, Network::Unet, TO_Q, 16), Some(1.0));
        assert_eq!(factor(ranks, Network::Unet, FC1, 4), Some(2.0));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused() {
        for (json, code) in [
            ("[]", "lora-config"),
            ("{", "lora-config"),
            (r#"{"r": "4"}"#, "lora-config"),
            (r#"{"r": 0}"#, "lora-config"),
            (r#"{"r": 1.5}"#, "lora-config"),
            (r#"{"lora_alpha": null}"#, "lora-config"),
            (r#"{"use_rslora": "yes"}"#, "lora-config"),
            (r#"{"rank_pattern": {"to_q": -1}}"#, "lora-config"),
            (r#"{"rank_pattern": [1]}"#, "lora-config"),
            (r#"{"alpha_pattern": {"(": 1}}"#, "lora-config"),
            (r#"{"alpha_pattern": {"(to_q{1000}){1000}": 1}}"#, "lora-config"),
            (r#"{"alpha_pattern": {"to_q": "1"}}"#, "lora-config"),
            (r#"{"use_dora": "true"}"#, "lora-config"),
            (r#"{"peft_type": "OFT"}"#, "lora-kind"),
            (r#"{"init_lora_weights": "pissa_niter_4"}"#, "lora-kind"),
            (r#"{"alora_invocation_tokens": [1]}"#, "lora-kind"),
            (r#"{"of_a_later_version": 3}"#, "lora-kind"),
        ] {
            assert_eq!(Config::parse(json).unwrap_err().code, code, "{json}");
        }
        let error = Config::parse(r#"{"r": 4}"#).unwrap().factor(Network::Unet, TO_Q, Some(8)).unwrap_err();
        assert!(error.code == "lora-config" && error.message.contains(TO_Q), "{error}");
    }
}
