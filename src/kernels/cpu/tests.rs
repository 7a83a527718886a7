use burn::tensor::Tensor;

use super::product::{Left, Start, product};
use super::simd::{MOST_LANES, Simd, Task, Width};
use super::tensor;
use crate::kernels::tests::{assert_close, random};

/// What a kind of vectors computes.
struct Check;

impl Task for Check {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let lanes = 2 * S::LANES;
        for (rows, depth) in [(1, 1), (4, 3), (5, 9), (11, 30), (12, 7), (13, 7), (31, 16)] {
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
                // SAFETY: sizes are the buffers', and the processor has `S`.
                unsafe {
                    product::<S>(left_matrix, [rows, depth], b.as_ptr(), start, out.as_mut_ptr(), lanes);
                }
                assert_close(tensor(out, [rows, lanes]), expected, depth);
            }
        }
        for x in [-90.0_f32, -20.0, -1.5, -0.01, 0.0, 0.3, 1.0, 7.7, 60.0] {
            let mut out = [0.0; MOST_LANES];
            // SAFETY: no vector has more lanes, and the processor has `S`.
            let sum = unsafe {
                S::store(out.as_mut_ptr(), S::exp(S::splat(x)));
                S::sum(S::splat(x))
            };
            let expected = x.max(-87.33).exp();
            let near = |y: f32| (y - expected).abs() <= 3e-7 * expected;
            assert!(out[..S::LANES].iter().all(|y| near(*y)), "e^{x}: {out:?} {expected}");
            assert!((sum - x * S::LANES as f32).abs() <= 1e-3, "{sum}");
        }
    }
}

/// Vectors of processors without the widest compute the same.
#[test]
fn vectors_of_every_width_agree() {
    let widest = Width::widest();
    let mut widths = vec![Width::Base];
    #[cfg(target_arch = "x86_64")]
    {
        widths.extend((widest != Width::Base).then_some(Width::Avx2));
        widths.extend((widest == Width::Avx512).then_some(Width::Avx512));
    }
    assert!(widths.contains(&widest));
    for width in widths {
        // SAFETY: the processor has the widest and all before it.
        unsafe { width.run(&Check) };
    }
    // 16 columns fill one panel of eight lanes' vectors, and half of one of sixteen's.
    for columns in [1, 16, 17, 33, 1000] {
        #[cfg(target_arch = "x86_64")]
        let narrower = widest == Width::Avx512 && columns <= 16;
        #[cfg(not(target_arch = "x86_64"))]
        let narrower = false;
        assert_eq!(Width::of(columns) == widest, !narrower, "{columns}");
    }
}
