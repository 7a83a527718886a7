//! Every kernel on every backend against burn's own operations on the CPU, over shapes that vary in every dimension: below,
//! at and above the widths of vectors, panels, blocks and tiles.

use std::cell::Cell;

use burn::tensor::{DType, Device, Tensor, TensorData, Tolerance, activation as stock, module, ops};

use super::*;
use crate::nn::{merge_heads, split_heads};
use crate::sampling::NoiseSource;

/// The devices whose kernels are tried; inputs and burn's results are made on the first.
fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "gpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    ]
}

/// Whether it is the CPU, whose kernels take shapes that those of WebGPU leave to burn.
fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

fn on<const D: usize>(device: &Device, x: &Tensor<D>) -> Tensor<D> {
    x.clone().to_device(device)
}

/// Standard normal numbers, other ones at each call and the same ones in each run of a test.
pub(super) fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    let call = CALLS.replace(CALLS.get() + 1);
    NoiseSource::new(0).tensor(call, shape, &Device::flex())
}

/// Both sides sum `depth` products of standard normal numbers one after the other in f32. Partial sums grow with the square
/// root of their terms, so rounding is normal with a deviation of ε · depth / √6, 2.4·10⁻⁸ · depth; tolerated are eight of
/// the difference's deviations, since millions of numbers are compared.
#[track_caller]
pub(super) fn assert_close<const D: usize>(ours: Tensor<D>, stock: Tensor<D>, depth: usize) {
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
                let stock = module::conv2d(x.clone(), weight.clone(), bias.clone(), options);
                for device in devices() {
                    let bias = bias.as_ref().map(|bias| on(&device, bias));
                    let window = Window { stride, padding, seen: None };
                    let ours = conv2d(&on(&device, &x), &on(&device, &weight), bias.as_ref(), window, None);
                    assert_close(ours.unwrap(), stock.clone(), channels_in * kernel * kernel);
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 200);
}

#[track_caller]
fn linear_is_close<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) {
    let stock = module::linear(x.clone(), weight.clone().transpose(), bias.cloned());
    for device in devices() {
        let bias = bias.map(|bias| on(&device, bias));
        let ours = linear(&on(&device, x), &on(&device, weight), bias.as_ref(), None).unwrap();
        assert_close(ours, stock.clone(), weight.dims()[1]);
    }
}

#[test]
fn linear_is_burns() {
    for (i, tokens) in [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 64, 65, 130].into_iter().enumerate() {
        for from in [1, 3, 8, 17, 64] {
            for to in [1, 2, 5, 6, 7, 12, 33, 200] {
                let (x, weight) = (random([tokens, from]), random([to, from]));
                let bias = (i % 2 == 0).then(|| random([to]));
                linear_is_close(&x, &weight, bias.as_ref());
            }
        }
    }
    linear_is_close(&random([2, 3, 5]), &random([4, 5]), None);
    // Enough for the larger tiles, with edges.
    linear_is_close(&random([1030, 40]), &random([1030, 40]), Some(&random([1030])));
    linear_is_close(&random([2050, 33]), &random([2051, 33]), None);
    // Views whose elements are not in order: a matrix, and feature maps seen as tokens.
    linear_is_close(&random([5, 9]).transpose(), &random([4, 5]), None);
    for (images, channels, positions) in [(2, 5, 12), (1, 8, 64), (3, 33, 4), (2, 6, 9)] {
        let x = random([images, channels, positions]).swap_dims(1, 2);
        linear_is_close(&x, &random([7, channels]), Some(&random([7])));
    }
}

/// Attention's depth for [`assert_close`]: that of its scores, and the largest of them times the largest value. A score `s`
/// is rounded to some ε · |s|, its exponential is off by as much of itself, and that weighs a value.
fn score_depth(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> usize {
    let dim = q.dims()[3];
    let largest = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
    let scores = q.clone().matmul(k.clone().swap_dims(2, 3)) / (dim as f32).sqrt();
    dim + (largest(scores) * largest(v.clone())) as usize
}

/// On every device that takes these heads, as they lie and with heads put together again.
#[track_caller]
fn attention_is_close(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, split: Option<usize>) {
    let stock = module::attention(q.clone(), k.clone(), v.clone(), None, None, Default::default());
    let depth = score_depth(q, k, v);
    for device in devices() {
        // Moving a view to a device puts its elements in order: heads are split again.
        let [q, k, v] = [q, k, v].map(|x| match split {
            Some(heads) => split_heads(on(&device, &merge_heads(x.clone())), heads),
            None => on(&device, x),
        });
        let ours = attention(&q, &k, &v);
        if !is_cpu(&device) && !q.dims()[3].is_multiple_of(4) {
            assert!(ours.is_none());
            continue;
        }
        let ours = ours.unwrap();
        assert_close(merge_heads(ours.clone()), merge_heads(stock.clone()), depth);
        assert_close(ours, stock.clone(), depth);
    }
}

#[test]
fn attention_is_burns() {
    for (batch, heads, dim) in
        [(1, 1, 1), (2, 1, 5), (1, 3, 8), (2, 2, 32), (1, 2, 40), (2, 1, 64), (1, 1, 80), (1, 2, 160)]
    {
        for queries in [1, 3, 8, 16, 17, 40, 65] {
            for keys in [1, 4, 5, 16, 33, 77] {
                let heads_of = |tokens| split_heads(random([batch, tokens, heads * dim]) * 2.0, heads);
                attention_is_close(&heads_of(queries), &heads_of(keys), &heads_of(keys), Some(heads));
                let of = |tokens| random([batch, heads, tokens, dim]);
                attention_is_close(&of(queries), &of(keys), &of(keys), None);
            }
        }
    }
    // A view whose tokens are not side by side is left to burn.
    for device in devices() {
        let q = on(&device, &random([1, 2, 3, 4]));
        let k = on(&device, &random([1, 2, 4, 3])).swap_dims(2, 3);
        assert!(attention(&q, &k, &k).is_none());
    }
}

#[test]
fn attention_bears_large_scores() {
    let q = random([1, 1, 20, 8]) * 100.0;
    let k = random([1, 1, 9, 8]) * 100.0;
    let v = random([1, 1, 9, 8]);
    let stock = module::attention(q.clone(), k.clone(), v.clone(), None, None, Default::default());
    for device in devices() {
        let ours = attention(&on(&device, &q), &on(&device, &k), &on(&device, &v)).unwrap();
        assert_close(ours, stock.clone(), 64);
    }
}

#[test]
fn attention_by_regions_is_the_weighted_sum_of_each_contexts() {
    // More queries than a tile, so that there are tiles in which a context does not act.
    for (batch, heads, dim, queries) in [(1, 1, 4, 1), (2, 3, 32, 40), (1, 2, 40, 130), (2, 1, 160, 65)] {
        for (contexts, keys) in [(1, 1), (2, 4), (3, 5), (5, 33)] {
            let q = random([batch, heads, queries, dim]);
            let [k, v] = [(); 2].map(|()| random([batch, heads, contexts * keys, dim]));
            for sets in [1, batch] {
                // Each context has a share that ends somewhere; those of even numbers overlap the next.
                let weight = |set: usize, context: usize, query: usize| {
                    let place = (query + set) * contexts / (queries + batch);
                    let next = context.is_multiple_of(2) && place == context + 1;
                    if place == context {
                        0.7
                    } else if next {
                        0.3
                    } else {
                        0.0
                    }
                };
                let weights: Vec<f32> = (0..sets * contexts * queries)
                    .map(|i| weight(i / (contexts * queries), i / queries % contexts, i % queries))
                    .collect();
                let weights = Tensor::<3>::from_data(
                    TensorData::new(weights, [sets, contexts, queries]),
                    &Device::flex(),
                );
                let apart = |i: usize| {
                    let [k, v] = [&k, &v].map(|x| x.clone().narrow(2, i * keys, keys));
                    let weight = weights.clone().narrow(1, i, 1).reshape([sets, 1, queries, 1]);
                    module::attention(q.clone(), k, v, None, None, Default::default()) * weight
                };
                let stock = (0..contexts).map(apart).reduce(|sum, x| sum + x).unwrap();
                for device in devices() {
                    let [q, k, v] = [&q, &k, &v].map(|x| on(&device, x));
                    let ours = attention_by_regions(&q, &k, &v, &on(&device, &weights)).unwrap();
                    assert_close(ours, stock.clone(), score_depth(&q, &k, &v));
                }
            }
        }
    }
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
        for (height, width) in [(1, 1), (1, 3), (4, 4), (5, 7), (32, 32), (33, 17), (64, 64), (70, 70)] {
            let channels = per_group * groups;
            if per_group * height * width == 1 {
                continue;
            }
            // A mean far from 0 shows whether the variance is taken around it.
            let x = random([batch, channels, height, width]) * 2.0 + 30.0;
            let (weight, bias) = (random([channels]), random([channels]));
            let per_channel = |x: &Tensor<1>| x.clone().reshape([1, channels, 1, 1]);
            let eps = 1e-5;
            let (expected, spread) = exact_group_norm(&x, &weight, &bias, groups, eps);
            let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
            let root_mean_square = x.clone() * scale * per_channel(&weight) + per_channel(&bias);
            for device in devices() {
                let [weight, bias] = [&weight, &bias].map(|x| on(&device, x));
                let x = on(&device, &x);
                let ours = |silu| group_norm(&x, &weight, &bias, groups, eps, silu).unwrap();
                // The mean of numbers around 30 is known to some 2·10⁻⁶ only, whatever their spread; dividing by a
                // small spread magnifies that. So both sides are compared in units of `x`.
                let in_units = |ours: Tensor<4>| ours.to_device(&Device::flex()) * spread.clone();
                assert_close(in_units(ours(false)), expected.clone() * spread.clone(), 100);
                assert_close(in_units(ours(true)), stock::silu(expected.clone()) * spread.clone(), 100);
                let ours = rms_norm(&x, &weight, &bias, eps).unwrap();
                assert_close(ours, root_mean_square.clone(), 10);
            }
        }
    }
}

#[test]
fn layer_norm_is_burns() {
    for (rows, length) in [(1, 2), (3, 5), (70, 64), (6, 256), (2, 257), (5, 1280)] {
        let (x, weight, bias) = (random([1, rows, length]) * 3.0 + 2.0, random([length]), random([length]));
        let stock = module::layer_norm(x.clone(), weight.clone(), Some(bias.clone()), 1e-5);
        for device in devices() {
            let ours = layer_norm(&on(&device, &x), &on(&device, &weight), &on(&device, &bias), 1e-5);
            if is_cpu(&device) {
                assert!(ours.is_none(), "burn's is used");
            } else {
                assert_close(ours.unwrap(), stock.clone(), 10);
            }
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
    for device in devices() {
        let close = |act: fn(&Tensor<1>) -> Option<Tensor<1>>, stock: Tensor<1>| {
            let tolerance = Tolerance::rel_abs(1e-6, 1e-6);
            let ours = act(&on(&device, &x)).unwrap();
            ours.into_data().assert_approx_eq::<f32>(&stock.into_data(), tolerance);
        };
        close(silu, stock::silu(x.clone()));
        close(gelu, stock::gelu(x.clone()));
        close(quick_gelu, x.clone() * stock::sigmoid(x.clone() * 1.702));
        if !is_cpu(&device) {
            assert!(relu(&on(&device, &x)).is_none(), "burn's is used");
            continue;
        }
        close(relu, stock::relu(x.clone()));
        // What has gone wrong stays visible. (A GPU need not know NaN.)
        let nan = Tensor::<1>::from_floats([f32::NAN], &device);
        for act in [silu, gelu, quick_gelu] {
            assert!(act(&nan).unwrap().into_scalar::<f32>().is_nan());
        }
    }
    for (batch, tokens, width) in [(1, 1, 1), (2, 3, 5), (1, 70, 300), (1, 3, 8195)] {
        let x = random([batch, tokens, 2 * width]);
        let (value, gate) = (x.clone().narrow(2, 0, width), x.clone().narrow(2, width, width));
        let stock = value * stock::gelu(gate);
        for device in devices() {
            assert_close(geglu(&on(&device, &x)).unwrap(), stock.clone(), 4);
        }
    }
}

#[test]
fn gradients_and_other_numbers_are_left_to_burn() {
    let x = random([1, 2, 3, 4]);
    assert!(silu(&x).is_some());
    assert!(silu(&x.clone().cast(DType::F16)).is_none());
    {
        let device = Device::flex().autodiff();
        let recorded = Tensor::<4>::ones([1, 2, 3, 4], &device);
        assert!(silu(&recorded).is_none());
        let weight = Tensor::<2>::ones([5, 4], &device).require_grad();
        assert!(linear(&x, &weight, None, None).is_none());
    }
}

/// A 3×3 convolution that keeps the size.
const WHOLE: Window = Window { stride: 1, padding: 1, seen: None };

/// What kernels of WebGPU do in one pass; on the CPU it is left to the layers.
#[test]
fn fused_is_one_after_the_other() {
    for (batch, channels_in, channels_out, height, width) in
        [(1, 1, 1, 1, 1), (2, 3, 5, 4, 4), (1, 8, 33, 5, 3), (1, 2, 3, 1, 8), (2, 4, 8, 16, 10)]
    {
        let x = random([batch, channels_in, height, width]);
        let weight = random([channels_out, channels_in, 3, 3]);
        let bias = random([channels_out]);
        let options = ops::ConvOptions::new([1; 2], [1; 2], [1, 1], 1);
        let conv = |x| module::conv2d(x, weight.clone(), Some(bias.clone()), options.clone());
        let (same, channels) =
            (random([batch, channels_out, height, width]), random([batch, channels_out, 1, 1]));
        let twice = crate::nn::upsample_nearest(x.clone(), 2);
        // Of one row doubled and cut to one, the width alone says that it is doubled.
        let odd = [2 * height - 1, 2 * width - usize::from(width != 8)];
        let dropped = twice.clone().slice([0..batch, 0..channels_in, 0..odd[0], 0..odd[1]]);
        for device in devices() {
            let [weight, same, channels] = [&weight, &same, &channels].map(|x| on(&device, x));
            let (x, bias) = (on(&device, &x), on(&device, &bias));
            let fused = |seen, added: Option<&Tensor<4>>| {
                conv2d(&x, &weight, Some(&bias), Window { seen, ..WHOLE }, added)
            };
            let cases = [
                (fused(None, Some(&same)), conv(on(&Device::flex(), &x)) + on(&Device::flex(), &same)),
                (
                    fused(None, Some(&channels)),
                    conv(on(&Device::flex(), &x)) + on(&Device::flex(), &channels),
                ),
                (fused(Some([2 * height, 2 * width]), None), conv(twice.clone())),
                (fused(Some(odd), None), conv(dropped.clone())),
            ];
            for (ours, stock) in cases {
                if is_cpu(&device) {
                    assert!(ours.is_none());
                } else {
                    assert_close(ours.unwrap(), stock, 9 * channels_in);
                }
            }
            assert!(fused(None, Some(&random([1, 1, 1, 1]))).is_none() || channels_out == 1, "no such shape");
        }
    }
    let (x, weight, added) = (random([2, 9, 12]), random([20, 12]), random([2, 9, 20]));
    let stock = module::linear(x.clone(), weight.clone().transpose(), None) + added.clone();
    for device in devices() {
        let ours = linear(&on(&device, &x), &on(&device, &weight), None, Some(&on(&device, &added)));
        if is_cpu(&device) {
            assert!(ours.is_none());
        } else {
            assert_close(ours.unwrap(), stock.clone(), 12);
        }
    }
}

#[test]
fn linear_to_images_is_burns() {
    for (images, from, to, [height, width]) in
        [(1, 1, 1, [1, 1]), (2, 6, 5, [3, 3]), (2, 64, 40, [4, 4]), (3, 7, 33, [5, 8]), (2, 96, 64, [32, 32])]
    {
        let (x, weight) = (random([images, height * width, from]), random([to, from]));
        let (bias, added) = (random([to]), random([images, to, height, width]));
        let product = module::linear(x.clone(), weight.clone().transpose(), Some(bias.clone()));
        let stock = product.swap_dims(1, 2).reshape(added.dims()) + added.clone();
        for device in devices() {
            let (x, weight, bias) = (on(&device, &x), on(&device, &weight), on(&device, &bias));
            let ours = linear_to_images(&x, &weight, Some(&bias), &on(&device, &added));
            if is_cpu(&device) {
                assert!(ours.is_none());
            } else {
                assert_close(ours.unwrap(), stock.clone(), from);
            }
        }
    }
}

/// Kernels trust their sizes: what does not fit must not reach them.
#[test]
fn what_does_not_fit_is_left_to_burn() {
    let x = random([1, 4, 5, 5]);
    let (three, four) = (random([3]), random([4]));
    assert!(conv2d(&x, &random([4, 2, 3, 3]), None, WHOLE, None).is_none(), "two groups");
    assert!(conv2d(&x, &random([4, 4, 3, 1]), None, WHOLE, None).is_none(), "not square");
    assert!(conv2d(&x, &random([4, 4, 3, 3]), Some(&three), WHOLE, None).is_none());
    assert!(conv2d(&x, &random([4, 4, 7, 7]), None, Window { padding: 0, ..WHOLE }, None).is_none());
    assert!(linear(&x, &random([2, 6]), None, None).is_none());
    assert!(linear(&x, &random([2, 5]), Some(&three), None).is_none());
    let tokens = random([1, 6, 4]);
    assert!(linear_to_images(&tokens, &random([2, 4]), None, &random([1, 2, 5, 5])).is_none());
    assert!(linear_to_images(&tokens, &random([2, 4]), None, &random([1, 3, 2, 3])).is_none());
    assert!(linear_to_images(&tokens, &random([2, 4]), Some(&three), &random([1, 2, 2, 3])).is_none());
    assert!(group_norm(&x, &four, &four, 3, 1e-5, false).is_none());
    assert!(group_norm(&x, &three, &four, 2, 1e-5, false).is_none());
    assert!(rms_norm(&x, &four, &three, 1e-5).is_none());
    assert!(attention(&x, &x, &random([1, 4, 6, 5])).is_none());
    assert!(attention(&x, &random([1, 4, 5, 6]), &random([1, 4, 5, 6])).is_none());
}

mod numbers;
