//! open_clip's `open_clip_config.json`, which lies beside its checkpoints: what the tensors do not tell.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Slot, json_file};
use facestudio::error::{Error, Result};

const NAME: &str = "open_clip_config.json";

/// Settings of open_clip's towers under which its networks are others, with the values that they may have; none is null.
const USUAL: [(&str, &[&str]); 22] = [
    ("ls_init_value", &[]),
    ("attentional_pool", &["false"]),
    ("no_ln_pre", &["false"]),
    ("pos_embed_type", &["\"learnable\""]),
    ("final_ln_after_pool", &["false"]),
    ("pool_type", &["\"tok\"", "\"argmax\""]),
    ("act_kwargs", &["{}"]),
    ("block_type", &["\"default\""]),
    ("qk_norm", &["false"]),
    ("scaled_cosine_attn", &["false"]),
    ("scale_heads", &["false"]),
    ("scale_attn_inner", &["false"]),
    ("scale_attn", &["false"]),
    ("scale_fc", &["false"]),
    ("timm_model_name", &["\"\""]),
    ("hf_model_name", &["\"\""]),
    ("embed_cls", &["false"]),
    ("no_causal_mask", &["false"]),
    ("proj_bias", &["false"]),
    ("proj_type", &["\"linear\""]),
    ("hf_tokenizer_name", &["\"\""]),
    ("tokenizer_mode", &["\"\"", "\"clip\""]),
];

/// What open_clip says about a checkpoint.
pub struct OpenClip(Value);

impl OpenClip {
    /// Of a checkpoint's file; `None` where nothing lies beside it.
    pub fn beside(path: &Path) -> Result<Option<Self>> {
        let folder = path.parent().filter(|folder| path.is_file() && folder.join(NAME).exists());
        folder.map(|folder| json_file(folder, NAME).map(Self)).transpose()
    }

    /// The activation inside the towers.
    pub fn act(&self) -> &'static str {
        if self.0["model_cfg"]["quick_gelu"] == true { "quick_gelu" } else { "gelu" }
    }

    /// Puts into a tower's config what its tensors do not tell, and refuses what would make it another network.
    pub fn complete(&self, slot: Slot, config: &mut Value) -> Result<()> {
        let tower = match slot {
            Slot::TextEncoder => &self.0["model_cfg"]["text_cfg"],
            Slot::VisionEncoder => &self.0["model_cfg"]["vision_cfg"],
            _ => return Ok(()),
        };
        for (name, usual) in USUAL {
            let value = &tower[name];
            if !value.is_null() && !usual.contains(&value.to_string().as_str()) {
                return Err(refused(format!("{name} is {value}")));
            }
        }
        if let Some(clean) = tower["tokenizer_kwargs"]["clean"].as_str().filter(|clean| *clean != "lower") {
            return Err(refused(format!("the tokenizer cleans texts by '{clean}'")));
        }
        for (name, value) in tower["norm_kwargs"].as_object().into_iter().flatten() {
            match (name.as_str(), value.as_f64()) {
                ("eps", Some(eps)) => config["layer_norm_eps"] = json!(eps),
                _ => return Err(refused(format!("norm_kwargs has {name}"))),
            }
        }
        // A ResNet's config has no such entry.
        if let Some(width) = config["hidden_size"].as_u64() {
            let of_width = tower["head_width"].as_u64().filter(|head| *head > 0).map(|head| width / head);
            if let Some(heads) = tower["heads"].as_u64().or(of_width) {
                config["num_attention_heads"] = heads.into();
            }
        }
        Ok(())
    }

    /// How pictures become the vision tower's input, as a `preprocessor_config.json` says it.
    pub fn preprocessor(&self) -> Result<Option<Map<String, Value>>> {
        let Some(ours) = self.0["preprocess_cfg"].as_object() else { return Ok(None) };
        let said = |name: &str| ours.get(name).filter(|value| !value.is_null());
        let mut config = Map::new();
        let mut put = |name: &str, value: Value| config.insert(name.to_owned(), value);
        for (name, theirs) in [("mean", "image_mean"), ("std", "image_std")] {
            said(name).map(|value| put(theirs, value.clone()));
        }
        if let Some(mode) = said("mode").filter(|mode| **mode != "RGB") {
            return Err(refused(format!("pictures are {mode}")));
        }
        // All but bilinear is bicubic when a model is used.
        put(
            "resample",
            json!(if said("interpolation").is_some_and(|name| name == "bilinear") { 2 } else { 3 }),
        );
        let size = said("size").or(self.0["model_cfg"]["vision_cfg"].get("image_size"));
        let sides = match size {
            Some(Value::Array(sides)) => match sides.as_slice() {
                [height, width] => Some(json!({ "height": height, "width": width })),
                _ => return Err(refused("size is no height and width")),
            },
            Some(side) => Some(json!({ "height": side, "width": side })),
            None => None,
        };
        match said("resize_mode").and_then(Value::as_str).unwrap_or("shortest") {
            "shortest" => sides.and_then(|sides| put("crop_size", sides)),
            "squash" => {
                put("do_center_crop", false.into());
                sides.and_then(|sides| put("size", sides))
            }
            other => return Err(refused(format!("resize_mode is '{other}'"))),
        };
        Ok(Some(config))
    }
}

fn refused(message: impl std::fmt::Display) -> Error {
    Error::weights(
        "checkpoint-layout",
        format!("{NAME}: {message}, which is not supported"),
        "use an open_clip model whose towers are OpenAI's: ViT-B-32, ViT-L-14, ViT-H-14, RN101 and their kind",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: Value) -> OpenClip {
        OpenClip(config)
    }

    #[test]
    fn preprocessing_is_said_in_transformers_words() {
        let said = |config: Value| of(config).preprocessor().unwrap().map(Value::Object);
        assert_eq!(said(json!({ "model_cfg": {} })), None);
        let cfg = json!({ "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "size": [30, 30] });
        assert_eq!(
            said(json!({ "preprocess_cfg": cfg })),
            Some(json!({
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 2,
                "crop_size": { "height": 30, "width": 30 },
            }))
        );
        let squash = json!({ "preprocess_cfg": { "resize_mode": "squash" }, "model_cfg": { "vision_cfg": { "image_size": 64 } } });
        assert_eq!(
            said(squash),
            Some(json!({ "resample": 3, "do_center_crop": false, "size": { "height": 64, "width": 64 } }))
        );
        let error = of(json!({ "preprocess_cfg": { "resize_mode": "longest" } })).preprocessor().unwrap_err();
        assert!(error.message.contains("longest"), "{error}");
    }

    #[test]
    fn what_tensors_do_not_tell_is_the_configs_and_other_networks_are_refused() {
        let clip = of(json!({ "model_cfg": {
            "vision_cfg": { "head_width": 80, "norm_kwargs": { "eps": 1e-6 } }, "text_cfg": { "heads": 3, "pool_type": "argmax" },
        } }));
        let mut vision = json!({ "hidden_size": 320, "num_attention_heads": 5 });
        clip.complete(Slot::VisionEncoder, &mut vision).unwrap();
        assert_eq!(vision, json!({ "hidden_size": 320, "num_attention_heads": 4, "layer_norm_eps": 1e-6 }));
        let mut text = json!({ "hidden_size": 320, "num_attention_heads": 5 });
        clip.complete(Slot::TextEncoder, &mut text).unwrap();
        assert_eq!((text["num_attention_heads"].clone(), clip.act()), (json!(3), "gelu"));
        assert_eq!(of(json!({ "model_cfg": { "quick_gelu": true } })).act(), "quick_gelu");
        for (name, value) in [
            ("timm_model_name", json!("vit_base")),
            ("ls_init_value", json!(0.1)),
            ("no_ln_pre", json!(true)),
            ("pool_type", json!("avg")),
            ("norm_kwargs", json!({ "affine": false })),
        ] {
            let clip = of(json!({ "model_cfg": { "vision_cfg": { name: value } } }));
            let error = clip.complete(Slot::VisionEncoder, &mut json!({})).unwrap_err();
            assert!(error.code == "checkpoint-layout" && error.message.contains(name), "{error}");
        }
    }
}
