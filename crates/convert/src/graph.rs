//! An exported network, followed from what it gives back to what it is given. Names say nothing here: exporters choose them,
//! fold normalisations away or leave them, and put in operators that change nothing. Every attribute of an operator is
//! obeyed, or refused by name.

mod operators;

pub use operators::{Layer, Norm, Window};

use std::collections::BTreeMap;

use super::layout::Layout;
use super::onnx::{Attribute, Graph, Initializer, Node, Stored};
use facestudio::error::{Error, Result};
use facestudio::weights::TensorSource;

/// Numbers of the ONNX types that a `Cast` may go to: f32, f16, f64 and bf16. Weights are stored as f32 at most.
const FLOATS: [f64; 4] = [1.0, 10.0, 11.0, 16.0];
/// Most sides of a tensor, and most operators between a tensor and the one that reads it.
const DEEPEST: usize = 16;

/// A graph, and who computes each value of it.
pub struct Trace<'g> {
    graph: &'g Graph,
    source: &'g dyn TensorSource,
    makers: BTreeMap<&'g str, &'g Node>,
    /// The network that it should be.
    what: &'static str,
    /// Which files hold such a one.
    remedy: &'static str,
}

/// A stored tensor as an operator reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Constant<'g> {
    /// By its name, in a shape that may differ from the stored one.
    Stored {
        /// In the file.
        name: &'g str,
        /// As it is read.
        shape: Vec<usize>,
        /// Whether the stored matrix lies on its side.
        transposed: bool,
    },
    /// One number, as often as is needed.
    Filled(f32),
}

impl<'g> Trace<'g> {
    /// Of `graph`, whose tensors `source` reads. `what` and `remedy` are for errors.
    pub fn new(
        graph: &'g Graph,
        source: &'g dyn TensorSource,
        what: &'static str,
        remedy: &'static str,
    ) -> Self {
        let outputs = |node: &'g Node| node.outputs.iter().map(move |output| (output.as_str(), node));
        let makers = graph.nodes.iter().flat_map(outputs).filter(|(output, _)| !output.is_empty()).collect();
        Self { graph, source, makers, what, remedy }
    }

    /// What it gives, in order.
    pub fn outputs(&self) -> &'g [String] {
        &self.graph.outputs
    }

    /// The error of another network.
    pub fn other(&self, found: impl std::fmt::Display) -> Error {
        let what = self.what;
        Error::weights(
            "checkpoint-layout",
            format!("the network is no {what} as PyTorch exports it: {found}"),
            self.remedy,
        )
    }

    /// The value that `value` is, past operators that change nothing.
    pub fn origin(&self, value: &'g str) -> Result<&'g str> {
        let mut value = value;
        for _ in 0..=self.graph.nodes.len() {
            let Some(node) = self.makers.get(value) else { return Ok(value) };
            if !self.is_nothing(node)? || node.outputs.first().is_none_or(|output| output != value) {
                return Ok(value);
            }
            value = self.input(node, 0)?;
        }
        Err(self.other("a value is made of itself"))
    }

    /// Whether an operator gives what it is given, but for the precision.
    fn is_nothing(&self, node: &'g Node) -> Result<bool> {
        match node.op.as_str() {
            "Identity" => self.only(node, &[])?,
            "CastLike" => self.only(node, &["saturate"])?,
            "Cast" => {
                self.only(node, &["to", "saturate", "round_mode"])?;
                if !matches!(node.attributes.get("to"), Some(Attribute::Number(to)) if FLOATS.contains(to)) {
                    return Ok(false);
                }
            }
            "Dropout" => {
                self.only(node, &["ratio", "seed"])?;
                if let Some(training) = node.inputs.get(2).filter(|name| !name.is_empty()) {
                    let stored = self.graph.initializers.contains_key(training);
                    if !stored || self.source.read(training)?.iter().any(|on| *on != 0.0) {
                        return Err(self.other("Dropout with training_mode"));
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The operator that computes `value`, past those that change nothing.
    fn maker(&self, value: &'g str) -> Result<Option<&'g Node>> {
        let value = self.origin(value)?;
        let node = self.makers.get(value).copied();
        Ok(node.filter(|node| node.outputs.first().is_some_and(|output| output == value)))
    }

    /// Whether `op` computes `value`.
    pub fn is(&self, value: &'g str, op: &str) -> Result<bool> {
        Ok(self.maker(value)?.is_some_and(|node| node.op == op))
    }

    /// The operator that computes `value`; fails unless it is `op`.
    pub fn step(&self, value: &'g str, op: &str) -> Result<&'g Node> {
        let found = self.maker(value)?;
        found.filter(|node| node.op == op).ok_or_else(|| {
            let found = found.map_or("its input", |node| node.op.as_str());
            self.other(format!("{found} where {op} is expected"))
        })
    }

    /// Fails unless `value` is what the network is given.
    pub fn is_given(&self, value: &'g str) -> Result<()> {
        let value = self.origin(value)?;
        if self.graph.inputs.iter().any(|input| input == value) {
            return Ok(());
        }
        let found = self.makers.get(value).map_or("a tensor", |node| node.op.as_str());
        Err(self.other(format!("{found} where its input is expected")))
    }

    /// Fails unless two values are one.
    pub fn check_same(&self, a: &'g str, b: &'g str, what: &str) -> Result<()> {
        if self.origin(a)? == self.origin(b)? {
            return Ok(());
        }
        Err(self.other(format!("{what} do not read the same")))
    }

    /// Input number `i` of an operator.
    pub fn input(&self, node: &'g Node, i: usize) -> Result<&'g str> {
        let name = node.inputs.get(i).filter(|name| !name.is_empty()).map(String::as_str);
        name.ok_or_else(|| self.other(format!("{} with {} inputs", node.op, node.inputs.len())))
    }

    /// Fails on an attribute of another name, and on one that says nothing that is known.
    fn only(&self, node: &Node, known: &[&str]) -> Result<()> {
        let unknown = |(name, value): &(&String, &Attribute)| {
            !known.contains(&name.as_str()) || matches!(value, Attribute::Tensor(_) | Attribute::Other)
        };
        match node.attributes.iter().find(unknown) {
            None => Ok(()),
            Some((name, _)) => Err(self.other(format!("{} with attribute {name}", node.op))),
        }
    }

    /// Fails unless numbers are as wanted; `usual` stands for an attribute that is not there.
    fn expect(&self, node: &Node, name: &str, usual: &[f64], wanted: &[f64]) -> Result<()> {
        let found: &[f64] = match node.attributes.get(name) {
            None => usual,
            Some(Attribute::Number(number)) => std::slice::from_ref(number),
            Some(Attribute::Numbers(numbers)) => numbers,
            Some(_) => &[],
        };
        if found == wanted {
            return Ok(());
        }
        Err(self.other(format!("{} with {name} = {found:?} where {wanted:?} is expected", node.op)))
    }

    fn number(&self, node: &Node, name: &str, usual: f64) -> Result<f64> {
        match node.attributes.get(name) {
            None => Ok(usual),
            Some(Attribute::Number(number)) if number.is_finite() => Ok(*number),
            Some(other) => Err(self.other(format!("{} with {name} = {other:?}", node.op))),
        }
    }

    fn text<'n>(&self, node: &'n Node, name: &str, usual: &'n str) -> Result<&'n str> {
        match node.attributes.get(name) {
            None => Ok(usual),
            Some(Attribute::Text(text)) => Ok(text),
            Some(other) => Err(self.other(format!("{} with {name} = {other:?}", node.op))),
        }
    }

    /// The numbers of a small stored tensor.
    fn numbers(&self, value: &'g str) -> Result<Vec<f32>> {
        self.numbers_below(value, 0)
    }

    fn numbers_below(&self, value: &'g str, depth: usize) -> Result<Vec<f32>> {
        match self.constant_below(value, depth)? {
            Constant::Filled(number) => Ok(vec![number]),
            Constant::Stored { name, .. } => self.source.read(name),
        }
    }

    /// The tensor behind a value: stored, or made of a stored one without changing its numbers.
    pub fn constant(&self, value: &'g str) -> Result<Constant<'g>> {
        self.constant_below(value, 0)
    }

    fn constant_below(&self, value: &'g str, depth: usize) -> Result<Constant<'g>> {
        let value = self.origin(value)?;
        if let Some((name, Initializer { shape, stored })) = self.graph.initializers.get_key_value(value) {
            if let Stored::Unknown(kind) = stored {
                return Err(self.other(format!("tensor '{name}' is of ONNX's data type {kind}")));
            }
            return Ok(Constant::Stored { name, shape: shape.clone(), transposed: false });
        }
        let node = self.makers.get(value).copied().filter(|_| depth < DEEPEST);
        let node = node.ok_or_else(|| self.other(format!("'{value}' where a stored tensor is expected")))?;
        let inner = || self.constant_below(self.input(node, 0)?, depth + 1);
        match (node.op.as_str(), inner()) {
            ("Expand", Ok(constant)) => {
                self.only(node, &[])?;
                let one = match &constant {
                    Constant::Stored { name, shape, .. } if shape.iter().all(|side| *side == 1) => {
                        self.source.read(name)?.first().copied()
                    }
                    Constant::Filled(number) => Some(*number),
                    Constant::Stored { .. } => None,
                };
                one.map(Constant::Filled).ok_or_else(|| self.other("Expand of a stored tensor"))
            }
            ("Reshape" | "Squeeze" | "Unsqueeze", Ok(constant)) => self.in_other_sides(node, constant, depth),
            ("Transpose", Ok(mut constant)) => {
                self.only(node, &["perm"])?;
                self.expect(node, "perm", &[1.0, 0.0], &[1.0, 0.0])?;
                if !matches!(&constant, Constant::Stored { shape, .. } if shape.len() == 2) {
                    return Err(self.other("Transpose of what is no matrix"));
                }
                constant.turn();
                Ok(constant)
            }
            (op, _) => Err(self.other(format!("{op} where a stored tensor is expected"))),
        }
    }

    /// A stored tensor in the sides that an operator gives it.
    fn in_other_sides(&self, node: &'g Node, constant: Constant<'g>, depth: usize) -> Result<Constant<'g>> {
        let Constant::Stored { name, shape, transposed: false } = constant else {
            return Err(self.other(format!("{} of what is no stored tensor as it is", node.op)));
        };
        self.only(node, &["allowzero", "axes"])?;
        let list = match (node.attributes.get("axes"), node.inputs.get(1).filter(|name| !name.is_empty())) {
            (Some(Attribute::Numbers(axes)), _) => Some(axes.iter().map(|axis| *axis as f32).collect()),
            (_, Some(input)) => Some(self.numbers_below(input, depth + 1)?),
            _ => None,
        };
        let wrong = || self.other(format!("{} of a tensor of shape {shape:?} to {list:?}", node.op));
        let rank = shape.len() + if node.op == "Unsqueeze" { list.as_ref().map_or(0, Vec::len) } else { 0 };
        let axis = |axis: f32| {
            let axis = if axis < 0.0 { axis + rank as f32 } else { axis };
            (axis >= 0.0 && axis < rank as f32).then_some(axis as usize)
        };
        let sides: Vec<usize> = match (node.op.as_str(), &list) {
            ("Unsqueeze", Some(axes)) if rank <= DEEPEST => {
                let axes: Option<Vec<usize>> = axes.iter().map(|a| axis(*a)).collect();
                let axes = axes.ok_or_else(wrong)?;
                let mut rest = shape.iter().copied();
                (0..rank).map(|i| if axes.contains(&i) { 1 } else { rest.next().unwrap_or(1) }).collect()
            }
            ("Squeeze", None) => shape.iter().copied().filter(|side| *side != 1).collect(),
            ("Squeeze", Some(axes)) => {
                let axes: Option<Vec<usize>> = axes.iter().map(|a| axis(*a)).collect();
                let axes = axes.ok_or_else(wrong)?;
                let kept = shape.iter().enumerate().filter(|(i, _)| !axes.contains(i));
                kept.map(|(_, side)| *side).collect()
            }
            ("Reshape", Some(sides)) if sides.len() <= DEEPEST => {
                let whole: usize = shape.iter().product();
                let side = |(i, side): (usize, &f32)| match *side {
                    -1.0 => None,
                    0.0 => shape.get(i).copied(),
                    side => Some(side as usize),
                };
                let unknown = sides.iter().filter(|side| **side == -1.0).count();
                if unknown > 1 || sides.iter().any(|side| *side < -1.0 || (*side < 0.0 && *side > -1.0)) {
                    return Err(wrong());
                }
                let known: Vec<Option<usize>> = sides.iter().enumerate().map(side).collect();
                let product = known.iter().flatten().try_fold(1usize, |n, side| n.checked_mul(*side));
                let left = whole.checked_div(product.unwrap_or(0)).ok_or_else(wrong)?;
                known.into_iter().map(|side| side.unwrap_or(left)).collect()
            }
            _ => return Err(wrong()),
        };
        let product = sides.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        if product != Some(shape.iter().product()) {
            return Err(wrong());
        }
        Ok(Constant::Stored { name, shape: sides, transposed: false })
    }

    /// Puts a tensor into a layout in a shape that it has but for sides of 1; a single number fills it.
    pub fn put(
        &self,
        layout: &mut Layout<'g>,
        constant: &Constant<'g>,
        to: &str,
        shape: &[usize],
    ) -> Result<()> {
        let longer = |shape: &[usize]| shape.iter().copied().filter(|side| *side != 1).collect::<Vec<_>>();
        match constant {
            Constant::Filled(number) => layout.fill(to, shape.to_vec(), *number),
            Constant::Stored { name, shape: own, transposed } => {
                if longer(own) == longer(shape) {
                    layout.shaped(name, to, shape, *transposed)
                } else if longer(own).is_empty() {
                    let number = self.source.read(name)?.first().copied().unwrap_or_default();
                    layout.fill(to, shape.to_vec(), number)
                } else {
                    Err(self.other(format!("tensor '{name}' of shape {own:?} where {shape:?} is expected")))
                }
            }
        }
    }

    /// The numbers of a tensor of so many channels.
    pub fn channels(&self, constant: &Constant<'g>, count: usize) -> Result<Vec<f32>> {
        match constant {
            Constant::Filled(number) => Ok(vec![*number; count]),
            Constant::Stored { name, shape, .. } => {
                let values = self.source.read(name)?;
                match values[..] {
                    [one] => Ok(vec![one; count]),
                    _ if values.len() == count => Ok(values),
                    _ => {
                        Err(self
                            .other(format!("tensor '{name}' of shape {shape:?} where [{count}] is expected")))
                    }
                }
            }
        }
    }
}

impl Constant<'_> {
    /// On its side.
    fn turn(&mut self) {
        if let Self::Stored { shape, transposed, .. } = self {
            shape.reverse();
            *transposed = !*transposed;
        }
    }
}
