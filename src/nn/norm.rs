use burn::module::{Module, Param, RunningState};
use burn::tensor::{DType, Device, Tensor, module};

use super::{Activation, lazy};
use crate::kernels;

fn ones(size: usize, device: &Device) -> Param<Tensor<1>> {
    lazy([size], device, |shape, device| Tensor::ones(shape, device))
}

fn zeros(size: usize, device: &Device) -> Param<Tensor<1>> {
    lazy([size], device, |shape, device| Tensor::zeros(shape, device))
}

/// Group normalisation over `[n, c, h, w]`.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[c]`.
    pub weight: Param<Tensor<1>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `channels` must be a multiple of `groups`.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        Self { weight: ones(channels, device), bias: zeros(channels, device), groups, eps }
    }

    /// `[n, c, h, w]` → the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.normalise(x, false)
    }

    /// Normalises and activates, `[n, c, h, w]` → the same shape.
    pub fn activated(&self, x: Tensor<4>, act: Activation) -> Tensor<4> {
        match act {
            Activation::Silu => self.normalise(x, true),
            act => act.forward(self.normalise(x, false)),
        }
    }

    /// As `activated` of the map whose rows are those of `strips`, one below the other; each strip `[n, c, rows, w]`.
    ///
    /// The strips' statistics are put together as Chan, Golub and LeVeque do ("Algorithms for computing the sample
    /// variance", equation 1.5, of any number of parts).
    pub fn activated_strips(&self, strips: &[Tensor<4>], act: Activation) -> Vec<Tensor<4>> {
        let parts: Vec<_> = strips
            .iter()
            .map(|x| {
                let [n, c, h, w] = x.dims();
                let x = x.clone().cast(DType::F32).reshape([n, self.groups, c / self.groups * h * w]);
                let mean = x.clone().mean_dim(2);
                let squares = (x - mean.clone()).square().sum_dim(2);
                ((c / self.groups * h * w) as f64, mean, squares)
            })
            .collect();
        let sum = |terms: &mut dyn Iterator<Item = Tensor<3>>| terms.reduce(|a, b| a + b);
        let count: f64 = parts.iter().map(|(count, _, _)| count).sum();
        let Some(mean) = sum(&mut parts.iter().map(|(n, mean, _)| mean.clone() * (n / count))) else {
            return Vec::new();
        };
        let apart = |(n, part, squares): &(f64, Tensor<3>, Tensor<3>)| {
            (part.clone() - mean.clone()).square() * *n + squares.clone()
        };
        let Some(squares) = sum(&mut parts.iter().map(apart)) else { return Vec::new() };
        let scale = (squares / count + self.eps).sqrt().recip();
        let channels = self.weight.val().dims()[0];
        let per_group = |x: Tensor<1>| x.reshape([1, self.groups, channels / self.groups]);
        let weight = per_group(self.weight.val()) * scale;
        let bias = per_group(self.bias.val()) - mean * weight.clone();
        let [weight, bias] = [weight, bias].map(|x| {
            let [n, _, _] = x.dims();
            x.reshape([n, channels, 1, 1])
        });
        let normalise = |x: &Tensor<4>| {
            let dtype = x.dtype();
            act.forward((x.clone().cast(DType::F32) * weight.clone() + bias.clone()).cast(dtype))
        };
        strips.iter().map(normalise).collect()
    }

    fn normalise(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        if let Some(out) =
            kernels::group_norm(&x, &self.weight.val(), &self.bias.val(), self.groups, self.eps, silu)
        {
            return out;
        }
        let dtype = x.dtype();
        let x = x.cast(DType::F32).reshape([n, self.groups, c / self.groups * h * w]);
        let mean = x.clone().mean_dim(2);
        let x = x - mean;
        let variance = x.clone().square().mean_dim(2);
        let x = (x / (variance + self.eps).sqrt()).reshape([n, c, h, w]);
        let x = x * self.weight.val().reshape([1, c, 1, 1]) + self.bias.val().reshape([1, c, 1, 1]);
        let x = x.cast(dtype);
        if silu { Activation::Silu.forward(x) } else { x }
    }
}

/// Layer normalisation over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[dim]`.
    pub weight: Param<Tensor<1>>,
    /// `[dim]`.
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// Over a last dimension of `dim`.
    pub fn new(dim: usize, eps: f64, device: &Device) -> Self {
        Self { weight: ones(dim, device), bias: zeros(dim, device), eps }
    }

    /// `[.., dim]` → the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Layer normalisation of `x` `[.., dim]` with a given `weight` and `bias`, `[dim]` in f32: what a modulated norm is, whose scale
/// and shift are computed.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    if let Some(out) = kernels::layer_norm(&x, &weight, &bias, eps) {
        return out;
    }
    let dtype = x.dtype();
    module::layer_norm(x.cast(DType::F32), weight, Some(bias), eps).cast(dtype)
}

/// Root-mean-square normalisation over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467), as PyTorch's `RMSNorm`.
#[derive(Module, Debug)]
pub struct TokenRmsNorm {
    /// `[dim]`.
    pub weight: Param<Tensor<1>>,
    eps: f64,
}

impl TokenRmsNorm {
    /// Over a last dimension of `dim`.
    pub fn new(dim: usize, eps: f64, device: &Device) -> Self {
        Self { weight: ones(dim, device), eps }
    }

    /// `[.., dim]` → the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let x = x.cast(DType::F32);
        let scale = (x.clone().square().mean_dim(D - 1) + self.eps).sqrt().recip();
        (x * scale * self.weight.val().unsqueeze::<D>()).cast(dtype)
    }
}

/// Root-mean-square normalisation over the channels of `[n, c, h, w]`, with a bias (diffusers' `RMSNorm`
/// as `AutoencoderDC` uses it, channels moved last).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[c]`.
    pub weight: Param<Tensor<1>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    /// Over `channels`.
    pub fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self { weight: ones(channels, device), bias: zeros(channels, device), eps }
    }

    /// `[n, c, h, w]` → the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, c, _, _] = x.dims();
        if let Some(out) = kernels::rms_norm(&x, &self.weight.val(), &self.bias.val(), self.eps) {
            return out;
        }
        let dtype = x.dtype();
        let x = x.cast(DType::F32);
        let scale = (x.clone().square().mean_dim(1) + self.eps).sqrt().recip();
        let x = x * scale * self.weight.val().reshape([1, c, 1, 1]) + self.bias.val().reshape([1, c, 1, 1]);
        x.cast(dtype)
    }
}

/// Batch normalisation over the channels (dimension 1), with running statistics for inference.
///
/// Uses the batch's statistics while gradients are recorded, the running ones otherwise.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[c]`.
    pub weight: Param<Tensor<1>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    /// `[c]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// `[c]`.
    pub running_var: RunningState<Tensor<1>>,
    eps: f64,
}

/// PyTorch's default update rate of the running statistics.
const MOMENTUM: f64 = 0.1;

impl BatchNorm {
    /// Over `channels`.
    pub fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: ones(channels, device),
            bias: zeros(channels, device),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            eps,
        }
    }

    /// `[n, c, ..]` → the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let x = x.cast(DType::F32);
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !weight.is_require_grad() {
            let (mean, var) = (self.running_mean.value(), self.running_var.value());
            return module::batch_norm(x, weight, bias, mean, var, self.eps).cast(dtype);
        }
        let count: usize = x.dims().iter().product::<usize>() / x.dims()[1];
        let out = module::batch_norm_train(x, weight, bias, self.eps);
        // PyTorch keeps the unbiased variance.
        let unbiased = out.variance * (count as f64 / (count.max(2) - 1) as f64);
        self.running_mean.update(self.running_mean.value_sync() * (1.0 - MOMENTUM) + out.mean * MOMENTUM);
        self.running_var.update(self.running_var.value_sync() * (1.0 - MOMENTUM) + unbiased * MOMENTUM);
        out.output.cast(dtype)
    }
}
