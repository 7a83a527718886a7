//! Weights in eight-bit floats with what they are to be multiplied with beside them: ComfyUI's scaled FP8 (`scale_weight`, later
//! `weight_scale`), and compressed-tensors' (`weight_scale`, `weight_scale_inv`).
//!
//! A scale is one number, one a row, or one a square of 128 by 128 (`weight_scale_inv`, which despite its name is multiplied with).

use std::collections::{BTreeMap, BTreeSet};

use facestudio::error::{Error, Result};
use facestudio::weights::SafetensorsHeader;

/// What a weight's scale is called in the place of `weight`.
const SCALES: [&str; 3] = ["scale_weight", "weight_scale", SQUARES];
/// The scale of squares.
const SQUARES: &str = "weight_scale_inv";
/// A square's side.
const SQUARE: usize = 128;
/// What lies beside such a weight and is none: what its input would be multiplied with, and how ComfyUI is to compute with it.
const BESIDE: [&str; 3] = ["scale_input", "input_scale", "comfy_quant"];
/// A tensor that is there for its name alone, and says that a file is of this kind.
const MARK: &str = "scaled_fp8";

/// The weights of a file that have scales.
#[derive(Default)]
pub struct Scaled {
    /// The scale of each weight, by names.
    scales: BTreeMap<String, String>,
    /// Tensors that are no weights.
    hidden: BTreeSet<String>,
}

impl Scaled {
    /// Those of a file.
    ///
    /// Fails with `quantization-scheme` for a scale of another shape than its weight can have.
    pub fn of(header: &SafetensorsHeader) -> Result<Self> {
        let mut found = Self::default();
        let names = header.names();
        let is_float8 = |name: &str| header.dtype(name).is_some_and(|dtype| dtype.starts_with("f8_e"));
        for weight in names.iter().filter(|name| is_float8(name) && *name != MARK) {
            let layer = weight.strip_suffix("weight").unwrap_or(weight);
            let beside =
                |suffix: &&str| Some(format!("{layer}{suffix}")).filter(|name| header.shape(name).is_some());
            let Some(scale) = SCALES.iter().find_map(beside) else { continue };
            let (of, by) =
                (header.shape(weight).unwrap_or_default(), header.shape(&scale).unwrap_or_default());
            if Fit::of(&scale, &of, &by).is_none() || is_float8(&scale) {
                return Err(Error::weights(
                    "quantization-scheme",
                    format!("tensor '{weight}' {of:?} has a scale '{scale}' {by:?} that is of no known kind"),
                    "use the model in f32, f16, bf16 or plain FP8: facestudio quantises it itself",
                ));
            }
            found.hidden.extend(BESIDE.iter().filter_map(beside));
            found.hidden.insert(scale.clone());
            found.scales.insert(weight.clone(), scale);
        }
        found.hidden.extend(names.into_iter().filter(|name| name == MARK));
        Ok(found)
    }

    /// Whether a tensor is no weight.
    pub fn hides(&self, name: &str) -> bool {
        self.hidden.contains(name)
    }

    /// The name of a weight's scale, if it has one.
    pub fn scale_of(&self, weight: &str) -> Option<&str> {
        self.scales.get(weight).map(String::as_str)
    }
}

/// How the numbers of a scale belong to those of its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fit {
    Whole,
    Rows,
    Squares,
}

impl Fit {
    fn of(name: &str, weight: &[usize], scale: &[usize]) -> Option<Self> {
        if scale.iter().all(|side| *side == 1) {
            return Some(Self::Whole);
        }
        match (weight, scale) {
            ([rows, columns], [down, across]) if name.ends_with(SQUARES) => {
                let fits = [rows, columns].map(|side| side.div_ceil(SQUARE)) == [*down, *across];
                fits.then_some(Self::Squares)
            }
            ([rows, ..], [first, rest @ ..]) => {
                (rows == first && rest.iter().all(|side| *side == 1)).then_some(Self::Rows)
            }
            _ => None,
        }
    }
}

/// Multiplies a weight of some shape with its scale, `name`.
pub fn multiply(name: &str, shape: &[usize], values: &mut [f32], scale_shape: &[usize], scales: &[f32]) {
    let width = shape.iter().skip(1).product::<usize>().max(1);
    match (Fit::of(name, shape, scale_shape), scales) {
        (Some(Fit::Whole), [scale, ..]) => values.iter_mut().for_each(|value| *value *= scale),
        (Some(Fit::Rows), scales) => {
            for (row, scale) in values.chunks_mut(width).zip(scales) {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
        (Some(Fit::Squares), scales) => {
            let across = width.div_ceil(SQUARE);
            for (i, row) in values.chunks_mut(width).enumerate() {
                let of_row = scales.iter().skip(i / SQUARE * across);
                for (part, scale) in row.chunks_mut(SQUARE).zip(of_row) {
                    part.iter_mut().for_each(|value| *value *= scale);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_of_the_whole_of_rows_or_of_squares() {
        let mut ones = vec![1.0; 6];
        multiply("a.scale_weight", &[2, 3], &mut ones, &[], &[2.0]);
        multiply("a.weight_scale", &[2, 3], &mut ones, &[2, 1], &[1.0, 3.0]);
        assert_eq!(ones, [2.0, 2.0, 2.0, 6.0, 6.0, 6.0]);
        let (rows, columns) = (130, 200);
        let mut ones = vec![1.0; rows * columns];
        multiply("a.weight_scale_inv", &[rows, columns], &mut ones, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let at = |row: usize, column: usize| ones[row * columns + column];
        assert_eq!([at(0, 127), at(127, 128), at(128, 0), at(129, 199)], [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn scales_of_other_shapes_are_of_no_kind() {
        assert_eq!(Fit::of("a.weight_scale", &[64, 64], &[64, 2]), None);
        assert_eq!(Fit::of("a.weight_scale_inv", &[256, 256], &[2, 3]), None);
        assert_eq!(Fit::of("a.weight_scale", &[64, 64], &[32]), None);
        assert_eq!(Fit::of("a.weight_scale", &[64, 3, 3, 3], &[64, 1, 1, 1]), Some(Fit::Rows));
    }
}
