//! Figures with their 95 % intervals.

use serde::{Deserialize, Deserializer, Serialize};

use facestudio_synth::Rng;

/// Resamples of a bootstrap; 2,000 are usual for percentile intervals (Efron and Tibshirani 1993, section 13.3).
const RESAMPLES: usize = 2000;
/// The quantile of the standard normal distribution at 97.5 %.
const Z: f64 = 1.959_963_985;

/// A figure and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure.
    #[serde(deserialize_with = "or_nan")]
    pub value: f64,
    /// Lower end of the interval.
    #[serde(deserialize_with = "or_nan")]
    pub low: f64,
    /// Upper end.
    #[serde(deserialize_with = "or_nan")]
    pub high: f64,
    /// How many independent trials it rests on.
    pub n: usize,
}

impl Estimate {
    /// The same on another scale, `factor · x + offset`, for a positive factor.
    pub fn scaled(self, factor: f64, offset: f64) -> Self {
        let map = |x: f64| factor * x + offset;
        Self { value: map(self.value), low: map(self.low), high: map(self.high), n: self.n }
    }
}

/// JSON has no NaN: it is written as `null`, and read back here.
pub fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// `statistic` of all of `n` trials, with the percentile interval of its values on resamples of the trials: it gets the
/// indices of the trials, some of them repeatedly. The resamples are the same on every call.
///
/// Without trials there is no figure: everything is NaN.
pub fn bootstrap(n: usize, statistic: impl Fn(&[usize]) -> f64) -> Estimate {
    if n == 0 {
        return Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n };
    }
    let all: Vec<usize> = (0..n).collect();
    let value = statistic(&all);
    let mut rng = Rng::new(0xB007, n as u64);
    let mut resample = all;
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample.iter_mut().for_each(|i| *i = rng.below(n));
            statistic(&resample)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values[((RESAMPLES - 1) as f64 * q).round() as usize];
    Estimate { value, low: quantile(0.025), high: quantile(0.975), n }
}

/// The mean of one value a trial, by [`bootstrap`].
pub fn mean(values: &[f64]) -> Estimate {
    bootstrap(values.len(), |trials| trials.iter().map(|i| values[*i]).sum::<f64>() / trials.len() as f64)
}

/// A share of yes-or-no trials, with Wilson's score interval (Wilson 1927), which stays inside 0 to 1 and has a width
/// even where all trials agree.
pub fn share(yes: usize, n: usize) -> Estimate {
    share_of_groups(yes, n, n)
}

/// [`share`] of trials that come in groups, such as the regions of one picture, and are not independent within one: the
/// interval is that of as many trials as there are groups, the widest that it could be.
pub fn share_of_groups(yes: usize, n: usize, groups: usize) -> Estimate {
    if n == 0 || groups == 0 {
        return Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: 0 };
    }
    let (count, p) = (groups as f64, yes as f64 / n as f64);
    let scale = 1.0 + Z * Z / count;
    let centre = (p + Z * Z / (2.0 * count)) / scale;
    let half = Z / scale * (p * (1.0 - p) / count + Z * Z / (4.0 * count * count)).sqrt();
    Estimate { value: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0), n: groups }
}

/// [`share`] of those that are true.
pub fn share_of(trials: impl IntoIterator<Item = bool>) -> Estimate {
    let (yes, n) = trials.into_iter().fold((0, 0), |(yes, n), trial| (yes + usize::from(trial), n + 1));
    share(yes, n)
}

/// The middle value; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Pearson's correlation; NaN where one side does not vary.
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len()) as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - mean_a) * (y - mean_b);
        aa += (x - mean_a).powi(2);
        bb += (y - mean_b).powi(2);
    }
    ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_is_the_published_one() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
        for (yes, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
        {
            let estimate = share(yes, n);
            assert!((estimate.low - low).abs() < 1e-4 && (estimate.high - high).abs() < 1e-4, "{estimate:?}");
        }
    }

    #[test]
    fn the_bootstrap_of_a_mean_agrees_with_its_standard_error() {
        let mut rng = Rng::new(1, 1);
        let values: Vec<f64> = (0..400).map(|_| f64::from(rng.unit())).collect();
        let estimate = mean(&values);
        let half = Z * (1.0f64 / 12.0 / 400.0).sqrt();
        assert!(((estimate.high - estimate.low) / (2.0 * half) - 1.0).abs() < 0.1, "{estimate:?}");
        assert!(estimate.low < estimate.value && estimate.value < estimate.high);
        assert_eq!(mean(&values), estimate);
        assert!(mean(&[]).value.is_nan() && share(0, 0).low.is_nan());
        let json = serde_json::to_string(&mean(&[])).unwrap();
        assert!(serde_json::from_str::<Estimate>(&json).unwrap().value.is_nan(), "{json}");
    }

    #[test]
    fn correlation_knows_its_ends() {
        let a = [1.0, 2.0, 4.0];
        assert!((correlation(&a, &[3.0, 5.0, 9.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&a, &[-1.0, -2.0, -4.0]) + 1.0).abs() < 1e-12);
        assert!(correlation(&a, &[1.0; 3]).is_nan());
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }
}
