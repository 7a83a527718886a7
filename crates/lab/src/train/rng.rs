//! The random numbers of training: batches, augmentation, timesteps, noise.

/// SplitMix64 (Steele, Lea and Flood 2014): one word of state, so that any step's numbers can be had at once.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Numbers that depend on `seed` and `stream` alone.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self { state: seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03) };
        rng.next_u64();
        rng
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// An index below `count` (0 if `count` is 0).
    pub fn below(&mut self, count: usize) -> usize {
        ((self.next_u64() as u128 * count as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Two independent standard normal numbers (Box and Muller 1958).
    fn normal_pair(&mut self) -> (f32, f32) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * self.uniform()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// `count` standard normal numbers.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(count + 1);
        while out.len() < count {
            let (a, b) = self.normal_pair();
            out.extend([a, b]);
        }
        out.truncate(count);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_are_standard_and_streams_differ() {
        let values = Rng::new(1, 2).normals(100_000);
        let mean = values.iter().sum::<f32>() / 1e5;
        let var = values.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03, "{mean} {var}");
        assert_ne!(Rng::new(1, 2).next_u64(), Rng::new(1, 3).next_u64());
        assert_ne!(Rng::new(1, 2).next_u64(), Rng::new(2, 2).next_u64());
    }

    #[test]
    fn below_covers_its_range_and_no_more() {
        let mut rng = Rng::new(0, 0);
        let mut seen = [0; 5];
        (0..1000).for_each(|_| seen[rng.below(5)] += 1);
        assert!(seen.iter().all(|n| *n > 100), "{seen:?}");
    }

    /// The reference's numbers for seed 0 (`splitmix64.c`), of which the first is passed over.
    #[test]
    fn numbers_are_splitmix64s() {
        let mut rng = Rng::new(0, 0);
        assert_eq!([rng.next_u64(), rng.next_u64()], [0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
        let share = 0x6E_789E as f32 / 16_777_216.0;
        assert_eq!(Rng::new(0, 0).uniform(), share);
        assert_eq!(Rng::new(0, 0).range(-3.0, 5.0), -3.0 + 8.0 * share);
        assert!(Rng::new(0, 0).chance(share + 1e-3) && !Rng::new(0, 0).chance(share));
        // Box and Muller's pair.
        let second = 0x06_C45D as f64 / 16_777_216.0;
        let radius = (-2.0 * (1.0 - f64::from(share)).ln()).sqrt();
        let expected = [(std::f64::consts::TAU * second).cos(), (std::f64::consts::TAU * second).sin()];
        let found = Rng::new(0, 0).normals(3);
        assert_eq!(found.len(), 3);
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - radius * expected).abs() < 1e-5, "{found}");
        }
    }
}
