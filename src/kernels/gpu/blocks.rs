//! Weights that stay in blocks of integers with a scale each.

use burn::backend::{BackendTensor, Cube, DispatchKindConversion, DispatchTensor};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::quant::scheme::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn_cubecl::tensor::CubeTensor;

use super::super::{BLOCK, Blocks};
use super::launch::{Bound, Element, Kernel, MOST_GROUPS, Operand, RUNTIME, launch};
use super::product::loader;

const THREADS: usize = 256;

/// One buffer: the integers, and behind them the scales in f32. burn knows it as a quantised tensor, and has no kernel that
/// reads it.
pub(super) fn hold<const D: usize>(
    device: &CubeDevice,
    shape: [usize; D],
    blocks: &Blocks,
) -> Option<Tensor<D>> {
    let client = device.client();
    if client.name() != RUNTIME {
        return None;
    }
    let mut bytes = Vec::with_capacity(blocks.integers.len() + size_of_val(&blocks.scales[..]));
    bytes.extend_from_slice(&blocks.integers);
    bytes.extend(blocks.scales.iter().flat_map(|scale| scale.to_le_bytes()));
    let value = if blocks.bits == 4 { QuantValue::Q4S } else { QuantValue::Q8S };
    let scheme = QuantScheme::default()
        .with_value(value)
        .with_store(QuantStore::PackedU32(0))
        .per_block([BLOCK as u8], ScaleDtype::F32);
    let handle = client.create_from_slice(&bytes);
    let tensor =
        CubeTensor::new_contiguous(client, device.clone(), shape.into(), handle, DType::QFloat(scheme));
    Some(Tensor::from_dispatch(DispatchTensor::from_backend(BackendTensor::<Cube>::Quantized(tensor))))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Dense {
    element: Element,
}

impl Kernel for Dense {
    const TEXT: &'static str = include_str!("blocks.wgsl");
    const SIZES: &'static [&'static str] = &["rows", "depth", "scales", "layer"];

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("threads", THREADS.to_string()), ("loader", loader("weight", "rows", self.element))]
    }
}

/// In f32. `None` where there are more values than one dispatch may write.
pub(super) fn dense<const D: usize>(weight: &Operand, shape: [usize; D]) -> Option<Tensor<D>> {
    let (rows, depth) = (shape[0], shape[1..].iter().product::<usize>());
    let all = (rows * depth / 4).div_ceil(THREADS);
    let across = all.min(MOST_GROUPS);
    let layers = all.div_ceil(across);
    if layers > MOST_GROUPS {
        return None;
    }
    let out = weight.room_f32(shape);
    let element = weight.element(depth);
    let bound = [
        Bound { name: "weight", held: weight, element },
        Bound { name: "out", held: &out, element: Element::Four },
    ];
    let sizes = [rows, depth, weight.scales([rows, depth]), across * THREADS];
    launch(Dense { element }, &bound, &sizes, [across, layers, 1]);
    Some(out.tensor())
}
