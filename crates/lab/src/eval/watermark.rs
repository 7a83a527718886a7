//! How often is the watermark found, after what, and how often where there is none? (On rendered people.)

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::imageops::{self, FilterType};
use ::image::{ImageFormat, RgbImage};
use rayon::prelude::*;
use serde::Serialize;

use super::psnr::psnr;
use facestudio::error::{Error, Result};
use facestudio::image::watermark::{detect, embed};
use facestudio_synth::{Scene, SceneOptions, render};

/// Scores at which rates are reported: one unmarked picture in a thousand, ten thousand (where
/// [`Detection::found`](facestudio::image::watermark::Detection::found) draws the line) and a million may reach them.
pub const SCORES: [f64; 3] = [3.0, 4.0, 6.0];

/// What may happen to a picture before someone asks.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What it does, in a few words.
    pub name: &'static str,
    /// Cuts away this part of both sides, off the middle.
    crop: f32,
    /// Resizes to this part of both sides.
    scale: f32,
    filter: FilterType,
    /// Compresses as a JPEG of this quality.
    jpeg: Option<u8>,
}

const fn attack(name: &'static str, crop: f32, scale: f32, jpeg: Option<u8>) -> Attack {
    let filter = if scale > 1.0 { FilterType::CatmullRom } else { FilterType::Triangle };
    Attack { name, crop, scale, filter, jpeg }
}

/// The attacks that are measured.
pub const ATTACKS: [Attack; 12] = [
    attack("nothing", 0.0, 1.0, None),
    attack("JPEG 75", 0.0, 1.0, Some(75)),
    attack("JPEG 50", 0.0, 1.0, Some(50)),
    attack("50 %", 0.0, 0.5, None),
    attack("50 %, JPEG 75", 0.0, 0.5, Some(75)),
    Attack { filter: FilterType::Lanczos3, ..attack("70 % (Lanczos), JPEG 75", 0.0, 0.7, Some(75)) },
    attack("137 %", 0.0, 1.37, None),
    attack("200 %, JPEG 75", 0.0, 2.0, Some(75)),
    attack("crop 10 %", 0.1, 1.0, None),
    attack("crop 10 %, JPEG 75", 0.1, 1.0, Some(75)),
    attack("crop 10 %, 80 %, JPEG 75", 0.1, 0.8, Some(75)),
    attack("crop 25 %, JPEG 75", 0.25, 1.0, Some(75)),
];

impl Attack {
    /// The picture afterwards.
    pub fn apply(&self, picture: &RgbImage) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let part = |side: u32, part: f32| (side as f32 * part).round() as u32;
        let mut picture = picture.clone();
        if self.crop > 0.0 {
            let kept = [width, height].map(|side| part(side, 1.0 - self.crop).max(1));
            // An odd corner, not the middle.
            let [left, top] = [part(width, 0.37 * self.crop), part(height, 0.71 * self.crop)];
            picture = imageops::crop_imm(&picture, left, top, kept[0], kept[1]).to_image();
        }
        if self.scale != 1.0 {
            let (width, height) = picture.dimensions();
            let [width, height] = [width, height].map(|side| part(side, self.scale).max(1));
            picture = imageops::resize(&picture, width, height, self.filter);
        }
        match self.jpeg {
            Some(quality) => jpeg(&picture, quality),
            None => Ok(picture),
        }
    }
}

fn jpeg(picture: &RgbImage, quality: u8) -> Result<RgbImage> {
    let fail = |e: ::image::ImageError| Error::internal("jpeg", format!("{e}"));
    let mut file = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut file, quality).encode_image(picture).map_err(fail)?;
    let read = ::image::load_from_memory_with_format(file.get_ref(), ImageFormat::Jpeg).map_err(fail)?;
    Ok(read.into_rgb8())
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct WatermarkOptions {
    /// Side of the pictures in pixels.
    pub size: u32,
    /// Marked pictures, each measured after every attack.
    pub marked: usize,
    /// Unmarked pictures, each measured as it is and after one of the attacks in turn.
    pub unmarked: usize,
    /// Seed of the pictures.
    pub seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct WatermarkReport {
    /// Side of the pictures in pixels.
    pub size: u32,
    /// Least peak signal-to-noise ratio of marked against unmarked pictures, in dB.
    pub psnr_least: f64,
    /// Its median.
    pub psnr_median: f64,
    /// Marked pictures by attack.
    pub marked: Vec<Scores>,
    /// Unmarked pictures by attack.
    pub unmarked: Vec<Scores>,
}

/// The scores of some pictures.
#[derive(Debug, Clone, Serialize)]
pub struct Scores {
    /// What happened to the pictures before.
    pub attack: &'static str,
    /// How many there are.
    pub pictures: usize,
    /// How many reach each of [`SCORES`].
    pub reached: [usize; SCORES.len()],
    /// The least score.
    pub least: f64,
    /// The median score.
    pub median: f64,
    /// The greatest score.
    pub greatest: f64,
}

impl Scores {
    /// None without scores.
    fn new(attack: &'static str, mut scores: Vec<f64>) -> Option<Self> {
        scores.sort_by(f64::total_cmp);
        Some(Self {
            attack,
            pictures: scores.len(),
            reached: SCORES.map(|least| scores.iter().filter(|score| **score >= least).count()),
            least: *scores.first()?,
            median: scores[scores.len() / 2],
            greatest: *scores.last()?,
        })
    }
}

/// Marks rendered pictures, attacks them, and asks the detector; `watch` hears each finished picture.
///
/// Fails with `watermark-size` where an attack leaves pictures that the detector refuses.
pub fn watermark(options: &WatermarkOptions, watch: impl Fn() + Sync) -> Result<WatermarkReport> {
    let draw = |stream: u64, i: usize| {
        render(&Scene::random(options.seed ^ stream, i as u64, &SceneOptions::default()), options.size).image
    };
    let ask = |attack: &Attack, picture: &RgbImage| {
        let detection = detect(&attack.apply(picture)?).map_err(|e| e.context(attack.name))?;
        Ok(detection.score)
    };
    let marked: Vec<(f64, Vec<f64>)> = (0..options.marked)
        .into_par_iter()
        .map(|i| {
            let picture = draw(0, i);
            let mut marked = picture.clone();
            embed(&mut marked);
            let scores = ATTACKS.iter().map(|attack| ask(attack, &marked)).collect::<Result<_>>()?;
            watch();
            Ok((psnr(&picture, &marked, |_, _| true), scores))
        })
        .collect::<Result<_>>()?;
    let unmarked: Vec<[f64; 2]> = (0..options.unmarked)
        .into_par_iter()
        .map(|i| {
            let picture = draw(UNMARKED, i);
            let scores = [ask(&ATTACKS[0], &picture)?, ask(&ATTACKS[in_turn(i)], &picture)?];
            watch();
            Ok(scores)
        })
        .collect::<Result<_>>()?;

    let mut psnr: Vec<f64> = marked.iter().map(|(psnr, _)| *psnr).collect();
    psnr.sort_by(f64::total_cmp);
    let by_attack = |scores: &dyn Fn(usize) -> Vec<f64>| {
        ATTACKS.iter().enumerate().filter_map(|(k, attack)| Scores::new(attack.name, scores(k))).collect()
    };
    Ok(WatermarkReport {
        size: options.size,
        psnr_least: psnr.first().copied().unwrap_or(f64::INFINITY),
        psnr_median: psnr.get(psnr.len() / 2).copied().unwrap_or(f64::INFINITY),
        marked: by_attack(&|k| marked.iter().map(|(_, scores)| scores[k]).collect()),
        unmarked: by_attack(&|k| match k {
            0 => unmarked.iter().map(|scores| scores[0]).collect(),
            _ => unmarked.iter().enumerate().filter(|(i, _)| in_turn(*i) == k).map(|(_, s)| s[1]).collect(),
        }),
    })
}

/// Unmarked pictures are other pictures than marked ones.
const UNMARKED: u64 = 1 << 40;

/// The attack, other than nothing, on unmarked picture `i`.
fn in_turn(i: usize) -> usize {
    1 + i % (ATTACKS.len() - 1)
}
