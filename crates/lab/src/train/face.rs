//! The identity stage: an IR-ResNet on aligned faces with ArcFace's additive angular margin (Deng et al. 2019).

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use rayon::prelude::*;

use super::augment::recolour;
use super::data::{Picture, Pictures, View, planes};
use super::export::export;
use super::rng::Rng;
use super::run::{Defaults, Event, Step};
use super::{Rendered, Setup, plot, portraits, run};
use crate::read_back::read_back;
use facestudio::encoders::face::{FaceEncoder, FaceEncoderConfig};
use facestudio::error::{Error, Result};
use facestudio::image::align::{Similarity, from_corner, template, warp};
use facestudio_synth::IdentitySplit;

/// ArcFace's angular margin, reached after [`MARGIN_WARM_UP`].
const MARGIN: f64 = 0.5;
/// Scale of the cosines; less than the paper's 64, for fewer classes.
const SCALE: f64 = 32.0;
/// Fraction of the run over which the margin rises from 0: a margin from the start stalls short runs.
const MARGIN_WARM_UP: f64 = 0.3;
/// Side of the rendered pictures that the crops are taken from.
const PICTURE: usize = 128;
/// Pictures of each identity.
const VIEWS: usize = 12;
/// Identities kept from training, to measure on, and views of each.
const HELD_OUT: (usize, usize) = (100, 8);

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 96, lr: 2e-3 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// Whom to render.
    pub rendered: Rendered,
    /// Which encoder.
    pub preset: Preset,
}

/// Which identity encoder is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `mini`'s own.
    Mini,
    /// Of other sizes, from another pool of people: a measure that the generator was never trained towards.
    MiniEval,
}

/// What a preset trains on and with.
struct Recipe {
    config: FaceEncoderConfig,
    split: IdentitySplit,
    identities: usize,
    folder: &'static str,
}

fn recipe(preset: Preset) -> Recipe {
    match preset {
        Preset::Mini => Recipe {
            config: FaceEncoderConfig {
                layers: [1, 2, 2, 1],
                channels: [16, 24, 48, 96, 160],
                embedding_size: 256,
                image_size: 64,
                ..FaceEncoderConfig::default()
            },
            split: IdentitySplit::Train,
            identities: 2500,
            folder: "face_encoder",
        },
        Preset::MiniEval => Recipe {
            config: FaceEncoderConfig {
                layers: [2, 1, 1, 2],
                channels: [16, 32, 64, 80, 112],
                embedding_size: 192,
                image_size: 64,
                ..FaceEncoderConfig::default()
            },
            split: IdentitySplit::EvalEncoder,
            identities: 2000,
            folder: "eval_face_encoder",
        },
    }
}

/// The encoder with a direction for every identity.
#[derive(Module, Debug)]
struct Trainee {
    encoder: FaceEncoder,
    /// `[identities, embedding_size]`.
    centres: Param<Tensor<2>>,
}

/// Trains the encoder and writes `face_encoder/` of the model folder ([`Preset::MiniEval`]: `eval_face_encoder/` of the run).
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, rendered, preset } = options;
    let run = &setup.run;
    let Recipe { config, split, identities, folder } = recipe(*preset);
    let identities = rendered.pictures.map_or(identities, |pictures| (pictures / VIEWS).max(2));
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let size = config.image_size;
    let train_views = portraits::people(setup, *rendered, split, identities, VIEWS, PICTURE, log)?;
    let (people, views) = (HELD_OUT.0.min(identities), HELD_OUT.1);
    let test_views =
        portraits::people(setup, *rendered, IdentitySplit::HeldOut, people, views, PICTURE, log)?;
    let usable: Vec<usize> = (0..train_views.len()).filter(|i| has_face(&train_views.get(*i))).collect();
    if usable.is_empty() {
        return Err(Error::input("no-pictures", "no picture shows a face", "render or give more pictures"));
    }

    let mut rng = Rng::new(run.seed, u64::MAX);
    let centres =
        TensorData::new(rng.normals(identities * config.embedding_size), [identities, config.embedding_size]);
    let centres = Tensor::<2>::from_data(centres, &device) * 0.05;
    let model = Trainee { encoder: config.init(&device)?, centres: Param::from_tensor(centres.detach()) };
    log(Event::Note(format!(
        "{} parameters, {} pictures of {identities} people",
        model.encoder.num_params(),
        usable.len()
    )));

    let objective = |model: &Trainee, step: &Step| {
        let mut rng = step.rng();
        let picks: Vec<(usize, Rng)> = (0..run.batch)
            .map(|k| (usable[rng.below(usable.len())], Rng::new(rng.next_u64(), k as u64)))
            .collect();
        let labels: Vec<i64> = picks.iter().map(|(i, _)| train_views.get(*i).meta.identity as i64).collect();
        let crops: Vec<Vec<f32>> = picks
            .into_par_iter()
            .map(|(i, mut rng)| crop(&train_views.get(i), size, Some(&mut rng)))
            .collect::<Result<_>>()?;
        let crops = batch(&crops, size, &device);
        let embeds = model.encoder.forward(crops.cast(dtype))?.cast(DType::F32);
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [run.batch]), &device);
        Ok(arcface(embeds, model.centres.val(), labels, margin(step.progress)))
    };
    let show = |model: &Trainee, folder: &Path| show(&model.encoder, &test_views, size, dtype, folder);
    let finished = run::train(run, model, objective, show, log)?;

    // The evaluation's own encoder is no part of a model.
    let parent = match preset {
        Preset::Mini => &setup.out,
        Preset::MiniEval => &run.folder,
    };
    export(parent, |export| {
        export.json(&format!("{folder}/config.json"), &config)?;
        export.weights(&format!("{folder}/model.safetensors"), &finished.averaged.encoder)
    })
}

/// The margin at a part of the run, from 0 to 1.
fn margin(progress: f64) -> f64 {
    MARGIN * (progress / MARGIN_WARM_UP).min(1.0)
}

/// Mean cross-entropy of `scale · cos(θ + margin·[own class])` (Deng et al. 2019, equation 3).
///
/// `embeds`: `[n, d]`, `centres`: `[classes, d]`, `labels`: `[n]`; neither needs unit length.
pub fn arcface(embeds: Tensor<2>, centres: Tensor<2>, labels: Tensor<1, Int>, margin: f64) -> Tensor<1> {
    let n = embeds.dims()[0];
    let cosines = unit(embeds).matmul(unit(centres).transpose());
    let labels = labels.reshape([n, 1]);
    let own = cosines.clone().gather(1, labels.clone()).clamp(-1.0 + 1e-6, 1.0 - 1e-6);
    let sine = (-own.clone().square() + 1.0).sqrt();
    // cos(θ + m); beyond θ = π − m it would rise again, so a straight line takes over (the authors' own code).
    let turned = own.clone() * margin.cos() - sine * margin.sin();
    let beyond = own.clone().lower_elem((std::f64::consts::PI - margin).cos());
    let turned = turned.mask_where(beyond, own.clone() - margin.sin() * margin);
    // The own class's logit is replaced by adding the difference in a log-sum-exp of two parts.
    let logits = cosines * SCALE;
    let shift = Tensor::<2>::zeros_like(&logits).scatter(
        1,
        labels.clone(),
        (turned - own) * SCALE,
        burn::tensor::IndexingUpdateOp::Add,
    );
    -activation::log_softmax(logits + shift, 1).gather(1, labels).mean()
}

fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
    x / length
}

fn has_face(picture: &Picture) -> bool {
    !picture.meta.people.is_empty() && picture.faces.iter().filter(|v| **v == 1).count() > 60
}

/// The first face of a picture, aligned, as three planes; with `augment` shifted, scaled, recoloured, blurred.
pub(super) fn crop(picture: &Picture, size: usize, augment: Option<&mut Rng>) -> Result<Vec<f32>> {
    let side = picture.size as u32;
    let Some(photo) = image::RgbImage::from_raw(side, side, picture.rgb.to_vec()) else {
        return Err(Error::internal("picture-size", "a picture's planes are of another size"));
    };
    let landmarks = from_corner(&picture.meta.people[0].landmarks);
    let mut to = template(size);
    let mut rng = augment;
    if let Some(rng) = rng.as_deref_mut() {
        let (scale, turn) = (rng.range(0.96, 1.04), rng.range(-0.05, 0.05));
        let (dx, dy) = (rng.range(-0.04, 0.04) * size as f32, rng.range(-0.04, 0.04) * size as f32);
        let middle = size as f32 / 2.0;
        for [x, y] in &mut to {
            let (u, v) = (*x - middle, *y - middle);
            *x = middle + scale * (u * turn.cos() - v * turn.sin()) + dx;
            *y = middle + scale * (u * turn.sin() + v * turn.cos()) + dy;
        }
    }
    let face = warp(&photo, &Similarity::fit(&landmarks, &to)?, size, size);
    let mut out = vec![0.0; 3 * size * size];
    planes(face.as_raw(), size, View::whole(size), &mut out);
    if let Some(rng) = rng {
        recolour(&mut out, size, rng);
    }
    Ok(out)
}

fn batch(crops: &[Vec<f32>], size: usize, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(crops.concat(), [crops.len(), 3, size, size]), device)
}

/// How well the encoder tells unseen people apart, and a sheet of their crops, one person a row.
fn show(
    encoder: &FaceEncoder,
    pictures: &Pictures,
    size: usize,
    dtype: DType,
    folder: &Path,
) -> Result<String> {
    let device = encoder.devices().into_iter().next().unwrap_or_default();
    let usable: Vec<usize> = (0..pictures.len()).filter(|i| has_face(&pictures.get(*i))).collect();
    let crops: Vec<Vec<f32>> =
        usable.par_iter().map(|i| crop(&pictures.get(*i), size, None)).collect::<Result<_>>()?;
    let mut embeds = Vec::new();
    for crops in crops.chunks(64) {
        let values = encoder.embed(batch(crops, size, &device).cast(dtype))?;
        embeds.extend(read_back(values, "embeddings")?);
    }
    let width = embeds.len() / usable.len().max(1);
    let embeds: Vec<&[f32]> = embeds.chunks_exact(width.max(1)).collect();
    let people: Vec<u64> = usable.iter().map(|i| pictures.get(*i).meta.identity).collect();
    let score = verification(&embeds, &people);
    let sheet: Vec<image::RgbImage> =
        super::data::pictures_of(batch(&crops[..crops.len().min(64)], size, &device))?;
    plot::sheet(&folder.join("samples.png"), &sheet, 8)?;
    Ok(format!(
        "unseen people: ROC AUC {:.4}, nearest neighbour right {:.1} %, cosine {:.2} same, {:.2} other",
        score.auc,
        100.0 * score.top1,
        score.same,
        score.other
    ))
}

/// How embeddings of known people relate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verification {
    /// Probability that a pair of one person is more alike than a pair of two.
    pub auc: f64,
    /// Fraction of pictures whose nearest other picture shows the same person.
    pub top1: f64,
    /// Mean cosine of two pictures of one person.
    pub same: f64,
    /// Mean cosine of pictures of two people.
    pub other: f64,
}

/// Compares all pairs of unit `embeds`, of `people` each.
pub fn verification(embeds: &[&[f32]], people: &[u64]) -> Verification {
    let (mut pairs, mut hits) = (Vec::new(), 0usize);
    for (i, a) in embeds.iter().enumerate() {
        let mut best = (f32::MIN, false);
        for (j, b) in embeds.iter().enumerate() {
            if i == j {
                continue;
            }
            let cosine: f32 = a.iter().zip(*b).map(|(x, y)| x * y).sum();
            let same = people[i] == people[j];
            if i < j {
                pairs.push((cosine, same));
            }
            if cosine > best.0 {
                best = (cosine, same);
            }
        }
        hits += usize::from(best.1);
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut same, mut other, mut rank_sum) = ((0usize, 0f64), (0usize, 0f64), 0f64);
    for (rank, (cosine, is_same)) in pairs.iter().enumerate() {
        let side = if *is_same { &mut same } else { &mut other };
        side.0 += 1;
        side.1 += f64::from(*cosine);
        if *is_same {
            rank_sum += rank as f64 + 1.0;
        }
    }
    // Mann and Whitney's U over the number of pairs of pairs.
    let (n, m) = (same.0 as f64, other.0 as f64);
    Verification {
        auc: (rank_sum - n * (n + 1.0) / 2.0) / (n * m).max(1.0),
        top1: hits as f64 / embeds.len().max(1) as f64,
        same: same.1 / n.max(1.0),
        other: other.1 / m.max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(margin: f64, label: i64) -> f32 {
        let device = Device::flex();
        let embeds = Tensor::<2>::from_data([[3.0, 1.0]], &device);
        let centres = Tensor::<2>::from_data([[2.0, 0.0], [0.0, 0.5], [-1.0, -1.0]], &device);
        arcface(embeds, centres, Tensor::from_data([label], &device), margin).into_scalar()
    }

    #[test]
    fn the_margin_rises_over_the_first_three_tenths_of_a_run() {
        let margins = [0.0, 0.15, 0.3, 0.9].map(margin);
        assert!(margins.iter().zip([0.0, 0.25, 0.5, 0.5]).all(|(a, b)| (a - b).abs() < 1e-12), "{margins:?}");
    }

    #[test]
    fn the_margin_turns_the_own_class_away() {
        // cos θ of the three centres to (3, 1)/√10, by hand.
        let cosines = [3.0, 1.0, -4.0 / 2f64.sqrt()].map(|v: f64| v / 10f64.sqrt());
        let expected = |margin: f64| {
            let own = (cosines[0].acos() + margin).cos();
            let exps = [own, cosines[1], cosines[2]].map(|v| (SCALE * v).exp());
            -(exps[0] / exps.iter().sum::<f64>()).ln()
        };
        for margin in [0.0, 0.3, 0.5] {
            let (ours, theirs) = (loss(margin, 0) as f64, expected(margin));
            assert!((ours - theirs).abs() < 1e-4 * theirs.max(1e-2), "{margin}: {ours} {theirs}");
        }
        assert!(loss(0.5, 2) > loss(0.0, 2));
    }

    #[test]
    fn verification_of_perfect_and_of_mixed_embeddings() {
        let (a, b): ([f32; 2], [f32; 2]) = ([1.0, 0.0], [0.0, 1.0]);
        let perfect = verification(&[&a, &a, &b, &b], &[0, 0, 1, 1]);
        assert_eq!((perfect.auc, perfect.top1), (1.0, 1.0));
        let wrong = verification(&[&a, &b, &a, &b], &[0, 0, 1, 1]);
        assert!(wrong.auc < 0.5 && wrong.top1 == 0.0, "{wrong:?}");
    }

    /// Beyond θ = π − m the cosine would rise again.
    #[test]
    fn beyond_the_last_angle_a_straight_line_goes_on() {
        let cosines = [3.0, 1.0, -4.0 / 2f64.sqrt()].map(|v: f64| v / 10f64.sqrt());
        let own = cosines[2] - 0.5 * 0.5f64.sin();
        assert!(cosines[2].acos() > std::f64::consts::PI - 0.5);
        let exps = [cosines[0], cosines[1], own].map(|v| (SCALE * v).exp());
        let expected = -(exps[2] / exps.iter().sum::<f64>()).ln();
        let loss = f64::from(loss(0.5, 2));
        assert!((loss - expected).abs() < 1e-4 * expected, "{loss}, not {expected}");
    }

    /// Three unit vectors, whose pairs have the cosines 0.8, 0.6 and 0.96.
    #[test]
    fn verification_counts_pairs() {
        let a = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8f32]];
        let embeds: Vec<&[f32]> = a.iter().map(|v| &v[..]).collect();
        let found = verification(&embeds, &[7, 9, 7]);
        // One pair of one person, of cosine 0.6; two of two, of 0.8 and 0.96.
        assert!((found.same - 0.6).abs() < 1e-6 && (found.other - 0.88).abs() < 1e-6, "{found:?}");
        assert_eq!((found.auc, found.top1), (0.0, 0.0));
        let found = verification(&embeds, &[7, 7, 9]);
        // 0.8 is more than 0.6 and less than 0.96; the first picture's nearest is of the same person alone.
        assert!((found.auc - 0.5).abs() < 1e-12 && (found.top1 - 1.0 / 3.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn a_face_of_sixty_pixels_and_fewer_is_none() {
        use crate::train::data::{Meta, Person};
        let has = |pixels: usize, people: usize| {
            let faces: Vec<u8> = (0..100).map(|p| if p < pixels { 1 } else { 2 }).collect();
            let meta = Meta { people: vec![Person::default(); people], ..Meta::default() };
            has_face(&Picture { size: 10, rgb: &[], people: &[], faces: &faces, meta: &meta })
        };
        assert!(has(61, 1) && !has(60, 1) && !has(61, 0));
    }
}
