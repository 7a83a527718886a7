//! The names of a LoRA file's tensors: which part of which layer's update each one is, in every style that is in use.

use std::collections::BTreeMap;

use facestudio::error::{Error, Result};

/// A network that a LoRA can be merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// The denoiser.
    Unet,
    /// The text encoder.
    Text,
}

impl Network {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Unet, Self::Text];

    /// What diffusers calls it, in names of tensors and of settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Text => "text_encoder",
        }
    }

    /// How its modules' names begin: diffusers' and transformers', then the original code's; dots and underscores alike.
    fn beginnings(self) -> &'static [&'static str] {
        match self {
            Self::Unet => &[
                "down_blocks",
                "mid_block",
                "up_blocks",
                "conv_in",
                "conv_out",
                "time_embedding",
                "input_blocks",
                "middle_block",
                "output_blocks",
                "time_embed",
                "out",
            ],
            Self::Text => &["text_model", "encoder", "embeddings", "text_projection"],
        }
    }
}

/// What a tensor is of its layer's update `W + factor · up · down`, `b + factor · bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LoraTensor {
    /// `[rank, in, …]`.
    Down,
    /// `[out, rank, …]`.
    Up,
    /// `[out]`.
    Bias,
    /// One number: `factor = alpha / rank`.
    Alpha,
}

/// The tensors of one layer's update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Whose layer it is.
    pub network: Network,
    /// Its module, in the file's spelling.
    pub module: String,
    /// The name of the matrix that makes the rank of the input.
    pub down: String,
    /// The name of the matrix that makes the output of it.
    pub up: String,
    /// The name of what is added to the layer's bias.
    pub bias: Option<String>,
    /// The name of the number that is divided by the rank.
    pub alpha: Option<String>,
}

/// What stands before a module's name, and whose module it then is; several may follow each other.
const PREFIXES: [(&str, Option<Network>); 12] = [
    // kohya-ss/sd-scripts; with a number where Stable Diffusion XL's second encoder could be meant.
    ("lora_unet_", Some(Network::Unet)),
    ("lora_te_", Some(Network::Text)),
    ("lora_te1_", Some(Network::Text)),
    // LyCORIS by itself.
    ("lycoris_", None),
    // diffusers.
    ("unet.", Some(Network::Unet)),
    ("text_encoder.", Some(Network::Text)),
    // peft.
    ("base_model.model.", None),
    // The original code.
    ("model.diffusion_model.", Some(Network::Unet)),
    ("diffusion_model.", Some(Network::Unet)),
    ("cond_stage_model.transformer.", Some(Network::Text)),
    // ComfyUI, of Stable Diffusion 1 and 2; its UNet is the original code's.
    ("text_encoders.clip_l.transformer.", Some(Network::Text)),
    ("text_encoders.clip_h.transformer.", Some(Network::Text)),
];

/// What stands between a module and `.weight` or `.bias`.
const FACTORS: [(&str, LoraTensor); 10] = [
    // kohya.
    (".lora_down", LoraTensor::Down),
    (".lora_up", LoraTensor::Up),
    // peft.
    (".lora_A", LoraTensor::Down),
    (".lora_B", LoraTensor::Up),
    // diffusers: the UNet's, the text encoder's, and attention processors' (`attn1.processor.to_q_lora`).
    (".lora.down", LoraTensor::Down),
    (".lora.up", LoraTensor::Up),
    (".lora_linear_layer.down", LoraTensor::Down),
    (".lora_linear_layer.up", LoraTensor::Up),
    ("_lora.down", LoraTensor::Down),
    ("_lora.up", LoraTensor::Up),
];

/// Parts of names that tell kinds of updates other than `up · down`; one that ends in `_` is the beginning of several.
const KINDS: [(&str, &str); 16] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("ia3_", "IA³"),
    ("on_input", "IA³"),
    ("vera_", "VeRA"),
    ("lora_mid", "a LoRA in three factors"),
    ("lora_embedding_", "a LoRA of an embedding"),
    ("diff", "a difference of whole weights"),
    ("diff_b", "a difference of whole weights"),
    ("w_norm", "a difference of norms"),
    ("b_norm", "a difference of norms"),
    ("scalar", "a LoRA with a trained scale"),
];

/// The layers that a file of these tensors updates, by the names of its tensors.
///
/// Fails with `lora-kind` for a tensor of another kind of update, and with `lora-mismatch` for one that is of none, or of no
/// known network, or lacks its other half; each is named.
pub fn layers(names: &[String]) -> Result<Vec<Layer>> {
    let mut found: BTreeMap<(Network, &str), BTreeMap<LoraTensor, &String>> = BTreeMap::new();
    for name in names {
        let (module, tensor) = split(name).ok_or_else(|| not_understood(name))?;
        let (network, module) = place(module);
        let network = network
            .ok_or_else(|| mismatch(format!("'{name}' belongs to no network of Stable Diffusion 1 or 2")))?;
        if let Some(other) = found.entry((network, module)).or_default().insert(tensor, name) {
            return Err(mismatch(format!("'{other}' and '{name}' are the same part of one update")));
        }
    }
    found
        .into_iter()
        .map(|((network, module), tensors)| {
            let name = |tensor: LoraTensor| tensors.get(&tensor).map(|name| (*name).clone());
            let (Some(down), Some(up)) = (name(LoraTensor::Down), name(LoraTensor::Up)) else {
                let alone = tensors.values().next().map_or("", |name| name.as_str());
                return Err(mismatch(format!("'{alone}' lacks the rest of its update")));
            };
            let (bias, alpha) = (name(LoraTensor::Bias), name(LoraTensor::Alpha));
            Ok(Layer { network, module: module.to_owned(), down, up, bias, alpha })
        })
        .collect()
}

/// The module that a tensor belongs to, prefixes and all, and which part of its update it is.
fn split(name: &str) -> Option<(&str, LoraTensor)> {
    let styled = |inner: &'_ str| -> Option<(usize, LoraTensor)> {
        let style = |inner: &str| {
            FACTORS.iter().find_map(|(factor, tensor)| Some((inner.strip_suffix(factor)?.len(), *tensor)))
        };
        // peft writes the adapter's own name between the factor and `weight` in some files.
        style(inner).or_else(|| {
            let (inner, adapter) = inner.rsplit_once('.')?;
            (!matches!(adapter, "down" | "up")).then(|| style(inner)).flatten()
        })
    };
    if let Some((length, tensor)) = name.strip_suffix(".weight").and_then(styled) {
        return Some((&name[..length], tensor));
    }
    if let Some((length, LoraTensor::Up)) = name.strip_suffix(".bias").and_then(styled) {
        return Some((&name[..length], LoraTensor::Bias));
    }
    let inner = name.strip_suffix(".alpha")?;
    let styles = [".lora_linear_layer", ".lora", "_lora"];
    let module = styles.iter().find_map(|style| inner.strip_suffix(style)).unwrap_or(inner);
    Some((module, LoraTensor::Alpha))
}

/// Whose a module is, and its name without prefixes.
fn place(module: &str) -> (Option<Network>, &str) {
    let (mut network, mut inner) = (None, module);
    while let Some((rest, whose)) =
        PREFIXES.iter().find_map(|(prefix, whose)| Some((inner.strip_prefix(prefix)?, *whose)))
    {
        inner = rest;
        network = network.or(whose);
    }
    let begins = |network: &Network| {
        let is_end = |rest: &str| rest.is_empty() || rest.starts_with(['.', '_']);
        network.beginnings().iter().any(|start| inner.strip_prefix(start).is_some_and(is_end))
    };
    (network.or_else(|| Network::ALL.into_iter().find(begins)), inner)
}

fn not_understood(name: &str) -> Error {
    let is = |part: &str, kind: &str| part == kind || kind.ends_with('_') && part.starts_with(kind);
    // An adapter's name and `weight` may follow.
    let mut parts = name.rsplit('.').take(3);
    match parts.find_map(|part| KINDS.iter().find(|(kind, _)| is(part, kind))) {
        Some((_, kind)) => other_kind(format!("'{name}' is part of {kind}")),
        None => mismatch(format!("'{name}' is no part of a LoRA")),
    }
}

/// An update that is not `up · down`.
pub fn other_kind(message: String) -> Error {
    Error::weights(
        "lora-kind",
        format!("{message}, which this version does not merge"),
        "use a plain LoRA, or one that its trainer's tools have turned into one",
    )
}

/// A LoRA that does not fit.
pub fn mismatch(message: String) -> Error {
    Error::weights(
        "lora-mismatch",
        message,
        "use a LoRA that was trained for this model, in the layout of kohya, diffusers or peft",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(names: &[&str]) -> Result<Vec<Layer>> {
        layers(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_style_tells_its_network_and_its_module() {
        let (unet, text) = (Network::Unet, Network::Text);
        let (to_q, q_proj) =
            ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "text_model.q_proj");
        let cases = [
            (format!("unet.{to_q}.lora_A.weight"), format!("unet.{to_q}.lora_B.weight"), unet, to_q),
            (format!("unet.{to_q}.lora.down.weight"), format!("unet.{to_q}.lora.up.weight"), unet, to_q),
            (format!("{to_q}.lora_down.weight"), format!("{to_q}.lora_up.weight"), unet, to_q),
            (format!("{to_q}_lora.down.weight"), format!("{to_q}_lora.up.weight"), unet, to_q),
            (
                format!("base_model.model.unet.{to_q}.lora_A.weight"),
                format!("unet.{to_q}.lora_B.weight"),
                unet,
                to_q,
            ),
            (
                format!("{to_q}.lora_A.default_0.weight"),
                format!("{to_q}.lora_B.default_0.weight"),
                unet,
                to_q,
            ),
            (
                "lora_unet_out_2.lora_A.weight".to_owned(),
                "lora_unet_out_2.lora_B.weight".to_owned(),
                unet,
                "out_2",
            ),
            ("lora_te1_a.lora_down.weight".to_owned(), "lora_te1_a.lora_up.weight".to_owned(), text, "a"),
            (
                format!("base_model.model.{q_proj}.lora_A.weight"),
                format!("base_model.model.{q_proj}.lora_B.weight"),
                text,
                q_proj,
            ),
            (
                format!("text_encoder.{q_proj}.lora_linear_layer.down.weight"),
                format!("text_encoder.{q_proj}.lora_linear_layer.up.weight"),
                text,
                q_proj,
            ),
        ];
        for (down, up, network, module) in cases {
            let found = layer(&[&down, &up]).unwrap();
            let expected = Layer { network, module: module.to_owned(), down, up, bias: None, alpha: None };
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let good = ["unet.a.lora_A.weight", "unet.a.lora_B.weight"];
        for (bad, code) in [
            ("unet.a.lora_magnitude_vector", "lora-kind"),
            ("unet.a.lora_magnitude_vector.weight", "lora-kind"),
            ("lora_unet_a.dora_scale", "lora-kind"),
            ("lora_te_a.hada_w1_a", "lora-kind"),
            ("lora_unet_a.lokr_w2", "lora-kind"),
            ("lora_unet_a.lora_mid.weight", "lora-kind"),
            ("lora_unet_a.diff_b", "lora-kind"),
            ("unet.a.weight", "lora-mismatch"),
            ("unet.b.lora_A.weight", "lora-mismatch"),
            ("unet.b.lora_B.bias", "lora-mismatch"),
            ("unet.b.alpha", "lora-mismatch"),
            ("unet.a.lora_A.bias", "lora-mismatch"),
            ("unet.a.lora_A.default.weight", "lora-mismatch"),
            ("text_encoder_2.a.lora_A.weight", "lora-mismatch"),
            ("lora_te2_a.lora_down.weight", "lora-mismatch"),
            ("transformer.a.lora_A.weight", "lora-mismatch"),
            ("alpha", "lora-mismatch"),
            ("", "lora-mismatch"),
        ] {
            let error = layer(&[&good[..], &[bad]].concat()).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(&format!("'{bad}'")), "{error}");
        }
    }
}
