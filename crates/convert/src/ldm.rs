//! Single-file Stable Diffusion checkpoints in the layout of the original latent-diffusion code (Rombach et al. 2022), into
//! diffusers' names and configs.
//!
//! What the tensors do not tell is what Stable Diffusion's own configs say: `v1-inference.yaml` (8 heads everywhere) for
//! checkpoints whose attention projects by convolutions, `v2-inference.yaml` (heads of 64 channels) for those that project
//! linearly.

use serde_json::{Value, json};

use super::declared::is_mark;
use super::layout::{Layout, count, shape, side, unknown};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// Where a UNet lies in a checkpoint; those that are published alone may have a shorter prefix, or none.
const UNET: [&str; 3] = ["model.diffusion_model.", "diffusion_model.", ""];
/// Where the autoencoder lies; those that are published alone have no prefix.
const VAE: &str = "first_stage_model.";
/// `v1`'s text encoder: transformers' own layout, one prefix more.
pub const TEXT_V1: &str = "cond_stage_model.transformer.";
/// `v2`'s text encoder: open_clip's layout.
pub const TEXT_V2: &str = "cond_stage_model.model.";

/// Stable Diffusion XL's text encoders.
const SDXL: &str = "conditioner.embedders.";

/// A convolution, or a matrix: that tells versions apart.
const PROJECTION: &str = "middle_block.1.proj_in.weight";
/// `num_heads` of `v1-inference.yaml`.
const V1_HEADS: usize = 8;
/// `num_head_channels` of `v2-inference.yaml`.
const V2_HEAD_CHANNELS: usize = 64;
/// `scale_factor` of both.
const SCALING_FACTOR: f64 = 0.18215;

/// Whether a checkpoint has this layout.
pub fn is_ldm(source: &dyn TensorSource) -> bool {
    unet_prefix(source).is_some()
}

/// What stands before the UNet's tensors; `None` where there is none.
pub fn unet_prefix(source: &dyn TensorSource) -> Option<&'static str> {
    UNET.into_iter().find(|prefix| source.shape(&format!("{prefix}input_blocks.0.0.weight")).is_some())
}

/// Whether a UNet projects linearly before and after its transformers, as Stable Diffusion 2's does.
pub fn is_v2(source: &dyn TensorSource) -> bool {
    let prefix = unet_prefix(source).unwrap_or_default();
    source.shape(&format!("{prefix}{PROJECTION}")).is_some_and(|shape| shape.len() == 2)
}

/// Fails with `checkpoint-layout`, naming it, on a model of this layout that is no Stable Diffusion 1 or 2.
fn refuse_others(source: &dyn TensorSource, prefix: &str) -> Result<()> {
    let has = |name: &str| source.shape(&format!("{prefix}{name}")).is_some();
    let deep = |name: &String| name.starts_with(prefix) && name.contains(".transformer_blocks.1.");
    let sides = [("input_blocks.0.0.weight", 1), ("out.2.weight", 0)];
    let [takes, gives] = sides.map(|(name, axis)| side(source, &format!("{prefix}{name}"), axis));
    let (takes, gives) = (takes?, gives?);
    let what = if source.names().iter().any(|name| name.starts_with(SDXL)) {
        "it is a Stable Diffusion XL".to_owned()
    } else if has("label_emb.0.0.weight") || has("label_emb.weight") {
        "its UNet is told more than a text, as those of Stable Diffusion XL, unCLIP and upscalers are"
            .to_owned()
    } else if takes != gives {
        let kind = match takes {
            9 => ", as those for inpainting are",
            8 => ", as InstructPix2Pix's is",
            7 => ", as upscalers' are",
            5 => ", as those that are told depths are",
            _ => "",
        };
        format!("its UNet takes {takes} channels and gives {gives}{kind}")
    } else if source.names().iter().any(deep) {
        "its UNet has several blocks in a transformer".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::weights(
        "checkpoint-layout",
        what,
        "use a plain Stable Diffusion 1 or 2: it draws and inpaints",
    ))
}

/// What stands at an index of `input_blocks`.
enum Input {
    Stem,
    Layer { level: usize, layer: usize },
    Downsample { level: usize },
}

/// The denoiser's config and tensors.
pub fn unet(source: &dyn TensorSource) -> Result<(Value, Layout<'_>)> {
    let prefix = unet_prefix(source).ok_or_else(|| {
        let first = source.names().into_iter().find(|name| !is_mark(name));
        unknown(&first.unwrap_or_default(), "UNet")
    })?;
    refuse_others(source, prefix)?;
    let has = |name: &str| source.shape(&format!("{prefix}{name}")).is_some();
    let of = |name: &str, axis| side(source, &format!("{prefix}{name}"), axis);
    let mut inputs = vec![Input::Stem];
    let (mut channels, mut layers, mut attention) = (vec![0], vec![0], vec![false]);
    loop {
        let (i, level) = (inputs.len(), channels.len() - 1);
        if has(&format!("input_blocks.{i}.0.op.weight")) {
            inputs.push(Input::Downsample { level });
            channels.push(0);
            layers.push(0);
            attention.push(false);
        } else if has(&format!("input_blocks.{i}.0.in_layers.2.weight")) {
            inputs.push(Input::Layer { level, layer: layers[level] });
            channels[level] = of(&format!("input_blocks.{i}.0.in_layers.2.weight"), 0)?;
            attention[level] |= has(&format!("input_blocks.{i}.1.proj_in.weight"));
            layers[level] += 1;
        } else {
            break;
        }
    }
    let per_level = layers[0];
    if per_level == 0 || layers.iter().any(|n| *n != per_level) {
        return Err(unknown(&format!("{prefix}input_blocks"), "UNet: its levels differ in layers"));
    }
    let mut layout = Layout::new(source);
    for name in source.names() {
        if let Some(inner) = name.strip_prefix(prefix).filter(|inner| !is_mark(inner)) {
            let to = unet_name(inner, &inputs, per_level).ok_or_else(|| unknown(&name, "UNet"))?;
            layout.keep(&name, to)?;
        }
    }
    let attn = "middle_block.1.transformer_blocks.0.attn2.to_k.weight";
    let linear = shape(source, &format!("{prefix}{PROJECTION}"))?.len() == 2;
    let heads: Value = if linear {
        channels.iter().map(|c| (c / V2_HEAD_CHANNELS).max(1)).collect()
    } else {
        V1_HEADS.into()
    };
    let block = |with: &'static str, without: &'static str| move |a: &bool| if *a { with } else { without };
    let down: Vec<_> = attention.iter().map(block("CrossAttnDownBlock2D", "DownBlock2D")).collect();
    let up: Vec<_> = attention.iter().rev().map(block("CrossAttnUpBlock2D", "UpBlock2D")).collect();
    let config = json!({
        "_class_name": "UNet2DConditionModel", "sample_size": 64,
        "in_channels": of("input_blocks.0.0.weight", 1)?, "out_channels": of("out.2.weight", 0)?,
        "down_block_types": down, "up_block_types": up, "block_out_channels": channels,
        "layers_per_block": per_level, "attention_head_dim": heads, "cross_attention_dim": of(attn, 1)?,
        "use_linear_projection": linear, "norm_num_groups": 32, "norm_eps": 1e-5,
    });
    Ok((config, layout))
}

fn unet_name(name: &str, inputs: &[Input], per_level: usize) -> Option<String> {
    let (block, rest) = name.split_once('.')?;
    match block {
        "time_embed" | "out" => {
            let (index, rest) = rest.split_once('.')?;
            let name = match (block, index) {
                ("time_embed", "0") => "time_embedding.linear_1",
                ("time_embed", "2") => "time_embedding.linear_2",
                ("out", "0") => "conv_norm_out",
                ("out", "2") => "conv_out",
                _ => return None,
            };
            Some(format!("{name}.{rest}"))
        }
        "input_blocks" => {
            let (index, part, rest) = indexed(rest)?;
            Some(match (inputs.get(index)?, part) {
                (Input::Stem, 0) => format!("conv_in.{rest}"),
                (Input::Downsample { level }, 0) => {
                    format!("down_blocks.{level}.downsamplers.0.conv.{}", rest.strip_prefix("op.")?)
                }
                (Input::Layer { level, layer }, 0) => {
                    format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)
                }
                (Input::Layer { level, layer }, 1) => {
                    format!("down_blocks.{level}.attentions.{layer}.{rest}")
                }
                _ => return None,
            })
        }
        "middle_block" => {
            let (part, rest) = rest.split_once('.')?;
            Some(match part {
                "0" => format!("mid_block.resnets.0.{}", resnet(rest)?),
                "1" => format!("mid_block.attentions.0.{rest}"),
                "2" => format!("mid_block.resnets.1.{}", resnet(rest)?),
                _ => return None,
            })
        }
        "output_blocks" => {
            let (index, part, rest) = indexed(rest)?;
            // One layer more than on the way down: it takes the skip from the level above.
            let (level, layer) = (index / (per_level + 1), index % (per_level + 1));
            Some(match part {
                0 => format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?),
                // After the attention, or in its place.
                1 | 2 if rest.starts_with("conv.") => format!("up_blocks.{level}.upsamplers.0.{rest}"),
                1 => format!("up_blocks.{level}.attentions.{layer}.{rest}"),
                _ => return None,
            })
        }
        _ => None,
    }
}

/// `3.1.rest` → `(3, 1, "rest")`.
fn indexed(name: &str) -> Option<(usize, usize, &str)> {
    let (index, rest) = name.split_once('.')?;
    let (part, rest) = rest.split_once('.')?;
    Some((index.parse().ok()?, part.parse().ok()?, rest))
}

/// What the layers of a residual block are called: by the original code, and by diffusers.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

fn resnet(name: &str) -> Option<String> {
    RESNET.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

/// Where the levels of a UNet in diffusers' names lie in the original code's.
pub struct Blocks {
    /// The first of `input_blocks` of each level, and one more.
    inputs: Vec<usize>,
    /// Likewise of `output_blocks`.
    outputs: Vec<usize>,
    /// The place of each level's upsampler in its block: after the attention, or in its place.
    upsamplers: Vec<usize>,
}

impl Blocks {
    /// Those of `unet`.
    pub fn of(unet: &dyn TensorSource) -> Self {
        let has = |name: String| usize::from(unet.shape(&name).is_some());
        let layers = |block: &str, level: usize| {
            count(unet, |layer| format!("{block}.{level}.resnets.{layer}.conv1.weight"))
        };
        let (mut inputs, mut outputs, mut upsamplers) = (vec![1], vec![0], Vec::new());
        for level in (0..).take_while(|level| layers("down_blocks", *level) > 0) {
            let downsampler = has(format!("down_blocks.{level}.downsamplers.0.conv.weight"));
            inputs.push(inputs[level] + layers("down_blocks", level) + downsampler);
        }
        for level in (0..).take_while(|level| layers("up_blocks", *level) > 0) {
            outputs.push(outputs[level] + layers("up_blocks", level));
            upsamplers.push(1 + has(format!("up_blocks.{level}.attentions.0.proj_in.weight")));
        }
        Self { inputs, outputs, upsamplers }
    }

    /// What the original code calls the module at `path`: the other direction of [`unet`].
    pub fn original(&self, path: &str) -> Option<String> {
        let single = match path {
            "conv_in" => "input_blocks.0.0",
            "time_embedding.linear_1" => "time_embed.0",
            "time_embedding.linear_2" => "time_embed.2",
            "conv_norm_out" => "out.0",
            "conv_out" => "out.2",
            _ => return self.original_of_block(path),
        };
        Some(single.to_owned())
    }

    fn original_of_block(&self, path: &str) -> Option<String> {
        let (block, rest) = path.split_once('.')?;
        let (level, rest) = match block {
            "mid_block" => (0, rest),
            _ => {
                let (level, rest) = rest.split_once('.')?;
                (level.parse().ok()?, rest)
            }
        };
        let (kind, index, rest) = {
            let (kind, rest) = rest.split_once('.')?;
            let (index, rest) = rest.split_once('.')?;
            (kind, index.parse::<usize>().ok()?, rest)
        };
        let layer = || {
            let rest = format!("{rest}.");
            let name =
                RESNET.iter().find_map(|(to, from)| Some(format!("{to}{}", rest.strip_prefix(from)?)))?;
            Some(name.trim_end_matches('.').to_owned())
        };
        let at = |starts: &[usize]| starts.get(level)?.checked_add(index);
        let last = |starts: &[usize]| starts.get(level.checked_add(1)?)?.checked_sub(1);
        Some(match (block, kind) {
            // Residual blocks and transformers take turns.
            ("mid_block", "resnets") => format!("middle_block.{}.{}", index.checked_mul(2)?, layer()?),
            ("mid_block", "attentions") => {
                format!("middle_block.{}.{rest}", index.checked_mul(2)?.checked_add(1)?)
            }
            ("down_blocks", "resnets") => format!("input_blocks.{}.0.{}", at(&self.inputs)?, layer()?),
            ("down_blocks", "attentions") => format!("input_blocks.{}.1.{rest}", at(&self.inputs)?),
            ("down_blocks", "downsamplers") => format!("input_blocks.{}.0.op", last(&self.inputs)?),
            ("up_blocks", "resnets") => format!("output_blocks.{}.0.{}", at(&self.outputs)?, layer()?),
            ("up_blocks", "attentions") => format!("output_blocks.{}.1.{rest}", at(&self.outputs)?),
            ("up_blocks", "upsamplers") => {
                format!("output_blocks.{}.{}.conv", last(&self.outputs)?, self.upsamplers.get(level)?)
            }
            _ => return None,
        })
    }
}

/// The autoencoder's config and tensors.
pub fn vae(source: &dyn TensorSource) -> Result<(Value, Layout<'_>)> {
    // The same tensors, for latents of another scale.
    if source.names().iter().any(|name| name.starts_with(SDXL)) {
        return Err(Error::weights(
            "checkpoint-layout",
            "it is the autoencoder of a Stable Diffusion XL",
            "use a plain Stable Diffusion 1 or 2, or its autoencoder alone",
        ));
    }
    let alone = source.shape("encoder.conv_in.weight").is_some();
    let prefix = if alone { "" } else { VAE };
    let block =
        |level: usize, layer: usize| format!("{prefix}encoder.down.{level}.block.{layer}.conv1.weight");
    let levels = count(source, |level| block(level, 0));
    let channels = (0..levels).map(|level| side(source, &block(level, 0), 0)).collect::<Result<Vec<_>>>()?;
    let mut layout = Layout::new(source);
    for name in source.names() {
        let Some(inner) = name.strip_prefix(prefix) else { continue };
        // Training left its discriminator and its averaged weights in some checkpoints.
        if inner.starts_with("loss.") || inner.starts_with("model_ema.") || is_mark(inner) {
            continue;
        }
        let to = vae_name(inner, levels).ok_or_else(|| unknown(&name, "autoencoder"))?;
        if to.contains(".attentions.") && to.ends_with(".weight") && !to.contains("group_norm") {
            layout.as_linear(&name, to)?;
        } else {
            layout.keep(&name, to)?;
        }
    }
    let config = json!({
        "_class_name": "AutoencoderKL", "sample_size": 512,
        "in_channels": side(source, &format!("{prefix}encoder.conv_in.weight"), 1)?,
        "out_channels": side(source, &format!("{prefix}decoder.conv_out.weight"), 0)?,
        "down_block_types": vec!["DownEncoderBlock2D"; levels], "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "block_out_channels": channels, "layers_per_block": count(source, |layer| block(0, layer)),
        "latent_channels": side(source, &format!("{prefix}post_quant_conv.weight"), 1)?,
        "norm_num_groups": 32, "act_fn": "silu", "scaling_factor": SCALING_FACTOR,
    });
    Ok((config, layout))
}

fn vae_name(name: &str, levels: usize) -> Option<String> {
    let (half, rest) = name.split_once('.')?;
    if matches!(half, "quant_conv" | "post_quant_conv") {
        return Some(name.to_owned());
    }
    let shortcut = |name: &str| name.replace("nin_shortcut", "conv_shortcut");
    let (part, inner) = rest.split_once('.')?;
    let inner = match (half, part) {
        (_, "conv_in" | "conv_out") => rest.to_owned(),
        (_, "norm_out") => format!("conv_norm_out.{inner}"),
        (_, "mid") => {
            let (block, inner) = inner.split_once('.')?;
            match block {
                "block_1" => format!("mid_block.resnets.0.{}", shortcut(inner)),
                "block_2" => format!("mid_block.resnets.1.{}", shortcut(inner)),
                "attn_1" => format!("mid_block.attentions.0.{}", attention(inner)?),
                _ => return None,
            }
        }
        ("encoder", "down") | ("decoder", "up") => {
            let (level, inner) = inner.split_once('.')?;
            let level: usize = level.parse().ok()?;
            // The decoder's levels are counted from the picture's side.
            let (blocks, sampler, level) = match part {
                "down" => ("down_blocks", "downsample", level),
                _ => ("up_blocks", "upsample", levels.checked_sub(level + 1)?),
            };
            match inner.split_once('.')? {
                ("block", inner) => format!("{blocks}.{level}.resnets.{}", shortcut(inner)),
                (kind, inner) if kind == sampler => format!("{blocks}.{level}.{sampler}rs.0.{inner}"),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(format!("{half}.{inner}"))
}

fn attention(name: &str) -> Option<String> {
    let (layer, rest) = name.split_once('.')?;
    let layer = match layer {
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        _ => return None,
    };
    Some(format!("{layer}.{rest}"))
}
