//! Noise that is the same on every backend and platform for a seed.

use burn::tensor::{Device, Tensor, TensorData};

/// Standard normal numbers from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
/// and Box and Muller (1958), in f64 with `libm`'s portable functions and rounded to f32 last.
///
/// Counter-based: a number depends on the seed, the stream and its index alone, never on what was drawn before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoiseSource {
    seed: u64,
}

impl NoiseSource {
    /// The source of one picture.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The first `count` numbers of `stream`; a longer draw begins with the same numbers.
    pub fn normal(&self, stream: u64, count: usize) -> Vec<f32> {
        let key = words(self.seed);
        let [stream_low, stream_high] = words(stream);
        let mut out = Vec::with_capacity(count.next_multiple_of(4));
        for block in 0..count.div_ceil(4) as u64 {
            let [low, high] = words(block);
            let [a, b, c, d] = philox([low, high, stream_low, stream_high], key);
            out.extend(box_muller(a, b));
            out.extend(box_muller(c, d));
        }
        out.truncate(count);
        out
    }

    /// The numbers of `stream` as a tensor, row-major.
    pub fn tensor<const D: usize>(&self, stream: u64, dims: [usize; D], device: &Device) -> Tensor<D> {
        let values = self.normal(stream, dims.iter().product());
        Tensor::from_data(TensorData::new(values, dims), device)
    }
}

/// Low and high half.
fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Philox4x32 with ten rounds; multipliers and Weyl constants are the paper's (table 2 and section 4.3).
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let [low0, high0] = words(u64::from(x0) * 0xD251_1F53);
        let [low1, high1] = words(u64::from(x2) * 0xCD9E_8D57);
        (x0, x1, x2, x3) = (high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [x0, x1, x2, x3]
}

/// Two independent standard normal numbers from two uniform words.
fn box_muller(a: u32, b: u32) -> [f32; 2] {
    // Half a unit keeps the uniform number off 0, where the logarithm ends.
    let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let radius = libm::sqrt(-2.0 * libm::log(uniform(a)));
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * uniform(b));
    [(radius * cos) as f32, (radius * sin) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 (the paper's library) publishes for `philox4x32 10`.
    #[test]
    fn philox_gives_the_published_answers() {
        for (counter, key, answer) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), answer);
        }
    }

    #[test]
    fn moments_are_those_of_a_standard_normal() {
        let count = 1 << 18;
        let values = NoiseSource::new(7).normal(3, count);
        let moment =
            |power: i32| values.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / count as f64;
        // Five standard errors of each moment: the moments of v, v², v³, v⁴ have variances 1, 2, 15, 96.
        for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = (moment(power) - expected).abs();
            assert!(error < 5.0 * (variance / count as f64).sqrt(), "moment {power}: off by {error}");
        }
        let neighbours = values.windows(2).map(|w| f64::from(w[0] * w[1])).sum::<f64>() / count as f64;
        assert!(neighbours.abs() < 5.0 / (count as f64).sqrt(), "neighbours correlate: {neighbours}");
    }

    #[test]
    fn numbers_depend_on_seed_stream_and_index_alone() {
        let source = NoiseSource::new(u64::MAX - 1);
        let long = source.normal(0, 1001);
        assert_eq!(source.normal(0, 10), long[..10]);
        for other in
            [source.normal(1, 1001), source.normal(1 << 32, 1001), NoiseSource::new(1).normal(0, 1001)]
        {
            assert!(long.iter().zip(&other).filter(|(a, b)| a == b).count() < 3);
        }
    }
}
