//! Named tensors on the host.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::{Error, Result};

/// Somewhere that tensors can be read from by name, as f32.
pub trait TensorSource {
    /// All names, sorted.
    fn names(&self) -> Vec<String>;
    /// The shape of a tensor, if there is one of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// Reads a tensor as f32, row-major.
    fn read(&self, name: &str) -> Result<Vec<f32>>;
}

/// Tensors held in memory as f32.
#[derive(Debug, Clone, Default)]
pub struct Tensors(pub BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    /// Takes tensor `name` as a burn tensor of rank `D`.
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Result<Tensor<D>> {
        let (shape, values) = self.0.get(name).ok_or_else(|| missing(name))?;
        if shape.len() != D {
            return Err(Error::input(
                "tensor-rank",
                format!("tensor '{name}' has shape {shape:?}; {D} dimensions are needed"),
                "",
            ));
        }
        Ok(Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device))
    }

    /// Adds a burn tensor under `name`.
    pub fn insert<const D: usize>(&mut self, name: impl Into<String>, tensor: Tensor<D>) -> Result<()> {
        let shape = tensor.dims().to_vec();
        let values = tensor
            .try_into_vec_as::<f32>()
            .map_err(|e| Error::device("read-back", format!("could not read a tensor back: {e:?}"), ""))?;
        self.0.insert(name.into(), (shape, values));
        Ok(())
    }
}

impl TensorSource for Tensors {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|(shape, _)| shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.0.get(name).map(|(_, values)| values.clone()).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> Error {
    Error::weights(
        "tensor-missing",
        format!("tensor '{name}' is missing"),
        "check that the file belongs to this model",
    )
}

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

/// A safetensors file in memory; its header is checked whole before anything is read.
pub struct SafetensorsFile {
    bytes: Vec<u8>,
    entries: HashMap<String, Entry>,
}

impl SafetensorsFile {
    /// Parses the header. Fails on a truncated file, overlapping or out-of-range offsets, and shapes that do not
    /// fit their bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        let mut entries = HashMap::new();
        {
            let parsed = SafeTensors::deserialize(&bytes).map_err(|e| {
                Error::weights(
                    "safetensors",
                    format!("not a valid safetensors file: {e}"),
                    "fetch or convert the file again",
                )
            })?;
            let base = bytes.as_ptr() as usize;
            for (name, view) in parsed.iter() {
                let start = view.data().as_ptr() as usize - base;
                let range = start..start + view.data().len();
                entries.insert(
                    name.to_owned(),
                    Entry { dtype: view.dtype(), shape: view.shape().to_vec(), range },
                );
            }
        }
        Ok(Self { bytes, entries })
    }

    /// All tensors as f32.
    pub fn into_tensors(self) -> Result<Tensors> {
        let mut out = Tensors::default();
        for name in self.names() {
            let shape = self.shape(&name).unwrap_or_default();
            let values = self.read(&name)?;
            out.0.insert(name, (shape, values));
        }
        Ok(out)
    }
}

impl TensorSource for SafetensorsFile {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.entries.keys().cloned().collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.entries.get(name).map(|e| e.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entries.get(name).ok_or_else(|| missing(name))?;
        let bytes = &self.bytes[entry.range.clone()];
        Ok(match entry.dtype {
            Dtype::F32 => numbers(bytes, f32::from_le_bytes),
            Dtype::F16 => numbers(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => numbers(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::I32 => numbers(bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::I8 => numbers(bytes, |b: [u8; 1]| i8::from_le_bytes(b) as f32),
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|b| *b as f32).collect(),
            other => {
                return Err(Error::weights(
                    "dtype",
                    format!("tensor '{name}' has type {other:?}, which is not supported"),
                    "convert it to F32, F16 or BF16",
                ));
            }
        })
    }
}

fn numbers<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Encodes f32 tensors as a safetensors file.
pub fn encode_safetensors(tensors: &Tensors, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .0
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let fail = |e| Error::internal("safetensors-encode", format!("{e}"));
    let views = bytes
        .iter()
        .map(|(name, shape, data)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), data).map_err(fail)?))
        })
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, metadata).map_err(fail)
}
