//! Tells decoded pictures from true ones, patch by patch: what a decoder has to get past in its own stage, so that it draws
//! textures where an average of all that may be there, which reconstruction alone asks for, is a blur.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, activation};

use facestudio::nn::{Activation, Conv2d, Conv2dConfig, GroupNorm};

/// Channels of the layers, each of which halves the picture.
const CHANNELS: [usize; 3] = [32, 64, 128];
/// Slope of the rectifiers for negative values (Isola et al. 2017, appendix 6.1.2).
const SLOPE: f64 = 0.2;
/// Groups of a norm.
const GROUPS: usize = 8;
/// PyTorch's default.
const EPS: f64 = 1e-5;

/// A PatchGAN (Isola et al. 2017, arXiv 1611.07004, section 3.2.2): convolutions of 4×4 with stride 2, and one score for each of
/// overlapping patches of 46×46 pixels. Group norms are in the place of batch norms, so that pictures do not mix.
#[derive(Module, Debug)]
pub struct Discriminator {
    layers: Vec<Conv2d>,
    norms: Vec<GroupNorm>,
    score: Conv2d,
}

/// What a discriminator makes of pictures, in f32.
pub struct Verdict {
    /// Each layer's output, `[n, c, h, w]`.
    pub features: Vec<Tensor<4>>,
    /// One a patch, `[n, 1, h, w]`: above 0 for a true picture.
    pub scores: Tensor<4>,
}

impl Discriminator {
    /// With random weights, for pictures of 3 channels.
    pub fn new(device: &Device) -> Self {
        let mut width = 3;
        let mut layers = Vec::with_capacity(CHANNELS.len());
        for channels in CHANNELS {
            layers.push(Conv2dConfig::new(width, channels, 4).with_stride(2).with_padding(1).init(device));
            width = channels;
        }
        Self {
            layers,
            // The first layer has none, as in the paper.
            norms: CHANNELS[1..].iter().map(|c| GroupNorm::new(GROUPS, *c, EPS, device)).collect(),
            score: Conv2dConfig::new(width, 1, 4).with_padding(1).init(device),
        }
    }

    /// The layers' kernels.
    #[cfg(test)]
    pub fn weights(&self) -> Vec<Tensor<4>> {
        self.layers.iter().map(|layer| layer.weight.val()).collect()
    }

    /// Pictures `[n, 3, h, w]` in [-1, 1], of 32 pixels and more; computed in `dtype`.
    pub fn forward(&self, pictures: Tensor<4>, dtype: DType) -> Verdict {
        let mut x = pictures.cast(dtype);
        let mut features = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if let Some(norm) = i.checked_sub(1).and_then(|i| self.norms.get(i)) {
                x = norm.forward(x);
            }
            x = activation::leaky_relu(x, SLOPE);
            features.push(x.clone().cast(DType::F32));
        }
        Verdict { features, scores: self.score.forward(x).cast(DType::F32) }
    }
}

/// What the discriminator learns from: the hinge loss (Lim and Ye 2017, arXiv 1705.02894; Esser et al. 2021 with VQGAN).
pub fn hinge(truth: &Verdict, decoded: &Verdict) -> Tensor<1> {
    let margin = |scores: Tensor<4>| Activation::Relu.forward(scores + 1.0).mean();
    (margin(-truth.scores.clone()) + margin(decoded.scores.clone())) / 2.0
}

/// What the decoder learns from: how far its pictures' scores are from being true.
pub fn deceived(decoded: &Verdict) -> Tensor<1> {
    -decoded.scores.clone().mean()
}

/// What it learns from as well, and from its start: the distance of the layers' outputs (feature matching; Wang et al. 2018,
/// arXiv 1711.11585, equation 4).
pub fn matched(truth: &Verdict, decoded: &Verdict) -> Tensor<1> {
    let distance = |(truth, decoded): (&Tensor<4>, &Tensor<4>)| {
        (truth.clone().detach() - decoded.clone()).abs().mean().unsqueeze()
    };
    let distances: Vec<Tensor<1>> = truth.features.iter().zip(&decoded.features).map(distance).collect();
    Tensor::cat(distances, 0).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    use crate::train::rng::Rng;

    fn pictures(seed: u64, device: &Device) -> Tensor<4> {
        let values = Rng::new(seed, 0).normals(2 * 3 * 32 * 32);
        Tensor::from_data(TensorData::new(values, [2, 3, 32, 32]), device)
    }

    fn verdict(score: f32, device: &Device) -> Verdict {
        Verdict {
            features: vec![Tensor::full([1, 1, 2, 2], score, device)],
            scores: Tensor::full([1, 1, 2, 2], score, device),
        }
    }

    #[test]
    fn losses_of_known_scores() {
        let device = Device::flex();
        let at = |score| verdict(score, &device);
        let value = |loss: Tensor<1>| loss.into_scalar::<f32>();
        assert_eq!(value(hinge(&at(1.5), &at(-1.5))), 0.0);
        assert_eq!(value(hinge(&at(0.0), &at(0.0))), 1.0);
        assert_eq!(value(hinge(&at(-1.0), &at(1.0))), 2.0);
        assert_eq!(value(deceived(&at(0.5))), -0.5);
        assert_eq!(value(matched(&at(2.0), &at(0.5))), 1.5);
    }

    #[test]
    fn each_side_learns_from_its_own_losses() {
        let device = Device::flex().autodiff();
        let discriminator = Discriminator::new(&device);
        let truth = discriminator.forward(pictures(1, &device), DType::F32);
        let decoded = pictures(2, &device).require_grad();

        let judged = discriminator.clone().no_grad().forward(decoded.clone(), DType::F32);
        let gradients = (deceived(&judged) + matched(&truth, &judged)).backward();
        assert!(decoded.grad(&gradients).is_some());
        assert!(discriminator.score.weight.val().grad(&gradients).is_none());
        assert!(discriminator.layers[0].weight.val().grad(&gradients).is_none());

        let judged = discriminator.forward(decoded.clone().detach(), DType::F32);
        let gradients = hinge(&truth, &judged).backward();
        assert!(decoded.grad(&gradients).is_none());
        assert!(discriminator.layers[0].weight.val().grad(&gradients).is_some());
    }

    #[test]
    fn it_scores_patches_of_pictures_of_any_size() {
        let device = Device::flex();
        let discriminator = Discriminator::new(&device);
        for (side, scores) in [(32, 3), (128, 15)] {
            let pictures = Tensor::zeros([1, 3, side, side], &device);
            assert_eq!(discriminator.forward(pictures, DType::F32).scores.dims(), [1, 1, scores, scores]);
        }
    }
}
