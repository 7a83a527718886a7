//! Who a face shows, by an identity encoder that need not be the model's own.

use ::image::RgbImage;
use burn::tensor::Device;

use facestudio::encoders::face::FaceEncoder;
use facestudio::error::Result;
use facestudio::image::align::{align, from_corner};
use facestudio::image::preprocess::signed_tensor;
use facestudio::nn::read_finite;
use facestudio::pipeline::DetectedFace;

use super::statistics::{Estimate, bootstrap};

/// A face in a picture.
#[derive(Debug, Clone)]
pub struct Face {
    /// Left, top, right and bottom edge, in fractions of the picture.
    pub face_box: [f64; 4],
    /// Eyes, nose tip and mouth corners in pixels.
    pub landmarks: [[f32; 2]; 5],
    /// Of unit length.
    pub embedding: Vec<f32>,
}

impl Face {
    /// A face that was found in `picture`.
    pub fn new(
        encoder: &FaceEncoder,
        picture: &RgbImage,
        face: &DetectedFace,
        device: &Device,
    ) -> Result<Self> {
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        let [left, top, right, bottom] = face.face_box.map(f64::from);
        Ok(Self {
            face_box: [left / width, top / height, right / width, bottom / height],
            landmarks: face.landmarks,
            embedding: embed(encoder, picture, &face.landmarks, device)?,
        })
    }

    /// In fractions of the picture.
    pub fn area(&self) -> f64 {
        let [left, top, right, bottom] = self.face_box;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }

    /// How far the nose lies to the right of the eyes' middle, in distances between the eyes: grows as the face turns to
    /// the picture's right.
    pub fn turn(&self) -> f64 {
        let [left, right, nose, ..] = self.landmarks.map(|[x, y]| [f64::from(x), f64::from(y)]);
        let apart = (right[0] - left[0]).hypot(right[1] - left[1]).max(1e-6);
        (nose[0] - 0.5 * (left[0] + right[0])) / apart
    }
}

/// The unit-length embedding of a face whose landmarks are known, in pixels from the picture's top left corner.
pub fn embed(
    encoder: &FaceEncoder,
    picture: &RgbImage,
    landmarks: &[[f32; 2]; 5],
    device: &Device,
) -> Result<Vec<f32>> {
    let crop = align(picture, &from_corner(landmarks), encoder.image_size())?;
    let embedding = encoder.embed(signed_tensor(&[&crop], device)?)?;
    pollster::block_on(read_finite(embedding, "an identity"))
}

/// Of unit vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum()
}

/// Overlap of two boxes over their union.
pub fn intersection_over_union(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both).max(1e-12)
}

/// The encoder's own levels, of one value a person: how alike it finds two photos of that person, and the person's photo
/// and everybody else's.
#[derive(Debug, Clone)]
pub struct Levels {
    /// Two photos of one person.
    pub same: Vec<f64>,
    /// Photos of two people.
    pub other: Vec<f64>,
}

impl Levels {
    /// From the embeddings of each person's two photos.
    pub fn new(photos: &[[Vec<f32>; 2]]) -> Self {
        let others = |i: usize| {
            let cosines = (0..photos.len()).filter(|j| *j != i).map(|j| cosine(&photos[i][0], &photos[j][1]));
            cosines.sum::<f64>() / (photos.len() - 1).max(1) as f64
        };
        Self {
            same: photos.iter().map(|[a, b]| cosine(a, b)).collect(),
            other: (0..photos.len()).map(others).collect(),
        }
    }

    /// The levels of some of the people, in this order.
    pub fn select(&self, people: &[usize]) -> Self {
        let pick = |values: &[f64]| people.iter().map(|i| values[*i]).collect();
        Self { same: pick(&self.same), other: pick(&self.other) }
    }

    /// Cosines of one trial each on the scale from photos of two people (0) to two photos of one (1); trial `i` is of
    /// person `i`. A trial without a face counts as another person's picture: 0.
    ///
    /// The interval is a bootstrap over people, who carry their own levels with them.
    pub fn relative(&self, cosines: &[Option<f64>]) -> Estimate {
        bootstrap(cosines.len(), |people| {
            let (same, other) = self.means(people);
            let found = people.iter().map(|i| cosines[*i].map_or(0.0, |cosine| cosine - other));
            found.sum::<f64>() / people.len() as f64 / (same - other).max(1e-6)
        })
    }

    /// As [`Levels::relative`], of differences between two cosines of one trial: without the zero.
    pub fn difference(&self, differences: &[f64]) -> Estimate {
        bootstrap(differences.len(), |people| {
            let (same, other) = self.means(people);
            let sum: f64 = people.iter().map(|i| differences[*i]).sum();
            sum / people.len() as f64 / (same - other).max(1e-6)
        })
    }

    /// The two levels of some people.
    pub fn means(&self, people: &[usize]) -> (f64, f64) {
        let mean = |values: &[f64]| people.iter().map(|i| values[*i]).sum::<f64>() / people.len() as f64;
        (mean(&self.same), mean(&self.other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_runs_from_others_to_oneself() {
        let levels = Levels { same: vec![0.9, 0.7], other: vec![0.1, 0.3] };
        assert!((levels.relative(&[Some(0.8), Some(0.8)]).value - 1.0).abs() < 1e-12);
        assert!(levels.relative(&[Some(0.2), Some(0.2)]).value.abs() < 1e-12);
        // Without a face: as another person's.
        assert!((levels.relative(&[Some(0.8), None]).value - 0.5).abs() < 1e-12);
        assert!((levels.difference(&[0.3, 0.3]).value - 0.5).abs() < 1e-12);
    }

    #[test]
    fn levels_come_from_photos() {
        let photos = [[vec![1.0, 0.0], vec![0.6, 0.8]], [vec![0.0, 1.0], vec![0.0, 1.0]]];
        let levels = Levels::new(&photos);
        for (found, expected) in [(&levels.same, [0.6, 1.0]), (&levels.other, [0.0, 0.8])] {
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6), "{found:?}");
        }
    }

    #[test]
    fn overlap_is_of_boxes() {
        assert!(
            (intersection_over_union([0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5]) - 1.0 / 3.0).abs() < 1e-12
        );
        assert_eq!(intersection_over_union([0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]), 0.0);
    }
}
