//! Our own kernels, behind the layers of `nn`, where no gradient is recorded: on the CPU with burn's `flex` backend (f32, weights
//! perhaps in blocks), and on WebGPU (f32, or f16 where the device computes it; weights perhaps f16 or in blocks).
//!
//! Each function computes what burn's own operations do, and returns `None` where it does not apply — another backend,
//! another type of number, a tensor that records gradients, a layout that a kernel does not read — so that the layer goes
//! on with those. Sizes are looked at here: the kernels rely on them.

#[cfg(feature = "cpu")]
#[allow(unsafe_code)]
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod sizes;

use burn::tensor::{Device, Tensor};

pub use sizes::BLOCK;
use sizes::{Geometry, Sizes};

/// What the first backend makes of it that the tensors are of.
macro_rules! first {
    ($name:ident $arguments:tt; $($backend:ident if $feature:literal),+) => {{
        $(
            #[cfg(feature = $feature)]
            if let Some(out) = $backend::$name $arguments {
                return Some(out);
            }
        )+
        None
    }};
    ($name:ident $arguments:tt) => {
        first!($name $arguments; cpu if "cpu", gpu if "gpu")
    };
}

/// From how many workgroups on the larger tiles of a product are used on the GPU, the largest first.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub type Tiles = [usize; 2];

/// Measures what [`set_tiles`] takes on a GPU; `now` is a clock in milliseconds. `None` where our kernels do not run, or the
/// device fails.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub async fn measure_tiles(device: &Device, now: impl Fn() -> f64) -> Option<Tiles> {
    gpu::measure_tiles(device, now).await
}

/// Chooses the tiles of every product from now on, in this thread. Speed depends on it, and no result. False where
/// [`measure_tiles`] never gives such numbers.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub fn set_tiles(tiles: Tiles) -> bool {
    gpu::set_tiles(tiles)
}

/// The tiles that products are chosen by.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub fn tiles() -> Tiles {
    gpu::tiles()
}

/// Computes small cases with every kernel on a GPU, and gives the names of what was wrong, which [`leave_out`] takes: of kernels,
/// of `f16`, of weights as they are stored, or `burn` where nothing can be computed there.
#[cfg(all(feature = "gpu", feature = "cpu", target_family = "wasm"))]
pub async fn prove(device: &Device) -> Vec<&'static str> {
    gpu::prove(device).await
}

/// Leaves out these kernels from now on, and no others: burn's operations take their place, f32 that of f16. False where one is
/// not known.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub fn leave_out(names: &[String]) -> bool {
    gpu::leave_out(names)
}

/// Measures what [`set_rate`] takes; `now` and `None` as of [`measure_tiles`].
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub async fn measure_rate(device: &Device, now: impl Fn() -> f64) -> Option<f64> {
    gpu::rate(device, now).await
}

/// Multiply-adds a millisecond by which long dispatches are cut from now on. False where it is no rate.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub fn set_rate(rate: f64) -> bool {
    gpu::set_rate(rate)
}

/// Milliseconds of a kernel on a GPU: `linear` of `[tokens, from, to]`, `conv2d` of `[channels in, channels out, side]` or
/// `attention` of `[heads, tokens, dimensions of a head]`, with numbers of `f32` or `f16`, or beside f32 weights of `q8` or `q4`;
/// `None` where there is none such, or the device fails.
#[cfg(all(feature = "gpu", target_family = "wasm"))]
pub async fn time_kernel(
    device: &Device,
    kernel: &str,
    numbers: &str,
    sizes: [usize; 3],
    now: impl Fn() -> f64,
) -> Option<f64> {
    gpu::time(device, kernel, numbers, sizes, now).await
}

/// Whether every kernel takes tensors of f16 on this device: they are computed in f32, and results are f16 again.
pub(crate) fn takes_halves(device: &Device) -> bool {
    #[cfg(feature = "gpu")]
    return gpu::takes_halves(device);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        false
    }
}

/// Whether [`conv2d`] of one group and [`linear`] take weights of that shape, `[out, ..]`, in f16 beside inputs in f32.
pub(crate) fn takes_half_weights(device: &Device, shape: &[usize]) -> bool {
    #[cfg(feature = "gpu")]
    return gpu::takes_half_weights(device, shape);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (device, shape);
        false
    }
}

/// Whether weights of that shape should be held [in blocks](in_blocks): on the CPU large ones only.
pub(crate) fn takes_blocks(device: &Device, shape: &[usize]) -> bool {
    #[cfg(feature = "cpu")]
    if cpu::takes_blocks(device, shape) {
        return true;
    }
    #[cfg(feature = "gpu")]
    return [8, 4].into_iter().any(|bits| gpu::takes_blocks(device, shape, bits));
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (device, shape);
        false
    }
}

/// Numbers from which the CPU keeps a layer's weights in blocks, 4 MiB of f32: those of smaller layers stay in caches, where
/// unpacking them again and again is lost time and saves little.
pub const LARGE: usize = 1 << 20;

/// Weights as they were stored: integers in blocks, each with a scale (`q8_block32` and `q4_block32`).
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    /// Of an integer: 8 or 4.
    pub bits: usize,
    /// Row by row: bytes, of which a row has as many as values, or pairs of 4 bits, in whole blocks.
    pub integers: Vec<u8>,
    /// Of each block, row by row.
    pub scales: Vec<f32>,
}

impl Blocks {
    /// Whether they are those of weights of that shape, `[out, ..]`, none of whose sides is 0.
    fn fits(&self, shape: &[usize]) -> bool {
        let (rows, depth) = (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product::<usize>());
        let of_row = depth.div_ceil(BLOCK);
        let integers = if self.bits == 4 { of_row * BLOCK / 2 } else { depth };
        rows * depth > 0 && [self.integers.len(), self.scales.len()] == [rows * integers, rows * of_row]
    }
}

/// A tensor of `shape`, `[out, ..]`, that keeps its blocks: [`conv2d`] of one group and [`linear`] read such weights beside
/// inputs in f32, and [`dense`] undoes it; nothing else may. `None` where no kernel reads them.
pub(crate) fn in_blocks<const D: usize>(
    device: &Device,
    shape: [usize; D],
    blocks: &Blocks,
) -> Option<Tensor<D>> {
    first!(in_blocks(device, shape, blocks))
}

/// `x`, in f32 if it was [`in_blocks`].
pub(crate) fn dense<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_numbers(&x).unwrap_or(x)
}

fn in_numbers<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    first!(dense(x))
}

/// How a convolution looks at its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub stride: usize,
    pub padding: usize,
    /// The size at which the input is seen, if not its own: upsampled by a whole factor (nearest neighbour), without what is
    /// beyond this size.
    pub seen: Option<[usize; 2]>,
}

/// `x`: `[n, in, h, w]`, `weight`: `[out, in, k, k]`, `bias`: `[out]`, `added`: `[n, out, h', w']` or `[n, out, 1, 1]` →
/// `[n, out, h', w']`, as burn's `conv2d` of one group. On the CPU without `seen` and `added` only.
pub(crate) fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    window: Window,
    added: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    let [batch, channels_in, height, width] = x.dims();
    let [channels_out, _, kernel, _] = weight.dims();
    let fits = weight.dims() == [channels_out, channels_in, kernel, kernel] && holds(bias, channels_out);
    let Window { stride, padding, seen } = window;
    let [seen_height, seen_width] = seen.unwrap_or([height, width]);
    if !fits
        || x.dims().contains(&0)
        || seen_height.min(seen_width) + 2 * padding < kernel
        || seen_height * seen_width == 0
    {
        return None;
    }
    let geometry = Geometry {
        batch,
        channels_in,
        channels_out,
        height: seen_height,
        width: seen_width,
        kernel,
        stride,
        padding,
    };
    let [height_out, width_out] = geometry.output();
    let addable = |added: &Tensor<4>| {
        let [n, out, h, w] = added.dims();
        [n, out] == [batch, channels_out] && ([h, w] == [1, 1] || [h, w] == [height_out, width_out])
    };
    if !added.is_none_or(addable) {
        return None;
    }
    #[cfg(feature = "cpu")]
    if seen.is_none()
        && added.is_none()
        && let Some(out) = cpu::conv2d(x, weight, bias, geometry)
    {
        return Some(out);
    }
    first!(conv2d(x, weight, bias, geometry, added); gpu if "gpu")
}

/// `x`: `[.., in]`, `weight`: `[out, in]`, `bias`: `[out]`, `added`: `[.., out]` → `[.., out]`. On the CPU without `added`
/// only.
pub(crate) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    added: Option<&Tensor<D>>,
) -> Option<Tensor<D>> {
    let shape = x.dims();
    let [to, from] = weight.dims();
    if shape[D - 1] != from || shape.contains(&0) || !holds(bias, to) {
        return None;
    }
    let mut shape_out = shape;
    shape_out[D - 1] = to;
    if added.is_some_and(|added| added.dims() != shape_out) {
        return None;
    }
    #[cfg(feature = "cpu")]
    if added.is_none()
        && let Some(out) = cpu::linear(x, weight, bias)
    {
        return Some(out);
    }
    first!(linear(x, weight, bias, added); gpu if "gpu")
}

/// As [`linear`] of a feature map's positions, the result laid as the feature map: `x`: `[images, h · w, in]`, `added`:
/// `[images, out, h, w]` → the same shape. On WebGPU only.
pub(crate) fn linear_to_images(
    x: &Tensor<3>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    added: &Tensor<4>,
) -> Option<Tensor<4>> {
    let [images, to, height, width] = added.dims();
    let [rows, from] = weight.dims();
    if x.dims() != [images, height * width, from] || rows != to || x.dims().contains(&0) || !holds(bias, to) {
        return None;
    }
    first!(linear_to_images(x, weight, bias, added); gpu if "gpu")
}

/// `query`: `[batch, heads, queries, dim]`, `key` and `value`: `[batch, heads, keys, dim]` → `[batch, heads, queries,
/// dim]`. Heads that are views of `[batch, tokens, heads · dim]` are read where they lie, and such a view is returned.
pub(crate) fn attention(query: &Tensor<4>, key: &Tensor<4>, value: &Tensor<4>) -> Option<Tensor<4>> {
    let [batch, heads, queries, dim] = query.dims();
    let keys = key.dims()[2];
    let fits = [key.dims(), value.dims()] == [[batch, heads, keys, dim]; 2];
    if !fits || query.dims().contains(&0) || keys == 0 {
        return None;
    }
    first!(attention(query, key, value, None, Sizes { batch, heads, queries, contexts: 1, keys, dim }))
}

/// As [`attention`], to several contexts apart: `key` and `value`: `[batch, heads, contexts · keys, dim]`. What the contexts
/// give is summed by their `weights` at each query, `[1 or batch, contexts, queries]`; where a weight is 0 its context is
/// not looked at.
pub(crate) fn attention_by_regions(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    weights: &Tensor<3>,
) -> Option<Tensor<4>> {
    let [batch, heads, queries, dim] = query.dims();
    let [sets, contexts, positions] = weights.dims();
    let all_keys = key.dims()[2];
    let fits = [key.dims(), value.dims()] == [[batch, heads, all_keys, dim]; 2]
        && positions == queries
        && (sets == 1 || sets == batch);
    if !fits
        || query.dims().contains(&0)
        || contexts == 0
        || all_keys == 0
        || !all_keys.is_multiple_of(contexts)
    {
        return None;
    }
    let sizes = Sizes { batch, heads, queries, contexts, keys: all_keys / contexts, dim };
    first!(attention(query, key, value, Some(weights), sizes))
}

/// Group normalisation of `x`: `[n, c, h, w]`, followed by SiLU if `silu`.
pub(crate) fn group_norm(
    x: &Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Option<Tensor<4>> {
    let shape @ [_, channels, _, _] = x.dims();
    let fits =
        channels.is_multiple_of(groups) && holds(Some(weight), channels) && holds(Some(bias), channels);
    if !fits || shape.contains(&0) {
        return None;
    }
    first!(group_norm(x, weight, bias, groups, eps, silu))
}

/// Layer normalisation of `x` over its last dimension. On the CPU burn's own does.
pub(crate) fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<D>> {
    let shape = x.dims();
    if shape.contains(&0) || !holds(Some(weight), shape[D - 1]) || !holds(Some(bias), shape[D - 1]) {
        return None;
    }
    #[cfg(not(feature = "gpu"))]
    let _ = eps;
    first!(layer_norm(x, weight, bias, eps); gpu if "gpu")
}

/// Root-mean-square normalisation of `x`: `[n, c, h, w]` over its channels.
pub(crate) fn rms_norm(x: &Tensor<4>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Option<Tensor<4>> {
    let shape @ [_, channels, _, _] = x.dims();
    let fits = holds(Some(weight), channels) && holds(Some(bias), channels);
    if !fits || shape.contains(&0) {
        return None;
    }
    first!(rms_norm(x, weight, bias, eps))
}

/// `x · σ(x)`.
pub(crate) fn silu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    first!(silu(x))
}

/// The exact GELU, `x · Φ(x)`.
pub(crate) fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    first!(gelu(x))
}

/// `x · σ(1.702 x)`.
pub(crate) fn quick_gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    first!(quick_gelu(x))
}

/// `max(x, 0)`. On WebGPU burn's own does.
pub(crate) fn relu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    first!(relu(x); cpu if "cpu")
}

/// `a · GELU(g)` of `x = [a, g]` along the last dimension, which is halved.
pub(crate) fn geglu(x: &Tensor<3>) -> Option<Tensor<3>> {
    if x.dims().contains(&0) || !x.dims()[2].is_multiple_of(2) {
        return None;
    }
    first!(geglu(x))
}

/// Whether the tensor, if any, is of that size.
fn holds(x: Option<&Tensor<1>>, size: usize) -> bool {
    x.is_none_or(|x| x.dims() == [size])
}

#[cfg(all(test, feature = "cpu"))]
mod tests;
