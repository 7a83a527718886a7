//! The contrastive stage: one text encoder and the three vision encoders of the style ensemble, together.
//!
//! The text encoder's projection is as wide as the ensemble: slice `k` of `text_embeds` is trained against vision
//! encoder `k` by CLIP's symmetric cross-entropy (Radford et al. 2021, section 2.3). So one text tower speaks to all
//! three encoders, and text and image embeddings have one layout, which is what the prior maps between.
//!
//! Every rendered picture brings a second caption that is wrong in one thing, which all pictures have to tell from their
//! own: hard negatives as NegCLIP's (Yuksekgonul et al. 2023, section 4). Without them the towers found captions
//! by style, clothes and background, and knew nothing of hair.

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, activation};
use rayon::prelude::*;

use super::data::{Pictures, trained};
use super::encoded::Styles;
use super::export::export;
use super::run::{Defaults, Event, Step};
use super::{Setup, Source, portraits, run, style};
use crate::read_back::read_back;
use facestudio::encoders::text::{TextConfig, TextEncoder};
use facestudio::encoders::tokenizer::{FILES, Tokenizer};
use facestudio::encoders::vision::{
    PREPROCESSOR, VisionConfig, VisionNetwork, preprocessing, preprocessor_config,
};
use facestudio::error::{Error, Result};
use facestudio::image::processor::Preprocessing;
use facestudio::weights::{CheckedFolder, Component, apply, write_file};

/// CLIP's initial logit scale, `ln(1 / 0.07)`.
const INITIAL_LOG_SCALE: f32 = 2.659_26;
/// CLIP's bound on the scale.
const MAX_SCALE: f32 = 100.0;
/// Side of the training pictures.
const SIZE: usize = 128;
/// Pictures kept from training, to measure on.
const HELD_OUT: usize = 256;
/// Captions that the vocabulary is made from.
const VOCABULARY_CAPTIONS: usize = 8000;
/// Token ids: 256 bytes, 256 word-ending bytes, merges and the two marks.
const VOCABULARY: usize = 1024;
/// Tokens of a prompt.
const CONTEXT: usize = 40;
/// How often a face is hidden, as it is in every style input.
const HIDE_FACES: f32 = 0.5;

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 128, lr: 8e-4 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// What to learn from.
    pub source: Source,
    /// A model folder whose weights and sizes to start from, in place of random ones of `mini`'s sizes.
    pub base: Option<PathBuf>,
}

fn text_config(eos_token_id: u32) -> TextConfig {
    TextConfig {
        architectures: Some(vec!["CLIPTextModelWithProjection".to_owned()]),
        vocab_size: VOCABULARY,
        hidden_size: 192,
        intermediate_size: 576,
        projection_dim: 256,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        max_position_embeddings: CONTEXT,
        eos_token_id,
        ..TextConfig::default()
    }
}

fn vision_configs() -> Result<Vec<VisionConfig>> {
    // Small counterparts of ViT-L/14, RN101 and ViT-B/32: a fine transformer, a ResNet, a coarse transformer.
    let vit = |projection_dim: usize, patch_size: usize| {
        serde_json::json!({
            "model_type": "clip_vision_model", "hidden_size": 144, "intermediate_size": 432,
            "projection_dim": projection_dim, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 64, "patch_size": patch_size,
        })
    };
    let resnet = serde_json::json!({
        "model_type": "clip_resnet", "layers": [1, 1, 1, 1], "embed_dim": 80, "heads": 8, "image_size": 64, "width": 12,
    });
    [vit(96, 8), resnet, vit(80, 16)]
        .into_iter()
        .map(|json| serde_json::from_value(json).map_err(|e| Error::internal("preset", e.to_string())))
        .collect()
}

/// Everything that the contrastive stage trains.
#[derive(Module, Debug)]
pub struct ClipTrainee {
    /// The text tower.
    pub text: TextEncoder,
    /// The vision towers, in the ensemble's order.
    pub vision: Vec<VisionNetwork>,
    /// ln of each pair's logit scale.
    pub log_scales: Param<Tensor<1>>,
}

impl ClipTrainee {
    /// Random towers.
    pub fn init(text: &TextConfig, vision: &[VisionConfig], device: &Device) -> Result<Self> {
        Ok(Self {
            text: text.init(device)?,
            vision: vision.iter().map(|config| config.init(device)).collect::<Result<_>>()?,
            log_scales: Param::from_tensor(
                Tensor::full([vision.len()], INITIAL_LOG_SCALE, device).require_grad(),
            ),
        })
    }

    /// Cosine similarities of every picture with every text for each vision tower, `[n, texts]` each.
    ///
    /// `pixel_values`: one `[n, 3, s_k, s_k]` a vision tower; `input_ids`: a row a text.
    pub fn similarities(
        &self,
        pixel_values: Vec<Tensor<4>>,
        input_ids: &[Vec<u32>],
    ) -> Result<Vec<Tensor<2>>> {
        let dtype = pixel_values.first().map_or(DType::F32, Tensor::dtype);
        let output = self.text.forward(input_ids, dtype)?;
        let text = output.text_embeds.unwrap_or(output.pooled).cast(DType::F32);
        let mut start = 0;
        let towers = self.vision.iter().zip(pixel_values);
        Ok(towers
            .map(|(tower, pixels)| {
                let image = unit(tower.forward(pixels).image_embeds.cast(DType::F32));
                let width = image.dims()[1];
                let slice = unit(text.clone().narrow(1, start, width));
                start += width;
                image.matmul(slice.transpose())
            })
            .collect())
    }

    /// Mean contrastive loss; arguments as in [`ClipTrainee::similarities`], the first `n` texts being the pictures' own
    /// and any further ones nobody's: pictures are to tell their own from all, texts from the `n` pictures.
    pub fn loss(&self, pixel_values: Vec<Tensor<4>>, input_ids: &[Vec<u32>]) -> Result<Tensor<1>> {
        let n = pixel_values.first().map_or(0, |pixels| pixels.dims()[0]);
        let scales = self.log_scales.val().exp().clamp_max(MAX_SCALE);
        let targets = Tensor::<1, Int>::arange(0..n as i64, &scales.device()).reshape([n, 1]);
        let losses = self
            .similarities(pixel_values, input_ids)?
            .into_iter()
            .enumerate()
            .map(|(k, cosines)| {
                let logits = cosines * scales.clone().narrow(0, k, 1).reshape([1, 1]);
                let rows = -activation::log_softmax(logits.clone(), 1).gather(1, targets.clone()).mean();
                let own = logits.narrow(1, 0, n).transpose();
                let columns = -activation::log_softmax(own, 1).gather(1, targets.clone()).mean();
                (rows + columns) * 0.5
            })
            .collect();
        Ok(Tensor::cat(losses, 0).mean())
    }
}

/// Unit rows.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
    x / norm
}

/// Trains the four towers and writes `tokenizer/`, `text_encoder/` and `vision_encoder*/` of the model folder.
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, source, base } = options;
    let run = &setup.run;
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let pictures = portraits::portraits(setup, source, SIZE, log)?;
    let trained = trained(pictures.len(), HELD_OUT)?;
    let base = base.clone().map(CheckedFolder::new);
    let towers = base.as_ref().map(Towers::read).transpose()?;
    if let Some(towers) = &towers {
        towers.give_tokenizer(&setup.out)?;
    }
    let tokenizer = vocabulary(options, &pictures)?;
    let vision = match &towers {
        Some(towers) => towers.vision.iter().map(|(_, config)| config.clone()).collect(),
        None => vision_configs()?,
    };
    let seen = match &towers {
        Some(towers) => towers.preprocessing()?,
        None => vision.iter().map(|config| Preprocessing::clip(config.image_size())).collect(),
    };
    // An empty text is its two marks.
    let end = tokenizer.encode("", CONTEXT)?.get(1).copied();
    let end = end.ok_or_else(|| Error::internal("tokenizer", "an empty text has no end mark"))?;
    let config = match &towers {
        Some(towers) => towers.text.1.clone(),
        None => text_config(end),
    };
    let mut model = ClipTrainee::init(&config, &vision, &device)?;
    if let Some(towers) = &towers {
        model = towers.load(model)?;
    }
    log(Event::Note(format!("{} parameters, {trained} pictures", model.num_params())));

    let batch = |indices: &[usize], hide: &[bool], variant: u64, device: &Device| {
        let pixels = style::pixels(&pictures, indices, hide, &seen, device)?;
        let captions: Vec<(String, Option<String>)> = indices
            .par_iter()
            .zip(hide)
            .map(|(i, hide)| portraits::captions(source, run.seed, &pictures, *i, !hide, variant))
            .collect();
        let encode = |text: &String| tokenizer.encode(text, config.max_position_embeddings);
        let own = captions.iter().map(|(own, _)| encode(own)).collect::<Result<Vec<_>>>()?;
        let wrong = captions.iter().filter_map(|(_, wrong)| wrong.as_ref()).map(encode);
        let wrong = wrong.collect::<Result<Vec<_>>>()?;
        Ok((pixels.into_iter().map(|p| p.cast(dtype)).collect::<Vec<_>>(), own, wrong))
    };
    let objective = |model: &ClipTrainee, step: &Step| {
        let mut rng = step.rng();
        let indices = pictures.draw(&mut rng, run.batch, trained);
        let hide: Vec<bool> = indices.iter().map(|_| rng.chance(HIDE_FACES)).collect();
        let (pixels, own, wrong) = batch(&indices, &hide, rng.next_u64(), &device)?;
        model.loss(pixels, &[own, wrong].concat())
    };
    let show = |model: &ClipTrainee, _: &Path| {
        let device = model.devices().into_iter().next().unwrap_or_default();
        let indices: Vec<usize> = (trained..pictures.len()).collect();
        let (pixels, own, wrong) = batch(&indices, &vec![false; indices.len()], 0, &device)?;
        let n = own.len();
        let mut found = Vec::new();
        for cosines in model.similarities(pixels, &[own, wrong].concat())? {
            let values = read_back(cosines, "a measure")?;
            let rows: Vec<&[f32]> = values.chunks_exact(values.len() / n).collect();
            let share = |right: &dyn Fn(usize, &[f32]) -> bool| {
                let right = rows.iter().enumerate().filter(|(i, row)| right(*i, row)).count();
                format!("{:.0} %", 100.0 * right as f32 / n as f32)
            };
            let first = share(&|i, row| row[..n].iter().all(|v| *v <= row[i]));
            // Photographs have no captions that are wrong in one thing.
            found.push(if values.len() == n * n {
                first
            } else {
                let told = share(&|i, row| row[i] > row[n + i]);
                format!("{first} ({told} told from its wrong one)")
            });
        }
        Ok(format!("held-out caption found among {n}: {}", found.join(", ")))
    };
    let finished = run::train(run, model, objective, show, log)?;

    let ClipTrainee { text, vision: learnt, .. } = finished.averaged;
    export(&setup.out, |export| {
        export.json("text_encoder/config.json", &config)?;
        export.weights("text_encoder/model.safetensors", &text)?;
        for (k, (tower, config)) in learnt.iter().zip(&vision).enumerate() {
            let folder = style::folder(k);
            if let Some((component, _)) = towers.as_ref().and_then(|towers| towers.vision.get(k))
                && let Some(preprocessor) = preprocessor_config(component)?
            {
                export.json(&format!("{folder}/{PREPROCESSOR}"), &preprocessor)?;
            }
            export.json(&format!("{folder}/config.json"), config)?;
            export.weights(&format!("{folder}/model.safetensors"), tower)?;
        }
        Ok(())
    })
}

/// The model folder's tokenizer; made from captions if it has none.
fn vocabulary(options: &Options, pictures: &Pictures) -> Result<Tokenizer> {
    let Options { setup, source, .. } = options;
    let folder = setup.out.join("tokenizer");
    if !["vocab.json", "tokenizer.json"].iter().any(|name| folder.join(name).exists()) {
        let captions: Vec<String> = (0..VOCABULARY_CAPTIONS)
            .into_par_iter()
            .map(|i| portraits::caption(source, setup.run.seed, pictures, i % pictures.len(), i as u64))
            .collect();
        let (vocab, merges) = Tokenizer::train(&captions, VOCABULARY)?;
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(folder.display(), &e))?;
        write_file(&folder.join("merges.txt"), merges.as_bytes())?;
        // Written last: its presence says that the tokenizer is whole.
        write_file(&folder.join("vocab.json"), vocab.as_bytes())?;
    }
    Tokenizer::load(&Component::new(&CheckedFolder::new(folder), ""))
}

/// The components of a model folder that the stage goes on from.
struct Towers<'a> {
    tokenizer: Component<'a>,
    text: (Component<'a>, TextConfig),
    vision: Vec<(Component<'a>, VisionConfig)>,
}

impl<'a> Towers<'a> {
    fn read(files: &'a CheckedFolder) -> Result<Self> {
        let with_config = |folder: String| {
            let component = Component::new(files, &folder);
            VisionConfig::read(&component).map(|config| (component, config))
        };
        let text = Component::new(files, "text_encoder");
        let config = TextConfig::read(&text)?;
        let vision =
            Styles::folders(files.path()).into_iter().map(with_config).collect::<Result<Vec<_>>>()?;
        let widths: usize = vision.iter().map(|(_, config)| config.embed_dim()).sum();
        if vision.is_empty() || !config.projects() || config.projection_dim != widths {
            return Err(Error::input(
                "base-mismatch",
                format!(
                    "the base's text encoder gives {} values, its {} vision encoders {widths} together",
                    if config.projects() { config.projection_dim } else { 0 },
                    vision.len()
                ),
                "use a base whose text and vision encoders `train clip` made",
            ));
        }
        Ok(Self { tokenizer: Component::new(files, "tokenizer"), text: (text, config), vision })
    }

    /// Puts the tokenizer that the text tower knows into the model folder `out`, if it has none; fails if it has another.
    fn give_tokenizer(&self, out: &Path) -> Result<()> {
        let folder = out.join("tokenizer");
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(folder.display(), &e))?;
        // Those whose presence says that the tokenizer is whole come last.
        for name in FILES {
            if !self.tokenizer.contains(name)? {
                continue;
            }
            let (bytes, path) = (self.tokenizer.read(name)?, folder.join(name));
            if !path.exists() {
                write_file(&path, &bytes)?;
            } else if std::fs::read(&path).map_err(|e| Error::io(path.display(), &e))? != bytes {
                return Err(Error::input(
                    "base-mismatch",
                    format!("{} is not the base's: its text encoder knows other tokens", path.display()),
                    "train into a folder without a tokenizer, or with the base's",
                ));
            }
        }
        Ok(())
    }

    fn preprocessing(&self) -> Result<Vec<Preprocessing>> {
        let of =
            |(component, config): &(Component, VisionConfig)| preprocessing(component, config.image_size());
        self.vision.iter().map(of).collect()
    }

    fn load(&self, model: ClipTrainee) -> Result<ClipTrainee> {
        let vision = model.vision.into_iter().zip(&self.vision);
        Ok(ClipTrainee {
            text: apply(model.text, self.text.0.tensors()?.as_ref(), "")?,
            vision: vision
                .map(|(tower, (component, _))| tower.apply(component.tensors()?.as_ref(), ""))
                .collect::<Result<_>>()?,
            log_scales: model.log_scales,
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::train::rng::Rng;

    #[test]
    fn a_wrong_caption_pulls_on_pictures_and_not_on_texts() {
        let device = Device::flex().autodiff();
        let vision = vision_configs().unwrap();
        let model = ClipTrainee::init(&text_config(3), &vision, &device).unwrap();
        let pixels = || {
            let random = Tensor::<4>::from_data(
                TensorData::new(Rng::new(1, 1).normals(2 * 3 * 64 * 64), [2, 3, 64, 64]),
                &device,
            );
            vec![random; 3]
        };
        let ids = |word: u32| vec![1, word, 3];
        let loss = |texts: &[Vec<u32>]| -> f32 { model.loss(pixels(), texts).unwrap().into_scalar() };
        let right = loss(&[ids(5), ids(6)]);
        // The first picture's own caption once more, as nobody's, is as likely as its own: ln 2 more for half of the rows,
        // which are half of the loss, at most; and no text is asked about it.
        let doubled = loss(&[ids(5), ids(6), ids(5)]);
        assert!(doubled > right + 0.05 && doubled < right + 0.5, "{right} {doubled}");
        let further = loss(&[ids(5), ids(6), ids(7), ids(8)]);
        assert!(further > right, "{right} {further}");
    }

    /// Radford et al. 2021, figure 3, with one picture's second, wrong caption among what pictures choose from.
    #[test]
    fn the_loss_is_clips_for_each_tower() {
        let device = Device::flex().autodiff();
        let vision = vision_configs().unwrap();
        let mut model = ClipTrainee::init(&text_config(3), &vision, &device).unwrap();
        let scales = [1.0f32, 20.0, 400.0];
        model.log_scales = Param::from_tensor(Tensor::from_floats(scales.map(f32::ln), &device));
        let pixels = || -> Vec<Tensor<4>> {
            let values = Rng::new(2, 2).normals(2 * 3 * 64 * 64);
            vec![Tensor::from_data(TensorData::new(values, [2, 3, 64, 64]), &device); 3]
        };
        let texts = [vec![1, 5, 3], vec![1, 6, 3], vec![1, 7, 3]];
        let mut expected = 0.0;
        for (cosines, scale) in model.similarities(pixels(), &texts).unwrap().into_iter().zip(scales) {
            let cosines: Vec<f32> = cosines.try_into_vec_as().unwrap();
            assert!(cosines.len() == 6 && cosines.iter().all(|c| c.abs() <= 1.0 + 1e-5), "{cosines:?}");
            // CLIP's bound.
            let logit =
                |picture: usize, text: usize| f64::from(scale.min(100.0) * cosines[3 * picture + text]);
            let surprise = |own: f64, all: &[f64]| all.iter().map(|v| (v - own).exp()).sum::<f64>().ln();
            for i in 0..2 {
                let row = surprise(logit(i, i), &[0, 1, 2].map(|text| logit(i, text)));
                let column = surprise(logit(i, i), &[0, 1].map(|picture| logit(picture, i)));
                expected += 0.5 * (row + column) / 2.0 / 3.0;
            }
        }
        let loss = f64::from(model.loss(pixels(), &texts).unwrap().into_scalar::<f32>());
        assert!((loss - expected).abs() < 1e-4 * expected.max(1.0), "{loss}, not {expected}");
    }
}
