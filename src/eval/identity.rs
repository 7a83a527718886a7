//! Does a picture show the person of the photo? (Paper, table 1, on rendered people.)

use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::{DType, Device};
use rayon::prelude::*;
use serde::Serialize;

use crate::encoders::face::FaceEncoder;
use crate::error::{Error, Result};
use crate::image::{align::align, preprocess::signed_tensor};
use crate::pipeline::FaceStudio;
use crate::request::{GenerateRequest, Person};
use crate::synth::{Identity, IdentitySplit, Scene, SceneOptions, render};

/// Side of photos and style images in pixels.
const PHOTO: u32 = 256;
/// Seeds of the photo that conditions, and of the two that are compared with.
const PHOTO_SEEDS: [u64; 3] = [1, 2, 3];
/// Seed of the style images.
const STYLE_SEED: u64 = 0x57E1;

/// What is asked.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// Held-out people, one trial each.
    pub trials: usize,
    /// The request that each trial fills in with its face and its style image.
    pub request: GenerateRequest,
}

/// What was measured. Similarities are cosines of the evaluation encoder.
#[derive(Debug, Clone, Default, Serialize)]
pub struct IdentityReport {
    /// Trials.
    pub trials: usize,
    /// Pictures in which no face was found; they count as failures.
    pub no_face: usize,
    /// Pictures closer to a photo of their own person than to one of another, chosen beforehand.
    pub closer_to_own: usize,
    /// Pictures whose nearest photo among all trials' is their own person's.
    pub nearest_is_own: usize,
    /// Mean similarity of pictures to their own person's photo.
    pub to_own: f64,
    /// Mean similarity of pictures to other people's photos.
    pub to_others: f64,
    /// Mean similarity of two photos of one person: the encoder's 1.0.
    pub same_person: f64,
    /// Mean similarity of photos of two people: the encoder's 0.0.
    pub different_people: f64,
    /// `to_own` on the scale from `different_people` (0) to `same_person` (1).
    pub relative: f64,
}

/// What went into one trial, and what came out.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The photo that conditions.
    pub photo: &'a RgbImage,
    /// The style image, of someone else.
    pub style: &'a RgbImage,
    /// The generated picture.
    pub picture: &'a RgbImage,
}

/// Draws every trial's person from one photo in the style of a picture of someone else, and compares with photos that
/// the model never saw. `watch` hears each finished trial and may stop.
pub async fn identity(
    studio: &FaceStudio,
    encoder: &FaceEncoder,
    options: &IdentityOptions,
    device: &Device,
    mut watch: impl FnMut(usize, &Trial) -> ControlFlow<()>,
) -> Result<IdentityReport> {
    let n = options.trials;
    if n < 2 {
        return Err(Error::input(
            "trials-range",
            "people are compared with each other",
            "use at least 2 trials",
        ));
    }
    let who = |i: usize| Identity::from_pool(IdentitySplit::HeldOut, i as u64);
    let photos: Vec<_> = (0..n * PHOTO_SEEDS.len())
        .into_par_iter()
        .map(|k| {
            render(&Scene::photo_of(who(k / PHOTO_SEEDS.len()), PHOTO_SEEDS[k % PHOTO_SEEDS.len()]), PHOTO)
        })
        .collect();
    let mut embeds = Vec::with_capacity(photos.len());
    for photo in &photos {
        let person = photo.people.first();
        let person = person.ok_or_else(|| Error::internal("photo", "a rendered photo shows nobody"))?;
        let crop = align(&photo.image, &person.landmarks, encoder.image_size())?;
        embeds.push(embed(encoder, &crop, device).await?);
    }
    let drawn = draw(studio, encoder, options, &photos, device, &mut watch).await?;
    let (second, third) = (|i: usize| &embeds[3 * i + 1], |i: usize| &embeds[3 * i + 2]);

    let mut report = IdentityReport {
        trials: n,
        same_person: (0..n).map(|i| cosine(second(i), third(i))).sum::<f64>() / n as f64,
        different_people: (0..n).map(|i| cosine(second(i), third((i + 1) % n))).sum::<f64>() / n as f64,
        ..IdentityReport::default()
    };
    for (i, picture) in drawn.iter().enumerate() {
        let Some(picture) = picture else {
            report.no_face += 1;
            continue;
        };
        let to: Vec<f64> = (0..n).map(|j| cosine(picture, second(j))).collect();
        report.to_own += to[i];
        report.to_others += (to.iter().sum::<f64>() - to[i]) / (n - 1) as f64;
        report.closer_to_own += usize::from(to[i] > to[(i + 1) % n]);
        report.nearest_is_own += usize::from((0..n).all(|j| j == i || to[j] < to[i]));
    }
    let found = (n - report.no_face).max(1) as f64;
    report.to_own /= found;
    report.to_others /= found;
    report.relative =
        (report.to_own - report.different_people) / (report.same_person - report.different_people).max(1e-6);
    Ok(report)
}

/// The embedding of each trial's picture, where a face was found in it.
async fn draw(
    studio: &FaceStudio,
    encoder: &FaceEncoder,
    options: &IdentityOptions,
    photos: &[crate::synth::Rendered],
    device: &Device,
    watch: &mut impl FnMut(usize, &Trial) -> ControlFlow<()>,
) -> Result<Vec<Option<Vec<f32>>>> {
    let styles = SceneOptions {
        people: [0.0, 1.0, 0.0, 0.0],
        identities: IdentitySplit::HeldOut,
        non_human_fraction: 0.0,
        ..SceneOptions::default()
    };
    let mut drawn = Vec::with_capacity(options.trials);
    for i in 0..options.trials {
        let style = render(&Scene::random(STYLE_SEED, i as u64, &styles), PHOTO).image;
        let photo = &photos[i * PHOTO_SEEDS.len()].image;
        let request = GenerateRequest {
            people: vec![Person::new(vec![photo.clone()])],
            style: Some(style.clone()),
            seed: options.request.seed.wrapping_add(i as u64),
            ..options.request.clone()
        };
        let mut pictures = studio.generate(&request, async |_| ControlFlow::Continue(())).await?;
        let picture =
            pictures.pop().ok_or_else(|| Error::internal("picture-missing", "no picture was made"))?;
        let picture = &picture.image;
        let faces = studio.faces(picture).await?;
        drawn.push(match faces.iter().max_by(|a, b| a.area().total_cmp(&b.area())) {
            Some(face) => {
                let crop = align(picture, &face.landmarks, encoder.image_size())?;
                Some(embed(encoder, &crop, device).await?)
            }
            None => None,
        });
        if watch(i + 1, &Trial { photo, style: &style, picture }).is_break() {
            return Err(Error::cancelled());
        }
    }
    Ok(drawn)
}

async fn embed(encoder: &FaceEncoder, crop: &RgbImage, device: &Device) -> Result<Vec<f32>> {
    let embedding = encoder.embed(signed_tensor(&[crop], device)?)?.cast(DType::F32);
    let data = embedding.into_data_async().await.ok().and_then(|data| data.try_into_vec::<f32>().ok());
    data.ok_or_else(|| Error::device("read-back", "could not read an embedding back", ""))
}

/// Of unit vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum()
}
