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

/// What a tensor is of its layer's update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoraTensor {
    /// `[rank, in, …]`.
    Down,
    /// `[out, rank, …]`.
    Up,
    /// `[rank, rank, …]`, between the two.
    Mid,
    /// `[out]`, added to the bias with the factor of the rest.
    Bias,
    /// One number: `factor = alpha / rank`.
    Alpha,
    /// peft's norms of the merged weight's rows, `[out]`.
    Magnitude,
    /// LyCORIS' norms of the merged weight's rows, `[out, 1, …]`, or columns, `[1, in, …]`.
    DoraScale,
    /// LoHa: `[out, rank]`, `[rank, in · kernel]`, and so again; with a core each, `[rank, out]`, `[rank, in]`.
    Hada1A,
    Hada1B,
    Hada2A,
    Hada2B,
    HadaCore1,
    HadaCore2,
    /// LoKr: both factors of the Kronecker product, whole or as a product, the second one also with a core.
    Kron1,
    Kron1A,
    Kron1B,
    Kron2,
    Kron2A,
    Kron2B,
    KronCore2,
    /// As the weight, and as the bias.
    Difference,
    BiasDifference,
    /// As a norm's weight and bias.
    NormDifference,
    NormBiasDifference,
}

/// The tensors of one layer's update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Whose layer it is.
    pub network: Network,
    /// Its module, in the file's spelling.
    pub module: String,
    /// The names of what it is made of.
    pub tensors: BTreeMap<LoraTensor, String>,
}

impl Layer {
    /// The name of a tensor that it may have.
    pub fn name(&self, tensor: LoraTensor) -> Option<&str> {
        self.tensors.get(&tensor).map(String::as_str)
    }

    /// The name of its first tensor, for messages.
    pub fn first(&self) -> &str {
        self.tensors.values().next().map_or("", String::as_str)
    }

    /// Whether it is whole: of one kind, with everything that the kind needs, and nothing of another.
    fn is_whole(&self) -> bool {
        use LoraTensor as T;
        let has = |tensor: &T| self.tensors.contains_key(tensor);
        KINDS.iter().any(|(needed, also)| {
            let known = |tensor: &T| needed.contains(tensor) || also.contains(tensor);
            let pairs = [[T::HadaCore1, T::HadaCore2], [T::Magnitude, T::DoraScale]];
            needed.iter().all(has)
                && self.tensors.keys().all(known)
                && has(&pairs[0][0]) == has(&pairs[0][1])
                && !(has(&pairs[1][0]) && has(&pairs[1][1]))
        })
    }
}

/// The kinds of updates: what each needs, and what it may have besides.
const KINDS: [(&[LoraTensor], &[LoraTensor]); 10] = {
    use LoraTensor as T;
    const WITH: &[T] = &[T::Alpha, T::DoraScale, T::BiasDifference];
    [
        (&[T::Down, T::Up], &[T::Mid, T::Bias, T::Alpha, T::Magnitude, T::DoraScale, T::BiasDifference]),
        (
            &[T::Hada1A, T::Hada1B, T::Hada2A, T::Hada2B],
            &[T::HadaCore1, T::HadaCore2, T::Alpha, T::DoraScale, T::BiasDifference],
        ),
        (&[T::Kron1, T::Kron2], WITH),
        (&[T::Kron1A, T::Kron1B, T::Kron2], WITH),
        (&[T::Kron1, T::Kron2A, T::Kron2B], &[T::KronCore2, T::Alpha, T::DoraScale, T::BiasDifference]),
        (
            &[T::Kron1A, T::Kron1B, T::Kron2A, T::Kron2B],
            &[T::KronCore2, T::Alpha, T::DoraScale, T::BiasDifference],
        ),
        (&[T::Difference], &[T::BiasDifference, T::Alpha]),
        (&[T::BiasDifference], &[T::Alpha]),
        (&[T::NormDifference], &[T::NormBiasDifference, T::Alpha]),
        (&[T::NormBiasDifference], &[T::Alpha]),
    ]
};

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
const FACTORS: [(&str, LoraTensor); 11] = [
    // kohya.
    (".lora_down", LoraTensor::Down),
    (".lora_up", LoraTensor::Up),
    (".lora_mid", LoraTensor::Mid),
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

/// How names end that are tensors themselves: LyCORIS', peft's and ComfyUI's.
const ENDINGS: [(&str, LoraTensor); 22] = [
    (".lora_A", LoraTensor::Down),
    (".lora_B", LoraTensor::Up),
    (".lora_magnitude_vector", LoraTensor::Magnitude),
    (".lora_magnitude_vector.weight", LoraTensor::Magnitude),
    (".dora_scale", LoraTensor::DoraScale),
    (".hada_w1_a", LoraTensor::Hada1A),
    (".hada_w1_b", LoraTensor::Hada1B),
    (".hada_w2_a", LoraTensor::Hada2A),
    (".hada_w2_b", LoraTensor::Hada2B),
    (".hada_t1", LoraTensor::HadaCore1),
    (".hada_t2", LoraTensor::HadaCore2),
    (".lokr_w1", LoraTensor::Kron1),
    (".lokr_w1_a", LoraTensor::Kron1A),
    (".lokr_w1_b", LoraTensor::Kron1B),
    (".lokr_w2", LoraTensor::Kron2),
    (".lokr_w2_a", LoraTensor::Kron2A),
    (".lokr_w2_b", LoraTensor::Kron2B),
    (".lokr_t2", LoraTensor::KronCore2),
    (".diff", LoraTensor::Difference),
    (".diff_b", LoraTensor::BiasDifference),
    (".w_norm", LoraTensor::NormDifference),
    (".b_norm", LoraTensor::NormBiasDifference),
];

/// Parts of names that tell kinds of updates which are not merged; one that ends in `_` is the beginning of several.
const OTHERS: [(&str, &str); 7] = [
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("ia3_", "IA³"),
    ("on_input", "IA³"),
    ("vera_", "VeRA"),
    ("lora_embedding_", "a LoRA of an embedding"),
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
            let tensors = tensors.into_iter().map(|(tensor, name)| (tensor, name.clone())).collect();
            let layer = Layer { network, module: module.to_owned(), tensors };
            match layer.is_whole() {
                true => Ok(layer),
                false => Err(mismatch(format!("'{}' lacks the rest of its update", layer.first()))),
            }
        })
        .collect()
}

/// In words, an update with magnitudes.
pub const DORA: &str = "a DoRA";

/// How many tensors are of which kind of update, in words.
pub fn kinds(names: &[String]) -> Vec<(usize, &'static str)> {
    use LoraTensor as T;
    let kind = |tensor: T| match tensor {
        T::Down | T::Up | T::Mid | T::Bias => Some("a LoRA"),
        T::Magnitude | T::DoraScale => Some(DORA),
        T::Hada1A | T::Hada1B | T::Hada2A | T::Hada2B | T::HadaCore1 | T::HadaCore2 => Some("a LoHa"),
        T::Kron1 | T::Kron1A | T::Kron1B | T::Kron2 | T::Kron2A | T::Kron2B | T::KronCore2 => Some("a LoKr"),
        T::Difference | T::BiasDifference | T::NormDifference | T::NormBiasDifference => {
            Some("a difference of whole weights")
        }
        // Of any kind.
        T::Alpha => None,
    };
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (_, tensor) in names.iter().filter_map(|name| split(name)) {
        if let Some(kind) = kind(tensor) {
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts.into_iter().map(|(kind, count)| (count, kind)).collect()
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
    let ending = ENDINGS.iter().find_map(|(ending, tensor)| Some((name.strip_suffix(ending)?, *tensor)));
    if ending.is_some() {
        return ending;
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
    match parts.find_map(|part| OTHERS.iter().find(|(kind, _)| is(part, kind))) {
        Some((_, kind)) => other_kind(format!("'{name}' is part of {kind}")),
        None => mismatch(format!("'{name}' is no part of a LoRA")),
    }
}

/// An update of a kind that is not merged.
pub fn other_kind(message: String) -> Error {
    Error::weights(
        "lora-kind",
        format!("{message}, which this version does not merge"),
        "use a LoRA, LoHa, LoKr, DoRA or difference of weights, or one that its trainer's tools have turned into one",
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
            let tensors = [(LoraTensor::Down, down), (LoraTensor::Up, up)].into();
            assert_eq!(found, [Layer { network, module: module.to_owned(), tensors }]);
        }
    }

    #[test]
    fn updates_are_whole_and_of_one_kind() {
        let of = |endings: &[&str]| {
            layer(
                &endings
                    .iter()
                    .map(|end| format!("lora_unet_a.{end}"))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            )
        };
        for whole in [
            &["lora_A", "lora_B", "lora_magnitude_vector.weight"][..],
            &["lora_down.weight", "lora_up.weight", "lora_mid.weight", "dora_scale", "alpha", "diff_b"],
            &[
                "hada_w1_a",
                "hada_w1_b",
                "hada_w2_a",
                "hada_w2_b",
                "hada_t1",
                "hada_t2",
                "alpha",
                "dora_scale",
            ],
            &["lokr_w1", "lokr_w2"],
            &["lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"],
            &["diff", "diff_b"],
            &["diff_b"],
            &["w_norm", "b_norm"],
        ] {
            assert_eq!(of(whole).unwrap()[0].tensors.len(), whole.len(), "{whole:?}");
        }
        for other in [
            &["lora_A", "lora_B", "lora_magnitude_vector", "dora_scale"][..],
            &["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1"],
            &["lokr_w1", "lokr_w2", "lokr_t2"],
            &["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2"],
            &["lora_A", "lora_B", "diff"],
            &["w_norm", "diff"],
            &["lora_A", "alpha"],
        ] {
            assert_eq!(of(other).unwrap_err().code, "lora-mismatch", "{other:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let good = ["unet.a.lora_A.weight", "unet.a.lora_B.weight"];
        for (bad, code) in [
            ("unet.b.lora_magnitude_vector", "lora-mismatch"),
            ("lora_te_a.hada_w1_a", "lora-mismatch"),
            ("lora_unet_b.lokr_w2", "lora-mismatch"),
            ("lora_unet_b.lora_mid.weight", "lora-mismatch"),
            ("lora_unet_b.oft_blocks", "lora-kind"),
            ("unet.b.boft_R", "lora-kind"),
            ("unet.b.vera_lambda_b", "lora-kind"),
            ("unet.b.scalar", "lora-kind"),
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
