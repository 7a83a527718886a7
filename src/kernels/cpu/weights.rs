//! Weights of layers as kernels read them: numbers, or integers in blocks with a scale each, which are unpacked a few rows at a
//! time.

use super::super::BLOCK;

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
