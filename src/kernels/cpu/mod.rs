//! The kernels for the CPU, in our own SIMD: f32 on burn's `flex` backend. Inputs are read where they lie, weights in the
//! layout of checkpoints, perhaps in blocks: nothing is kept between calls.
//!
//! With the feature `rayon` the work is shared out to all processors; results do not depend on how many.

mod activation;
mod attention;
mod conv;
mod linear;
mod memory;
mod norm;
mod product;
mod simd;
mod weight_tensor;
mod weights;

use burn::backend::{BackendTensor, DispatchDevice, DispatchTensorKind, Flex};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex::FlexTensor;

use super::{Blocks, Geometry, LARGE, Sizes};
use memory::{Heads, Shared, for_each, written};
use weight_tensor::WeightTensor;

/// The tensor as flex holds it; `None` if it is another backend's, records gradients or is not f32.
fn strided<const D: usize>(x: &Tensor<D>) -> Option<FlexTensor> {
    match x.clone().into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(x)) if x.dtype() == DType::F32 => Some(x),
        _ => None,
    }
}

/// As [`strided`], its elements in order.
fn flex<const D: usize>(x: &Tensor<D>) -> Option<FlexTensor> {
    strided(x).map(|x| x.to_contiguous())
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(values, shape)))
}

/// Whether weights of that shape are held in blocks on this device.
pub(super) fn takes_blocks(device: &Device, shape: &[usize]) -> bool {
    computes(device) && shape.iter().product::<usize>() >= LARGE
}

fn computes(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

pub(super) fn in_blocks<const D: usize>(
    device: &Device,
    shape: [usize; D],
    blocks: &Blocks,
) -> Option<Tensor<D>> {
    if computes(device) { weight_tensor::hold(shape, blocks) } else { None }
}

pub(super) fn dense<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    weight_tensor::dense(x)
}

pub(super) fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    geometry: Geometry,
) -> Option<Tensor<4>> {
    let (x, weight, bias) = (flex(x)?, WeightTensor::from_tensor(weight)?, optional(bias)?);
    let out = conv::conv2d(x.as_slice()?, weight.weights()?, slice(&bias)?, geometry);
    let [height, width] = geometry.output();
    Some(tensor(out, [geometry.batch, geometry.channels_out, height, width]))
}

pub(super) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let mut shape = x.dims();
    let [to, from] = weight.dims();
    shape[D - 1] = to;
    let (x, weight, bias) = (flex(x)?, WeightTensor::from_tensor(weight)?, optional(bias)?);
    Some(tensor(linear::linear(x.as_slice()?, weight.weights()?, slice(&bias)?, [from, to]), shape))
}

pub(super) fn attention(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    weights: Option<&Tensor<3>>,
    sizes: Sizes,
) -> Option<Tensor<4>> {
    let Sizes { batch, heads, queries, dim, .. } = sizes;
    let (query, key, value, weights) = (strided(query)?, strided(key)?, strided(value)?, optional(weights)?);
    let [query_heads, key_heads, value_heads] = [Heads::of(&query)?, Heads::of(&key)?, Heads::of(&value)?];
    let out = attention::attention(query_heads, key_heads, value_heads, slice(&weights)?, sizes);
    let out = FlexTensor::from_data(TensorData::new(out, [batch, queries, heads, dim]));
    Some(Tensor::from_primitive::<Flex>(out.permute(&[0, 2, 1, 3])))
}

pub(super) fn group_norm(
    x: &Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Option<Tensor<4>> {
    let shape @ [_, channels, height, width] = x.dims();
    let (x, weight, bias) = (flex(x)?, flex(weight)?, flex(bias)?);
    let sizes = norm::Groups { channels, groups, positions: height * width, eps: eps as f32, silu };
    Some(tensor(norm::group_norm(x.as_slice()?, weight.as_slice()?, bias.as_slice()?, sizes), shape))
}

pub(super) fn rms_norm(x: &Tensor<4>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Option<Tensor<4>> {
    let shape @ [_, _, height, width] = x.dims();
    let (x, weight, bias) = (flex(x)?, flex(weight)?, flex(bias)?);
    let out = norm::rms_norm(x.as_slice()?, weight.as_slice()?, bias.as_slice()?, height * width, eps as f32);
    Some(tensor(out, shape))
}

pub(super) fn silu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, &activation::Silu)
}

pub(super) fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, &activation::Gelu)
}

pub(super) fn quick_gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, &activation::QuickGelu)
}

pub(super) fn relu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, &activation::Relu)
}

fn elementwise<const D: usize>(x: &Tensor<D>, map: &impl simd::Map) -> Option<Tensor<D>> {
    Some(tensor(activation::elementwise(flex(x)?.as_slice()?, map), x.dims()))
}

pub(super) fn geglu(x: &Tensor<3>) -> Option<Tensor<3>> {
    let [batch, tokens, width] = x.dims();
    Some(tensor(activation::geglu(flex(x)?.as_slice()?, width / 2), [batch, tokens, width / 2]))
}

/// `None` only if there is a tensor that is not flex's.
fn optional<const D: usize>(x: Option<&Tensor<D>>) -> Option<Option<FlexTensor>> {
    x.map_or(Some(None), |x| flex(x).map(Some))
}

fn slice(x: &Option<FlexTensor>) -> Option<Option<&[f32]>> {
    x.as_ref().map_or(Some(None), |x| x.as_slice().map(Some))
}

impl<'a> Heads<'a> {
    /// `None` where a token's floats do not lie side by side.
    fn of(x: &'a FlexTensor) -> Option<Self> {
        let layout = x.layout();
        let &[batch, head, token, 1] = layout.strides() else { return None };
        let [batch, head, token] = [batch, head, token].map(|stride| usize::try_from(stride).ok());
        let values = &x.storage::<f32>()[layout.start_offset()..];
        Some(Self { values, batch: batch?, head: head?, token: token? })
    }
}

#[cfg(test)]
mod tests;
