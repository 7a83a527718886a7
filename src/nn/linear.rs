use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Int, Tensor, module};

use super::{lazy, uniform_fan_in};
use crate::kernels;

/// Sizes of a [`Linear`].
#[derive(Debug, Clone, Copy)]
pub struct LinearConfig {
    d_input: usize,
    d_output: usize,
    bias: bool,
}

impl LinearConfig {
    /// With a bias.
    pub fn new(d_input: usize, d_output: usize) -> Self {
        Self { d_input, d_output, bias: true }
    }

    /// With or without a bias.
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Creates the layer with zeros: what it adds to others is learnt from nothing.
    pub fn init_zero(&self, device: &Device) -> Linear {
        Linear {
            weight: lazy([self.d_output, self.d_input], device, |shape, device| Tensor::zeros(shape, device)),
            bias: self
                .bias
                .then(|| lazy([self.d_output], device, |shape, device| Tensor::zeros(shape, device))),
        }
    }

    /// Creates the layer (PyTorch's default initialisation).
    pub fn init(&self, device: &Device) -> Linear {
        Linear {
            weight: uniform_fan_in([self.d_output, self.d_input], self.d_input, device),
            bias: self.bias.then(|| uniform_fan_in([self.d_output], self.d_input, device)),
        }
    }
}

/// `y = x Wᵀ + b`; `weight` is `[out, in]` as in checkpoints.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if let Some(out) = self.fused(&x, None) {
            return out;
        }
        let dtype = x.dtype();
        let weight = kernels::dense(self.weight.val()).cast(dtype);
        let bias = self.bias.as_ref().map(|b| b.val().cast(dtype));
        // As one product, and so is the weight's gradient: it would be one for each of the batch, and their sum.
        let mut dims = x.dims();
        let (rows, width) = (dims[..D - 1].iter().product::<usize>(), dims[D - 1]);
        let out = module::linear(x.reshape([rows, width]), weight.transpose(), bias);
        dims[D - 1] = out.dims()[1];
        out.reshape(dims)
    }

    /// As `forward`, and `added`: `[.., out]`.
    pub fn forward_added<const D: usize>(&self, x: Tensor<D>, added: Tensor<D>) -> Tensor<D> {
        self.fused(&x, Some(&added)).unwrap_or_else(|| self.forward(x) + added)
    }

    /// Of a feature map's positions, laid as the feature map and added to it: `x`: `[n, h · w, in]`, `added`:
    /// `[n, out, h, w]` → the same shape. What a 1×1 convolution does with channels last.
    pub fn forward_to_images(&self, x: Tensor<3>, added: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        if let Some(out) = kernels::linear_to_images(&x, &self.weight.val(), bias.as_ref(), &added) {
            return out;
        }
        self.forward(x).swap_dims(1, 2).reshape(added.dims()) + added
    }

    fn fused<const D: usize>(&self, x: &Tensor<D>, added: Option<&Tensor<D>>) -> Option<Tensor<D>> {
        let bias = self.bias.as_ref().map(Param::val);
        kernels::linear(x, &self.weight.val(), bias.as_ref(), added)
    }
}

/// A table of vectors; `weight` is `[count, dim]`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[count, dim]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Creates the table, normal with standard deviation `std`.
    pub fn new(count: usize, dim: usize, std: f64, device: &Device) -> Self {
        Self {
            weight: lazy([count, dim], device, move |shape, device| {
                Tensor::random(shape, Distribution::Normal(0.0, std), device)
            }),
        }
    }

    /// `[batch, tokens]` → `[batch, tokens, dim]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        module::embedding(self.weight.val(), ids)
    }
}
