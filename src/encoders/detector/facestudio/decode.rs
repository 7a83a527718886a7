//! From the network's grids to detections, on the host.

use super::{DetectorOutput, FACE_STRIDE, MASK_STRIDE};
use crate::encoders::detector::{Detection, LANDMARKS, overlap, read_outputs, sigmoid};
use crate::error::Result;

/// What counts as a detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeOptions {
    /// Least score of a face.
    pub min_score: f32,
    /// Of two faces whose boxes overlap more (intersection over union), only the surer one stays.
    pub max_overlap: f32,
    /// Most faces of one picture.
    pub max_faces: usize,
    /// Whether to make a mask for each person.
    pub masks: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { min_score: 0.4, max_overlap: 0.4, max_faces: 32, masks: true }
    }
}

/// The network's output read back to the host; each grid is `[n, channels, rows, columns]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectorData {
    /// Pictures in the batch.
    pub batch: usize,
    /// `(rows, columns)` of the face grid; the person grid has twice as many of both.
    pub grid: (usize, usize),
    /// As [`DetectorOutput::heatmap`].
    pub heatmap: Vec<f32>,
    /// As [`DetectorOutput::boxes`].
    pub boxes: Vec<f32>,
    /// As [`DetectorOutput::landmarks`].
    pub landmarks: Vec<f32>,
    /// As [`DetectorOutput::mask`].
    pub mask: Vec<f32>,
    /// As [`DetectorOutput::offsets`].
    pub offsets: Vec<f32>,
}

/// A person's pixel is theirs if it points no further from the centre of their face than this many face sides.
/// Votes miss by less than a face; a person whose face was not found is given to nobody.
const VOTE_REACH: f32 = 1.0;

impl DetectorOutput {
    /// Reads the grids back.
    pub async fn into_host(self) -> Result<DetectorData> {
        let [batch, _, rows, columns] = self.heatmap.dims();
        Ok(DetectorData {
            batch,
            grid: (rows, columns),
            heatmap: read_outputs(self.heatmap).await?,
            boxes: read_outputs(self.boxes).await?,
            landmarks: read_outputs(self.landmarks).await?,
            mask: read_outputs(self.mask).await?,
            offsets: read_outputs(self.offsets).await?,
        })
    }
}

/// `ln(1 + eˣ)`, without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl DetectorData {
    /// The detections of picture `index` of the batch, surest first. A picture outside the batch has none.
    pub fn decode(&self, index: usize, options: &DecodeOptions) -> Vec<Detection> {
        if index >= self.batch {
            return Vec::new();
        }
        let mut detections: Vec<Detection> = Vec::new();
        for (row, column, score) in self.peaks(index, options.min_score) {
            if detections.len() == options.max_faces {
                break;
            }
            let found = self.face(index, row, column, score);
            if detections.iter().all(|d| overlap(&d.face_box, &found.face_box) <= options.max_overlap) {
                detections.push(found);
            }
        }
        if options.masks {
            let masks = self.masks(index, &detections);
            for (detection, mask) in detections.iter_mut().zip(masks) {
                detection.mask = Some(mask);
            }
        }
        detections
    }

    /// `(rows, columns)` of the person grid, which masks have.
    pub fn mask_grid(&self) -> (usize, usize) {
        const RATIO: usize = FACE_STRIDE / MASK_STRIDE;
        (self.grid.0 * RATIO, self.grid.1 * RATIO)
    }

    /// Cells that no neighbour exceeds, surest first.
    fn peaks(&self, index: usize, min_score: f32) -> Vec<(usize, usize, f32)> {
        let (rows, columns) = self.grid;
        let heatmap = &self.heatmap[index * rows * columns..][..rows * columns];
        let mut peaks = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                let logit = heatmap[row * columns + column];
                let highest = (row.saturating_sub(1)..=(row + 1).min(rows - 1))
                    .flat_map(|y| {
                        &heatmap[y * columns..][column.saturating_sub(1)..=(column + 1).min(columns - 1)]
                    })
                    .all(|neighbour| *neighbour <= logit);
                let score = sigmoid(logit);
                if highest && score >= min_score {
                    peaks.push((row, column, score));
                }
            }
        }
        peaks.sort_by(|a, b| b.2.total_cmp(&a.2));
        peaks
    }

    fn face(&self, index: usize, row: usize, column: usize, score: f32) -> Detection {
        let (rows, columns) = self.grid;
        let cell = FACE_STRIDE as f32;
        let (x, y) = (column as f32 + 0.5, row as f32 + 0.5);
        let at = |grid: &[f32], channels: usize, channel: usize| {
            grid[((index * channels + channel) * rows + row) * columns + column]
        };
        let distance = |side| softplus(at(&self.boxes, 4, side));
        let clamp_x = |x: f32| (x * cell).clamp(0.0, columns as f32 * cell);
        let clamp_y = |y: f32| (y * cell).clamp(0.0, rows as f32 * cell);
        Detection {
            score,
            face_box: [
                clamp_x(x - distance(0)),
                clamp_y(y - distance(1)),
                clamp_x(x + distance(2)),
                clamp_y(y + distance(3)),
            ],
            landmarks: std::array::from_fn(|i| {
                let offset = |axis| at(&self.landmarks, 2 * LANDMARKS, 2 * i + axis);
                [(x + offset(0)) * cell, (y + offset(1)) * cell]
            }),
            mask: None,
        }
    }

    /// Gives each cell that shows a person to the face it points to.
    fn masks(&self, index: usize, detections: &[Detection]) -> Vec<Vec<f32>> {
        let (rows, columns) = self.mask_grid();
        let cells = rows * columns;
        let mut masks = vec![vec![0.0; cells]; detections.len()];
        for row in 0..rows {
            for column in 0..columns {
                let p = row * columns + column;
                let vote = |axis: usize, centre: usize| {
                    (centre as f32 + 0.5 + self.offsets[(index * 2 + axis) * cells + p]) * MASK_STRIDE as f32
                };
                let (x, y) = (vote(0, column), vote(1, row));
                let nearest = detections
                    .iter()
                    .map(|d| distance_in_faces(&d.face_box, x, y))
                    .enumerate()
                    .min_by(|a, b| a.1.total_cmp(&b.1));
                if let Some((i, distance)) = nearest
                    && distance <= VOTE_REACH
                {
                    masks[i][p] = sigmoid(self.mask[index * cells + p]);
                }
            }
        }
        masks
    }
}

/// Distance from the box's centre in units of its longer side.
fn distance_in_faces(face_box: &[f32; 4], x: f32, y: f32) -> f32 {
    let [left, top, right, bottom] = *face_box;
    let side = (right - left).max(bottom - top).max(1.0);
    ((left + right) / 2.0 - x).hypot((top + bottom) / 2.0 - y) / side
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 32×48 picture with nothing in it.
    fn empty() -> DetectorData {
        DetectorData {
            batch: 1,
            grid: (4, 6),
            heatmap: vec![-9.0; 24],
            boxes: vec![0.0; 4 * 24],
            landmarks: vec![0.0; 10 * 24],
            mask: vec![-9.0; 96],
            offsets: vec![0.0; 2 * 96],
        }
    }

    /// A face centred in a cell, one cell from each edge of its box.
    fn put(data: &mut DetectorData, row: usize, column: usize, logit: f32) {
        let p = row * 6 + column;
        data.heatmap[p] = logit;
        for side in 0..4 {
            // softplus(0.5413) = 1
            data.boxes[side * 24 + p] = 0.541_324_85;
        }
        data.landmarks[p] = -0.5;
        data.landmarks[24 + p] = 0.25;
    }

    #[test]
    fn nothing_is_found_in_an_empty_picture() {
        assert!(empty().decode(0, &DecodeOptions::default()).is_empty());
        assert!(empty().decode(1, &DecodeOptions::default()).is_empty());
    }

    #[test]
    fn a_face_is_decoded_in_pixels() {
        let mut data = empty();
        put(&mut data, 1, 2, 3.0);
        let found = data.decode(0, &DecodeOptions::default());
        assert_eq!(found.len(), 1);
        for (edge, expected) in found[0].face_box.iter().zip([12.0, 4.0, 28.0, 20.0]) {
            assert!((edge - expected).abs() < 1e-3, "{:?}", found[0].face_box);
        }
        assert_eq!(found[0].landmarks[0], [16.0, 14.0]);
        assert_eq!(found[0].landmarks[4], [20.0, 12.0]);
    }

    #[test]
    fn of_overlapping_faces_the_surer_one_stays() {
        let mut data = empty();
        put(&mut data, 1, 2, 2.0);
        put(&mut data, 1, 3, 3.0);
        let found = data.decode(0, &DecodeOptions::default());
        assert_eq!(found.len(), 1, "a neighbour's peak is not a peak");
        assert!((found[0].face_box[0] - 20.0).abs() < 1e-3);
        // Two cells apart, boxes of four cells: an overlap of a third.
        let mut data = empty();
        for (column, logit) in [(1, 2.0), (3, 3.0)] {
            put(&mut data, 1, column, logit);
            for side in 0..4 {
                data.boxes[side * 24 + 6 + column] = 1.854_586_5;
            }
        }
        let strict = DecodeOptions { max_overlap: 0.2, ..DecodeOptions::default() };
        assert_eq!(data.decode(0, &strict).len(), 1);
        let loose = DecodeOptions { max_overlap: 0.9, ..DecodeOptions::default() };
        let found = data.decode(0, &loose);
        assert_eq!(found.len(), 2);
        assert!(found[0].score > found[1].score);
    }

    #[test]
    fn pixels_go_to_the_face_they_point_to() {
        let mut data = empty();
        put(&mut data, 1, 1, 3.0);
        put(&mut data, 1, 4, 2.0);
        data.mask[4 * 12] = 4.0;
        data.mask[4 * 12 + 1] = 4.0;
        // Row 4, column 0: points at the left face, centre (12, 12), from (2, 18).
        data.offsets[4 * 12] = 2.5;
        data.offsets[96 + 4 * 12] = -1.5;
        // Row 4, column 1: points at the right face, centre (36, 12), from (6, 18).
        data.offsets[4 * 12 + 1] = 7.5;
        data.offsets[96 + 4 * 12 + 1] = -1.5;
        let found = data.decode(0, &DecodeOptions::default());
        let mask = |i: usize| found[i].mask.clone().unwrap();
        assert!(mask(0)[48] > 0.9 && mask(1)[48] == 0.0);
        assert!(mask(0)[49] == 0.0 && mask(1)[49] > 0.9);
        let plain = DecodeOptions { masks: false, ..DecodeOptions::default() };
        assert!(data.decode(0, &plain)[0].mask.is_none());
    }

    #[test]
    fn not_a_number_is_no_face() {
        let mut data = empty();
        data.heatmap.fill(f32::NAN);
        assert!(data.decode(0, &DecodeOptions::default()).is_empty());
    }
}
