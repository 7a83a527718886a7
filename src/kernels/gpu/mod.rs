//! The kernels for WebGPU, in WGSL: f32, or f16 that is computed in f32, and weights as they were stored: in f16, or in
//! blocks. Each shape of a kernel is a text of its own, made for its tiles, its window and its layout; sizes are read at run time, so that a network needs few of them.

mod activation;
mod attention;
mod blocks;
mod launch;
mod norm;
mod parts;
mod product;
#[cfg(all(feature = "cpu", any(test, target_family = "wasm")))]
mod proof;
mod slices;
#[cfg(any(test, target_family = "wasm"))]
mod times;
#[cfg(any(test, target_family = "wasm"))]
mod tune;

use activation::Function;
use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device, Tensor};
use launch::Operand;
use parts::{Part, used};

#[cfg(target_family = "wasm")]
use super::Tiles;
use super::{Blocks, Geometry, Sizes};

/// Whether the kernels take tensors of f16 on this device.
pub(super) fn takes_halves(device: &Device) -> bool {
    let DispatchDevice::Cube(cube) = device.as_dispatch() else { return false };
    used(Part::Halves) && cube.client().name() == launch::RUNTIME && device.supports_dtype(DType::F16)
}

/// Whether weights of that shape, `[out, ..]`, may be f16 on this device.
pub(super) fn takes_half_weights(device: &Device, shape: &[usize]) -> bool {
    used(Part::HalfWeights) && reads_weights(device, shape)
}

/// Whether weights of that shape may be held in blocks of so many bits.
pub(super) fn takes_blocks(device: &Device, shape: &[usize], bits: usize) -> bool {
    used(if bits == 4 { Part::Blocks4 } else { Part::Blocks8 }) && reads_weights(device, shape)
}

/// Whether products read weights of that shape as they were stored: burn's own operations do not.
fn reads_weights(device: &Device, shape: &[usize]) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
        && [Part::Conv2d, Part::Linear].into_iter().all(used)
        && shape.len() > 1
        && shape[1..].iter().product::<usize>().is_multiple_of(4)
}

/// See [`super::measure_tiles`].
#[cfg(target_family = "wasm")]
pub(super) async fn measure_tiles(device: &Device, now: impl Fn() -> f64) -> Option<Tiles> {
    tune::borders(device, now).await
}

/// See [`super::set_tiles`].
#[cfg(target_family = "wasm")]
pub(super) fn set_tiles(tiles: Tiles) -> bool {
    let known = tune::possible(&tiles);
    if known {
        product::set_borders(tiles);
    }
    known
}

/// See [`super::tiles`].
#[cfg(target_family = "wasm")]
pub(super) fn tiles() -> Tiles {
    product::borders()
}

#[cfg(target_family = "wasm")]
pub(super) use slices::set_rate;
#[cfg(target_family = "wasm")]
pub(super) use times::time;
#[cfg(target_family = "wasm")]
pub(super) use tune::rate;

#[cfg(target_family = "wasm")]
pub(super) use parts::leave_out;
#[cfg(all(feature = "cpu", target_family = "wasm"))]
pub(super) use proof::prove;

pub(super) fn in_blocks<const D: usize>(
    device: &Device,
    shape: [usize; D],
    blocks: &Blocks,
) -> Option<Tensor<D>> {
    let DispatchDevice::Cube(cube) = device.as_dispatch() else { return None };
    if !blocks.fits(&shape) || !takes_blocks(device, &shape, blocks.bits) {
        return None;
    }
    blocks::hold(cube, shape, blocks)
}

pub(super) fn dense<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    blocks::dense(&Operand::in_blocks(x)?, x.dims())
}

pub(super) fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    geometry: Geometry,
    added: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    if !used(Part::Conv2d) {
        return None;
    }
    let [_, _, height, width] = x.dims();
    let scale = geometry.height.div_ceil(height).max(geometry.width.div_ceil(width));
    let channels = added.is_some_and(|added| added.dims()[2..] == [1, 1]) && geometry.output() != [1, 1];
    let added = match added {
        Some(added) if channels => product::Added::Channels(Operand::from_tensor(added)?),
        Some(added) => product::Added::Same(Operand::from_tensor(added)?),
        None => product::Added::None,
    };
    let (x, weight, bias) = (Operand::from_tensor(x)?, Operand::weights(weight)?, Operand::optional(bias)?);
    Some(product::conv2d(&x, [height, width], scale, &weight, bias.as_ref(), &added, geometry)?.tensor())
}

pub(super) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    added: Option<&Tensor<D>>,
) -> Option<Tensor<D>> {
    if !used(Part::Linear) {
        return None;
    }
    let mut shape = x.dims();
    let [to, from] = weight.dims();
    let tokens = shape[..D - 1].iter().product();
    let (weight, bias) = (Operand::weights(weight)?, Operand::optional(bias)?);
    let added = match added {
        Some(added) => product::Added::Same(Operand::from_tensor(added)?),
        None => product::Added::None,
    };
    // Feature maps seen as tokens are read where they lie.
    let (x, positions) = match transposed(x)? {
        Some((x, positions)) => (x, Some(positions)),
        None => (Operand::from_tensor(x)?, None),
    };
    let out = product::linear(&x, &weight, bias.as_ref(), &added, positions, [tokens, from, to])?;
    shape[D - 1] = to;
    Some(out.tensor::<2>().reshape(shape))
}

pub(super) fn linear_to_images(
    x: &Tensor<3>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    added: &Tensor<4>,
) -> Option<Tensor<4>> {
    if !used(Part::LinearToImages) {
        return None;
    }
    let [images, to, height, width] = added.dims();
    let (weight, bias, added) =
        (Operand::weights(weight)?, Operand::optional(bias)?, Operand::from_tensor(added)?);
    let sizes = [images, x.dims()[2], to];
    Some(
        product::linear_to_images(
            &Operand::from_tensor(x)?,
            &weight,
            bias.as_ref(),
            added,
            sizes,
            [height, width],
        )?
        .tensor(),
    )
}

/// The tensor and its positions if it is `[images, positions, channels]` that lies as `[images, channels, positions]`;
/// `None` outside if [`Operand`] refuses it.
#[expect(clippy::option_option)]
fn transposed<const D: usize>(x: &Tensor<D>) -> Option<Option<(Operand, usize)>> {
    let held = Operand::strided(x)?;
    let shape = x.dims();
    if D != 3 || !shape[1].is_multiple_of(4) {
        return Some(None);
    }
    let lies = held.strides() == [shape[1] * shape[2], 1, shape[1]];
    Some((lies && shape[2] > 1).then(|| (held, shape[1])))
}

pub(super) fn attention(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    weights: Option<&Tensor<3>>,
    sizes: Sizes,
) -> Option<Tensor<4>> {
    if !used(if weights.is_some() { Part::Regions } else { Part::Attention }) {
        return None;
    }
    let weights = match weights {
        Some(weights) => Some((Operand::from_tensor(weights)?, weights.dims()[0] > 1)),
        None => None,
    };
    let held = [Operand::strided(query)?, Operand::strided(key)?, Operand::strided(value)?];
    let mut strides = [[0; 3]; 3];
    for (to, held) in strides.iter_mut().zip(&held) {
        let &[image, head, token, 1] = held.strides().as_slice() else { return None };
        *to = [image, head, token];
    }
    let [query, key, value] = held;
    let weights = weights.as_ref().map(|(weights, by_image)| (weights, *by_image));
    Some(attention::attention(&query, &key, &value, weights, sizes, strides)?.tensor::<4>().swap_dims(1, 2))
}

pub(super) fn group_norm(
    x: &Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Option<Tensor<4>> {
    if !used(Part::GroupNorm) {
        return None;
    }
    let [batch, channels, height, width] = x.dims();
    let sizes = norm::Groups { batch, channels, groups, size: [height, width], eps: eps as f32, silu };
    Some(
        norm::group_norm(
            &Operand::from_tensor(x)?,
            &Operand::from_tensor(weight)?,
            &Operand::from_tensor(bias)?,
            sizes,
        )?
        .tensor(),
    )
}

pub(super) fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<D>> {
    if !used(Part::LayerNorm) {
        return None;
    }
    let shape = x.dims();
    let rows = shape[..D - 1].iter().product();
    let (x, weight, bias) =
        (Operand::from_tensor(x)?, Operand::from_tensor(weight)?, Operand::from_tensor(bias)?);
    let out = norm::layer_norm(&x, &weight, &bias, [rows, shape[D - 1]], eps as f32);
    Some(out.tensor::<2>().reshape(shape))
}

pub(super) fn rms_norm(x: &Tensor<4>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Option<Tensor<4>> {
    if !used(Part::RmsNorm) {
        return None;
    }
    let (held, weight, bias) =
        (Operand::from_tensor(x)?, Operand::from_tensor(weight)?, Operand::from_tensor(bias)?);
    Some(norm::rms_norm(&held, &weight, &bias, x.dims(), eps as f32)?.tensor())
}

pub(super) fn silu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if !used(Part::Silu) {
        return None;
    }
    Some(activation::activation(&Operand::from_tensor(x)?, Function::Silu, x.dims())?.tensor())
}

pub(super) fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if !used(Part::Gelu) {
        return None;
    }
    Some(activation::activation(&Operand::from_tensor(x)?, Function::Gelu, x.dims())?.tensor())
}

pub(super) fn quick_gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if !used(Part::QuickGelu) {
        return None;
    }
    Some(activation::activation(&Operand::from_tensor(x)?, Function::QuickGelu, x.dims())?.tensor())
}

pub(super) fn geglu(x: &Tensor<3>) -> Option<Tensor<3>> {
    if !used(Part::GeGlu) {
        return None;
    }
    let [batch, tokens, width] = x.dims();
    Some(
        activation::activation(&Operand::from_tensor(x)?, Function::GeGlu, [batch, tokens, width / 2])?
            .tensor(),
    )
}
