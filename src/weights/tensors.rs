//! Named tensors on the host.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use super::Views;
use crate::error::{Error, Result};
use crate::kernels::Blocks;

/// Somewhere that tensors can be read from by name, as f32.
pub trait TensorSource {
    /// All names, sorted.
    fn names(&self) -> Vec<String>;
    /// The shape of a tensor, if there is one of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// Reads a tensor as f32, row-major.
    fn read(&self, name: &str) -> Result<Vec<f32>>;

    /// A tensor's blocks, if it was stored in blocks and may be held so.
    fn blocks(&self, _name: &str) -> Result<Option<Blocks>> {
        Ok(None)
    }

    /// Whether a tensor may be held in f16: it was stored in no more.
    fn half(&self, _name: &str) -> bool {
        false
    }

    /// Reads every tensor.
    fn read_all(&self) -> Result<Tensors> {
        let mut out = Tensors::default();
        for name in self.names() {
            let shape = self.shape(&name).unwrap_or_default();
            let values = self.read(&name)?;
            out.0.insert(name, (shape, values));
        }
        Ok(out)
    }
}

/// Tensors held in memory as f32.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensors(pub BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    /// All of them where they are.
    pub fn views(&self) -> Views<'_> {
        let views = self.0.iter().map(|(name, (shape, values))| (name.clone(), (&shape[..], &values[..])));
        views.collect()
    }

    /// Takes tensor `name` as a burn tensor of rank `D`.
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Result<Tensor<D>> {
        let (shape, values) = self.0.get(name).ok_or_else(|| missing(name))?;
        if shape.len() != D {
            return Err(Error::input(
                "tensor-rank",
                format!("tensor '{name}' has shape {shape:?}; {D} dimensions are needed"),
                "reshape it",
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

pub(super) fn missing(name: &str) -> Error {
    Error::weights(
        "tensor-missing",
        format!("tensor '{name}' is missing"),
        "check that the file belongs to this model",
    )
}

/// Fails with `not-finite` where a weight is an infinity or not a number: whatever is computed with it would be, too, or hide it.
pub fn check_finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::weights(
            "not-finite",
            format!("tensor '{name}' holds {} at position {at}", values[at]),
            "the checkpoint is damaged or its training diverged: use another",
        )),
    }
}
