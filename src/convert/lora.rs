//! Low-rank updates (Hu et al. 2021) merged into the weights they were trained for: `W + scale · (alpha / rank) · up · down`.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::weights::TensorSource;

/// One network's name in the key styles of LoRA files.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// kohya's prefix.
    pub kohya: &'static str,
    /// diffusers' prefix.
    pub diffusers: &'static str,
}

/// The denoiser.
pub const UNET: Network = Network { kohya: "lora_unet_", diffusers: "unet." };
/// The text encoder.
pub const TEXT: Network = Network { kohya: "lora_te_", diffusers: "text_encoder." };

/// A file of updates, and how much of them is taken.
pub struct Lora<'a> {
    /// The file's tensors.
    pub source: &'a dyn TensorSource,
    /// 1 takes it as it was trained.
    pub scale: f32,
}

struct Update<'a> {
    source: &'a dyn TensorSource,
    keys: Keys,
    factor: f32,
}

/// A network's weights with updates merged in as they are read.
pub struct Merged<'a> {
    inner: &'a dyn TensorSource,
    updates: BTreeMap<String, Vec<Update<'a>>>,
}

impl<'a> Merged<'a> {
    /// `inner` with what `loras` say about `network`.
    pub fn new(inner: &'a dyn TensorSource, network: Network, loras: &[Lora<'a>]) -> Result<Self> {
        let mut updates: BTreeMap<String, Vec<Update>> = BTreeMap::new();
        for lora in loras {
            for name in inner.names() {
                let Some(path) = name.strip_suffix(".weight") else { continue };
                let Some(keys) = keys(path, network, lora.source) else { continue };
                check(inner, &name, lora.source, &keys)?;
                let rank =
                    lora.source.shape(&keys.down).and_then(|shape| shape.first().copied()).unwrap_or(0);
                let alpha = match &keys.alpha {
                    Some(alpha) => lora.source.read(alpha)?.first().copied().unwrap_or(rank as f32),
                    None => rank as f32,
                };
                let factor = lora.scale * alpha / rank.max(1) as f32;
                updates.entry(name).or_default().push(Update { source: lora.source, keys, factor });
            }
        }
        Ok(Self { inner, updates })
    }

    /// How many updates found their weight.
    pub fn count(&self) -> usize {
        self.updates.values().map(Vec::len).sum()
    }

    /// The tensors of a LoRA file that are used.
    pub fn used<'b>(&'b self, source: &'b dyn TensorSource) -> impl Iterator<Item = &'b str> {
        let of_source = move |update: &&Update| std::ptr::addr_eq(update.source, source);
        self.updates.values().flatten().filter(of_source).flat_map(|update| {
            let Keys { down, up, alpha } = &update.keys;
            [Some(down), Some(up), alpha.as_ref()].into_iter().flatten().map(String::as_str)
        })
    }
}

/// Fails if a LoRA file held something for one of the networks that were converted, and it was not merged: an update of a
/// layer that the network lacks, or of a kind that is no plain low-rank one (DoRA, LoHa, LoKr). Merging the rest would
/// give a model that nobody trained.
pub fn refuse_unused(unused: &BTreeSet<String>, networks: &[Network]) -> Result<()> {
    let concerns = |name: &&String| {
        let other = [UNET, TEXT].iter().find(|n| name.starts_with(n.kohya) || name.starts_with(n.diffusers));
        // What belongs to no network is not known to be harmless.
        other.is_none_or(|network| networks.iter().any(|n| n.kohya == network.kohya))
    };
    let left: Vec<&String> = unused.iter().filter(concerns).collect();
    match left.first() {
        None => Ok(()),
        Some(first) => Err(Error::weights(
            "lora-mismatch",
            format!("{} tensors have no place in the model, '{first}' among them", left.len()),
            "use a plain LoRA of the same base, in the key style of kohya or diffusers",
        )),
    }
}

struct Keys {
    down: String,
    up: String,
    alpha: Option<String>,
}

/// Where a LoRA file keeps the update of the layer at `path`, in the first of the key styles that it has.
fn keys(path: &str, network: Network, source: &dyn TensorSource) -> Option<Keys> {
    let kohya = format!("{}{}", network.kohya, path.replace('.', "_"));
    let plain = format!("{}{path}", network.diffusers);
    // diffusers before 0.26 kept attention's updates in processors: `attn1.processor.to_q_lora`.
    let processor = path.rsplit_once(".to_").map(|(attention, layer)| {
        format!("{}{attention}.processor.to_{}_lora", network.diffusers, layer.trim_end_matches(".0"))
    });
    let styles = [
        Some((
            format!("{kohya}.lora_down.weight"),
            format!("{kohya}.lora_up.weight"),
            format!("{kohya}.alpha"),
        )),
        Some((format!("{plain}.lora_A.weight"), format!("{plain}.lora_B.weight"), format!("{plain}.alpha"))),
        Some((
            format!("{plain}.lora.down.weight"),
            format!("{plain}.lora.up.weight"),
            format!("{plain}.alpha"),
        )),
        processor.map(|p| (format!("{p}.down.weight"), format!("{p}.up.weight"), format!("{p}.alpha"))),
    ];
    let has = |name: &str| source.shape(name).is_some();
    styles.into_iter().flatten().find(|(down, up, _)| has(down) && has(up)).map(|(down, up, alpha)| Keys {
        down,
        up,
        alpha: Some(alpha).filter(|alpha| has(alpha)),
    })
}

/// `down` is `[rank, in, …]`, `up` is `[out, rank, 1, 1]` or `[out, rank]`.
fn check(inner: &dyn TensorSource, name: &str, source: &dyn TensorSource, keys: &Keys) -> Result<()> {
    let weight = inner.shape(name).unwrap_or_default();
    let (down, up) =
        (source.shape(&keys.down).unwrap_or_default(), source.shape(&keys.up).unwrap_or_default());
    let rest = |shape: &[usize]| shape.iter().skip(1).product::<usize>();
    let fits = !down.is_empty()
        && up.first() == weight.first()
        && rest(&up) == down[0]
        && rest(&down) == rest(&weight);
    if fits {
        return Ok(());
    }
    Err(Error::weights(
        "lora-mismatch",
        format!("the update {down:?}, {up:?} of '{name}' does not fit its weight {weight:?}"),
        "use a LoRA that was trained for this model",
    ))
}

impl TensorSource for Merged<'_> {
    fn names(&self) -> Vec<String> {
        self.inner.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut weight = self.inner.read(name)?;
        for update in self.updates.get(name).into_iter().flatten() {
            let (down, up) = (update.source.read(&update.keys.down)?, update.source.read(&update.keys.up)?);
            let rank =
                update.source.shape(&update.keys.down).and_then(|shape| shape.first().copied()).unwrap_or(1);
            let width = down.len() / rank.max(1);
            for (row, up) in weight.chunks_mut(width.max(1)).zip(up.chunks(rank.max(1))) {
                for (down, up) in down.chunks(width.max(1)).zip(up) {
                    let factor = update.factor * up;
                    row.iter_mut().zip(down).for_each(|(weight, down)| *weight += factor * down);
                }
            }
        }
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Tensors;

    fn tensors(all: &[(&str, &[usize], &[f32])]) -> Tensors {
        Tensors(
            all.iter()
                .map(|(name, shape, values)| ((*name).to_owned(), (shape.to_vec(), values.to_vec())))
                .collect(),
        )
    }

    const PATH: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

    #[test]
    fn every_key_style_gives_the_same_merged_weight() {
        let inner = tensors(&[(&format!("{PATH}.weight"), &[2, 3], &[0.0; 6])]);
        let kohya = format!("lora_unet_{}", PATH.replace('.', "_"));
        let attention = PATH.strip_suffix(".to_q").unwrap();
        let styles = [
            (
                format!("{kohya}.lora_down.weight"),
                format!("{kohya}.lora_up.weight"),
                format!("{kohya}.alpha"),
            ),
            (
                format!("unet.{PATH}.lora_A.weight"),
                format!("unet.{PATH}.lora_B.weight"),
                format!("unet.{PATH}.alpha"),
            ),
            (
                format!("unet.{attention}.processor.to_q_lora.down.weight"),
                format!("unet.{attention}.processor.to_q_lora.up.weight"),
                format!("unet.{attention}.processor.to_q_lora.alpha"),
            ),
        ];
        for (down, up, alpha) in styles {
            let lora = tensors(&[
                (&down, &[1, 3], &[1.0, 2.0, 3.0]),
                (&up, &[2, 1], &[1.0, -1.0]),
                (&alpha, &[], &[0.5]),
            ]);
            let merged = Merged::new(&inner, UNET, &[Lora { source: &lora, scale: 2.0 }]).unwrap();
            assert_eq!(merged.count(), 1, "{down}");
            let left: BTreeSet<String> = lora.names().into_iter().collect();
            let left = &left - &merged.used(&lora).map(str::to_owned).collect();
            refuse_unused(&left, &[UNET]).unwrap();
            let weight = merged.read(&format!("{PATH}.weight")).unwrap();
            assert_eq!(weight, [1.0, 2.0, 3.0, -1.0, -2.0, -3.0], "{down}");
        }
    }

    #[test]
    fn an_update_of_another_model_is_refused() {
        let inner = tensors(&[(&format!("{PATH}.weight"), &[2, 4], &[0.0; 8])]);
        let lora = tensors(&[
            (&format!("unet.{PATH}.lora_A.weight"), &[1, 3], &[1.0, 2.0, 3.0]),
            (&format!("unet.{PATH}.lora_B.weight"), &[2, 1], &[1.0, -1.0]),
        ]);
        let error = Merged::new(&inner, UNET, &[Lora { source: &lora, scale: 1.0 }]).err().unwrap();
        assert_eq!(error.code, "lora-mismatch");
    }

    #[test]
    fn what_a_converted_network_has_no_place_for_is_refused_and_another_networks_is_not() {
        let left = |name: &str| BTreeSet::from([name.to_owned()]);
        for name in [
            "lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight",
            "unet.down_blocks.0.attentions.0.proj_in.lora_magnitude_vector",
            "lora_unet_conv_in.hada_w1_a",
            "something.else",
        ] {
            assert_eq!(refuse_unused(&left(name), &[UNET]).unwrap_err().code, "lora-mismatch", "{name}");
        }
        refuse_unused(&left("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"), &[UNET]).unwrap();
        assert!(
            refuse_unused(&left("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"), &[UNET, TEXT]).is_err()
        );
    }
}
