//! DETR, as transformers' folders hold it, over either of its backbones: timm's ResNet or transformers' own.

use serde_json::{Value, json};

use super::layout::{Layout, count, side, unknown};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

const BACKBONE: &str = "detr.model.backbone.conv_encoder.model.";

/// A DETR's config and tensors, given its `config.json` and, where there is one, its `preprocessor_config.json`.
pub fn detr<'a>(
    checkpoint: &'a dyn TensorSource,
    config: &Value,
    preprocessor: &Value,
) -> Result<(Value, Layout<'a>)> {
    refuse_others(config, preprocessor)?;
    let mut layout = Layout::new(checkpoint);
    for name in checkpoint.names() {
        if name.ends_with("num_batches_tracked") || name.starts_with("detr.bbox_predictor.") {
            continue;
        }
        let ours = match name.strip_prefix(BACKBONE) {
            Some(rest) => format!("backbone.{}", backbone(rest).ok_or_else(|| unknown(&name, "ResNet"))?),
            None => {
                let known = ["detr.model.", "detr."].iter().find_map(|prefix| name.strip_prefix(prefix));
                known.unwrap_or(&name).to_owned()
            }
        };
        layout.keep(&name, ours)?;
    }
    if layout.shape("mask_head.out_lay.weight").is_none() {
        return Err(Error::weights(
            "checkpoint-layout",
            "this DETR draws boxes only: it has no mask head",
            "use one that was trained on panoptic segmentation, such as facebook/detr-resnet-50-panoptic",
        ));
    }
    let labels = config["id2label"].as_object();
    let person = labels.and_then(|labels| labels.iter().find(|(_, name)| *name == "person"));
    let person: usize = person.and_then(|(id, _)| id.parse().ok()).ok_or_else(|| {
        Error::weights(
            "checkpoint-layout",
            "no label of the segmentation network is called 'person'",
            "name the label of people so in id2label of its config.json",
        )
    })?;
    let block =
        |stage: usize, block: usize, rest: &str| format!("backbone.layer{}.{block}.{rest}", stage + 1);
    let mut sizes = [0; 4];
    for (stage, size) in sizes.iter_mut().enumerate() {
        *size = side(&layout, &block(stage, 0, "conv3.weight"), 0)?;
    }
    let depths: [usize; 4] = std::array::from_fn(|stage| count(&layout, |i| block(stage, i, "conv1.weight")));
    let mut ours = json!({
        "model_type": "detr",
        "num_labels": side(&layout, "class_labels_classifier.weight", 0)?.saturating_sub(1),
        "num_queries": side(&layout, "query_position_embeddings.weight", 0)?,
        "person_label": person,
        "backbone_config": {
            "embedding_size": side(&layout, "backbone.conv1.weight", 0)?, "hidden_sizes": sizes, "depths": depths,
        },
    });
    // Older configs of preprocessors have one number, and the longer side's bound beside it.
    let size = &preprocessor["size"];
    for (name, old) in [("shortest_edge", size), ("longest_edge", &preprocessor["max_size"])] {
        if let Some(edge) = size[name].as_u64().or(old.as_u64()) {
            ours[name] = edge.into();
        }
    }
    for name in [
        "d_model",
        "encoder_layers",
        "encoder_ffn_dim",
        "encoder_attention_heads",
        "decoder_layers",
        "decoder_ffn_dim",
        "decoder_attention_heads",
    ] {
        if !config[name].is_null() {
            ours[name] = config[name].clone();
        }
    }
    Ok((ours, layout))
}

/// Refuses what the network would be another by, with tensors of the same shapes.
fn refuse_others(config: &Value, preprocessor: &Value) -> Result<()> {
    let backbone = &config["backbone_config"];
    let near = |value: &Value, of: [f64; 3]| {
        let values =
            value.as_array().map(|values| values.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        values.is_none_or(|values| {
            values.len() == 3 && values.iter().zip(of).all(|(a, b)| (a - b).abs() < 1e-3)
        })
    };
    // What is not said is as it is in DETR.
    let is = |value: &Value, usual: Value| value.is_null() || *value == usual;
    let side = &preprocessor["size"];
    let kwargs = &config["backbone_kwargs"];
    let name = backbone["backbone"].as_str().or(config["backbone"].as_str()).unwrap_or_default();
    let number =
        |value: &Value, usual: f64| value.as_f64().map_or(value.is_null(), |v| (v - usual).abs() < 1e-6);
    let wrong = [
        ("model_type", config["model_type"] == "detr"),
        ("dilation", is(&config["dilation"], false.into())),
        ("output_stride", is(&backbone["output_stride"], 32.into())),
        ("backbone_kwargs.output_stride", is(&kwargs["output_stride"], 32.into())),
        // timm's kinds that blur before they halve, without a tensor more.
        ("backbone", !["blur", "aa"].iter().any(|kind| name.contains(kind))),
        ("num_channels", is(&config["num_channels"], 3.into()) && is(&backbone["num_channels"], 3.into())),
        ("backbone_kwargs.in_chans", is(&kwargs["in_chans"], 3.into())),
        ("position_embedding_type", is(&config["position_embedding_type"], "sine".into())),
        ("activation_function", is(&config["activation_function"], "relu".into())),
        ("hidden_act", is(&backbone["hidden_act"], "relu".into())),
        ("layer_type", is(&backbone["layer_type"], "bottleneck".into())),
        ("downsample_in_first_stage", is(&backbone["downsample_in_first_stage"], false.into())),
        ("downsample_in_bottleneck", is(&backbone["downsample_in_bottleneck"], false.into())),
        ("image_mean", near(&preprocessor["image_mean"], [0.485, 0.456, 0.406])),
        ("image_std", near(&preprocessor["image_std"], [0.229, 0.224, 0.225])),
        ("do_resize", is(&preprocessor["do_resize"], true.into())),
        ("do_rescale", is(&preprocessor["do_rescale"], true.into())),
        ("do_normalize", is(&preprocessor["do_normalize"], true.into())),
        ("rescale_factor", number(&preprocessor["rescale_factor"], 1.0 / 255.0)),
        // Pillow's number of bilinear.
        ("resample", number(&preprocessor["resample"], 2.0)),
        ("pad_size", preprocessor["pad_size"].is_null()),
        ("image_processor_type", is_detrs(&preprocessor["image_processor_type"])),
        ("feature_extractor_type", is_detrs(&preprocessor["feature_extractor_type"])),
        ("size", side.is_null() || side.is_u64() || !side["shortest_edge"].is_null()),
    ];
    match wrong.iter().find(|(_, right)| !right) {
        None => Ok(()),
        Some((name, _)) => Err(Error::weights(
            "checkpoint-layout",
            format!("the segmentation network is another than DETR by its {name}"),
            "use facebook/detr-resnet-50-panoptic or one of its kind",
        )),
    }
}

/// Whether a preprocessor's class, where one is named, is DETR's.
fn is_detrs(class: &Value) -> bool {
    class.as_str().is_none_or(|class| {
        ["DetrImageProcessor", "DetrFeatureExtractor"].iter().any(|own| class.starts_with(own))
    })
}

/// torchvision's name of a backbone's tensor, which timm has as well: transformers has its own. `None` where neither is known.
fn backbone(name: &str) -> Option<String> {
    let kind = |kind: &str, number: usize| match kind {
        "convolution" => Some(format!("conv{number}")),
        "normalization" => Some(format!("bn{number}")),
        _ => None,
    };
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["conv1" | "bn1", _] => Some(name.to_owned()),
        [stage, block, ref rest @ ..]
            if stage.strip_prefix("layer").and(block.parse::<usize>().ok()).is_some() =>
        {
            let stage: usize = stage.strip_prefix("layer")?.parse().ok()?;
            let known = matches!(
                rest,
                ["conv1" | "conv2" | "conv3" | "bn1" | "bn2" | "bn3", _] | ["downsample", "0" | "1", _]
            );
            (known && (1..=4).contains(&stage)).then(|| name.to_owned())
        }
        ["embedder", "embedder", of, last] => Some(format!("{}.{last}", kind(of, 1)?)),
        ["encoder", "stages", stage, "layers", block, "layer", layer, of, last] => {
            let (stage, layer): (usize, usize) = (stage.parse().ok()?, layer.parse().ok()?);
            Some(format!(
                "layer{}.{block}.{}.{last}",
                stage.checked_add(1)?,
                kind(of, layer.checked_add(1)?)?
            ))
        }
        ["encoder", "stages", stage, "layers", block, "shortcut", of, last] => {
            let stage: usize = stage.parse().ok()?;
            let part = match of {
                "convolution" => 0,
                "normalization" => 1,
                _ => return None,
            };
            Some(format!("layer{}.{block}.downsample.{part}.{last}", stage.checked_add(1)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_backbones_have_torchvisions_names() {
        let of = |name: &str| backbone(name).unwrap_or_default();
        assert_eq!(of("conv1.weight"), "conv1.weight");
        assert_eq!(of("layer4.2.downsample.1.running_var"), "layer4.2.downsample.1.running_var");
        assert_eq!(of("embedder.embedder.normalization.bias"), "bn1.bias");
        assert_eq!(of("encoder.stages.3.layers.2.layer.1.convolution.weight"), "layer4.2.conv2.weight");
        assert_eq!(
            of("encoder.stages.0.layers.0.shortcut.normalization.weight"),
            "layer1.0.downsample.1.weight"
        );
        for name in
            ["fc.weight", "encoder.stages.x.layers.0.layer.1.convolution.weight", "layerx.0.conv1.weight"]
        {
            assert_eq!(backbone(name), None, "{name}");
        }
    }
}
