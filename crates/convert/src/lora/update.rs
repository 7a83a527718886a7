//! What an update adds to a weight: the arithmetic of LoRA, LoHa (Hyeon-Woo et al. 2022), LoKr (LyCORIS, Yeh et al. 2024) and plain
//! differences, and DoRA's magnitudes (Liu et al. 2024) over each of the former.
//!
//! Weights are read as matrices, a kernel's positions beside each other: `[out, in · kernel]`.

use super::names::{Layer, LoraTensor as T, mismatch};
use facestudio::error::Result;
use facestudio::weights::TensorSource;

/// What LyCORIS adds to norms before it divides by them: PyTorch's `finfo(float32).eps`.
const EPSILON: f64 = f32::EPSILON as f64;

/// A change of one tensor.
pub struct Update<'a> {
    pub source: &'a dyn TensorSource,
    pub delta: Delta,
    /// `alpha / rank`, or what settings make of them.
    pub factor: f32,
    /// How much of it is taken.
    pub scale: f32,
    pub magnitude: Option<Magnitude>,
}

/// What is added, before any factor.
pub enum Delta {
    /// `up · down`.
    Product { down: String, up: String, rank: usize },
    /// One matrix, element by element times another, if there is one.
    Hadamard(Matrix, Option<Matrix>),
    /// The Kronecker product of two.
    Kronecker(Matrix, Matrix),
    /// The tensor as it is.
    Sum(String),
}

/// A matrix as a file keeps it.
pub enum Matrix {
    /// `[rows, …]`.
    Whole(String),
    /// `[rows, rank]` and `[rank, …]`.
    Product(String, String),
    /// With a core `[rank, rank, kernel]` between `[rank, rows]`, or `[rows, rank]` if `by_rows`, and `[rank, columns]`.
    Core { core: String, rows: String, columns: String, by_rows: bool },
}

/// Norms that a merged weight is brought to.
pub struct Magnitude {
    name: String,
    /// peft takes part of an update by scaling `up · down`, LyCORIS by going a part of the way to the magnitude.
    by_part: bool,
    /// Of columns, in the place of rows.
    of_columns: bool,
}

impl Matrix {
    /// The matrix of some tensors of a layer; `None` where they are not there.
    fn of(layer: &Layer, whole: Option<T>, a: T, b: T, core: T, by_rows: bool) -> Option<Self> {
        let name = |tensor: T| layer.name(tensor).map(str::to_owned);
        if let Some(whole) = whole.and_then(name) {
            return Some(Self::Whole(whole));
        }
        let (a, b) = (name(a)?, name(b)?);
        Some(match name(core) {
            Some(core) => Self::Core { core, rows: a, columns: b, by_rows },
            None => Self::Product(a, b),
        })
    }

    /// Rows and columns; `None` where its tensors do not fit each other.
    fn size(&self, source: &dyn TensorSource) -> Option<[usize; 2]> {
        let shape = |name: &String| {
            let shape = source.shape(name)?;
            (shape.len() > 1 && shape.iter().all(|side| *side > 0)).then_some(shape)
        };
        let rest = |shape: &[usize]| shape[1..].iter().product::<usize>();
        match self {
            Self::Whole(name) => shape(name).map(|shape| [shape[0], rest(&shape)]),
            Self::Product(a, b) => {
                let (a, b) = (shape(a)?, shape(b)?);
                (rest(&a) == b[0]).then(|| [a[0], rest(&b)])
            }
            Self::Core { core, rows, columns, by_rows } => {
                let (core, rows, columns) = (shape(core)?, shape(rows)?, shape(columns)?);
                let [out, rank] = if *by_rows { [rows[0], rest(&rows)] } else { [rest(&rows), rows[0]] };
                let kernel = core[2..].iter().product::<usize>();
                ([rank, columns[0]] == core[..2]).then(|| [out, rest(&columns) * kernel])
            }
        }
    }

    /// The rank, where it has one.
    fn rank(&self, source: &dyn TensorSource) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product(_, b) | Self::Core { columns: b, .. } => source.shape(b)?.first().copied(),
        }
    }

    fn read(&self, source: &dyn TensorSource) -> Result<Vec<f32>> {
        let [rows, columns] = self.size(source).unwrap_or_default();
        match self {
            Self::Whole(name) => source.read(name),
            Self::Product(a, b) => Ok(product(&source.read(a)?, &source.read(b)?, rows, columns)),
            Self::Core { core, rows: outer, columns: inner, by_rows } => {
                let (mut outer, inner, core_values) =
                    (source.read(outer)?, source.read(inner)?, source.read(core)?);
                let rank = outer.len() / rows.max(1);
                if !by_rows {
                    outer = (0..outer.len()).map(|i| outer[i % rank * rows + i / rank]).collect();
                }
                // The core's second axis by the columns' matrix: [rank, in, kernel].
                let ranks = source.shape(core).unwrap_or_default();
                let (second, kernel) = (ranks[1], core_values.len() / (ranks[0] * ranks[1]).max(1));
                let width = inner.len() / second.max(1);
                let mut spread = vec![0.0; rank * width * kernel];
                for (of_core, spread) in
                    core_values.chunks(second * kernel).zip(spread.chunks_mut(width * kernel))
                {
                    for (of_core, inner) in of_core.chunks(kernel).zip(inner.chunks(width)) {
                        for (spread, inner) in spread.chunks_mut(kernel).zip(inner) {
                            spread.iter_mut().zip(of_core).for_each(|(sum, core)| *sum += inner * core);
                        }
                    }
                }
                Ok(product(&outer, &spread, rows, columns))
            }
        }
    }
}

/// `[rows, rank] · [rank, columns]`.
fn product(a: &[f32], b: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let rank = a.len() / rows.max(1);
    let mut out = vec![0.0; rows * columns];
    for (row, a) in out.chunks_mut(columns.max(1)).zip(a.chunks(rank.max(1))) {
        for (a, b) in a.iter().zip(b.chunks(columns.max(1))) {
            row.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    out
}

impl Delta {
    /// What a layer that is no plain LoRA adds to its weight; `None` where that is nothing.
    pub fn of(layer: &Layer) -> Option<Self> {
        let of = |whole, a, b, core| Matrix::of(layer, whole, a, b, core, false);
        if let Some(first) = of(None, T::Hada1A, T::Hada1B, T::HadaCore1) {
            return Some(Self::Hadamard(first, of(None, T::Hada2A, T::Hada2B, T::HadaCore2)));
        }
        // The first factor has no core.
        let first = of(Some(T::Kron1), T::Kron1A, T::Kron1B, T::HadaCore1);
        if let Some((first, second)) = first.zip(of(Some(T::Kron2), T::Kron2A, T::Kron2B, T::KronCore2)) {
            return Some(Self::Kronecker(first, second));
        }
        if layer.name(T::Mid).is_some() {
            let matrix = Matrix::of(layer, None, T::Up, T::Down, T::Mid, true)?;
            return Some(Self::Hadamard(matrix, None));
        }
        let whole = layer.name(T::Difference).or(layer.name(T::NormDifference))?;
        Some(Self::Sum(whole.to_owned()))
    }

    /// The rank, where it has one.
    pub fn rank(&self, source: &dyn TensorSource) -> Option<usize> {
        match self {
            Self::Product { rank, .. } => Some(*rank),
            Self::Hadamard(first, _) => first.rank(source),
            Self::Kronecker(first, second) => first.rank(source).or_else(|| second.rank(source)),
            Self::Sum(_) => None,
        }
    }

    /// Fails with `lora-mismatch` unless it has as many numbers, in as many rows, as a weight of some shape.
    pub fn check(&self, source: &dyn TensorSource, weight: &[usize], layer: &Layer) -> Result<()> {
        let size = match self {
            Self::Product { .. } => return Ok(()),
            Self::Hadamard(first, second) => {
                let size = first.size(source);
                size.filter(|size| second.as_ref().is_none_or(|second| second.size(source) == Some(*size)))
            }
            Self::Kronecker(first, second) => {
                let sizes = first.size(source).zip(second.size(source));
                sizes.map(|([a, b], [c, d])| [a * c, b * d])
            }
            Self::Sum(name) => source.shape(name).and_then(|shape| sides(&shape)),
        };
        if size.is_some() && size == sides(weight) {
            return Ok(());
        }
        let (network, module) = (layer.network.name(), &layer.module);
        Err(mismatch(format!(
            "the update '{}' and its kin do not fit the weight {weight:?} of '{module}' in the {network}",
            layer.first()
        )))
    }

    fn read(&self, source: &dyn TensorSource) -> Result<Vec<f32>> {
        match self {
            Self::Product { down, up, rank } => {
                let (down, up) = (source.read(down)?, source.read(up)?);
                Ok(product(&up, &down, up.len() / rank, down.len() / rank))
            }
            Self::Hadamard(first, second) => {
                let mut values = first.read(source)?;
                if let Some(second) = second {
                    values.iter_mut().zip(second.read(source)?).for_each(|(value, by)| *value *= by);
                }
                Ok(values)
            }
            Self::Kronecker(first, second) => {
                let ([rows, columns], [_, width]) =
                    (first.size(source).unwrap_or_default(), second.size(source).unwrap_or_default());
                let (first, second) = (first.read(source)?, second.read(source)?);
                let mut out = Vec::with_capacity(first.len() * second.len());
                for of_row in first.chunks(columns.max(1)).take(rows) {
                    for row in second.chunks(width.max(1)) {
                        out.extend(of_row.iter().flat_map(|a| row.iter().map(move |b| a * b)));
                    }
                }
                Ok(out)
            }
            Self::Sum(name) => source.read(name),
        }
    }
}

/// Rows and columns of a weight; a norm's has one column.
fn sides(shape: &[usize]) -> Option<[usize; 2]> {
    let (rows, rest) = shape.split_first()?;
    Some([*rows, rest.iter().product()])
}

impl Magnitude {
    /// A layer's, for a weight of some shape; `None` where it has none.
    ///
    /// Fails with `lora-mismatch` where it fits neither its rows nor its columns.
    pub fn of(layer: &Layer, source: &dyn TensorSource, weight: &[usize]) -> Result<Option<Self>> {
        let of = |tensor: T| layer.name(tensor).map(|name| (name.to_owned(), tensor == T::DoraScale));
        let Some((name, by_part)) = of(T::Magnitude).or_else(|| of(T::DoraScale)) else { return Ok(None) };
        let shape = source.shape(&name).unwrap_or_default();
        let numbers = shape.iter().product::<usize>();
        let [rows, columns] = [0, 1].map(|axis| weight.get(axis).copied().unwrap_or(0));
        // peft's are of rows always; LyCORIS' stand along the axis that they are of.
        let of_columns = by_part && shape.first() != Some(&rows) && shape.get(1) == Some(&columns);
        if numbers != if of_columns { columns } else { rows } || weight.len() < 2 {
            return Err(mismatch(format!("'{name}' {shape:?} does not fit the weight {weight:?}")));
        }
        Ok(Some(Self { name, by_part, of_columns }))
    }

    /// Brings a weight's rows or columns to their norms.
    fn apply(
        &self,
        weight: &mut [f32],
        shape: &[usize],
        source: &dyn TensorSource,
        scale: f32,
    ) -> Result<()> {
        let magnitudes = source.read(&self.name)?;
        let width = shape.iter().skip(1).product::<usize>().max(1);
        let kernel = shape.iter().skip(2).product::<usize>().max(1);
        let group = |i: usize| if self.of_columns { i % width / kernel } else { i / width };
        let mut squares = vec![0.0f64; magnitudes.len()];
        for (i, value) in weight.iter().enumerate() {
            squares[group(i)] += f64::from(*value).powi(2);
        }
        let factor = |(square, magnitude): (f64, &f32)| {
            if self.by_part {
                let whole = f64::from(*magnitude) / (square.sqrt() + EPSILON);
                f64::from(scale) * (whole - 1.0) + 1.0
            } else {
                f64::from(*magnitude) / square.sqrt()
            }
        };
        let factors: Vec<f32> =
            squares.into_iter().zip(&magnitudes).map(|both| factor(both) as f32).collect();
        weight.iter_mut().enumerate().for_each(|(i, value)| *value *= factors[group(i)]);
        Ok(())
    }
}

impl Update<'_> {
    /// Changes a weight of some shape.
    pub fn apply(&self, weight: &mut [f32], shape: &[usize]) -> Result<()> {
        // LyCORIS takes an update whole where it has a magnitude, and then a part of both.
        let by_part = self.magnitude.as_ref().is_some_and(|magnitude| magnitude.by_part);
        let strength = if by_part { self.factor } else { self.scale * self.factor };
        if let Delta::Product { down, up, rank } = &self.delta {
            let (down, up) = (self.source.read(down)?, self.source.read(up)?);
            let width = (down.len() / rank).max(1);
            for (row, up) in weight.chunks_mut(width).zip(up.chunks(*rank)) {
                for (down, up) in down.chunks(width).zip(up) {
                    let factor = strength * up;
                    row.iter_mut().zip(down).for_each(|(weight, down)| *weight += factor * down);
                }
            }
        } else {
            let delta = self.delta.read(self.source)?;
            weight.iter_mut().zip(delta).for_each(|(weight, delta)| *weight += strength * delta);
        }
        match &self.magnitude {
            Some(magnitude) => magnitude.apply(weight, shape, self.source, self.scale),
            None => Ok(()),
        }
    }
}
