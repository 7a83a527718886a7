//! The same tensors under other names: what a checkpoint's layout is turned into ours with.

use std::collections::BTreeMap;
use std::ops::Range;

use facestudio::error::{Error, Result};
use facestudio::weights::{BLOCK, Blocks, TensorSource};

/// How a tensor differs from the one it is made of.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// In its shape at most.
    Shape,
    /// `[a, b]` becomes `[b, a]`.
    Transposed,
    /// Some of the first dimension's rows.
    Rows(Range<usize>),
    /// The second half of the first dimension's rows before the first.
    Swapped,
    /// Made of none: every number is this one.
    Filled(f32),
}

#[derive(Debug, Clone)]
struct Origin {
    name: String,
    shape: Vec<usize>,
    change: Change,
    /// Each row is multiplied by its number of the first, and its number of the second is added.
    affine: Option<[Vec<f32>; 2]>,
}

/// A view of a checkpoint under the names of diffusers and transformers. Nothing is read before it is asked for.
pub struct Layout<'a> {
    source: &'a dyn TensorSource,
    tensors: BTreeMap<String, Origin>,
}

impl<'a> Layout<'a> {
    /// Of `source`, without any tensor yet.
    pub fn new(source: &'a dyn TensorSource) -> Self {
        Self { source, tensors: BTreeMap::new() }
    }

    /// Tensor `from` under the name `to`.
    pub fn keep(&mut self, from: &str, to: impl Into<String>) -> Result<()> {
        let shape = shape(self.source, from)?;
        self.put(from, to, shape, Change::Shape)
    }

    /// A 1×1 convolution's weight as a linear layer's: `[out, in, 1, 1]` becomes `[out, in]`. Linear weights stay.
    pub fn as_linear(&mut self, from: &str, to: impl Into<String>) -> Result<()> {
        let mut shape = shape(self.source, from)?;
        if shape.get(2..).is_some_and(|kernel| kernel.iter().any(|side| *side != 1)) {
            return Err(unexpected(from, &shape, "a 1×1 convolution"));
        }
        shape.truncate(2);
        self.put(from, to, shape, Change::Shape)
    }

    /// A matrix on its side.
    pub fn transposed(&mut self, from: &str, to: impl Into<String>) -> Result<()> {
        let mut shape = shape(self.source, from)?;
        if shape.len() != 2 {
            return Err(unexpected(from, &shape, "a matrix"));
        }
        shape.reverse();
        self.put(from, to, shape, Change::Transposed)
    }

    /// Tensor `from`, a matrix on its side if `transposed`, in a shape of as many numbers.
    pub fn shaped(
        &mut self,
        from: &str,
        to: impl Into<String>,
        shape: &[usize],
        transposed: bool,
    ) -> Result<()> {
        let change = if transposed { Change::Transposed } else { Change::Shape };
        self.put(from, to, shape.to_vec(), change)
    }

    /// Multiplies each row of the first dimension of a tensor that is there, `to`, by a number of its own.
    pub fn scale(&mut self, to: &str, by: &[f32]) -> Result<()> {
        let [scale, offset] = self.affine(to, by.len())?;
        scale.iter_mut().chain(offset).zip(by.iter().cycle()).for_each(|(value, by)| *value *= by);
        Ok(())
    }

    /// Adds a number of its own to each row of the first dimension of a tensor that is there, `to`.
    pub fn shift(&mut self, to: &str, by: &[f32]) -> Result<()> {
        let [_, offset] = self.affine(to, by.len())?;
        offset.iter_mut().zip(by).for_each(|(value, by)| *value += by);
        Ok(())
    }

    fn affine(&mut self, to: &str, rows: usize) -> Result<&mut [Vec<f32>; 2]> {
        match self.tensors.get_mut(to) {
            Some(origin) if origin.shape.first() == Some(&rows) => {
                Ok(origin.affine.get_or_insert_with(|| [vec![1.0; rows], vec![0.0; rows]]))
            }
            other => {
                let shape = other.map_or(&[][..], |origin| &origin.shape);
                Err(unexpected(to, shape, &format!("a tensor of {rows} rows")))
            }
        }
    }

    /// A tensor that holds several, one below the other, all with as many rows.
    pub fn split(&mut self, from: &str, to: &[String]) -> Result<()> {
        let whole = shape(self.source, from)?;
        let rows = whole.first().filter(|rows| *rows % to.len() == 0).map(|rows| rows / to.len());
        let rows = rows.ok_or_else(|| unexpected(from, &whole, "several of one size"))?;
        for (i, to) in to.iter().enumerate() {
            let mut part = whole.clone();
            part[0] = rows;
            self.put(from, to, part, Change::Rows(i * rows..(i + 1) * rows))?;
        }
        Ok(())
    }

    /// A tensor whose second half of rows comes before the first.
    pub fn swap_halves(&mut self, from: &str, to: impl Into<String>) -> Result<()> {
        let shape = shape(self.source, from)?;
        if shape.first().is_none_or(|rows| !rows.is_multiple_of(2)) {
            return Err(unexpected(from, &shape, "two of one size"));
        }
        self.put(from, to, shape, Change::Swapped)
    }

    /// Whether a tensor of the checkpoint is made anything of.
    pub fn reads(&self, from: &str) -> bool {
        self.tensors.values().any(|origin| origin.name == from)
    }

    /// A tensor that the checkpoint leaves out, since every number of it is `value`.
    pub fn fill(&mut self, to: impl Into<String>, shape: Vec<usize>, value: f32) -> Result<()> {
        self.put("a constant", to, shape, Change::Filled(value))
    }

    fn put(&mut self, from: &str, to: impl Into<String>, shape: Vec<usize>, change: Change) -> Result<()> {
        let to = to.into();
        let origin = Origin { name: from.to_owned(), shape, change, affine: None };
        match self.tensors.insert(to.clone(), origin) {
            None => Ok(()),
            Some(other) => Err(Error::weights(
                "checkpoint-layout",
                format!("tensors '{}' and '{from}' would both be '{to}'", other.name),
                "use a checkpoint of one model",
            )),
        }
    }
}

impl TensorSource for Layout<'_> {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|origin| origin.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let Some(origin) = self.tensors.get(name) else { return self.source.read(name) };
        let width = origin.shape.iter().skip(1).product::<usize>();
        let mut values = match &origin.change {
            Change::Filled(value) => vec![*value; origin.shape.iter().product()],
            Change::Shape => self.source.read(&origin.name)?,
            Change::Rows(rows) => {
                self.source.read(&origin.name)?[rows.start * width..rows.end * width].to_vec()
            }
            Change::Swapped => {
                let values = self.source.read(&origin.name)?;
                let (first, second) = values.split_at(values.len() / 2);
                [second, first].concat()
            }
            Change::Transposed => {
                let values = self.source.read(&origin.name)?;
                let (rows, columns) = (origin.shape[0], origin.shape[1]);
                (0..rows * columns).map(|i| values[i % columns * rows + i / columns]).collect()
            }
        };
        if let Some([scale, offset]) = &origin.affine {
            for (row, (scale, offset)) in values.chunks_mut(width.max(1)).zip(scale.iter().zip(offset)) {
                row.iter_mut().for_each(|value| *value = *value * scale + offset);
            }
        }
        Ok(values)
    }

    fn blocks(&self, name: &str) -> Result<Option<Blocks>> {
        let Some(origin) = self.tensors.get(name).filter(|origin| origin.affine.is_none()) else {
            return Ok(None);
        };
        // Blocks are of whole rows of the first dimension.
        let rows = self.source.shape(&origin.name).and_then(|shape| shape.first().copied());
        let width = origin.shape.iter().skip(1).product::<usize>();
        match &origin.change {
            Change::Shape if rows == origin.shape.first().copied() => self.source.blocks(&origin.name),
            Change::Rows(range) => {
                let blocks = self.source.blocks(&origin.name)?;
                Ok(blocks.map(|blocks| rows_of(&blocks, range, width)))
            }
            _ => Ok(None),
        }
    }
}

/// Some rows, of `width` numbers, of a tensor in blocks.
fn rows_of(blocks: &Blocks, rows: &Range<usize>, width: usize) -> Blocks {
    let scales = width.div_ceil(BLOCK);
    let bytes = if blocks.bits == 4 { scales * BLOCK / 2 } else { width };
    let of = |size: usize| rows.start * size..rows.end * size;
    Blocks {
        bits: blocks.bits,
        integers: blocks.integers[of(bytes)].to_vec(),
        scales: blocks.scales[of(scales)].to_vec(),
    }
}

/// The shape of a tensor that a layout must have.
pub fn shape(source: &dyn TensorSource, name: &str) -> Result<Vec<usize>> {
    source.shape(name).ok_or_else(|| {
        Error::weights(
            "checkpoint-layout",
            format!("the checkpoint has no tensor '{name}'"),
            "check what kind of checkpoint it is: docs/weights.md lists those that can be converted",
        )
    })
}

/// One side of a tensor that a layout must have.
pub fn side(source: &dyn TensorSource, name: &str, axis: usize) -> Result<usize> {
    let shape = shape(source, name)?;
    shape.get(axis).copied().ok_or_else(|| unexpected(name, &shape, "a tensor of more dimensions"))
}

/// How many of the tensors `name(0)`, `name(1)` and so on there are.
pub fn count(source: &dyn TensorSource, name: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|i| source.shape(&name(*i)).is_some()).count()
}

/// A tensor that a layout has no place for.
pub fn unknown(name: &str, what: &str) -> Error {
    Error::weights(
        "checkpoint-layout",
        format!("'{name}' belongs to no known {what}"),
        "check what kind of checkpoint it is: docs/weights.md lists those that can be converted",
    )
}

/// A tensor of another shape than what is wanted.
pub fn unexpected(name: &str, shape: &[usize], wanted: &str) -> Error {
    Error::weights(
        "checkpoint-layout",
        format!("tensor '{name}' has shape {shape:?}, not that of {wanted}"),
        "check what kind of checkpoint it is: docs/weights.md lists those that can be converted",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio::weights::Tensors;

    fn source() -> Tensors {
        let values = |n: usize| (0..n).map(|v| v as f32).collect();
        Tensors(
            [("m".to_owned(), (vec![2, 3], values(6))), ("c".to_owned(), (vec![2, 3, 1, 1], values(6)))]
                .into(),
        )
    }

    #[test]
    fn tensors_are_renamed_turned_and_cut() {
        let source = source();
        let mut layout = Layout::new(&source);
        layout.keep("m", "kept").unwrap();
        layout.as_linear("c", "linear").unwrap();
        layout.transposed("m", "turned").unwrap();
        layout.split("m", &["first".to_owned(), "second".to_owned()]).unwrap();
        let all = layout.read_all().unwrap().0;
        assert_eq!(all["kept"], source.0["m"]);
        assert_eq!(all["linear"], source.0["m"]);
        assert_eq!(all["turned"], (vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        assert_eq!(all["first"], (vec![1, 3], vec![0.0, 1.0, 2.0]));
        assert_eq!(all["second"], (vec![1, 3], vec![3.0, 4.0, 5.0]));
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn rows_are_scaled_and_shifted() {
        let source = source();
        let mut layout = Layout::new(&source);
        layout.shaped("m", "turned", &[3, 2], true).unwrap();
        layout.fill("bias", vec![3], 1.0).unwrap();
        for to in ["turned", "bias"] {
            layout.shift(to, &[0.0, 10.0, 0.0]).unwrap();
            layout.scale(to, &[1.0, 2.0, -1.0]).unwrap();
            layout.shift(to, &[0.0, 1.0, 0.0]).unwrap();
        }
        assert_eq!(layout.read("turned").unwrap(), [0.0, 3.0, 23.0, 29.0, -2.0, -5.0]);
        assert_eq!(layout.read("bias").unwrap(), [1.0, 23.0, -1.0]);
        assert_eq!(layout.scale("bias", &[1.0]).unwrap_err().code, "checkpoint-layout");
        assert_eq!(layout.shift("absent", &[1.0]).unwrap_err().code, "checkpoint-layout");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let source = source();
        let mut layout = Layout::new(&source);
        layout.keep("m", "a").unwrap();
        let three = ["x", "y", "z"].map(str::to_owned);
        for error in [
            layout.keep("absent", "b").unwrap_err(),
            layout.keep("c", "a").unwrap_err(),
            layout.transposed("c", "t").unwrap_err(),
            layout.split("m", &three).unwrap_err(),
        ] {
            assert_eq!(error.code, "checkpoint-layout");
        }
    }
}
