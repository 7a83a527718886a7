//! The walk over a module's parameters by name, which is their path through its fields.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Looks at parameters.
pub trait ParameterVisitor {
    /// Looks at one.
    fn visit<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>);
}

/// Replaces parameters.
pub trait ParameterMapper {
    /// Replaces one.
    fn map<const D: usize>(&mut self, place: &Place, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Where a parameter is.
#[derive(Debug, Default)]
pub struct Place {
    path: Vec<String>,
    /// What each step of the way is a field of, enums included.
    containers: Vec<String>,
}

impl Place {
    /// `blocks.0.attn1.to_q.weight`.
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    /// The parameter's own name: `weight`.
    pub fn field(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// What it is a field of, in burn's words: `Struct:Linear`.
    pub fn layer(&self) -> &str {
        self.containers.last().map_or("", String::as_str)
    }

    fn enter(&mut self, name: &str, container_type: &str) {
        if is_named(container_type) {
            self.path.push(name.to_owned());
        }
        self.containers.push(container_type.to_owned());
    }

    fn exit(&mut self, container_type: &str) {
        if is_named(container_type) {
            self.path.pop();
        }
        self.containers.pop();
    }
}

/// Which of several layers an enum holds is the config's business: its variant is no part of a tensor's name.
fn is_named(container_type: &str) -> bool {
    !container_type.starts_with("Enum:")
}

/// Shows every parameter of `module` to `visitor`.
pub fn visit_parameters<M: Module>(module: &M, visitor: &mut impl ParameterVisitor) {
    module.visit(&mut Walk { place: Place::default(), with: visitor });
}

/// `module` with every parameter replaced by `mapper`.
pub fn map_parameters<M: Module>(module: M, mapper: &mut impl ParameterMapper) -> M {
    module.map(&mut Walk { place: Place::default(), with: mapper })
}

struct Walk<'a, T> {
    place: Place,
    with: &'a mut T,
}

impl<T: ParameterVisitor> ModuleVisitor for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.place.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.with.visit(&self.place, param);
    }
}

impl<T: ParameterMapper> ModuleMapper for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.place.exit(container_type);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.with.map(&self.place, param)
    }
}
