//! Weights of layers as flex holds them.

use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor, DispatchTensorKind, Flex};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Tensor, TensorData};
use burn_flex::{FlexQTensor, FlexTensor};

use super::super::{BLOCK, Blocks};
use super::flex;
use super::weights::Weights;

/// Weights as flex holds them; it copies the scales, an eighth of the integers, whenever a tensor is passed on.
pub(super) enum WeightTensor {
    Numbers(FlexTensor),
    Blocks(FlexQTensor),
}

impl WeightTensor {
    /// `None` if the tensor is another backend's, records gradients, or is neither f32 nor in blocks.
    pub fn from_tensor<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        match x.clone().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Quantized(x)) => Some(Self::Blocks(x)),
            _ => flex(x).map(Self::Numbers),
        }
    }

    pub fn weights(&self) -> Option<Weights<'_>> {
        Some(match self {
            Self::Numbers(x) => Weights::Numbers(x.as_slice()?),
            Self::Blocks(x) => Weights::Blocks { integers: x.tensor().as_slice()?, scales: x.scales() },
        })
    }
}

/// A tensor of `shape`, `[out, ..]`, that keeps its blocks; of 4 bits are made 8. `None` where there are not as many as `shape`
/// says.
pub(super) fn hold<const D: usize>(shape: [usize; D], blocks: &Blocks) -> Option<Tensor<D>> {
    if !blocks.fits(&shape) {
        return None;
    }
    let depth = shape[1..].iter().product::<usize>();
    let integers: Vec<i8> = if blocks.bits == 4 {
        let nibble = |byte: u8, shift: u8| (byte >> shift & 15) as i8 - 8;
        let row = |row: &[u8]| {
            row.iter().flat_map(|byte| [nibble(*byte, 0), nibble(*byte, 4)]).take(depth).collect::<Vec<_>>()
        };
        blocks.integers.chunks_exact(depth.div_ceil(BLOCK) * BLOCK / 2).flat_map(row).collect()
    } else {
        blocks.integers.iter().map(|byte| *byte as i8).collect()
    };
    let scheme = QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_store(QuantStore::Native)
        .per_block([BLOCK as u8], ScaleDtype::F32);
    let integers = FlexTensor::from_data(TensorData::new(integers, shape));
    let held = FlexQTensor::new(integers, scheme, blocks.scales.clone(), None);
    Some(Tensor::from_dispatch(DispatchTensor::from_backend(BackendTensor::<Flex>::Quantized(held))))
}

/// In f32, if the tensor is in blocks.
pub(super) fn dense<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let DispatchTensorKind::Flex(BackendTensor::Quantized(held)) = x.clone().into_dispatch().kind else {
        return None;
    };
    let (shape, held) = (x.dims(), WeightTensor::Blocks(held));
    let mut values = Vec::new();
    held.weights()?.rows([0, shape[0]], shape[1..].iter().product(), &mut values);
    Some(super::tensor(values, shape))
}
