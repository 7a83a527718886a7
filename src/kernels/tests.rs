//! Every kernel against burn's own operations, over shapes that vary in every dimension: below, at and above the widths of
//! vectors, panels and blocks.

use std::cell::Cell;

use burn::tensor::{Device, Tensor, TensorData, Tolerance, activation as stock, module, ops};

use super::*;
use crate::nn::{merge_heads, split_heads};
use crate::sampling::NoiseSource;

/// Standard normal numbers, other ones at each call and the same ones in each run of a test.
fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    let call = CALLS.replace(CALLS.get() + 1);
    NoiseSource::new(0).tensor(call, shape, &Device::flex())
}

/// Both sides sum `depth` products of standard normal numbers one after the other in f32. Partial sums grow with the square
/// root of their terms, so rounding is normal with a deviation of ε · depth / √6, 2.4·10⁻⁸ · depth; tolerated are eight of
/// the difference's deviations, since millions of numbers are compared.
#[track_caller]
fn assert_close<const D: usize>(ours: Tensor<D>, stock: Tensor<D>, depth: usize) {
    assert_eq!(ours.dims(), stock.dims());
    let tolerance = Tolerance::rel_abs(2e-6, 2e-6 + 3e-7 * depth as f32);
    ours.into_data().assert_approx_eq::<f32>(&stock.into_data(), tolerance);
}

#[test]
fn conv2d_is_burns() {
    let mut cases = 0;
    for (batch, channels_in, channels_out) in [(1, 1, 1), (2, 3, 5), (1, 8, 7), (3, 5, 13), (2, 32, 24)] {
        for (height, width) in [(1, 1), (4, 4), (3, 8), (8, 3), (7, 5), (16, 16), (9, 20), (1, 70)] {
            for (kernel, stride, padding) in
                [(1, 1, 0), (3, 1, 1), (3, 2, 1), (3, 1, 0), (3, 2, 0), (1, 2, 0), (5, 3, 2), (4, 4, 0)]
            {
                if height + 2 * padding < kernel || width + 2 * padding < kernel {
                    continue;
                }
                let x = random([batch, channels_in, height, width]);
                let weight = random([channels_out, channels_in, kernel, kernel]);
                let bias = (cases % 2 == 0).then(|| random([channels_out]));
                let options = ops::ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
                let ours = conv2d(&x, &weight, bias.as_ref(), stride, padding).unwrap();
                assert_close(ours, module::conv2d(x, weight, bias, options), channels_in * kernel * kernel);
                cases += 1;
            }
        }
    }
    assert!(cases > 200);
}

#[test]
fn linear_is_burns() {
    for (i, tokens) in [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 64, 65, 130].into_iter().enumerate() {
        for from in [1, 3, 8, 17, 64] {
            for to in [1, 2, 5, 6, 7, 12, 33, 200] {
                let (x, weight) = (random([tokens, from]), random([to, from]));
                let bias = (i % 2 == 0).then(|| random([to]));
                let ours = linear(&x, &weight, bias.as_ref()).unwrap();
                assert_close(ours, module::linear(x, weight.transpose(), bias), from);
            }
        }
    }
    let (x, weight) = (random([2, 3, 5]), random([4, 5]));
    assert_close(linear(&x, &weight, None).unwrap(), module::linear(x, weight.transpose(), None), 5);
    // A view whose elements are not in order.
    let (x, weight) = (random([5, 9]).transpose(), random([4, 5]));
    assert_close(linear(&x, &weight, None).unwrap(), module::linear(x, weight.transpose(), None), 5);
}

/// Attention's depth for [`assert_close`]: that of its scores, and the largest of them times the largest value. A score `s`
/// is rounded to some ε · |s|, its exponential is off by as much of itself, and that weighs a value.
fn score_depth(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> usize {
    let dim = q.dims()[3];
    let largest = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
    let scores = q.clone().matmul(k.clone().swap_dims(2, 3)) / (dim as f32).sqrt();
    dim + (largest(scores) * largest(v.clone())) as usize
}

#[test]
fn attention_is_burns() {
    for (batch, heads, dim) in [(1, 1, 1), (2, 1, 5), (1, 3, 8), (2, 2, 32), (1, 2, 40)] {
        for queries in [1, 3, 8, 16, 17, 40] {
            for keys in [1, 4, 5, 16, 77] {
                let stock = |q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>| {
                    let options = ops::AttentionModuleOptions::default();
                    module::attention(q.clone(), k.clone(), v.clone(), None, None, options)
                };
                let heads_of = |tokens| split_heads(random([batch, tokens, heads * dim]) * 2.0, heads);
                let (q, k, v) = (heads_of(queries), heads_of(keys), heads_of(keys));
                let depth = score_depth(&q, &k, &v);
                assert_close(attention(&q, &k, &v).unwrap(), stock(&q, &k, &v), depth);
                let merged = merge_heads(attention(&q, &k, &v).unwrap());
                assert_close(merged, merge_heads(stock(&q, &k, &v)), depth);
                let of = |tokens| random([batch, heads, tokens, dim]);
                let (q, k, v) = (of(queries), of(keys), of(keys));
                assert_close(attention(&q, &k, &v).unwrap(), stock(&q, &k, &v), score_depth(&q, &k, &v));
            }
        }
    }
    // A view whose tokens are not side by side is left to burn.
    let (q, k) = (random([1, 2, 3, 4]), random([1, 2, 4, 3]).swap_dims(2, 3));
    assert!(attention(&q, &k, &k).is_none());
}

#[test]
fn attention_bears_large_scores() {
    let q = random([1, 1, 20, 8]) * 100.0;
    let k = random([1, 1, 9, 8]) * 100.0;
    let v = random([1, 1, 9, 8]);
    let stock = module::attention(q.clone(), k.clone(), v.clone(), None, None, Default::default());
    assert_close(attention(&q, &k, &v).unwrap(), stock, 64);
}

/// Group normalisation in f64, and every element's group's deviation: in f32 burn's own mean of 20,000 numbers around 30
/// is off by 3·10⁻⁵, more than ours may be.
fn exact_group_norm(
    x: &Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    groups: usize,
    eps: f64,
) -> (Tensor<4>, Tensor<4>) {
    let host = |x: Tensor<1>| -> Vec<f32> { x.try_into_vec_as::<f32>().unwrap() };
    let [_, channels, height, width] = x.dims();
    let (values, weight, bias) = (host(x.clone().flatten(0, 3)), host(weight.clone()), host(bias.clone()));
    let (mut normed, mut spread) = (Vec::new(), Vec::new());
    for (i, group) in values.chunks(channels / groups * height * width).enumerate() {
        let mean =
            |f: &dyn Fn(f64) -> f64| group.iter().map(|x| f(f64::from(*x))).sum::<f64>() / group.len() as f64;
        let centre = mean(&|x| x);
        let deviation = (mean(&|x| (x - centre).powi(2)) + eps).sqrt();
        for (p, x) in group.iter().enumerate() {
            let channel = i % groups * (channels / groups) + p / (height * width);
            let x = (f64::from(*x) - centre) / deviation;
            normed.push((x * f64::from(weight[channel]) + f64::from(bias[channel])) as f32);
            spread.push(deviation as f32);
        }
    }
    let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, x.dims()), &x.device());
    (tensor(normed), tensor(spread))
}

#[test]
fn norms_are_burns() {
    for (batch, per_group, groups) in [(1, 1, 1), (2, 3, 2), (1, 4, 16), (3, 2, 5)] {
        for (height, width) in [(1, 1), (1, 3), (4, 4), (5, 7), (33, 17), (70, 70)] {
            let channels = per_group * groups;
            if per_group * height * width == 1 {
                continue;
            }
            // A mean far from 0 shows whether the variance is taken around it.
            let x = random([batch, channels, height, width]) * 2.0 + 30.0;
            let (weight, bias) = (random([channels]), random([channels]));
            let per_channel = |x: &Tensor<1>| x.clone().reshape([1, channels, 1, 1]);
            let eps = 1e-5;
            let ours = |silu| group_norm(&x, &weight, &bias, groups, eps, silu).unwrap();
            let (expected, spread) = exact_group_norm(&x, &weight, &bias, groups, eps);
            // The mean of numbers around 30 is known to some 2·10⁻⁶ only, whatever their spread; dividing by a small
            // spread magnifies that. So both sides are compared in units of `x`.
            assert_close(ours(false) * spread.clone(), expected.clone() * spread.clone(), 100);
            assert_close(ours(true) * spread.clone(), stock::silu(expected) * spread, 100);

            let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
            let expected = x.clone() * scale * per_channel(&weight) + per_channel(&bias);
            assert_close(rms_norm(&x, &weight, &bias, eps).unwrap(), expected, 10);
        }
    }
}

#[test]
fn activations_are_burns() {
    // From where exponentials underflow to where they overflow, in odd numbers of elements.
    let x = Tensor::<1>::from_floats(
        (-2003..2004).map(|i| i as f32 * 0.05).collect::<Vec<_>>().as_slice(),
        &Device::flex(),
    );
    let close = |ours: Option<Tensor<1>>, stock: Tensor<1>| {
        let tolerance = Tolerance::rel_abs(1e-6, 1e-6);
        ours.unwrap().into_data().assert_approx_eq::<f32>(&stock.into_data(), tolerance);
    };
    close(silu(&x), stock::silu(x.clone()));
    close(gelu(&x), stock::gelu(x.clone()));
    close(quick_gelu(&x), x.clone() * stock::sigmoid(x.clone() * 1.702));
    close(relu(&x), stock::relu(x.clone()));
    // What has gone wrong stays visible.
    let nan = Tensor::<1>::from_floats([f32::NAN], &Device::flex());
    for act in [silu, gelu, quick_gelu] {
        assert!(act(&nan).unwrap().into_scalar::<f32>().is_nan());
    }
    for (batch, tokens, width) in [(1, 1, 1), (2, 3, 5), (1, 70, 300), (1, 3, 8195)] {
        let x = random([batch, tokens, 2 * width]);
        let (value, gate) = (x.clone().narrow(2, 0, width), x.clone().narrow(2, width, width));
        assert_close(geglu(&x).unwrap(), value * stock::gelu(gate), 4);
    }
}

#[test]
fn gradients_and_other_numbers_are_left_to_burn() {
    let device = Device::flex();
    let x = random([1, 2, 3, 4]);
    assert!(silu(&x).is_some());
    assert!(silu(&x.clone().cast(DType::F16)).is_none());
    #[cfg(feature = "train")]
    {
        let recorded = Tensor::<4>::ones([1, 2, 3, 4], &device.clone().autodiff());
        assert!(silu(&recorded).is_none());
        let weight = Tensor::<2>::ones([5, 4], &device.autodiff()).require_grad();
        assert!(linear(&x, &weight, None).is_none());
    }
}

/// Kernels trust their sizes: what does not fit must not reach them.
#[test]
fn what_does_not_fit_is_left_to_burn() {
    let x = random([1, 4, 5, 5]);
    let (three, four) = (random([3]), random([4]));
    assert!(conv2d(&x, &random([4, 2, 3, 3]), None, 1, 1).is_none(), "two groups");
    assert!(conv2d(&x, &random([4, 4, 3, 1]), None, 1, 1).is_none(), "not square");
    assert!(conv2d(&x, &random([4, 4, 3, 3]), Some(&three), 1, 1).is_none());
    assert!(conv2d(&x, &random([4, 4, 7, 7]), None, 1, 0).is_none());
    assert!(linear(&x, &random([2, 6]), None).is_none());
    assert!(linear(&x, &random([2, 5]), Some(&three)).is_none());
    assert!(group_norm(&x, &four, &four, 3, 1e-5, false).is_none());
    assert!(group_norm(&x, &three, &four, 2, 1e-5, false).is_none());
    assert!(rms_norm(&x, &four, &three, 1e-5).is_none());
    assert!(attention(&x, &x, &random([1, 4, 6, 5])).is_none());
    assert!(attention(&x, &random([1, 4, 5, 6]), &random([1, 4, 5, 6])).is_none());
}

/// The plain vectors of processors without our instructions compute the same.
#[test]
fn plain_vectors_agree() {
    use super::product::{Left, product};
    use super::simd::{Base, Simd};

    let lanes = 2 * Base::LANES;
    for (rows, depth) in [(1, 1), (4, 3), (5, 9), (11, 30)] {
        let left = random([rows, depth]);
        let panel = random([depth, lanes]);
        let start = random([rows]);
        let values = |x: Tensor<2>| x.into_data().try_into_vec::<f32>().unwrap();
        let (a, b) = (values(left.clone()), values(panel.clone()));
        let c = start.clone().into_data().try_into_vec::<f32>().unwrap();
        let mut out = vec![0.0; rows * lanes];
        let left_matrix = Left { from: a.as_ptr(), row: depth, step: 1 };
        // SAFETY: sizes are the buffers'.
        unsafe {
            product::<Base>(left_matrix, [rows, depth], b.as_ptr(), c.as_ptr(), out.as_mut_ptr(), lanes);
        }
        let expected = left.matmul(panel) + start.reshape([rows, 1]);
        assert_close(tensor(out, [rows, lanes]), expected, depth);
    }
    for x in [-90.0_f32, -20.0, -1.5, -0.01, 0.0, 0.3, 1.0, 7.7, 60.0] {
        let mut out = [0.0; 4];
        // SAFETY: four lanes.
        unsafe { Base::store(out.as_mut_ptr(), Base::exp(Base::splat(x))) };
        let expected = x.max(-87.33).exp();
        assert!((out[2] - expected).abs() <= 3e-7 * expected, "e^{x}: {} {expected}", out[2]);
    }
}
