//! Adapters of the IP-Adapter family, in the layout of tencent-ailab/IP-Adapter: `image_proj.…` makes tokens, `ip_adapter.…`
//! holds keys and values for each cross-attention, and with FaceID a LoRA for each attention.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layout::{Layout, count, side};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// Channels of a resampler's attention head (`dim_head` upstream), which no tensor's shape tells.
const HEAD_DIM: usize = 64;

/// An adapter to be converted.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Its file.
    pub path: PathBuf,
    /// Whose picture it reads.
    pub role: Role,
    /// How much it adds at every layer.
    pub scale: f32,
    /// Factors by block and transformer; none counts every layer in full.
    pub block_scales: BTreeMap<String, Vec<f32>>,
}

/// Whose picture an adapter reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The style image.
    Style,
    /// Each person's face.
    Identity,
}

/// Versions of FaceID-Plus, which have the same tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaceIdPlus {
    /// What the resampler finds are the tokens.
    V1,
    /// FaceID's tokens, and what the resampler finds added to them.
    V2,
}

/// An adapter's config and tensors, without its LoRA.
pub fn ip_adapter<'a>(
    source: &'a dyn TensorSource,
    adapter: &Adapter,
    version: Option<FaceIdPlus>,
) -> Result<(Value, Layout<'a>)> {
    let mut layout = Layout::new(source);
    for name in source.names() {
        if name.starts_with("image_proj.") || name.ends_with("_ip.weight") {
            layout.keep(&name, name.clone())?;
        }
    }
    let mut config = projection(&layout, version)?;
    let reads_id = config["projection"].as_str().is_some_and(|kind| kind.starts_with("face_id"));
    if reads_id && adapter.role == Role::Style {
        return Err(Error::input(
            "convert-config",
            "an adapter of the FaceID family reads no style image",
            "give it with --identity-adapter",
        ));
    }
    config["model_type"] = json!("ip_adapter");
    config["role"] = json!(if adapter.role == Role::Style { "style" } else { "identity" });
    config["scale"] = json!(adapter.scale);
    if !adapter.block_scales.is_empty() {
        config["block_scales"] = json!(adapter.block_scales);
    }
    Ok((config, layout))
}

/// The kind of the projection, as our configs call it, told by its tensors; `None` where it is none that is known.
pub fn kind(layout: &Layout) -> Option<&'static str> {
    let has = |name: &str| layout.shape(&format!("image_proj.{name}")).is_some();
    Some(match () {
        () if has("proj.weight") => "image",
        () if has("proj.3.weight") => "full_face",
        () if has("latents") => "plus",
        () if !(has("proj.2.weight") && has("norm.weight")) => return None,
        () if has("perceiver_resampler.proj_in.weight") => "face_id_plus",
        () => "face_id",
    })
}

/// The kind of the projection and its sizes.
fn projection(layout: &Layout, version: Option<FaceIdPlus>) -> Result<Value> {
    let of = |name: &str, axis| side(layout, &format!("image_proj.{name}"), axis);
    let kind = kind(layout);
    if kind == Some("image") {
        let dim = of("norm.weight", 0)?;
        return Ok(json!({
            "projection": "image", "image_embed_dim": of("proj.weight", 1)?,
            "num_tokens": of("proj.weight", 0)? / dim.max(1), "cross_attention_dim": dim,
        }));
    }
    if kind == Some("full_face") {
        return Ok(json!({
            "projection": "full_face", "hidden_size": of("proj.0.weight", 1)?,
            "cross_attention_dim": of("proj.3.weight", 0)?,
        }));
    }
    if kind == Some("plus") {
        let mut config = perceiver(layout, "")?;
        config["projection"] = json!("plus");
        config["num_tokens"] = json!(of("latents", 1)?);
        return Ok(config);
    }
    if kind.is_none() {
        return Err(Error::weights(
            "checkpoint-layout",
            "no projection of the IP-Adapter family under 'image_proj'",
            "use an IP-Adapter for Stable Diffusion 1.5 as its authors publish it",
        ));
    }
    let width = of("norm.weight", 0)?;
    let mut config = json!({ "projection": "face_id", "cross_attention_dim": width });
    if kind == Some("face_id_plus") {
        let version = version.ok_or_else(|| {
            Error::input(
                "convert-config",
                "FaceID-Plus and FaceID-Plus V2 have the same tensors: nothing in the file tells them apart",
                "give --face-id-plus v1 or v2, as the file's name says",
            )
        })?;
        config = perceiver(layout, "perceiver_resampler.")?;
        config["projection"] = json!("face_id_plus");
        config["shortcut"] = json!(version == FaceIdPlus::V2);
    }
    config["id_embed_dim"] = json!(of("proj.0.weight", 1)?);
    config["intermediate_size"] = json!(of("proj.0.weight", 0)?);
    config["num_tokens"] = json!(of("proj.2.weight", 0)? / width.max(1));
    Ok(config)
}

fn perceiver(layout: &Layout, prefix: &str) -> Result<Value> {
    let name = |name: &str| format!("image_proj.{prefix}{name}");
    let of = |tensor: &str, axis| side(layout, &name(tensor), axis);
    Ok(json!({
        "hidden_size": of("proj_in.weight", 1)?, "width": of("proj_in.weight", 0)?,
        "depth": count(layout, |i| name(&format!("layers.{i}.0.to_q.weight"))),
        "heads": of("layers.0.0.to_q.weight", 0)? / HEAD_DIM,
        "feed_forward_size": of("layers.0.1.1.weight", 0)?, "cross_attention_dim": of("proj_out.weight", 0)?,
    }))
}

/// FaceID's LoRA under the names of diffusers, for the UNet whose tensors are `unet`; `None` for an adapter without.
pub fn lora<'a>(source: &'a dyn TensorSource, unet: &dyn TensorSource) -> Result<Option<Layout<'a>>> {
    let attentions = attentions(unet);
    let mut layout = Layout::new(source);
    for name in source.names().iter().filter(|name| is_lora(name)) {
        let (number, rest) = name.trim_start_matches("ip_adapter.").split_once('.').unwrap_or_default();
        let path = number.parse::<usize>().ok().and_then(|number| attentions.get(number));
        let path = path.ok_or_else(|| {
            Error::weights(
                "lora-mismatch",
                format!("the adapter's '{name}' has no attention among the unet's {}", attentions.len()),
                "use an adapter for this kind of Stable Diffusion",
            )
        })?;
        layout.keep(name, format!("unet.{path}.processor.{rest}"))?;
    }
    Ok(Some(layout).filter(|layout| !layout.names().is_empty()))
}

/// Whether a tensor of an adapter belongs to its LoRA.
pub fn is_lora(name: &str) -> bool {
    name.starts_with("ip_adapter.") && name.contains("_lora.")
}

/// The UNet's attentions in the order in which diffusers lists their processors, by which adapters number them: down, up,
/// middle; in each transformer block self-attention, then cross-attention.
fn attentions(unet: &dyn TensorSource) -> Vec<String> {
    let mut paths: Vec<String> = unet
        .names()
        .iter()
        .filter_map(|name| name.strip_suffix(".to_q.weight"))
        .filter(|path| path.ends_with(".attn1") || path.ends_with(".attn2"))
        .map(str::to_owned)
        .collect();
    paths.sort_by_key(|path| {
        let section = ["down_blocks", "up_blocks", "mid_block"].iter().position(|s| path.starts_with(s));
        let numbers =
            path.split('.').filter_map(|part| part.trim_start_matches("attn").parse::<usize>().ok());
        (section, numbers.collect::<Vec<_>>())
    });
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio::weights::Tensors;

    #[test]
    fn attentions_are_numbered_as_upstream() {
        let block = |block: &str, i: usize| {
            [1, 2].map(|n| format!("{block}.attentions.{i}.transformer_blocks.0.attn{n}"))
        };
        let expected: Vec<String> = [
            block("down_blocks.0", 0),
            block("down_blocks.0", 1),
            block("down_blocks.10", 0),
            block("up_blocks.1", 0),
            block("up_blocks.1", 10),
            block("mid_block", 0),
        ]
        .concat();
        let tensors = expected.iter().rev().map(|path| (format!("{path}.to_q.weight"), (vec![1], vec![0.0])));
        assert_eq!(attentions(&Tensors(tensors.collect())), expected);
    }
}
