//! Large feature maps as strips of rows, so that no tensor is larger than a device can bind: what is computed is what the
//! whole map would give, down to rounding, and so has no seams.

use burn::tensor::Tensor;

use crate::nn::{Activation, Conv2d, GroupNorm};

/// Elements of a strip, 64 MiB of f32: with the rows of its neighbours that a convolution reaches into, still less than a
/// WebGPU device must bind at once (`maxStorageBufferBindingSize`, 128 MiB).
pub(super) const MOST: usize = 1 << 24;

/// A feature map `[n, c, h, w]`, cut between rows from top to bottom; one strip where it is small.
#[derive(Debug, Clone)]
pub(super) struct Strips {
    rows: Vec<Tensor<4>>,
    /// Elements that a strip may have.
    most: usize,
}

impl Strips {
    /// Of a whole map, in strips of at most so many elements, or of one row.
    pub fn split(x: Tensor<4>, most: usize) -> Self {
        Self { rows: vec![x], most }.cut(1)
    }

    /// The whole map.
    pub fn join(mut self) -> Tensor<4> {
        if self.rows.len() > 1 { Tensor::cat(self.rows, 2) } else { self.rows.remove(0) }
    }

    /// Cut so that no strip has more than is allowed when each of its elements becomes `grown`.
    fn cut(self, grown: usize) -> Self {
        let most = self.most;
        let rows = self.rows.into_iter().flat_map(|x| {
            let [n, c, h, w] = x.dims();
            let height = (most / (n * c * w * grown).max(1)).clamp(1, h);
            let strips = h.div_ceil(height);
            (0..strips).map(move |i| {
                let (start, end) = (i * h / strips, (i + 1) * h / strips);
                if strips == 1 { x.clone() } else { x.clone().narrow(2, start, end - start) }
            })
        });
        Self { rows: rows.collect(), most }
    }

    /// A convolution of stride 1 that keeps the size, of the map upsampled `factor` times (nearest neighbour).
    pub fn conv(self, conv: &Conv2d, factor: usize) -> Self {
        let [channels_out, channels_in, kernel, _] = conv.weight.val().dims();
        let cut = self.cut((factor * factor * channels_out).div_ceil(channels_in));
        // Rows of the neighbours that a window reaches into.
        let halo = (kernel / 2).div_ceil(factor);
        let last = cut.rows.len() - 1;
        let rows = (0..=last).map(|i| {
            let x = &cut.rows[i];
            let [_, _, h, w] = x.dims();
            let above = rows_of(&cut.rows[..i], halo, true);
            let below = rows_of(&cut.rows[i + 1..], halo, false);
            let skip = above.iter().map(|x| x.dims()[2]).sum::<usize>();
            let parts: Vec<_> = above.into_iter().chain([x.clone()]).chain(below).collect();
            let x = if parts.len() > 1 { Tensor::cat(parts, 2) } else { x.clone() };
            let with_halo = x.dims()[2];
            let out = if factor == 1 {
                conv.forward(x)
            } else {
                conv.forward_upsampled(x, [factor * with_halo, factor * w])
            };
            if with_halo == h { out } else { out.narrow(2, factor * skip, factor * h) }
        });
        Self { rows: rows.collect(), most: cut.most }
    }

    /// Normalises over the whole map, and activates.
    pub fn normalised(&self, norm: &GroupNorm, act: Activation) -> Self {
        let rows = match self.rows.as_slice() {
            [whole] => vec![norm.activated(whole.clone(), act)],
            rows => norm.activated_strips(rows, act),
        };
        Self { rows, most: self.most }
    }

    /// As `conv` without upsampling, and `added`, which must be cut as the result is: maps that convolutions with the same
    /// channels made of the same map are.
    pub fn conv_added(self, conv: &Conv2d, added: Self) -> Self {
        let most = self.most;
        let rows = match (self.rows.as_slice(), added.rows.as_slice()) {
            ([x], [added]) => vec![conv.forward_added(x.clone(), added.clone())],
            _ => self.conv(conv, 1).rows.into_iter().zip(added.rows).map(|(a, b)| a + b).collect(),
        };
        Self { rows, most }
    }
}

/// The `count` rows of `strips` that are nearest to its end, or to its beginning; fewer where there are no more.
fn rows_of(strips: &[Tensor<4>], count: usize, end: bool) -> Vec<Tensor<4>> {
    let mut found = Vec::new();
    let mut left = count;
    for i in 0..strips.len() {
        let strip = if end { &strips[strips.len() - 1 - i] } else { &strips[i] };
        let height = strip.dims()[2];
        let taken = left.min(height);
        if taken == 0 {
            break;
        }
        found.push(strip.clone().narrow(2, if end { height - taken } else { 0 }, taken));
        left -= taken;
    }
    if end {
        found.reverse();
    }
    found
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::nn::Conv2dConfig;

    #[test]
    fn strips_are_the_whole() {
        let device = Device::flex();
        let x = Tensor::<4>::random([2, 6, 13, 5], Distribution::Normal(7.0, 2.0), &device);
        let norm = GroupNorm::new(3, 6, 1e-6, &device);
        for (to, kernel, factor) in [(6, 3, 1), (4, 3, 2), (9, 1, 1), (6, 5, 1)] {
            let conv = Conv2dConfig::new(6, to, kernel).with_padding(kernel / 2).init(&device);
            let run = |most| {
                let x = Strips::split(x.clone(), most);
                let normed = x.normalised(&norm, Activation::Silu);
                let made = match factor {
                    1 => normed.conv_added(&conv, x.conv(&conv, 1)),
                    _ => normed.conv(&conv, factor),
                };
                (made.rows.len(), made.join())
            };
            let (count, whole) = run(MOST);
            assert_eq!(count, 1);
            // One row a strip, then a few.
            for most in [1, 2 * 6 * 5 * 4, 2 * 6 * 5 * 13 - 1] {
                let (count, strips) = run(most);
                assert!(count > 1);
                assert_eq!(strips.dims(), whole.dims());
                let off: f32 = (strips - whole.clone()).abs().max().into_scalar();
                assert!(off < 2e-5, "{most}: {off}");
            }
        }
    }
}
