use burn::tensor::Tensor;

use super::product::{Left, Start, product};
use super::simd::{Base, Simd};
use super::tensor;
use crate::kernels::tests::{assert_close, random};

/// The plain vectors of processors without our instructions compute the same.
#[test]
fn plain_vectors_agree() {
    let lanes = 2 * Base::LANES;
    for (rows, depth) in [(1, 1), (4, 3), (5, 9), (11, 30)] {
        let left = random([rows, depth]);
        let panel = random([depth, lanes]);
        let (by_row, by_lane) = (random([rows, 1]), random([1, lanes]));
        let values = |x: &Tensor<2>| x.clone().into_data().try_into_vec::<f32>().unwrap();
        let (a, b) = (values(&left), values(&panel));
        let (c, d) = (values(&by_row), values(&by_lane));
        let left_matrix = Left { from: a.as_ptr(), row: depth, step: 1 };
        let sums = left.matmul(panel);
        for (start, expected) in [
            (Start::Zero, sums.clone()),
            (Start::Rows(c.as_ptr()), sums.clone() + by_row),
            (Start::Lanes(d.as_ptr()), sums + by_lane),
        ] {
            let mut out = vec![0.0; rows * lanes];
            // SAFETY: sizes are the buffers'.
            unsafe {
                product::<Base>(left_matrix, [rows, depth], b.as_ptr(), start, out.as_mut_ptr(), lanes);
            }
            assert_close(tensor(out, [rows, lanes]), expected, depth);
        }
    }
    for x in [-90.0_f32, -20.0, -1.5, -0.01, 0.0, 0.3, 1.0, 7.7, 60.0] {
        let mut out = [0.0; 4];
        // SAFETY: four lanes.
        unsafe { Base::store(out.as_mut_ptr(), Base::exp(Base::splat(x))) };
        let expected = x.max(-87.33).exp();
        assert!((out[2] - expected).abs() <= 3e-7 * expected, "e^{x}: {} {expected}", out[2]);
    }
}
