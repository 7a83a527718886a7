//! Tensors' values, waited for.

use burn::tensor::Tensor;

use facestudio::error::{Error, Result};
use facestudio::nn;

/// A tensor's values, row-major; `what` tells the tensor in errors.
pub fn read_back<const D: usize>(tensor: Tensor<D>, what: &str) -> Result<Vec<f32>> {
    pollster::block_on(nn::read_back(tensor, what))
}

/// The value of a tensor of one element.
pub fn read_scalar(tensor: Tensor<1>, what: &str) -> Result<f32> {
    let values = read_back(tensor, what)?;
    values.first().copied().ok_or_else(|| Error::internal("read-back", format!("{what} has no value")))
}
