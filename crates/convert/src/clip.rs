//! CLIP in its several layouts, as the text and vision encoders of transformers: transformers' own, of two towers or one, and
//! OpenAI's (Radford et al. 2021), which open_clip shares.

use serde_json::{Value, json};

use super::layout::{Layout, count, side, unknown};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// Heads of every text tower and of OpenAI's vision towers have 64 channels.
const HEAD_CHANNELS: usize = 64;
/// open_clip's large vision towers have 16 heads, of 80, 88 and 104 channels (`ViT-H-14`, `ViT-g-14`, `ViT-bigG-14`).
const WIDTHS_OF_16_HEADS: [usize; 3] = [1280, 1408, 1664];
/// Layers of the text encoder of Stable Diffusion 2 that are read: all of `ViT-H-14`'s but the last.
const LAYERS_OF_2: usize = 23;
/// The parts of a tower in transformers' names: of a text tower, of a vision transformer, of both.
const PARTS: [&str; 5] = ["embeddings.", "encoder.", "final_layer_norm.", "pre_layrnorm.", "post_layernorm."];
/// What OpenAI's archives hold beside weights: sizes, and the causal mask.
const NO_WEIGHTS: [&str; 6] =
    ["logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size"];

/// Where a tower's tensors lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tower {
    /// The text encoder.
    Text,
    /// The vision encoder.
    Vision,
}

impl Tower {
    /// What transformers calls the tower in a model that has more than it, and its projection.
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Text => ["text_model.", "text_projection."],
            Self::Vision => ["vision_model.", "visual_projection."],
        }
    }

    /// A tensor that the tower always has.
    fn first(self) -> &'static str {
        match self {
            Self::Text => "embeddings.token_embedding.weight",
            Self::Vision => "embeddings.patch_embedding.weight",
        }
    }

    /// transformers' class of the tower with its projection.
    fn class(self) -> &'static str {
        match self {
            Self::Text => "CLIPTextModelWithProjection",
            Self::Vision => "CLIPVisionModelWithProjection",
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Self::Text => "clip_text_model",
            Self::Vision => "clip_vision_model",
        }
    }

    fn config_key(self) -> &'static str {
        match self {
            Self::Text => "text_config",
            Self::Vision => "vision_config",
        }
    }

    /// What stands before the tower's tensors below `prefix`; `None` where they have other names. transformers 5 leaves out the
    /// model's name where it saves `CLIPTextModel` or `CLIPVisionModel`, and so do some programs' single files.
    fn inner(self, source: &dyn TensorSource, prefix: &str) -> Option<&'static str> {
        let there = |inner: &&str| source.shape(&format!("{prefix}{inner}{}", self.first())).is_some();
        [self.names()[0], ""].into_iter().find(there)
    }
}

/// Whether a tower is there in transformers' layout.
pub fn is_transformers(source: &dyn TensorSource, tower: Tower) -> bool {
    tower.inner(source, "").is_some()
}

/// One tower of transformers' layout: of a model of that tower alone, or of `CLIPModel` with both. Without a config its sizes
/// are told by the tensors, and its activation is `act`.
///
/// Fails with `checkpoint-layout` on other layouts, and on a vision tower without its projection.
pub fn transformers<'a>(
    source: &'a dyn TensorSource,
    config: Option<&Value>,
    tower: Tower,
    act: &str,
) -> Result<(Value, Layout<'a>)> {
    let layout = tower_below(source, "", tower, usize::MAX)?;
    let projects = layout.shape(&format!("{}weight", tower.names()[1])).is_some();
    if tower == Tower::Vision && !projects {
        return Err(Error::weights(
            "checkpoint-layout",
            "the vision encoder has no visual_projection: it was saved without what makes image_embeds",
            "save it as CLIPVisionModelWithProjection, or take the whole CLIP",
        ));
    }
    let Some(config) = config else {
        let config = match tower {
            Tower::Text => text_sizes(&layout, act)?,
            Tower::Vision => vision_sizes(&layout, act)?,
        };
        return Ok((config, layout));
    };
    // What old versions of transformers wrote beside it counts.
    let old = config.get(format!("{}_dict", tower.config_key())).filter(|old| old.is_object());
    let of_tower = old.or(config.get(tower.config_key()));
    let mut own = of_tower.unwrap_or(config).clone();
    if let Value::Object(own) = &mut own {
        let nested = of_tower.and(config.get("projection_dim"));
        own.extend(nested.map(|width| ("projection_dim".to_owned(), width.clone())));
        // OpenAI's own repositories leave it out of the old half.
        own.entry("model_type").or_insert_with(|| json!(tower.model_type()));
        let says = own.get("architectures").is_some_and(Value::is_array);
        // The class says whether there is a projection: where it is not said, the tensors do.
        if tower == Tower::Text && !projects {
            own.insert("architectures".to_owned(), json!(["CLIPTextModel"]));
        } else if nested.is_some() || !says {
            own.insert("architectures".to_owned(), json!([tower.class()]));
        }
    }
    Ok((own, layout))
}

/// A text encoder of transformers' layout without its config, as in Stable Diffusion 1's single files; `of_2` where it is Stable
/// Diffusion 2's, which stable-diffusion.cpp brings into this layout with all of open_clip's layers.
pub fn text_without_config<'a>(
    source: &'a dyn TensorSource,
    prefix: &str,
    of_2: bool,
) -> Result<(Value, Layout<'a>)> {
    let (layers, act) = if of_2 { (LAYERS_OF_2, "gelu") } else { (usize::MAX, "quick_gelu") };
    let layout = tower_below(source, prefix, Tower::Text, layers)?;
    Ok((text_sizes(&layout, act)?, layout))
}

/// The tensors of a tower's first `layers` layers below `prefix`, and those around them, under the names of transformers 4, which are
/// ours.
fn tower_below<'a>(
    source: &'a dyn TensorSource,
    prefix: &str,
    tower: Tower,
    layers: usize,
) -> Result<Layout<'a>> {
    let [model, projection] = tower.names();
    let inner = tower.inner(source, prefix).ok_or_else(|| {
        let first = source.names().into_iter().find(|name| name.starts_with(prefix));
        unknown(&first.unwrap_or_default(), "CLIP of transformers")
    })?;
    let mut layout = Layout::new(source);
    for name in source.names() {
        let Some(own) = name.strip_prefix(prefix) else { continue };
        let rest = own.strip_prefix(inner).filter(|rest| PARTS.iter().any(|part| rest.starts_with(part)));
        let layer =
            rest.and_then(|rest| rest.strip_prefix("encoder.layers.")?.split_once('.')?.0.parse().ok());
        if layer.is_some_and(|layer: usize| layer >= layers) {
            continue;
        }
        // Old versions stored the positions 0, 1, 2 and so on.
        match rest {
            // stable-diffusion.cpp leaves them in one, as open_clip has them.
            Some(rest) if let Some((layer, kind)) = rest.split_once("self_attn.in_proj.") => {
                let parts = ["q", "k", "v"].map(|part| format!("{model}{layer}self_attn.{part}_proj.{kind}"));
                layout.split(&name, &parts)?;
            }
            Some(rest) if !rest.ends_with("position_ids") => layout.keep(&name, format!("{model}{rest}"))?,
            None if own.starts_with(projection) => layout.keep(&name, own)?,
            _ => {}
        }
    }
    Ok(layout)
}

/// The config of a text tower in our names, told by its tensors.
fn text_sizes(layout: &Layout, act: &str) -> Result<Value> {
    let of = |name: &str, axis| side(layout, &format!("text_model.{name}"), axis);
    let layers = count(layout, |i| format!("text_model.encoder.layers.{i}.layer_norm1.weight"));
    let mut config = text_config(
        [
            of("embeddings.token_embedding.weight", 0)?,
            of("embeddings.position_embedding.weight", 0)?,
            of("embeddings.token_embedding.weight", 1)?,
            of("encoder.layers.0.mlp.fc1.weight", 0)?,
            layers,
        ],
        act,
    );
    if let Some([width, _]) = layout.shape("text_projection.weight").as_deref() {
        config["projection_dim"] = (*width).into();
        config["architectures"] = json!([Tower::Text.class()]);
    }
    Ok(config)
}

/// The config of a vision transformer in our names, told by its tensors.
fn vision_sizes(layout: &Layout, act: &str) -> Result<Value> {
    let of = |name: &str, axis| side(layout, &format!("vision_model.{name}"), axis);
    let (width, patch) =
        (of("embeddings.patch_embedding.weight", 0)?, of("embeddings.patch_embedding.weight", 2)?);
    let grid = (of("embeddings.position_embedding.weight", 0)?.saturating_sub(1)).isqrt();
    let heads = if WIDTHS_OF_16_HEADS.contains(&width) { 16 } else { (width / HEAD_CHANNELS).max(1) };
    Ok(json!({
        "model_type": "clip_vision_model", "hidden_size": width, "patch_size": patch,
        "image_size": grid.saturating_mul(patch), "intermediate_size": of("encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": count(layout, |i| format!("vision_model.encoder.layers.{i}.layer_norm1.weight")),
        "num_attention_heads": heads, "hidden_act": act, "layer_norm_eps": 1e-5,
        "projection_dim": side(layout, "visual_projection.weight", 0)?,
    }))
}

fn text_config([vocabulary, positions, width, inner, layers]: [usize; 5], act: &str) -> Value {
    json!({
        "model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "vocab_size": vocabulary, "max_position_embeddings": positions,
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": (width / HEAD_CHANNELS).max(1), "hidden_act": act, "layer_norm_eps": 1e-5,
        // The end of a text is its largest token, as in OpenAI's code; transformers writes that as 2.
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    })
}

/// Which of a text tower's layers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// All, with the projection where there is one.
    All,
    /// All but the last one, without projection: what Stable Diffusion 2 reads, and diffusers keeps.
    Penultimate(usize),
}

impl Layers {
    /// Without the last of the layers below `prefix`.
    pub fn penultimate(source: &dyn TensorSource, prefix: &str) -> Self {
        Self::Penultimate(count_blocks(source, prefix).saturating_sub(1))
    }

    fn skips(self, name: &str) -> bool {
        match self {
            Self::All => false,
            Self::Penultimate(last) => {
                name == "text_projection" || name.starts_with(&format!("transformer.resblocks.{last}."))
            }
        }
    }
}

fn count_blocks(source: &dyn TensorSource, prefix: &str) -> usize {
    count(source, |i| format!("{prefix}transformer.resblocks.{i}.ln_1.weight"))
}

fn is_no_weight(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| NO_WEIGHTS.contains(&last))
}

/// The text tower of OpenAI's layout, below `prefix`.
pub fn openai_text<'a>(
    source: &'a dyn TensorSource,
    prefix: &str,
    act: &str,
    layers: Layers,
) -> Result<(Value, Layout<'a>)> {
    let mut layout = Layout::new(source);
    for name in source.names() {
        let Some(inner) = name.strip_prefix(prefix) else { continue };
        if inner.starts_with("visual.") || is_no_weight(inner) || layers.skips(inner) {
            continue;
        }
        match inner {
            "text_projection" => layout.transposed(&name, "text_projection.weight")?,
            "positional_embedding" => {
                layout.keep(&name, "text_model.embeddings.position_embedding.weight")?
            }
            "token_embedding.weight" => layout.keep(&name, "text_model.embeddings.token_embedding.weight")?,
            _ => match inner.strip_prefix("ln_final.") {
                Some(rest) => layout.keep(&name, format!("text_model.final_layer_norm.{rest}"))?,
                None => block(&mut layout, &name, inner, "text_model")?,
            },
        }
    }
    let of = |name: &str, axis| side(source, &format!("{prefix}{name}"), axis);
    let taken = match layers {
        Layers::All => count_blocks(source, prefix),
        Layers::Penultimate(last) => last,
    };
    let mut config = text_config(
        [
            of("token_embedding.weight", 0)?,
            of("positional_embedding", 0)?,
            of("token_embedding.weight", 1)?,
            of("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
            taken,
        ],
        act,
    );
    if layers == Layers::All && source.shape(&format!("{prefix}text_projection")).is_some() {
        config["projection_dim"] = of("text_projection", 1)?.into();
        config["architectures"] = json!([Tower::Text.class()]);
    }
    Ok((config, layout))
}

/// The vision tower of OpenAI's layout: a ViT in transformers' names, or a ModifiedResNet, whose names stay.
pub fn openai_vision<'a>(source: &'a dyn TensorSource, act: &str) -> Result<(Value, Layout<'a>)> {
    if source.shape("visual.layer1.0.conv1.weight").is_some() { resnet(source) } else { vit(source, act) }
}

fn vit<'a>(source: &'a dyn TensorSource, act: &str) -> Result<(Value, Layout<'a>)> {
    let mut layout = Layout::new(source);
    for name in source.names() {
        let Some(inner) = name.strip_prefix("visual.").filter(|inner| !is_no_weight(inner)) else { continue };
        let (layer, rest) = inner.split_once('.').unwrap_or((inner, ""));
        match (layer, rest) {
            ("proj", "") => layout.transposed(&name, "visual_projection.weight")?,
            ("class_embedding", "") => layout.keep(&name, "vision_model.embeddings.class_embedding")?,
            ("positional_embedding", "") => {
                layout.keep(&name, "vision_model.embeddings.position_embedding.weight")?;
            }
            ("conv1", "weight") => layout.keep(&name, "vision_model.embeddings.patch_embedding.weight")?,
            // transformers' own spelling.
            ("ln_pre", _) => layout.keep(&name, format!("vision_model.pre_layrnorm.{rest}"))?,
            ("ln_post", _) => layout.keep(&name, format!("vision_model.post_layernorm.{rest}"))?,
            _ => block(&mut layout, &name, inner, "vision_model")?,
        }
    }
    let config = vision_sizes(&layout, act)?;
    Ok((config, layout))
}

fn resnet(source: &dyn TensorSource) -> Result<(Value, Layout<'_>)> {
    let mut layout = Layout::new(source);
    for name in source.names() {
        if let Some(inner) =
            name.strip_prefix("visual.").filter(|n| !n.ends_with("num_batches_tracked") && !is_no_weight(n))
        {
            layout.keep(&name, inner)?;
        }
    }
    let of = |name: &str, axis| side(source, &format!("visual.{name}"), axis);
    let layers: Vec<usize> =
        (1..=4).map(|stage| count(source, |i| format!("visual.layer{stage}.{i}.conv1.weight"))).collect();
    let width = of("layer1.0.conv1.weight", 0)?;
    let grid = (of("attnpool.positional_embedding", 0)?.saturating_sub(1)).isqrt();
    // OpenAI's `clip/model.py`: five halvings, and 32 times the width in the last stage.
    let config = json!({
        "model_type": "clip_resnet", "layers": layers, "embed_dim": of("attnpool.c_proj.weight", 0)?,
        "heads": (width * 32 / HEAD_CHANNELS).max(1), "image_size": grid * 32, "width": width,
    });
    Ok((config, layout))
}

/// A tensor of a residual block, `transformer.resblocks.N.…`, in transformers' names.
fn block(layout: &mut Layout, name: &str, inner: &str, model: &str) -> Result<()> {
    let known = || {
        let rest = inner.strip_prefix("transformer.resblocks.")?;
        let (index, rest) = rest.split_once('.')?;
        index.parse::<usize>().ok()?;
        Some((format!("{model}.encoder.layers.{index}"), rest))
    };
    let (to, rest) = known().ok_or_else(|| unknown(name, "CLIP"))?;
    const NAMES: [(&str, &str); 5] = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
        ("attn.out_proj.", "self_attn.out_proj."),
    ];
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        return layout.split(name, &["q", "k", "v"].map(|part| format!("{to}.self_attn.{part}_proj.{kind}")));
    }
    let inner = NAMES.iter().find_map(|(from, to)| Some(format!("{to}{}", rest.strip_prefix(from)?)));
    layout.keep(name, format!("{to}.{}", inner.ok_or_else(|| unknown(name, "CLIP"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio::weights::Tensors;

    /// A text tower of two blocks as Stable Diffusion 2 keeps it.
    fn tower(prefix: &str) -> Tensors {
        let mut names = vec![
            ("positional_embedding".to_owned(), vec![5, 8]),
            ("token_embedding.weight".to_owned(), vec![7, 8]),
            ("ln_final.weight".to_owned(), vec![8]),
            ("text_projection".to_owned(), vec![8, 6]),
            ("logit_scale".to_owned(), vec![]),
        ];
        for i in 0..2 {
            let block = |name: &str| format!("transformer.resblocks.{i}.{name}");
            names.push((block("ln_1.weight"), vec![8]));
            names.push((block("attn.in_proj_weight"), vec![24, 8]));
            names.push((block("mlp.c_fc.weight"), vec![32, 8]));
        }
        let tensor = |shape: Vec<usize>| (shape.clone(), vec![0.0; shape.iter().product()]);
        Tensors(names.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), tensor(shape))).collect())
    }

    #[test]
    fn stable_diffusion_2_reads_all_text_layers_but_the_last() {
        let source = tower("p.");
        let (config, layout) =
            openai_text(&source, "p.", "gelu", Layers::penultimate(&source, "p.")).unwrap();
        assert_eq!(
            (&config["num_hidden_layers"], &config["architectures"]),
            (&json!(1), &json!(["CLIPTextModel"]))
        );
        let names = layout.names();
        assert!(
            names.contains(&"text_model.encoder.layers.0.self_attn.v_proj.weight".to_owned()),
            "{names:?}"
        );
        assert!(
            names.iter().all(|name| !name.contains("layers.1.") && !name.contains("projection")),
            "{names:?}"
        );

        let (config, layout) = openai_text(&source, "p.", "gelu", Layers::All).unwrap();
        assert_eq!(config["num_hidden_layers"], 2);
        assert_eq!(
            (&config["architectures"][0], &config["projection_dim"]),
            (&json!(Tower::Text.class()), &json!(6))
        );
        assert_eq!(layout.shape("text_projection.weight"), Some(vec![6, 8]));
    }
}
