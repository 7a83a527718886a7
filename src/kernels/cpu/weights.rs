//! Weights of layers as they lie in memory: numbers, or integers in blocks with a scale each, which are unpacked a few rows at
//! a time.

use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor, DispatchTensorKind, Flex};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Tensor, TensorData};
use burn_flex::{FlexQTensor, FlexTensor};

use super::super::{BLOCK, Blocks};
use super::flex;

/// Weights as flex holds them; it copies the scales, an eighth of the integers, whenever a tensor is passed on.
pub(super) enum Held {
    Numbers(FlexTensor),
    Blocks(FlexQTensor),
}

impl Held {
    /// `None` if the tensor is another backend's, records gradients, or is neither f32 nor in blocks.
    pub fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
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

/// `[rows, depth]`, row by row.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    Numbers(&'a [f32]),
    /// Each row begins a block; its last one may be shorter.
    Blocks {
        integers: &'a [i8],
        scales: &'a [f32],
    },
}

impl<'a> Weights<'a> {
    /// Rows `first` to `end`: where they lie, or unpacked into `room`.
    #[inline(always)]
    pub fn rows<'r>(self, [first, end]: [usize; 2], depth: usize, room: &'r mut Vec<f32>) -> &'r [f32]
    where
        'a: 'r,
    {
        match self {
            Self::Numbers(values) => &values[first * depth..end * depth],
            Self::Blocks { integers, scales } => {
                let of_row = depth.div_ceil(BLOCK);
                let scales = &scales[first * of_row..end * of_row];
                let integers = &integers[first * depth..end * depth];
                room.resize(integers.len(), 0.0);
                let rows = room.chunks_exact_mut(depth).zip(integers.chunks_exact(depth));
                for ((to, row), scales) in rows.zip(scales.chunks_exact(of_row)) {
                    for ((to, block), scale) in to.chunks_mut(BLOCK).zip(row.chunks(BLOCK)).zip(scales) {
                        // A plain loop, which the compiler turns into the caller's vectors.
                        for (to, integer) in to.iter_mut().zip(block) {
                            *to = f32::from(*integer) * scale;
                        }
                    }
                }
                room
            }
        }
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
    let (shape, held) = (x.dims(), Held::Blocks(held));
    let mut values = Vec::new();
    held.weights()?.rows([0, shape[0]], shape[1..].iter().product(), &mut values);
    Some(super::tensor(values, shape))
}
