//! FLUX.2 klein: its transformer in the names of its publisher's single files, which ComfyUI's have as well, and the part of its
//! text encoder that is read.
//!
//! Names and what is fused in them are those of diffusers' `convert_flux2_transformer_checkpoint_to_diffusers`.

use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::layout::{Layout, count, side, unknown};
use super::{Plan, Slot};
use facestudio::error::Result;
use facestudio::weights::TensorSource;

/// What may stand before all names; the second is ComfyUI's.
const PREFIXES: [&str; 2] = ["", "model.diffusion_model."];
/// A tensor that tells the publisher's names.
const TELLING: &str = "double_blocks.0.img_attn.qkv.weight";

/// Single tensors outside of the blocks, and what diffusers calls them.
const WHOLE: [(&str, &str); 10] = [
    ("img_in.weight", "x_embedder.weight"),
    ("txt_in.weight", "context_embedder.weight"),
    ("time_in.in_layer.weight", "time_guidance_embed.timestep_embedder.linear_1.weight"),
    ("time_in.out_layer.weight", "time_guidance_embed.timestep_embedder.linear_2.weight"),
    ("guidance_in.in_layer.weight", "time_guidance_embed.guidance_embedder.linear_1.weight"),
    ("guidance_in.out_layer.weight", "time_guidance_embed.guidance_embedder.linear_2.weight"),
    ("double_stream_modulation_img.lin.weight", "double_stream_modulation_img.linear.weight"),
    ("double_stream_modulation_txt.lin.weight", "double_stream_modulation_txt.linear.weight"),
    ("single_stream_modulation.lin.weight", "single_stream_modulation.linear.weight"),
    ("final_layer.linear.weight", "proj_out.weight"),
];
/// Inside of a double-stream block.
const DOUBLE: [(&str, &str); 10] = [
    ("img_attn.norm.query_norm.scale", "attn.norm_q.weight"),
    ("img_attn.norm.key_norm.scale", "attn.norm_k.weight"),
    ("img_attn.proj.weight", "attn.to_out.0.weight"),
    ("img_mlp.0.weight", "ff.linear_in.weight"),
    ("img_mlp.2.weight", "ff.linear_out.weight"),
    ("txt_attn.norm.query_norm.scale", "attn.norm_added_q.weight"),
    ("txt_attn.norm.key_norm.scale", "attn.norm_added_k.weight"),
    ("txt_attn.proj.weight", "attn.to_add_out.weight"),
    ("txt_mlp.0.weight", "ff_context.linear_in.weight"),
    ("txt_mlp.2.weight", "ff_context.linear_out.weight"),
];
/// Queries, keys and values in one.
const FUSED: [(&str, [&str; 3]); 2] = [
    ("img_attn.qkv.weight", ["attn.to_q.weight", "attn.to_k.weight", "attn.to_v.weight"]),
    ("txt_attn.qkv.weight", ["attn.add_q_proj.weight", "attn.add_k_proj.weight", "attn.add_v_proj.weight"]),
];
/// Inside of a single-stream block.
const SINGLE: [(&str, &str); 4] = [
    ("linear1.weight", "attn.to_qkv_mlp_proj.weight"),
    ("linear2.weight", "attn.to_out.weight"),
    ("norm.query_norm.scale", "attn.norm_q.weight"),
    ("norm.key_norm.scale", "attn.norm_k.weight"),
];
/// Shift and scale, which diffusers has the other way round.
const SWAPPED: (&str, &str) = ("final_layer.adaLN_modulation.1.weight", "norm_out.linear.weight");

/// Whether a plan makes a FLUX.2 klein.
pub fn is_planned(plan: &Plan) -> bool {
    let of_base = plan.base.as_ref().is_some_and(|base| base.join(Slot::Transformer.folder()).is_dir());
    of_base || plan.parts.iter().any(|(slot, _)| *slot == Slot::Transformer)
}

/// Whether a checkpoint's transformer has diffusers' names, which leave the rest to a config.
pub fn is_diffusers(checkpoint: &Checkpoint) -> bool {
    checkpoint.shape("context_embedder.weight").is_some()
}

/// Whether a text encoder is a Qwen3.
pub fn is_qwen3(checkpoint: &Checkpoint) -> bool {
    ["", "model."]
        .iter()
        .any(|prefix| checkpoint.shape(&format!("{prefix}layers.0.self_attn.q_norm.weight")).is_some())
}

fn prefix(checkpoint: &Checkpoint) -> Option<&'static str> {
    PREFIXES.into_iter().find(|prefix| checkpoint.shape(&format!("{prefix}{TELLING}")).is_some())
}

/// Whether a checkpoint's transformer has its publisher's names.
pub fn is_publishers(checkpoint: &Checkpoint) -> bool {
    prefix(checkpoint).is_some()
}

/// A transformer in its publisher's names: diffusers' names and config.
pub fn transformer(checkpoint: &Checkpoint) -> Result<(Value, Layout<'_>)> {
    let prefix = prefix(checkpoint).ok_or_else(|| unknown(TELLING, "transformer"))?;
    let at = |name: &str| format!("{prefix}{name}");
    let mut layout = Layout::new(checkpoint);
    let guided = checkpoint.shape(&at("guidance_in.in_layer.weight")).is_some();
    for (from, to) in WHOLE.into_iter().filter(|(from, _)| guided || !from.starts_with("guidance_in")) {
        layout.keep(&at(from), to)?;
    }
    layout.swap_halves(&at(SWAPPED.0), SWAPPED.1)?;
    let double = count(checkpoint, |i| at(&format!("double_blocks.{i}.img_attn.qkv.weight")));
    let single = count(checkpoint, |i| at(&format!("single_blocks.{i}.linear1.weight")));
    for i in 0..double {
        let (from, to) = (at(&format!("double_blocks.{i}.")), format!("transformer_blocks.{i}."));
        for (own, theirs) in DOUBLE {
            layout.keep(&format!("{from}{own}"), format!("{to}{theirs}"))?;
        }
        for (own, theirs) in FUSED {
            layout.split(&format!("{from}{own}"), &theirs.map(|theirs| format!("{to}{theirs}")))?;
        }
    }
    for i in 0..single {
        let (from, to) = (at(&format!("single_blocks.{i}.")), format!("single_transformer_blocks.{i}."));
        for (own, theirs) in SINGLE {
            layout.keep(&format!("{from}{own}"), format!("{to}{theirs}"))?;
        }
    }
    // A single file of ComfyUI may hold other networks too.
    if let Some(other) = checkpoint.names().iter().find(|name| {
        name.starts_with(prefix) && !(prefix.is_empty() && is_others(name)) && !layout.reads(name)
    }) {
        return Err(unknown(other, "FLUX.2 transformer"));
    }
    let size = |name: &str, axis| side(checkpoint, &at(name), axis);
    let (width, head_dim) =
        (size("img_in.weight", 0)?, size("double_blocks.0.img_attn.norm.query_norm.scale", 0)?);
    let inner = size("double_blocks.0.img_mlp.2.weight", 1)?;
    let config = json!({
        "_class_name": "Flux2Transformer2DModel",
        "in_channels": size("img_in.weight", 1)?,
        "num_layers": double,
        "num_single_layers": single,
        "attention_head_dim": head_dim,
        "num_attention_heads": width / head_dim.max(1),
        "joint_attention_dim": size("txt_in.weight", 1)?,
        "timestep_guidance_channels": size("time_in.in_layer.weight", 1)?,
        "mlp_ratio": inner as f64 / width.max(1) as f64,
        "axes_dims_rope": vec![head_dim / 4; 4],
        "guidance_embeds": guided,
    });
    Ok((config, layout))
}

/// What is beside a transformer without a prefix.
fn is_others(name: &str) -> bool {
    ["vae.", "text_encoders.", "first_stage_model.", "cond_stage_model."]
        .iter()
        .any(|of| name.starts_with(of))
}

/// The part of a Qwen3 that a FLUX.2 klein reads: three quarters of its layers, and nothing behind them.
pub fn qwen3<'a>(checkpoint: &'a Checkpoint, config: &Value) -> Result<Layout<'a>> {
    let layers = config["num_hidden_layers"].as_u64().unwrap_or(0) as usize;
    let [_, _, deepest] = facestudio::encoders::qwen3::klein_layers(layers);
    let mut layout = Layout::new(checkpoint);
    for name in checkpoint.names() {
        let bare = name.strip_prefix("model.").unwrap_or(&name);
        let layer = bare.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let is_read = layer.map_or(bare == "embed_tokens.weight", |layer: usize| layer < deepest);
        if is_read {
            layout.keep(&name, name.clone())?;
        }
    }
    Ok(layout)
}
