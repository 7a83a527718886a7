//! Names and shapes of a checkpoint, a line each (`model.diffusion_model.out.2.weight 4 320 3 3`), in every layout that
//! `convert` reads.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use facestudio_convert::clip::{self, Layers, Tower};
use facestudio_convert::ip_adapter::{self, Adapter, FaceIdPlus, Role};
use facestudio_convert::lora::{Config, Lora, Merged, Network};
use facestudio_convert::layout::Layout;
use facestudio_convert::{ldm, segmenter, tiny};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;
use libfuzzer_sys::fuzz_target;

/// Most values that are made up for a tensor.
const MOST: usize = 1 << 12;

/// Tensors of ones.
struct Names(BTreeMap<String, Vec<usize>>);

impl TensorSource for Names {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).cloned()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let count = self.0.get(name).and_then(|s| s.iter().try_fold(1usize, |n, side| n.checked_mul(*side)));
        match count {
            Some(n) if n <= MOST => Ok(vec![1.0; n]),
            _ => Err(Error::weights("tensor-missing", name.to_owned(), "")),
        }
    }
}

fn read(layout: Result<(impl Sized, Layout<'_>)>) {
    let Ok((_, layout)) = layout else { return };
    for name in layout.names() {
        layout.shape(&name);
        let _ = layout.read(&name);
    }
}

fuzz_target!(|text: &str| {
    let line = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.filter_map(|word| word.parse().ok()).collect()))
    };
    let source = Names(text.lines().filter_map(line).collect());
    ldm::is_ldm(&source);
    read(ldm::unet(&source));
    read(ldm::vae(&source));
    read(clip::text_without_config(&source, "cond_stage_model.transformer."));
    read(clip::openai_text(&source, "", "gelu", Layers::All));
    let prefix = "cond_stage_model.model.";
    read(clip::openai_text(&source, prefix, "gelu", Layers::penultimate(&source, prefix)));
    read(clip::openai_vision(&source, "gelu"));
    read(tiny::taesd(&source));
    let config = serde_json::json!({ "model_type": "detr", "id2label": { "1": "person" } });
    read(segmenter::detr(&source, &config, &Default::default()));
    for tower in [Tower::Text, Tower::Vision] {
        read(clip::transformers(&source, Some(&Default::default()), tower, "gelu"));
        read(clip::transformers(&source, None, tower, "gelu"));
    }
    let adapter = Adapter { path: Default::default(), role: Role::Identity, scale: 1.0, block_scales: Default::default() };
    for version in [None, Some(FaceIdPlus::V1), Some(FaceIdPlus::V2)] {
        read(ip_adapter::ip_adapter(&source, &adapter, version));
    }
    let _ = ip_adapter::lora(&source, &source);
    let is_update = |name: &String| name.contains("lora") || name.ends_with(".alpha");
    let (updates, model) = source.0.into_iter().partition(|(name, _)| is_update(name));
    let (updates, model) = (Names(updates), Names(model));
    let config = Config::parse(text.lines().next().unwrap_or_default()).unwrap_or_default();
    let Ok(lora) = Lora::new(Path::new("lora"), &updates, &config, 0.5) else { return };
    for network in Network::ALL {
        let Ok(merged) = Merged::new(&model, network, &[&lora]) else { continue };
        for name in merged.names() {
            merged.shape(&name);
            let _ = merged.read(&name);
        }
    }
});
