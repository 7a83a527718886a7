//! The detector stage: faces, landmarks and people of rendered scenes.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use rayon::prelude::*;

use super::augment::recolour;
use super::data::{Picture, Pictures, View, pictures_of, planes, trained};
use super::export::export;
use super::rng::Rng;
use super::run::{Defaults, Event, Step};
use super::{Rendered, Setup, plot, portraits, run};
use facestudio::encoders::detector::facestudio::{
    DecodeOptions, DetectorOutput, FACE_STRIDE, FaceStudioDetector, FaceStudioDetectorConfig, MASK_STRIDE,
};
use facestudio::encoders::detector::{Detection, DetectorConfig, LANDMARKS};
use facestudio::error::Result;

/// Scenes to render, where `--pictures` does not say.
const SCENES: usize = 6000;
/// Scenes kept from training, to measure on.
const HELD_OUT: usize = 96;
/// A face counts if at least this many of its pixels are seen.
const VISIBLE: usize = 40;
/// Weights of the parts of the loss, beside the heatmap's 1.
const BOX_WEIGHT: f64 = 2.0;
const LANDMARK_WEIGHT: f64 = 5.0;
const MASK_WEIGHT: f64 = 1.0;
const OFFSET_WEIGHT: f64 = 0.1;

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 32, lr: 2e-3 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// Whom to render.
    pub rendered: Rendered,
}

/// Trains the detector and writes `detector/` of the model folder.
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, rendered } = options;
    let run = &setup.run;
    let config = FaceStudioDetectorConfig::default();
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let scenes = portraits::crowds(setup, *rendered, config.image_size, SCENES, log)?;
    let trained = trained(scenes.len(), HELD_OUT)?;
    let model = config.init(&device)?;
    log(Event::Note(format!("{} parameters, {trained} scenes", model.num_params())));

    let objective = |model: &FaceStudioDetector, step: &Step| {
        let mut rng = step.rng();
        let picks: Vec<(usize, Rng)> =
            (0..run.batch).map(|k| (rng.below(trained), Rng::new(rng.next_u64(), k as u64))).collect();
        let samples: Vec<(Vec<f32>, Targets)> = picks
            .into_par_iter()
            .map(|(i, mut rng)| {
                let picture = scenes.get(i);
                let mirrored = rng.chance(0.5);
                let mut pixels = vec![0.0; 3 * picture.size * picture.size];
                planes(
                    picture.rgb,
                    picture.size,
                    View { mirrored, ..View::whole(picture.size) },
                    &mut pixels,
                );
                recolour(&mut pixels, picture.size, &mut rng);
                (pixels, Targets::new(&picture, mirrored))
            })
            .collect();
        let (pixels, targets): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
        let size = config.image_size;
        let images =
            Tensor::<4>::from_data(TensorData::new(pixels.concat(), [run.batch, 3, size, size]), &device);
        Ok(loss(model.forward(images.cast(dtype))?, &targets, &device))
    };
    let show = |model: &FaceStudioDetector, folder: &Path| show(model, &scenes, trained, dtype, folder);
    let finished = run::train(run, model, objective, show, log)?;
    export(&setup.out, |export| {
        export.json("detector/config.json", &DetectorConfig::FaceStudio(config.clone()))?;
        export.weights("detector/model.safetensors", &finished.averaged)
    })
}

/// What the network should say about one picture: planes of its two grids, row-major, in its own units.
struct Targets {
    /// Cells along a side of the face grid, and of the person grid.
    sides: (usize, usize),
    /// 1 at the centre of a face, falling off around it.
    heatmap: Vec<f32>,
    /// 1 where a box and landmarks are to be learnt, over the face's size in cells.
    face_weight: Vec<f32>,
    /// Four planes.
    boxes: Vec<f32>,
    /// Ten planes.
    landmarks: Vec<f32>,
    /// Share of the cell that shows people.
    mask: Vec<f32>,
    /// 1 where people fill most of the cell.
    offset_weight: Vec<f32>,
    /// Two planes.
    offsets: Vec<f32>,
}

impl Targets {
    fn new(picture: &Picture, mirrored: bool) -> Self {
        let size = picture.size;
        let sides = (size / FACE_STRIDE, size / MASK_STRIDE);
        let (faces, people) = (sides.0 * sides.0, sides.1 * sides.1);
        let mut targets = Self {
            sides,
            heatmap: vec![0.0; faces],
            face_weight: vec![0.0; faces],
            boxes: vec![0.0; 4 * faces],
            landmarks: vec![0.0; 2 * LANDMARKS * faces],
            mask: vec![0.0; people],
            offset_weight: vec![0.0; people],
            offsets: vec![0.0; 2 * people],
        };
        let known: Vec<Face> =
            (0..picture.meta.people.len()).map(|k| Face::new(picture, k, mirrored)).collect();
        known.iter().filter(|face| face.visible >= VISIBLE).for_each(|face| targets.add_face(face));
        targets.add_people(picture, mirrored, &known);
        targets
    }

    fn add_face(&mut self, face: &Face) {
        let side = self.sides.0;
        let stride = FACE_STRIDE as f32;
        let (cx, cy) = face.centre();
        let [x0, y0, x1, y1] = face.face_box;
        let extent = ((x1 - x0).max(y1 - y0) / stride).max(1.0);
        // A sixth of the face on either side still overlaps its box well (*CornerNet*, section 3.2, simplified).
        let sigma = (extent / 6.0).max(0.5);
        let (column, row) = ((cx / stride).floor(), (cy / stride).floor());
        for p in 0..side * side {
            let (x, y) = ((p % side) as f32, (p / side) as f32);
            let (dx, dy) = (x - column, y - row);
            let near = (-(dx * dx + dy * dy) / (2.0 * sigma * sigma)).exp();
            // Of two faces on a cell the nearer has its box there.
            if near > self.heatmap[p] && near > 0.3 {
                self.face_weight[p] = 1.0 / extent;
                let (px, py) = ((x + 0.5) * stride, (y + 0.5) * stride);
                let edges = [px - x0, py - y0, x1 - px, y1 - py];
                for (c, edge) in edges.into_iter().enumerate() {
                    self.boxes[c * side * side + p] = (edge / stride).max(0.0);
                }
                for (k, [lx, ly]) in face.landmarks.into_iter().enumerate() {
                    self.landmarks[2 * k * side * side + p] = (lx - px) / stride;
                    self.landmarks[(2 * k + 1) * side * side + p] = (ly - py) / stride;
                }
            }
            self.heatmap[p] = self.heatmap[p].max(near);
        }
    }

    fn add_people(&mut self, picture: &Picture, mirrored: bool, known: &[Face]) {
        let (size, side) = (picture.size, self.sides.1);
        let stride = MASK_STRIDE;
        for cell in 0..side * side {
            let (left, top) = (cell % side * stride, cell / side * stride);
            let mut counts = vec![0usize; known.len()];
            for y in top..top + stride {
                for x in left..left + stride {
                    let x = if mirrored { size - 1 - x } else { x };
                    let who = picture.people[y * size + x] as usize;
                    if let Some(count) = who.checked_sub(1).and_then(|k| counts.get_mut(k)) {
                        *count += 1;
                    }
                }
            }
            let area = stride * stride;
            self.mask[cell] = counts.iter().sum::<usize>() as f32 / area as f32;
            let most = counts.iter().enumerate().max_by_key(|(_, count)| **count);
            if let Some((k, count)) = most
                && *count * 2 > area
            {
                let (cx, cy) = known[k].centre();
                self.offset_weight[cell] = 1.0;
                self.offsets[cell] = cx / stride as f32 - (cell % side) as f32 - 0.5;
                self.offsets[side * side + cell] = cy / stride as f32 - (cell / side) as f32 - 0.5;
            }
        }
    }
}

/// A face in pixels, mirrored where the picture is.
struct Face {
    face_box: [f32; 4],
    landmarks: [[f32; 2]; LANDMARKS],
    visible: usize,
}

impl Face {
    fn new(picture: &Picture, k: usize, mirrored: bool) -> Self {
        let person = &picture.meta.people[k];
        let visible = picture.faces.iter().filter(|v| **v as usize == k + 1).count();
        let ([x0, y0, x1, y1], marks) = (person.face_box, person.landmarks);
        if !mirrored {
            return Self { face_box: person.face_box, landmarks: marks, visible };
        }
        let width = picture.size as f32;
        // Mirrored, the left eye and the left corner of the mouth are the right ones.
        let landmarks = [1, 0, 2, 4, 3].map(|i: usize| [width - marks[i][0], marks[i][1]]);
        Self { face_box: [width - x1, y0, width - x0, y1], landmarks, visible }
    }

    fn centre(&self) -> (f32, f32) {
        let [x0, y0, x1, y1] = self.face_box;
        ((x0 + x1) / 2.0, (y0 + y1) / 2.0)
    }
}

/// Penalty-reduced focal loss (*Objects as Points*, equation 1), L1 of boxes and landmarks over the face's size,
/// cross-entropy and Dice of the mask, L1 of the votes.
fn loss(output: DetectorOutput, targets: &[Targets], device: &Device) -> Tensor<1> {
    let n = targets.len();
    let (side, mask_side) = targets.first().map_or((1, 1), |t| t.sides);
    let stack = |plane: fn(&Targets) -> &[f32], channels: usize, side: usize| {
        let values: Vec<f32> = targets.iter().flat_map(|t| plane(t).iter().copied()).collect();
        Tensor::<4>::from_data(TensorData::new(values, [n, channels, side, side]), device)
    };
    let heat = stack(|t| &t.heatmap, 1, side);
    let face_weight = stack(|t| &t.face_weight, 1, side);
    let mask = stack(|t| &t.mask, 1, mask_side);
    let vote_weight = stack(|t| &t.offset_weight, 1, mask_side);

    let here = heat.clone().greater_equal_elem(1.0).float();
    let faces = here.clone().sum().clamp_min(1.0);
    let p = activation::sigmoid(output.heatmap.clone());
    let log_p = activation::log_sigmoid(output.heatmap.clone());
    let log_not_p = activation::log_sigmoid(-output.heatmap);
    let hit = (-p.clone() + 1.0).square() * log_p * here.clone();
    let miss = (-heat + 1.0).powi_scalar(4) * p.square() * log_not_p * (-here + 1.0);
    let heat_loss = -(hit + miss).sum() / faces;

    let cells = face_weight.clone().greater_elem(0.0).float().sum().clamp_min(1.0);
    let weighted = |difference: Tensor<4>| {
        let channels = difference.dims()[1];
        (difference.abs() * face_weight.clone()).sum() / cells.clone() / channels as f64
    };
    let boxes = weighted(activation::softplus(output.boxes, 1.0) - stack(|t| &t.boxes, 4, side));
    let landmarks = weighted(output.landmarks - stack(|t| &t.landmarks, 2 * LANDMARKS, side));

    let entropy = -(mask.clone() * activation::log_sigmoid(output.mask.clone())
        + (-mask.clone() + 1.0) * activation::log_sigmoid(-output.mask.clone()))
    .mean();
    let said = activation::sigmoid(output.mask);
    let common = (said.clone() * mask.clone()).sum() * 2.0 + 1.0;
    let dice = -(common / (said.sum() + mask.sum() + 1.0)) + 1.0;

    let voters = vote_weight.clone().sum().clamp_min(1.0);
    let votes = ((output.offsets - stack(|t| &t.offsets, 2, mask_side)).abs() * vote_weight).sum() / voters;

    heat_loss
        + boxes * BOX_WEIGHT
        + landmarks * LANDMARK_WEIGHT
        + (entropy + dice) * MASK_WEIGHT
        + votes * OFFSET_WEIGHT
}

/// What was found in held-out scenes.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    faces: usize,
    found: usize,
    detections: usize,
    landmark_error: f32,
    mask_overlap: f32,
}

impl Score {
    /// Matches detections to faces greedily at an IoU of 0.5.
    fn add(&mut self, picture: &Picture, detections: &[Detection]) {
        let faces: Vec<Face> = (0..picture.meta.people.len()).map(|k| Face::new(picture, k, false)).collect();
        self.faces += faces.iter().filter(|face| face.visible >= VISIBLE).count();
        self.detections += detections.len();
        let mut taken = vec![false; faces.len()];
        for detection in detections {
            let best = faces
                .iter()
                .enumerate()
                .filter(|(k, face)| !taken[*k] && face.visible >= VISIBLE)
                .map(|(k, face)| (k, iou(&face.face_box, &detection.face_box)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((k, overlap)) = best else { continue };
            if overlap < 0.5 {
                continue;
            }
            taken[k] = true;
            self.found += 1;
            let distances = faces[k]
                .landmarks
                .iter()
                .zip(&detection.landmarks)
                .map(|(a, b)| ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt());
            self.landmark_error += distances.sum::<f32>() / LANDMARKS as f32;
            if let Some(mask) = &detection.mask {
                self.mask_overlap += mask_iou(picture, k, mask);
            }
        }
    }
}

/// Intersection over union of two boxes.
fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |r: &[f32; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let common = width * height;
    common / (area(a) + area(b) - common).max(1e-6)
}

/// Intersection over union of person `k` and a mask of the person grid.
fn mask_iou(picture: &Picture, k: usize, mask: &[f32]) -> f32 {
    let (size, side) = (picture.size, picture.size / MASK_STRIDE);
    let (mut common, mut either) = (0usize, 0usize);
    for (p, who) in picture.people.iter().enumerate() {
        let cell = p / size / MASK_STRIDE * side + p % size / MASK_STRIDE;
        let (here, said) = (*who as usize == k + 1, mask.get(cell).is_some_and(|v| *v > 0.5));
        common += usize::from(here && said);
        either += usize::from(here || said);
    }
    common as f32 / either.max(1) as f32
}

/// Detects in the held-out scenes: a sheet with what was found drawn in, and the scores.
fn show(
    model: &FaceStudioDetector,
    scenes: &Pictures,
    from: usize,
    dtype: DType,
    folder: &Path,
) -> Result<String> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let held_out: Vec<usize> = (from..scenes.len()).collect();
    let mut score = Score::default();
    let mut sheet = Vec::new();
    for indices in held_out.chunks(32) {
        let images = scenes.tensor(indices, &device);
        let data = pollster::block_on(model.forward(images.clone().cast(dtype))?.into_host())?;
        let pictures = pictures_of(images)?;
        for (k, (i, mut picture)) in indices.iter().zip(pictures).enumerate() {
            let detections = data.decode(k, &DecodeOptions::default());
            score.add(&scenes.get(*i), &detections);
            if sheet.len() < 32 {
                detections.iter().for_each(|detection| draw(&mut picture, detection));
                sheet.push(picture);
            }
        }
    }
    plot::sheet(&folder.join("samples.png"), &sheet, 8)?;
    let found = score.found.max(1) as f32;
    Ok(format!(
        "{} faces: recall {:.3}, precision {:.3}, landmarks off by {:.2} px, masks' IoU {:.3}",
        score.faces,
        score.found as f32 / score.faces.max(1) as f32,
        score.found as f32 / score.detections.max(1) as f32,
        score.landmark_error / found,
        score.mask_overlap / found
    ))
}

/// Draws a detection's mask, box and landmarks.
fn draw(picture: &mut image::RgbImage, detection: &Detection) {
    let (w, h) = picture.dimensions();
    if let Some(mask) = &detection.mask {
        let side = w as usize / MASK_STRIDE;
        let tint = (detection.face_box[0] * 7.0) as u8;
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let cell = y as usize / MASK_STRIDE * side + x as usize / MASK_STRIDE;
            if mask.get(cell).is_some_and(|v| *v > 0.5) {
                pixel.0[0] = (pixel.0[0] / 2).saturating_add(tint / 2);
                pixel.0[2] = (pixel.0[2] / 2).saturating_add(127 - tint / 2);
            }
        }
    }
    let mut dot = |x: f32, y: f32, colour: [u8; 3]| {
        if x >= 0.0 && y >= 0.0 && (x as u32) < w && (y as u32) < h {
            picture.put_pixel(x as u32, y as u32, image::Rgb(colour));
        }
    };
    let [x0, y0, x1, y1] = detection.face_box;
    for i in 0..=128 {
        let t = i as f32 / 128.0;
        let (x, y) = (x0 + t * (x1 - x0), y0 + t * (y1 - y0));
        [(x, y0), (x, y1), (x0, y), (x1, y)].into_iter().for_each(|(x, y)| dot(x, y, [255, 255, 0]));
    }
    for [x, y] in detection.landmarks {
        [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
            .into_iter()
            .for_each(|(dx, dy)| dot(x + dx, y + dy, [255, 0, 0]));
    }
}

#[cfg(test)]
mod tests;
