//! Each kernel against plain loops, with sizes that leave ends: of vectors, panels, blocks and chunks.

use super::activation::{Gelu, QuickGelu, Relu, Silu, elementwise, geglu};
use super::attention::attention;
use super::conv::conv2d;
use super::linear::linear;
use super::norm::{Groups, group_norm, rms_norm};
use super::weights::Weights;
use super::{Geometry, Heads, Sizes};

/// Numbers in -1 to 1 without a pattern.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_u32 ^ count as u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{i}: {found} is not {expected}");
    }
}

/// Integers with a scale for each 32 of a row, and the numbers that they stand for.
fn blocks(rows: usize, depth: usize) -> (Vec<i8>, Vec<f32>, Vec<f32>) {
    let integers: Vec<i8> = numbers(rows * depth).iter().map(|x| (x * 127.0) as i8).collect();
    let of_row = depth.div_ceil(32);
    let scales: Vec<f32> = numbers(rows * of_row).iter().map(|x| x.abs() / 127.0).collect();
    let dense = |i: usize| f32::from(integers[i]) * scales[i / depth * of_row + i % depth / 32];
    let values = (0..rows * depth).map(dense).collect();
    (integers, scales, values)
}

#[test]
fn activations() {
    let x = numbers(101);
    let plain = |f: fn(f32) -> f32| x.iter().map(|x| f(*x)).collect::<Vec<f32>>();
    assert_close(&elementwise(&x, &Relu), &plain(|x| x.max(0.0)));
    assert_close(&elementwise(&x, &Silu), &plain(|x| x / (1.0 + (-x).exp())));
    assert_close(&elementwise(&x, &QuickGelu), &plain(|x| x / (1.0 + (-1.702 * x).exp())));
    // With Abramowitz and Stegun's 7.1.26 for the error function.
    let gelu = |x: f32| {
        let z = x.abs() / 2f32.sqrt();
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let series = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
        let erf = 1.0 - series.iter().fold(0.0, |sum, a| (sum + a) * t) * (-z * z).exp();
        0.5 * x * (1.0 + erf * x.signum())
    };
    assert_close(&elementwise(&x, &Gelu), &plain(gelu));
    let gated: Vec<f32> =
        (0..3 * 7).map(|i| x[i / 7 * 14 + i % 7] * gelu(x[i / 7 * 14 + 7 + i % 7])).collect();
    assert_close(&geglu(&x[..3 * 14], 7), &gated);
}

fn product(x: &[f32], weight: &[f32], bias: &[f32], [from, to]: [usize; 2]) -> Vec<f32> {
    let one = |row: &[f32], k: usize| {
        bias[k] + row.iter().zip(&weight[k * from..]).map(|(x, w)| x * w).sum::<f32>()
    };
    x.chunks_exact(from).flat_map(|row| (0..to).map(move |k| one(row, k))).collect()
}

#[test]
fn linear_layers() {
    for (tokens, from, to) in [(1, 5, 3), (1, 70, 9), (3, 33, 20), (14, 40, 37), (30, 3, 2)] {
        let (x, bias) = (numbers(tokens * from), numbers(to));
        let (integers, scales, values) = blocks(to, from);
        let expected = product(&x, &values, &bias, [from, to]);
        assert_close(&linear(&x, Weights::Numbers(&values), Some(&bias), [from, to]), &expected);
        let held = Weights::Blocks { integers: &integers, scales: &scales };
        assert_close(&linear(&x, held, Some(&bias), [from, to]), &expected);
        assert_close(
            &linear(&x, Weights::Numbers(&values), None, [from, to]),
            &product(&x, &values, &vec![0.0; to], [from, to]),
        );
    }
}

#[test]
fn convolutions() {
    for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (3, 2, 1), (3, 2, 0)] {
        let geometry = Geometry {
            batch: 2,
            channels_in: 3,
            channels_out: 5,
            height: 6,
            width: 7,
            kernel,
            stride,
            padding,
        };
        let [height, width] = geometry.output();
        let x = numbers(2 * 3 * 6 * 7);
        let (integers, scales, weight) = blocks(5, 3 * kernel * kernel);
        let bias = numbers(5);
        let at = |n: usize, c: usize, y: isize, z: isize| match (0..6).contains(&y) && (0..7).contains(&z) {
            true => x[((n * 3 + c) * 6 + y as usize) * 7 + z as usize],
            false => 0.0,
        };
        let one = |i: usize| {
            let (n, o, y, z) =
                (i / (5 * height * width), i / (height * width) % 5, i / width % height, i % width);
            let mut sum = bias[o];
            for (k, weight) in weight[o * 3 * kernel * kernel..][..3 * kernel * kernel].iter().enumerate() {
                let (c, dy, dz) = (k / (kernel * kernel), k / kernel % kernel, k % kernel);
                let place = |at: usize, d: usize| (at * stride + d) as isize - padding as isize;
                sum += weight * at(n, c, place(y, dy), place(z, dz));
            }
            sum
        };
        let expected: Vec<f32> = (0..2 * 5 * height * width).map(one).collect();
        assert_close(&conv2d(&x, Weights::Numbers(&weight), Some(&bias), geometry), &expected);
        let held = Weights::Blocks { integers: &integers, scales: &scales };
        assert_close(&conv2d(&x, held, Some(&bias), geometry), &expected);
    }
}

#[test]
fn attention_to_contexts() {
    let (batch, heads, dim, keys) = (2, 2, 5, 3);
    for (queries, contexts) in [(1, 1), (9, 2), (33, 1)] {
        let (query, key) =
            (numbers(batch * heads * queries * dim), numbers(batch * heads * contexts * keys * dim));
        let value = numbers(key.len() + 1)[1..].to_vec();
        let weights = numbers(contexts * queries);
        let of = |values, tokens: usize| Heads {
            values,
            batch: heads * tokens * dim,
            head: tokens * dim,
            token: dim,
        };
        let sizes = Sizes { batch, heads, queries, contexts, keys, dim };
        let (q, k, v) = (of(&query, queries), of(&key, contexts * keys), of(&value, contexts * keys));
        let mut expected = vec![0.0; batch * queries * heads * dim];
        for (at, out) in expected.chunks_exact_mut(dim).enumerate() {
            let (n, i, h) = (at / (queries * heads), at / heads % queries, at % heads);
            for context in 0..contexts {
                let first = context * keys;
                let score = |j: usize| {
                    let (q, k) = (q.from(n, h, i), k.from(n, h, first + j));
                    (q[..dim].iter().zip(k).map(|(q, k)| q * k).sum::<f32>() / (dim as f32).sqrt()).exp()
                };
                let scores: Vec<f32> = (0..keys).map(score).collect();
                let sum: f32 = scores.iter().sum();
                for (j, score) in scores.iter().enumerate() {
                    let weight = weights[context * queries + i] * score / sum;
                    let value = v.from(n, h, first + j);
                    out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
                }
            }
        }
        assert_close(&attention(q, k, v, Some(&weights), sizes), &expected);
    }
}

#[test]
fn norms() {
    let (channels, positions) = (6, 11);
    let (x, weight, bias) = (numbers(2 * channels * positions), numbers(channels), numbers(channels + 1));
    let bias = &bias[..channels];
    for silu in [false, true] {
        let sizes = Groups { channels, groups: 3, positions, eps: 1e-5, silu };
        let size = channels / 3 * positions;
        let one = |i: usize| {
            let group = &x[i / size * size..][..size];
            let mean = group.iter().sum::<f32>() / size as f32;
            let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / size as f32;
            let channel = i / positions % channels;
            let y = (x[i] - mean) / (variance + 1e-5).sqrt() * weight[channel] + bias[channel];
            if silu { y / (1.0 + (-y).exp()) } else { y }
        };
        let expected: Vec<f32> = (0..x.len()).map(one).collect();
        assert_close(&group_norm(&x, &weight, bias, sizes), &expected);
    }
    for positions in [11, 1, 66] {
        let x = numbers(2 * channels * positions);
        let one = |i: usize| {
            let (n, channel, at) = (i / (channels * positions), i / positions % channels, i % positions);
            let of = |c: usize| x[(n * channels + c) * positions + at];
            let square = (0..channels).map(|c| of(c).powi(2)).sum::<f32>() / channels as f32;
            x[i] / (square + 1e-5).sqrt() * weight[channel] + bias[channel]
        };
        let expected: Vec<f32> = (0..x.len()).map(one).collect();
        assert_close(&rms_norm(&x, &weight, bias, positions, 1e-5), &expected);
    }
}
