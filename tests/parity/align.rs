//! The similarity that brings faces onto InsightFace's template, against Umeyama's method in numpy.

use facestudio::image::align::{Similarity, template};
use facestudio::weights::Files;
use serde::Deserialize;

use crate::fixture;

#[derive(Deserialize)]
struct Case {
    size: usize,
    landmarks: [[f32; 2]; 5],
    matrix: [[f32; 3]; 2],
}

#[test]
fn landmarks_go_where_insightface_puts_them() {
    let file = fixture("align").read("cases.json").unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&file).unwrap();
    assert_eq!(cases.len(), 20);
    for Case { size, landmarks, matrix } in cases {
        let found = Similarity::fit(&landmarks, &template(size)).unwrap();
        // In pixels of the crop; positions in the photo have four digits before the point.
        for point in landmarks {
            let expected = matrix.map(|[x, y, shift]| x * point[0] + y * point[1] + shift);
            for (ours, theirs) in found.map(point).into_iter().zip(expected) {
                assert!((ours - theirs).abs() < 2e-3, "{ours} for {theirs}, size {size}, {landmarks:?}");
            }
        }
        let rotation = [found.a - matrix[0][0], found.b - matrix[1][0], found.b + matrix[0][1]];
        assert!(rotation.iter().all(|difference| difference.abs() < 1e-5), "{found:?} for {matrix:?}");
    }
}
