//! Between named tensors and burn modules: a parameter's name is its path through the module's fields.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use super::tensors::{TensorSource, Tensors};
use crate::error::{Error, Result};

/// Loads every parameter of `module` from `source`; a parameter at path `a.b` is tensor `{prefix}a.b`.
///
/// Fails, naming them, if tensors are missing or have another shape. Tensors that no parameter asks for are not
/// an error: checkpoints carry buffers such as `position_ids`.
pub fn apply<M: Module>(module: M, source: &dyn TensorSource, prefix: &str) -> Result<M> {
    let mut loader =
        Loader { source, path: vec![prefix.trim_end_matches('.').to_owned()], problems: Vec::new() };
    if loader.path[0].is_empty() {
        loader.path.clear();
    }
    let module = module.map(&mut loader);
    if loader.problems.is_empty() {
        return Ok(module);
    }
    let count = loader.problems.len();
    loader.problems.truncate(8);
    let more = if count > 8 { format!("; and {} more", count - 8) } else { String::new() };
    Err(Error::weights(
        "weights-mismatch",
        format!("{}{more}", loader.problems.join("; ")),
        "check that config.json and the weights belong together",
    ))
}

/// Collects every parameter of `module` under `{prefix}path`.
pub fn collect<M: Module>(module: &M, prefix: &str) -> Result<Tensors> {
    let mut collector = Collector { out: Tensors::default(), path: Vec::new(), prefix, error: None };
    module.visit(&mut collector);
    collector.error.map_or(Ok(collector.out), Err)
}

struct Loader<'a> {
    source: &'a dyn TensorSource,
    path: Vec<String>,
    problems: Vec<String>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let expected: Vec<usize> = param.lazy_shape().to_vec();
        let Some(shape) = self.source.shape(&name) else {
            self.problems.push(format!("'{name}' is missing"));
            return param;
        };
        // A 1×1 convolution and a linear layer hold the same numbers.
        let unpadded = |s: &[usize]| s.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
        if shape != expected && unpadded(&shape) != unpadded(&expected) {
            self.problems.push(format!("'{name}' has shape {shape:?}, the config asks for {expected:?}"));
            return param;
        }
        match self.source.read(&name) {
            Ok(values) => {
                let device = param.lazy_device();
                let id = param.id;
                let tensor = Tensor::from_data(TensorData::new(values, expected), &device);
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.problems.push(format!("'{name}': {}", error.message));
                param
            }
        }
    }
}

struct Collector<'a> {
    out: Tensors,
    path: Vec<String>,
    prefix: &'a str,
    error: Option<Error>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = format!("{}{}", self.prefix, self.path.join("."));
        if let Err(error) = self.out.insert(name, param.val()) {
            self.error.get_or_insert(error);
        }
    }
}
