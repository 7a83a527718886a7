//! What a denoiser's output means: from it, the clean sample and the noise.

use burn::tensor::Tensor;

use super::NoiseLevel;

/// What the denoiser was trained to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise ε.
    #[default]
    Epsilon,
    /// The velocity `v = α ε − σ x₀` (Salimans and Ho 2022, section 4), with α² + σ² = 1.
    VPrediction,
    /// The clean sample x₀.
    Sample,
    /// The velocity `v = ε − x₀` of flow matching (Liu et al. 2022, arXiv 2209.03003, equation 1), with α + σ = 1. Configs
    /// say so by their class, never by this name.
    #[serde(skip)]
    Flow,
}

impl Prediction {
    /// x₀ from the noisy sample `α x₀ + σ ε` and the model's output, both of one shape.
    pub fn original(self, level: NoiseLevel, sample: &Tensor<4>, model_output: &Tensor<4>) -> Tensor<4> {
        let NoiseLevel { alpha, sigma } = level;
        // The velocity is defined where α² + σ² = 1; elsewhere the sample is brought there first.
        let norm = (alpha * alpha + sigma * sigma).sqrt();
        match self {
            Self::Epsilon => (sample.clone() - model_output.clone() * sigma) / alpha,
            Self::VPrediction => {
                sample.clone() * (alpha / (norm * norm)) - model_output.clone() * (sigma / norm)
            }
            Self::Sample => model_output.clone(),
            Self::Flow => (sample.clone() - model_output.clone() * sigma) / (alpha + sigma),
        }
    }

    /// ε from the noisy sample and the model's output.
    pub fn epsilon(self, level: NoiseLevel, sample: &Tensor<4>, model_output: &Tensor<4>) -> Tensor<4> {
        let NoiseLevel { alpha, sigma } = level;
        let norm = (alpha * alpha + sigma * sigma).sqrt();
        match self {
            Self::Epsilon => model_output.clone(),
            Self::VPrediction => {
                model_output.clone() * (alpha / norm) + sample.clone() * (sigma / (norm * norm))
            }
            Self::Sample => (sample.clone() - model_output.clone() * alpha) / sigma,
            Self::Flow => (sample.clone() + model_output.clone() * alpha) / (alpha + sigma),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::sampling::NoiseSource;

    #[test]
    fn every_prediction_gives_back_sample_and_noise() {
        let device = Device::flex();
        let (x0, noise) = (
            NoiseSource::new(0).tensor(0, [1, 2, 3, 4], &device),
            NoiseSource::new(0).tensor(1, [1, 2, 3, 4], &device),
        );
        for level in [NoiseLevel { alpha: 0.6, sigma: 0.8 }, NoiseLevel { alpha: 1.0, sigma: 3.0 }] {
            let sample = x0.clone() * level.alpha + noise.clone() * level.sigma;
            let norm = level.alpha.hypot(level.sigma);
            let velocity = noise.clone() * (level.alpha / norm) - x0.clone() * (level.sigma / norm);
            for (prediction, output) in [
                (Prediction::Epsilon, noise.clone()),
                (Prediction::VPrediction, velocity),
                (Prediction::Sample, x0.clone()),
                (Prediction::Flow, noise.clone() - x0.clone()),
            ] {
                let error = |a: Tensor<4>, b: &Tensor<4>| (a - b.clone()).abs().max().into_scalar::<f32>();
                assert!(error(prediction.original(level, &sample, &output), &x0) < 1e-5, "{prediction:?}");
                assert!(error(prediction.epsilon(level, &sample, &output), &noise) < 1e-5, "{prediction:?}");
            }
        }
    }
}
