//! YuNet (Wu et al. 2023, *YuNet: A Tiny Millisecond-level Face Detector*): faces and five landmarks in photographs.
//!
//! The network of `libfacedetection.train` (`yunet_n`, `yunet_s`), whose `yunet_s` OpenCV's model zoo publishes as
//! `face_detection_yunet_2023mar.onnx` under the MIT licence, with its names and with the normalisations folded into the
//! convolutions, as it is exported.

use ::image::RgbImage;
use ::image::imageops::{self, FilterType};
use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{DetectedFace, Detection, LANDMARKS, check_input, overlap, read_outputs, sigmoid};
use crate::encoders::check_range;
use crate::error::Result;
use crate::image::preprocess::bgr_tensor;
use crate::nn::{Conv2d, Conv2dConfig, upsample_nearest};

/// Pixels along the side of a cell of each level.
pub const STRIDES: [usize; 3] = [8, 16, 32];
/// Sides of the input are multiples of this.
pub const STEP: usize = 32;
/// Numbers that a cell gives: class and objectness (logits), centre and size of the box, landmarks.
const OUTPUTS: usize = 2 + 4 + 2 * LANDMARKS;

/// The longer side at which a picture is first looked at, and at most: the network was trained on 640×640.
const SIDE: u32 = 640;
/// The longer side at which faces are looked for that are too large at [`SIDE`]: it finds those of 10 to 300 pixels
/// (OpenCV's model zoo, `face_detection_yunet/README.md`).
const SMALL_SIDE: u32 = 320;
/// The longer side at most at which faces are looked for that are too small at [`SIDE`].
const LARGE_SIDE: u32 = 1280;
/// A face with this score stands upright: `yunet_s` gives the face of scikit-image's `astronaut` 0.93, with up to 30° of
/// roll 0.91, and beyond that 0.77 to 0.89. Also the least score of OpenCV's `FaceDetectorYN`.
const SURE: f32 = 0.9;

/// `config.json` of a YuNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct YuNetConfig {
    /// Channels of the stem's two convolutions, then of each of the five stages (upstream's `stage_channels`). The last
    /// three, which are added up, are equal.
    pub channels: [usize; 7],
    /// Convolutions that the outputs of a level share (upstream's `shared_stacked_convs`).
    pub shared_convs: usize,
}

impl Default for YuNetConfig {
    /// Upstream's `yunet_s`, 53 thousand parameters.
    fn default() -> Self {
        Self { channels: [16, 16, 32, 64, 64, 64, 64], shared_convs: 0 }
    }
}

impl YuNetConfig {
    /// Creates the network with random weights. Fails with `config-range` on sizes that make no network.
    pub fn init(&self, device: &Device) -> Result<YuNet> {
        for channels in self.channels {
            check_range("channels", channels, 1..=4096)?;
        }
        check_range("shared_convs", self.shared_convs, 0..=16)?;
        let [stem, c0, c1, c2, c3, c4, c5] = self.channels;
        for channels in [c4, c5] {
            check_range("channels of the last three stages", channels, c3..=c3)?;
        }
        let level = |outputs: usize| STRIDES.map(|_| Unit::new(c3, outputs, device)).into();
        Ok(YuNet {
            backbone: Backbone {
                model0: Stem {
                    conv1: Conv2dConfig::new(3, stem, 3).with_stride(2).with_padding(1).init(device),
                    conv2: Unit::new(stem, c0, device),
                },
                model1: Stage::new(c0, c1, device),
                model2: Stage::new(c1, c2, device),
                model3: Stage::new(c2, c3, device),
                model4: Stage::new(c3, c4, device),
                model5: Stage::new(c4, c5, device),
            },
            neck: Neck { lateral_convs: level(c3) },
            bbox_head: Head {
                multi_level_share_convs: STRIDES
                    .map(|_| (0..self.shared_convs).map(|_| Unit::new(c3, c3, device)).collect())
                    .into(),
                multi_level_cls: level(1),
                multi_level_bbox: level(4),
                multi_level_obj: level(1),
                multi_level_kps: level(2 * LANDMARKS),
            },
        })
    }
}

/// The network; see the module's description.
#[derive(Module, Debug)]
pub struct YuNet {
    backbone: Backbone,
    neck: Neck,
    bbox_head: Head,
}

#[derive(Module, Debug)]
struct Backbone {
    model0: Stem,
    model1: Stage,
    model2: Stage,
    model3: Stage,
    model4: Stage,
    model5: Stage,
}

/// 3×3 convolution of stride 2, then a unit.
#[derive(Module, Debug)]
struct Stem {
    conv1: Conv2d,
    conv2: Unit,
}

#[derive(Module, Debug)]
struct Stage {
    conv1: Unit,
    conv2: Unit,
}

/// Upstream's `ConvDPUnit`: a 1×1 convolution, then a 3×3 one of each channel alone.
#[derive(Module, Debug)]
struct Unit {
    conv1: Conv2d,
    conv2: Conv2d,
}

#[derive(Module, Debug)]
struct Neck {
    /// One for each level.
    lateral_convs: Vec<Unit>,
}

/// Everything once for each level.
#[derive(Module, Debug)]
struct Head {
    multi_level_share_convs: Vec<Vec<Unit>>,
    multi_level_cls: Vec<Unit>,
    multi_level_bbox: Vec<Unit>,
    multi_level_obj: Vec<Unit>,
    multi_level_kps: Vec<Unit>,
}

impl Unit {
    fn new(channels_in: usize, channels_out: usize, device: &Device) -> Self {
        let each = Conv2dConfig::new(channels_out, channels_out, 3).with_padding(1).with_groups(channels_out);
        Self { conv1: Conv2dConfig::new(channels_in, channels_out, 1).init(device), conv2: each.init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv2.forward(self.conv1.forward(x))
    }

    fn activated(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.forward(x))
    }
}

impl Stage {
    fn new(channels_in: usize, channels_out: usize, device: &Device) -> Self {
        Self {
            conv1: Unit::new(channels_in, channels_in, device),
            conv2: Unit::new(channels_in, channels_out, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv2.activated(self.conv1.activated(x))
    }
}

impl Head {
    /// What a level's cells say, `[n, 16, h · w]`.
    fn forward(&self, level: usize, x: Tensor<4>) -> Tensor<3> {
        let [n, _, height, width] = x.dims();
        let x = self.multi_level_share_convs[level].iter().fold(x, |x, unit| unit.activated(x));
        let parts =
            [&self.multi_level_cls, &self.multi_level_obj, &self.multi_level_bbox, &self.multi_level_kps];
        Tensor::cat(parts.map(|units| units[level].forward(x.clone())).into(), 1).reshape([
            n,
            OUTPUTS,
            height * width,
        ])
    }
}

fn halved(x: Tensor<4>) -> Tensor<4> {
    max_pool2d(x, MaxPoolOptions::new([2, 2]))
}

impl YuNet {
    /// `pixel_values`: BGR in 0 to 255, `[n, 3, h, w]`, both sides multiples of 32; else it fails with `detector-input`.
    ///
    /// → `[n, 16, cells]` in f32, not activated: the cells of stride 8, 16 and 32, each level row by row. A cell's
    /// numbers are the logits of class and objectness; the box's centre relative to the cell's top left corner, in
    /// strides; the logarithms of its width and height in strides; x and y of the landmarks, as the centre.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Result<Tensor<3>> {
        check_input(&pixel_values, STEP)?;
        let Backbone { model0, model1, model2, model3, model4, model5 } = &self.backbone;
        let x = halved(model0.conv2.activated(relu(model0.conv1.forward(pixel_values))));
        let fine = model3.forward(halved(model2.forward(model1.forward(x))));
        let middle = model4.forward(halved(fine.clone()));
        let coarse = model5.forward(halved(middle.clone()));
        // Coarse to fine: what is seen from afar is added to what is seen sharply.
        let lateral = |level: usize, x: Tensor<4>| self.neck.lateral_convs[level].activated(x);
        let coarse = lateral(2, coarse);
        let middle = lateral(1, middle + upsample_nearest(coarse.clone(), 2));
        let fine = lateral(0, fine + upsample_nearest(middle.clone(), 2));
        let levels = [fine, middle, coarse].into_iter().enumerate();
        let levels = levels.map(|(level, x)| self.bbox_head.forward(level, x));
        Ok(Tensor::cat(levels.collect(), 2).cast(DType::F32))
    }

    /// The faces of a picture, in the picture's pixels with its top left corner at (0, 0).
    ///
    /// Its longer side is brought to 640 pixels where it is larger. If there is no face, larger ones are looked for at
    /// 320 and smaller ones at up to 1280. If there is still none, or one that is not sure, the picture is looked at in
    /// all four turns: the network finds faces that lie on their side or upside down, too, but less surely, and with
    /// landmarks as if they stood upright.
    pub async fn detect(&self, picture: &RgbImage, device: &Device) -> Result<Vec<DetectedFace>> {
        let longer = picture.width().max(picture.height());
        let first = longer.min(SIDE);
        let mut sides = vec![first, first.min(SMALL_SIDE), LARGE_SIDE.min(2 * longer)];
        sides.dedup();
        let (mut at, mut found) = (first, Vec::new());
        for side in sides {
            found = self.look(picture, side, Turn::None, device).await?;
            if !found.is_empty() {
                at = side;
                break;
            }
        }
        if found.is_empty() || found.iter().any(|face| face.score < SURE) {
            for turn in [Turn::Right, Turn::Left, Turn::Half] {
                found.extend(self.look(picture, at, turn, device).await?);
            }
            found = surest(found, &DecodeOptions::default());
        }
        let found = found.into_iter();
        Ok(found
            .map(|Detection { face_box, landmarks, .. }| DetectedFace { face_box, landmarks, mask: None })
            .collect())
    }

    /// The faces of a picture that is turned, and its longer side brought to `side`; positions as in [`DetectedFace`].
    async fn look(
        &self,
        picture: &RgbImage,
        side: u32,
        turn: Turn,
        device: &Device,
    ) -> Result<Vec<Detection>> {
        let (width, height) = picture.dimensions();
        let scaled = |length: u32| {
            let exact = u64::from(length) * u64::from(side) / u64::from(width.max(height));
            (exact as u32).max(1)
        };
        let (seen_width, seen_height) = (scaled(width), scaled(height));
        let seen = turn.apply(&imageops::resize(picture, seen_width, seen_height, FilterType::CatmullRom));
        // Black to the right of it and below, as in OpenCV (`FaceDetectorYN`).
        let whole = |length: u32| length.next_multiple_of(STEP as u32);
        let mut padded = RgbImage::new(whole(seen.width()), whole(seen.height()));
        imageops::replace(&mut padded, &seen, 0, 0);
        let sides = [padded.height() as usize, padded.width() as usize];
        let values = read_outputs(self.forward(bgr_tensor(&[&padded], device)?)?).await?;
        let back = [width as f32 / seen_width as f32, height as f32 / seen_height as f32];
        let place = |[x, y]: [f32; 2]| {
            let [x, y] = turn.undo([x, y], [seen_width as f32, seen_height as f32]);
            [x * back[0], y * back[1]]
        };
        let mut found = decode(&values, sides, &DecodeOptions::default());
        for face in &mut found {
            let [left, top, right, bottom] = face.face_box;
            let ([x0, y0], [x1, y1]) = (place([left, top]), place([right, bottom]));
            let (within_x, within_y) =
                (|x: f32| x.clamp(0.0, width as f32), |y: f32| y.clamp(0.0, height as f32));
            face.face_box =
                [within_x(x0.min(x1)), within_y(y0.min(y1)), within_x(x0.max(x1)), within_y(y0.max(y1))];
            // Annotators mark pixels: the network counts from the centre of the top left one, as `align` does.
            face.landmarks = face.landmarks.map(|[x, y]| place([x + 0.5, y + 0.5]));
        }
        // Of what is black beside the picture nothing is left.
        found.retain(|face| face.face_box[2] > face.face_box[0] && face.face_box[3] > face.face_box[1]);
        Ok(found)
    }
}

/// How a picture is turned before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    None,
    /// A quarter, clockwise.
    Right,
    /// A quarter, counterclockwise.
    Left,
    Half,
}

impl Turn {
    fn apply(self, picture: &RgbImage) -> RgbImage {
        match self {
            Self::None => picture.clone(),
            Self::Right => imageops::rotate90(picture),
            Self::Left => imageops::rotate270(picture),
            Self::Half => imageops::rotate180(picture),
        }
    }

    /// From the turned picture to the picture, whose `[width, height]` is given; both from their top left corners.
    fn undo(self, [x, y]: [f32; 2], [width, height]: [f32; 2]) -> [f32; 2] {
        match self {
            Self::None => [x, y],
            Self::Right => [y, height - x],
            Self::Left => [width - y, x],
            Self::Half => [width - x, height - y],
        }
    }
}

/// What counts as a detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeOptions {
    /// Least score of a face.
    pub min_score: f32,
    /// Of two faces whose boxes overlap more (intersection over union), only the surer one stays.
    pub max_overlap: f32,
    /// Most faces of one picture.
    pub max_faces: usize,
}

impl Default for DecodeOptions {
    /// The overlap is that of OpenCV's `FaceDetectorYN`. Of 100 faces of 25 pixels (scikit-image's `lfw_subset`, enlarged
    /// fourfold) `yunet_s` gives 50 the score that OpenCV asks for, 0.9, and 93 this one; and 2 of 100 patches without a
    /// face.
    fn default() -> Self {
        Self { min_score: 0.7, max_overlap: 0.3, max_faces: 32 }
    }
}

/// The detections of one picture from its `[16, cells]`, row-major, surest first; `[height, width]` is the size of the
/// network's input. As in OpenCV (`modules/objdetect/src/face_detect.cpp`): `score = √(σ(class) · σ(objectness))`.
///
/// Positions count from the centre of the top left pixel. Values of another size have no detections.
pub fn decode(values: &[f32], [height, width]: [usize; 2], options: &DecodeOptions) -> Vec<Detection> {
    let grids = STRIDES.map(|stride| (stride, height / stride, width / stride));
    let cells: usize = grids.iter().map(|(_, rows, columns)| rows * columns).sum();
    if values.len() != OUTPUTS * cells {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut cell = 0;
    for (stride, rows, columns) in grids {
        for place in 0..rows * columns {
            let at = |output: usize| values[output * cells + cell];
            let score = (sigmoid(at(0)) * sigmoid(at(1))).sqrt();
            if score >= options.min_score {
                let stride = stride as f32;
                let corner = [(place % columns) as f32, (place / columns) as f32];
                let point = |output: usize| [0, 1].map(|axis| (corner[axis] + at(output + axis)) * stride);
                let [x, y] = point(2);
                let [half_width, half_height] = [4, 5].map(|output| at(output).exp() * stride / 2.0);
                found.push(Detection {
                    score,
                    face_box: [x - half_width, y - half_height, x + half_width, y + half_height],
                    landmarks: std::array::from_fn(|i| point(6 + 2 * i)),
                    mask: None,
                });
            }
            cell += 1;
        }
    }
    found.retain(|face| face.face_box.iter().chain(face.landmarks.as_flattened()).all(|x| x.is_finite()));
    surest(found, options)
}

/// Of faces that overlap the surest ones, surest first.
fn surest(mut found: Vec<Detection>, options: &DecodeOptions) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for face in found {
        if kept.len() == options.max_faces {
            break;
        }
        if kept.iter().all(|other| overlap(&other.face_box, &face.face_box) <= options.max_overlap) {
            kept.push(face);
        }
    }
    kept
}

/// A network that takes a white square of 8×8 pixels, at a multiple of 8, for a face: a box of 16×16 around its middle, its
/// landmarks where [`crate::image::align::TEMPLATE`] has them in such a box.
#[cfg(test)]
pub(crate) fn finds_squares(device: &Device) -> YuNet {
    let network = YuNetConfig { channels: [1; 7], shared_convs: 0 }.init(device).unwrap();
    let mut weights = crate::weights::collect(&network, "").unwrap();
    for (name, (shape, values)) in &mut weights.0 {
        values.fill(0.0);
        let size = shape.iter().skip(1).product::<usize>();
        // Brightness passes everywhere but from coarse levels to fine ones.
        if shape.len() == 4 && !name.starts_with("neck.lateral_convs.1") {
            values
                .chunks_mut(size)
                .for_each(|kernel| kernel[size / 2] = 1.0 / 255.0_f32.powi(i32::from(size == 27)));
        }
        let [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"]
            .map(|part| name.strip_prefix(&format!("bbox_head.multi_level_{part}.")).map(|rest| &rest[..1]));
        match (name.ends_with("conv2.weight"), name.ends_with("conv2.bias")) {
            (true, _) if cls.or(obj).is_some() => values[4] = 20.0,
            // Black is none, and neither is anything that coarse levels see.
            (_, true) if let Some(level) = cls.or(obj) => {
                values[0] = if level == "0" { -10.0 } else { -40.0 }
            }
            (true, _) if bbox.or(kps).is_some() => values.fill(0.0),
            (_, true) if bbox.is_some() => values.copy_from_slice(&[0.5, 0.5, 2f32.ln(), 2f32.ln()]),
            (_, true) if kps.is_some() => {
                let template = crate::image::align::TEMPLATE.map(|point| point.map(|x| x / 56.0 - 0.5));
                values.copy_from_slice(template.as_flattened());
            }
            _ => {}
        }
    }
    crate::weights::apply(network, &weights, "").unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_sizes_are_errors() {
        let device = Device::flex();
        let network = YuNetConfig::default().init(&device).unwrap();
        for dims in [[1, 3, 48, 64], [1, 4, 64, 64], [1, 3, 0, 64]] {
            assert_eq!(network.forward(Tensor::zeros(dims, &device)).unwrap_err().code, "detector-input");
        }
        for channels in [[0; 7], [8, 8, 8, 8, 8, 8, 9]] {
            let config = YuNetConfig { channels, ..YuNetConfig::default() };
            assert_eq!(config.init(&device).unwrap_err().code, "config-range");
        }
    }

    #[test]
    fn faces_of_a_picture_of_any_size_are_found_in_its_own_pixels() {
        let device = Device::flex();
        let network = finds_squares(&device);
        let find = |picture: &RgbImage| pollster::block_on(network.detect(picture, &device)).unwrap();
        let with_squares = |width: u32, height: u32, side: u32, at: &[[u32; 2]]| {
            let inside = |x: u32, [from, _]: &[u32; 2], y: u32, [_, top]: &[u32; 2]| {
                (*from..from + side).contains(&x) && (*top..top + side).contains(&y)
            };
            RgbImage::from_fn(width, height, |x, y| {
                ::image::Rgb([if at.iter().any(|place| inside(x, place, y, place)) { 255 } else { 0 }; 3])
            })
        };
        // No side is a multiple of 32.
        let found = find(&with_squares(90, 70, 8, &[[16, 24], [64, 40]]));
        let mut boxes: Vec<[f32; 4]> = found.iter().map(|face| face.face_box).collect();
        boxes.sort_by(|a, b| a[0].total_cmp(&b[0]));
        for (found, expected) in boxes.iter().zip([[12.0, 20.0, 28.0, 36.0], [60.0, 36.0, 76.0, 52.0]]) {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{boxes:?}");
        }
        assert_eq!(boxes.len(), 2);
        // The template's eye, 38.3 of 112 into the box, counted from the corner of the picture's first pixel.
        let left = found.iter().find(|face| face.face_box[0] < 20.0).unwrap();
        assert!((left.landmarks[0][0] - (12.0 + 38.2946 / 7.0 + 0.5)).abs() < 1e-2, "{:?}", left.landmarks);
        // At the picture's edge nothing reaches outside.
        assert_eq!(find(&with_squares(90, 70, 8, &[[0, 0]]))[0].face_box[..2], [0.0, 0.0]);
        // Three times as large as what is looked at.
        let found = find(&with_squares(1920, 1200, 24, &[[480, 240]]));
        assert_eq!(found.len(), 1);
        for (edge, expected) in found[0].face_box.iter().zip([468.0, 228.0, 516.0, 276.0]) {
            assert!((edge - expected).abs() < 0.1, "{:?}", found[0].face_box);
        }
        // At 640 pixels one odd pixel, which the stem steps over, and at 320 a part of one; at 1280 two by two.
        let small = find(&with_squares(2560, 640, 4, &[[1284, 320]]));
        assert_eq!(small.len(), 1);
        assert!((small[0].face_box[2] - small[0].face_box[0] - 32.0).abs() < 1e-2, "{:?}", small[0].face_box);
        assert!(find(&with_squares(1, 1, 0, &[])).is_empty());
        assert!(find(&with_squares(3, 2000, 0, &[])).is_empty());
    }

    #[test]
    fn a_turn_is_undone() {
        // One white pixel in a picture of 5×3.
        let mut picture = RgbImage::new(5, 3);
        picture.put_pixel(3, 0, ::image::Rgb([255; 3]));
        for turn in [Turn::None, Turn::Right, Turn::Left, Turn::Half] {
            let turned = turn.apply(&picture);
            let (x, y, _) = turned.enumerate_pixels().find(|(_, _, pixel)| pixel.0[0] == 255).unwrap();
            assert_eq!(turn.undo([x as f32 + 0.5, y as f32 + 0.5], [5.0, 3.0]), [3.5, 0.5], "{turn:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_no_face() {
        let options = DecodeOptions { min_score: 0.1, ..DecodeOptions::default() };
        let cells = 16 + 4 + 1;
        assert!(decode(&vec![f32::NAN; OUTPUTS * cells], [32, 32], &options).is_empty());
        let mut values = vec![0.0; OUTPUTS * cells];
        assert_eq!(decode(&values, [32, 32], &options).len(), cells);
        values[4 * cells..5 * cells].fill(1e9);
        assert!(decode(&values, [32, 32], &options).is_empty(), "boxes without end");
        assert!(decode(&values[1..], [32, 32], &options).is_empty());
    }
}
