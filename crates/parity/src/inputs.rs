//! The input tensors of a component, checked before they reach a network.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use facestudio::weights::{SafetensorsFile, Tensors, read_file};
use facestudio::{Error, Result};

/// Most bytes of a file of inputs.
const MAX_INPUTS: u64 = 16 << 30;

/// Tensors read from the inputs file.
pub struct Inputs(Tensors);

/// What one dimension of an input must be.
#[derive(Clone, Copy)]
pub enum Axis {
    /// Any size from 1 on.
    Any(&'static str),
    /// This size.
    Exactly(usize),
}

impl Inputs {
    /// Reads a safetensors file; what is wrong with it is the request's fault, not the model's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path, MAX_INPUTS)?;
        let tensors = SafetensorsFile::new(bytes).and_then(SafetensorsFile::into_tensors);
        tensors.map(Self).map_err(|e| Error::input(e.code, e.message, e.remedy).context(path.display()))
    }

    /// Whether there is an input `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.0.contains_key(name)
    }

    /// Shape and values of input `name`.
    pub fn values(&self, name: &str) -> Result<(&[usize], &[f32])> {
        let (shape, values) = self.0.0.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.0.0.keys().map(String::as_str).collect();
            Error::input(
                "input-missing",
                format!("there is no input '{name}', only: {}", names.join(", ")),
                "`facestudio component --help` names every network's inputs",
            )
        })?;
        Ok((shape, values))
    }

    /// Input `name` on the device, if its shape is as `expected`.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        expected: [Axis; D],
        device: &Device,
    ) -> Result<Tensor<D>> {
        self.shape(name, expected)?;
        self.0.tensor(name, device)
    }

    /// The shape of input `name`, if it is as `expected`.
    pub fn shape<const D: usize>(&self, name: &str, expected: [Axis; D]) -> Result<[usize; D]> {
        let (shape, _) = self.values(name)?;
        let fits = shape.len() == D
            && shape.iter().zip(&expected).all(|(size, axis)| match axis {
                Axis::Any(_) => *size > 0,
                Axis::Exactly(exactly) => size == exactly,
            });
        if !fits {
            let axes = expected.map(|axis| match axis {
                Axis::Any(name) => name.to_owned(),
                Axis::Exactly(size) => size.to_string(),
            });
            return Err(shape_error(name, shape, &format!("[{}]", axes.join(", "))));
        }
        // It has as many axes as expected.
        Ok(std::array::from_fn(|axis| shape[axis]))
    }

    /// [`tensor`](Self::tensor), or `None` where there is no such input.
    pub fn optional<const D: usize>(
        &self,
        name: &str,
        expected: [Axis; D],
        device: &Device,
    ) -> Result<Option<Tensor<D>>> {
        self.has(name).then(|| self.tensor(name, expected, device)).transpose()
    }

    /// Input `timestep`, a scalar, `[1]` or `[batch]`, as `[batch]`.
    pub fn timestep(&self, batch: usize, device: &Device) -> Result<Tensor<1>> {
        let (shape, values) = self.values("timestep")?;
        if shape.len() > 1 || !(values.len() == 1 || values.len() == batch) {
            return Err(shape_error("timestep", shape, &format!("[], [1] or [{batch}]")));
        }
        if values.iter().any(|t| !t.is_finite()) {
            return Err(Error::input("input-range", "input 'timestep' is not finite", "0 to 999 is usual"));
        }
        let values: Vec<f32> = values.iter().copied().cycle().take(batch).collect();
        Ok(Tensor::from_floats(values.as_slice(), device))
    }
}

/// What `--ip-scale` says about adapter `n` of `count`, if anything. Fails with `ip-scale` where it says more than there are
/// adapters, or no number.
pub fn scale_of(scales: &[f32], n: usize, count: usize) -> Result<Option<f32>> {
    if scales.len() > count || scales.iter().any(|scale| !scale.is_finite()) {
        return Err(Error::input(
            "ip-scale",
            format!("--ip-scale has {} values for {count} adapters", scales.len()),
            "give at most one finite value for each adapter",
        ));
    }
    Ok(scales.get(n).copied())
}

/// An input of the wrong shape.
pub fn shape_error(name: &str, shape: &[usize], expected: &str) -> Error {
    Error::input(
        "input-shape",
        format!("input '{name}' has shape {shape:?}; {expected} is needed"),
        "check that the inputs belong to this config.json",
    )
}
