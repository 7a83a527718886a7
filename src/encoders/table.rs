//! A text encoder's table of tokens in the processor's memory, as it was stored: a prompt reads few of its rows, and in f32 that of
//! Qwen3 would take 1.6 GB.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use half::f16;

use crate::error::{Error, Result};
use crate::kernels::{BLOCK, Blocks};
use crate::weights::TensorSource;

/// `[count, width]`.
#[derive(Clone)]
pub(super) struct TokenTable {
    rows: Arc<Rows>,
    width: usize,
}

enum Rows {
    Numbers(Vec<f32>),
    Halves(Vec<f16>),
    Blocks(Blocks),
}

impl TokenTable {
    /// Tensor `name`. Fails with `weights-mismatch` where there is none of that shape.
    pub fn load(source: &dyn TensorSource, name: &str, [count, width]: [usize; 2]) -> Result<Self> {
        let shape = source.shape(name);
        if shape.as_deref() != Some(&[count, width]) {
            let problem = match shape {
                None => format!("'{name}' is missing"),
                Some(shape) => {
                    format!("'{name}' has shape {shape:?}, the config asks for {:?}", [count, width])
                }
            };
            return Err(Error::weights(
                "weights-mismatch",
                problem,
                "check that config.json and the weights belong together",
            ));
        }
        let rows = match source.blocks(name)? {
            Some(blocks) => Rows::Blocks(blocks),
            None => {
                let values = source.read(name)?;
                // bf16 reaches further than f16.
                let fits = || values.iter().all(|value| value.abs() <= f16::MAX.to_f32());
                if source.half(name) && fits() {
                    Rows::Halves(values.into_iter().map(f16::from_f32).collect())
                } else {
                    Rows::Numbers(values)
                }
            }
        };
        Ok(Self { rows: Arc::new(rows), width })
    }

    /// The rows of `ids`, `[batch, tokens, width]` on a device; every row of `ids` has so many tokens, all in the table.
    pub fn forward(&self, ids: &[Vec<u32>], tokens: usize, device: &Device) -> Tensor<3> {
        let mut values = Vec::with_capacity(ids.len() * tokens * self.width);
        for id in ids.iter().flatten() {
            self.row(*id as usize, &mut values);
        }
        Tensor::from_data(TensorData::new(values, [ids.len(), tokens, self.width]), device)
    }

    fn row(&self, id: usize, values: &mut Vec<f32>) {
        let width = self.width;
        match self.rows.as_ref() {
            Rows::Numbers(rows) => values.extend_from_slice(&rows[id * width..][..width]),
            Rows::Halves(rows) => {
                values.extend(rows[id * width..][..width].iter().map(|value| value.to_f32()))
            }
            Rows::Blocks(Blocks { bits, integers, scales }) => {
                let blocks = width.div_ceil(BLOCK);
                let scale = |at: usize| scales[id * blocks + at / BLOCK];
                if *bits == 4 {
                    // Two a byte, the first one low; a row ends with a whole block.
                    let row = &integers[id * blocks * BLOCK / 2..][..width.div_ceil(2)];
                    let integers = row.iter().flat_map(|byte| [byte & 15, byte >> 4]).take(width);
                    values
                        .extend(integers.enumerate().map(|(at, value)| (f32::from(value) - 8.0) * scale(at)));
                } else {
                    let row = integers[id * width..][..width].iter();
                    values.extend(row.enumerate().map(|(at, byte)| f32::from(*byte as i8) * scale(at)));
                }
            }
        }
    }
}

impl fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenTable").field("width", &self.width).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::weights::{Component, MemoryFiles, Quantization, Tensors, encode};

    #[test]
    fn rows_are_what_was_stored() {
        // A width that ends inside a block, and an odd one.
        for width in [70, 33] {
            let count = 60;
            let values: Vec<f32> = (0..count * width).map(|i| (i as f32 * 0.7).sin()).collect();
            let tensors = Tensors([("table".to_owned(), (vec![count, width], values))].into());
            for quantization in [Quantization::None, Quantization::F16, Quantization::Q8, Quantization::Q4] {
                let bytes = encode(&tensors, quantization, &BTreeMap::new()).unwrap();
                let files = MemoryFiles([("model.safetensors".to_owned(), bytes)].into());
                for component in [Component::new(&files, ""), Component::new(&files, "").compact()] {
                    let source = component.tensors().unwrap();
                    let table = TokenTable::load(source.as_ref(), "table", [count, width]).unwrap();
                    let rows = table.forward(&[vec![0, 59], vec![7, 7]], 2, &Device::flex());
                    let rows: Vec<f32> = rows.try_into_vec_as().unwrap();
                    let all = source.read("table").unwrap();
                    let expected = [0, 59, 7, 7].map(|id| &all[id * width..][..width]).concat();
                    assert_eq!(rows, expected, "{quantization:?} {width}");
                }
            }
            let bytes = encode(&tensors, Quantization::None, &BTreeMap::new()).unwrap();
            let files = MemoryFiles([("model.safetensors".to_owned(), bytes)].into());
            let source = Component::new(&files, "").tensors().unwrap();
            for (name, shape) in [("table", [count, width + 1]), ("other", [count, width])] {
                let error = TokenTable::load(source.as_ref(), name, shape).unwrap_err();
                assert_eq!(error.code, "weights-mismatch");
            }
        }
    }
}
