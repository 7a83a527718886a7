//! Each operator that our networks have: what it reads, given that it does what they take for granted.

use super::{Constant, DEEPEST, Trace};
use crate::layout::Layout;
use crate::onnx::{Attribute, Node};
use facestudio::error::Result;

/// A convolution as a network of ours expects it; it pads by half its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Both sides of the kernel.
    pub kernel: usize,
    /// Along both sides.
    pub stride: usize,
    /// Whether each channel goes by itself.
    pub depthwise: bool,
}

/// A normalisation with fixed statistics.
pub struct Norm<'g> {
    /// Weight, bias, mean and variance of each channel.
    pub parts: [Constant<'g>; 4],
    /// Added to the variance.
    pub epsilon: f32,
    /// What it reads.
    pub input: &'g str,
}

/// A convolution or linear layer, and the normalisation after it, where there is one.
pub struct Layer<'g> {
    /// `[out, in, kernel, kernel]` or `[out, in]`.
    pub weight: Constant<'g>,
    /// `[out]`.
    pub bias: Constant<'g>,
    /// Of what it gives.
    pub norm: Option<Norm<'g>>,
    /// What it reads.
    pub input: &'g str,
    /// Rows of its weight.
    pub channels: usize,
}

impl<'g> Trace<'g> {
    /// Fails unless what is outside a feature map of a window is as wanted. `padding` is all of what a side gets.
    fn expect_padding(&self, node: &Node, padding: usize, stride: usize) -> Result<()> {
        let none = [0.0; 4];
        match self.text(node, "auto_pad", "NOTSET")? {
            "NOTSET" | "" => self.expect(node, "pads", &none, &[padding as f64; 4]),
            "VALID" => self.expect(node, "pads", &none, &none).and(if padding == 0 {
                Ok(())
            } else {
                Err(self.other(format!("{} with auto_pad = VALID", node.op)))
            }),
            // Both sides get as much where nothing is left over.
            "SAME_UPPER" | "SAME_LOWER" if stride == 1 => Ok(()),
            other => Err(self.other(format!("{} with auto_pad = {other}", node.op))),
        }
    }

    /// A convolution that is as `window` says, and the normalisation after it.
    pub fn convolution(&self, value: &'g str, window: Window) -> Result<Layer<'g>> {
        let Window { kernel, stride, depthwise } = window;
        let norm = if self.is(value, "BatchNormalization")? { Some(self.norm(value)?) } else { None };
        let node = self.step(norm.as_ref().map_or(value, |norm| norm.input), "Conv")?;
        self.only(node, &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"])?;
        let sides = [kernel as f64; 2];
        self.expect(node, "kernel_shape", &sides, &sides)?;
        self.expect(node, "strides", &[1.0; 2], &[stride as f64; 2])?;
        self.expect(node, "dilations", &[1.0; 2], &[1.0; 2])?;
        self.expect_padding(node, kernel / 2, stride)?;
        let weight = self.constant(self.input(node, 1)?)?;
        let Constant::Stored { shape, .. } = &weight else {
            return Err(self.other("a convolution without a weight of its own"));
        };
        let channels = match shape[..] {
            [out, 1, rows, columns] if depthwise && rows == kernel && columns == kernel => out,
            [out, _, rows, columns] if !depthwise && rows == kernel && columns == kernel => out,
            _ => {
                return Err(self
                    .other(format!("a convolution of shape {shape:?} where {kernel}×{kernel} is expected")));
            }
        };
        let groups = if depthwise { channels } else { 1 };
        self.expect(node, "group", &[1.0], &[groups as f64])?;
        let bias = self.bias(node, 2)?;
        Ok(Layer { weight, bias, norm, input: self.input(node, 0)?, channels })
    }

    fn bias(&self, node: &'g Node, i: usize) -> Result<Constant<'g>> {
        match node.inputs.get(i).filter(|name| !name.is_empty()) {
            Some(name) => self.constant(name),
            None => Ok(Constant::Filled(0.0)),
        }
    }

    /// A normalisation with fixed statistics.
    pub fn norm(&self, value: &'g str) -> Result<Norm<'g>> {
        let node = self.step(value, "BatchNormalization")?;
        // How statistics would be gathered says nothing of how they are used.
        self.only(node, &["epsilon", "momentum", "training_mode", "spatial"])?;
        self.expect(node, "training_mode", &[0.0], &[0.0])?;
        self.expect(node, "spatial", &[1.0], &[1.0])?;
        let epsilon = self.number(node, "epsilon", 1e-5)? as f32;
        let part = |i| self.constant(self.input(node, i)?);
        Ok(Norm { parts: [part(1)?, part(2)?, part(3)?, part(4)?], epsilon, input: self.input(node, 0)? })
    }

    /// A linear layer: a `Gemm`, or a product and a sum. Weight and bias go into `layout`, scaled as it says.
    pub fn linear(&self, value: &'g str, layout: &mut Layout<'g>, to: &str) -> Result<&'g str> {
        let (input, weight, bias, alpha, beta) = if self.is(value, "Add")? {
            let [a, b] = self.sum(value)?;
            let (product, bias) = if self.is(a, "MatMul")? { (a, b) } else { (b, a) };
            let node = self.step(product, "MatMul")?;
            self.only(node, &[])?;
            let mut weight = self.constant(self.input(node, 1)?)?;
            weight.turn();
            (self.input(node, 0)?, weight, self.constant(bias)?, 1.0, 1.0)
        } else {
            let node = self.step(value, "Gemm")?;
            self.only(node, &["alpha", "beta", "transA", "transB", "broadcast"])?;
            self.expect(node, "transA", &[0.0], &[0.0])?;
            let mut weight = self.constant(self.input(node, 1)?)?;
            match self.number(node, "transB", 0.0)? {
                0.0 => weight.turn(),
                1.0 => {}
                other => return Err(self.other(format!("Gemm with transB = {other}"))),
            }
            let scale = |name| self.number(node, name, 1.0);
            (self.input(node, 0)?, weight, self.bias(node, 2)?, scale("alpha")?, scale("beta")?)
        };
        let Constant::Stored { shape, .. } = &weight else {
            return Err(self.other("a linear layer without a weight of its own"));
        };
        let [out, columns] = shape[..] else {
            return Err(self.other(format!("a linear layer's weight of shape {shape:?}")));
        };
        self.put(layout, &weight, &format!("{to}.weight"), &[out, columns])?;
        self.put(layout, &bias, &format!("{to}.bias"), &[out])?;
        if alpha != 1.0 {
            layout.scale(&format!("{to}.weight"), &vec![alpha as f32; out])?;
        }
        if beta != 1.0 {
            layout.scale(&format!("{to}.bias"), &vec![beta as f32; out])?;
        }
        Ok(input)
    }

    /// The slopes of a `PRelu`, and what it reads.
    pub fn slopes(&self, value: &'g str) -> Result<(Constant<'g>, &'g str)> {
        let node = self.step(value, "PRelu")?;
        self.only(node, &[])?;
        Ok((self.constant(self.input(node, 1)?)?, self.input(node, 0)?))
    }

    /// Puts the slopes of `channels` of a feature map into a layout.
    pub fn put_slopes(
        &self,
        layout: &mut Layout<'g>,
        slopes: &Constant<'g>,
        to: &str,
        channels: usize,
    ) -> Result<()> {
        if let Constant::Stored { shape, .. } = slopes {
            // The channels' side is the third from the end: what is shorter lies along the map's sides.
            let of_channels = match shape[..] {
                [1, count, 1, 1] | [count, 1, 1] => count == channels || count == 1,
                _ => shape.iter().all(|side| *side == 1),
            };
            if !of_channels {
                let wanted = format!("[{channels}, 1, 1] is expected");
                return Err(self.other(format!("PRelu with slopes of shape {shape:?} where {wanted}")));
            }
        }
        self.put(layout, slopes, &format!("{to}.weight"), &[channels])
    }

    /// The kernel's side of the convolution that gives `value`, whether or not it is normalised; `None` for what is none.
    pub fn kernel(&self, value: &'g str) -> Result<Option<usize>> {
        let norm = self.is(value, "BatchNormalization")?;
        let value = if norm { self.norm(value)?.input } else { value };
        if !self.is(value, "Conv")? {
            return Ok(None);
        }
        let weight = self.constant(self.input(self.step(value, "Conv")?, 1)?)?;
        Ok(match weight {
            Constant::Stored { shape, .. } => shape.get(2).copied(),
            Constant::Filled(_) => None,
        })
    }

    /// What a `Relu` reads.
    pub fn relu(&self, value: &'g str) -> Result<&'g str> {
        let node = self.step(value, "Relu")?;
        self.only(node, &[])?;
        self.input(node, 0)
    }

    /// What a `Sigmoid` reads.
    pub fn sigmoid(&self, value: &'g str) -> Result<&'g str> {
        let node = self.step(value, "Sigmoid")?;
        self.only(node, &[])?;
        self.input(node, 0)
    }

    /// Both of what is added.
    pub fn sum(&self, value: &'g str) -> Result<[&'g str; 2]> {
        let node = self.step(value, "Add")?;
        self.only(node, &[])?;
        Ok([self.input(node, 0)?, self.input(node, 1)?])
    }

    /// What halves its sides by the largest of each 2×2.
    pub fn halved(&self, value: &'g str) -> Result<&'g str> {
        let node = self.step(value, "MaxPool")?;
        let known =
            ["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"];
        self.only(node, &known)?;
        self.expect(node, "kernel_shape", &[], &[2.0; 2])?;
        self.expect(node, "strides", &[1.0; 2], &[2.0; 2])?;
        self.expect(node, "dilations", &[1.0; 2], &[1.0; 2])?;
        self.expect(node, "ceil_mode", &[0.0], &[0.0])?;
        self.expect_padding(node, 0, 2)?;
        self.input(node, 0)
    }

    /// What doubles its sides by writing each position four times.
    pub fn doubled(&self, value: &'g str) -> Result<&'g str> {
        let upsample = self.is(value, "Upsample")?;
        let node = self.step(value, if upsample { "Upsample" } else { "Resize" })?;
        if upsample {
            self.only(node, &["mode", "scales"])?;
        } else {
            // The rest is of cubic interpolation and of cuts.
            self.only(
                node,
                &[
                    "antialias",
                    "coordinate_transformation_mode",
                    "cubic_coeff_a",
                    "exclude_outside",
                    "extrapolation_value",
                    "keep_aspect_ratio_policy",
                    "mode",
                    "nearest_mode",
                ],
            )?;
            self.expect(node, "antialias", &[0.0], &[0.0])?;
            let place = self.text(node, "coordinate_transformation_mode", "half_pixel")?;
            let rounded = self.text(node, "nearest_mode", "round_prefer_floor")?;
            let same = match place {
                "asymmetric" => matches!(rounded, "floor" | "round_prefer_floor"),
                "half_pixel" | "pytorch_half_pixel" => {
                    matches!(rounded, "round_prefer_floor" | "round_prefer_ceil")
                }
                _ => false,
            };
            if !same {
                return Err(self.other(format!(
                    "Resize with coordinate_transformation_mode = {place}, nearest_mode = {rounded}"
                )));
            }
        }
        match self.text(node, "mode", "nearest")? {
            "nearest" => {}
            other => return Err(self.other(format!("{} with mode = {other}", node.op))),
        }
        // Upsample, and Resize as it was at first, have no region of interest; the scales come last but for sizes.
        let scales = match (node.attributes.get("scales"), &node.inputs[..]) {
            (Some(Attribute::Numbers(scales)), _) => scales.iter().map(|scale| Some(*scale as f32)).collect(),
            (None, [_, scales] | [_, _, scales]) if !scales.is_empty() => self.sides(scales, 0)?,
            (None, [_, _, scales, sizes]) if !scales.is_empty() && sizes.is_empty() => {
                self.sides(scales, 0)?
            }
            _ => return Err(self.other(format!("{} to sizes that it does not state as scales", node.op))),
        };
        if scales != [1.0, 1.0, 2.0, 2.0].map(Some) {
            let found: Vec<f32> = scales.into_iter().flatten().collect();
            let wanted = "[1, 1, 2, 2] is expected";
            return Err(self.other(format!("{} with scales = {found:?} where {wanted}", node.op)));
        }
        self.input(node, 0)
    }

    /// What is laid flat, all but the batch.
    pub fn flat(&self, value: &'g str, columns: usize) -> Result<&'g str> {
        if self.is(value, "Flatten")? {
            let node = self.step(value, "Flatten")?;
            self.only(node, &["axis"])?;
            self.expect(node, "axis", &[1.0], &[1.0])?;
            return self.input(node, 0);
        }
        let (input, sides) = self.reshaped(value)?;
        let whole = |side: Option<f32>| side.is_none_or(|side| side == -1.0 || side == columns as f32);
        match sides[..] {
            [_, last] if whole(last) => Ok(input),
            _ => Err(self.other(format!("Reshape to {} sides where 2 are expected", sides.len()))),
        }
    }

    /// What is laid in rows of `channels`, one for each position: a `Transpose` and a `Reshape`.
    pub fn rows(&self, value: &'g str, channels: usize) -> Result<&'g str> {
        let (input, sides) = self.reshaped(value)?;
        match sides[..] {
            [_, _, last] if last.is_none_or(|last| last == channels as f32) => {}
            _ => {
                return Err(self.other(format!("Reshape to {sides:?} where rows of {channels} are expected")));
            }
        }
        let node = self.step(input, "Transpose")?;
        self.only(node, &["perm"])?;
        self.expect(node, "perm", &[3.0, 2.0, 1.0, 0.0], &[0.0, 2.0, 3.0, 1.0])?;
        self.input(node, 0)
    }

    /// What a `Reshape` reads, and the sides that it makes, as far as they are known.
    fn reshaped(&self, value: &'g str) -> Result<(&'g str, Vec<Option<f32>>)> {
        let node = self.step(value, "Reshape")?;
        self.only(node, &["allowzero"])?;
        let sides = self.sides(self.input(node, 1)?, 0)?;
        let empty = self.number(node, "allowzero", 0.0)? != 0.0 && sides.contains(&Some(0.0));
        if empty {
            return Err(self.other("Reshape to nothing"));
        }
        Ok((self.input(node, 0)?, sides))
    }

    /// The numbers of a list of sides or scales; those that depend on the input are not known.
    fn sides(&self, value: &'g str, depth: usize) -> Result<Vec<Option<f32>>> {
        if let Ok(numbers) = self.numbers(value) {
            return Ok(numbers.into_iter().map(Some).collect());
        }
        match self.maker(value)? {
            Some(node) if node.op == "Concat" && depth == 0 => {
                let mut sides = Vec::new();
                for part in node.inputs.iter().take(DEEPEST) {
                    sides.extend(self.sides(part, 1)?);
                }
                Ok(sides)
            }
            Some(_) => Ok(vec![None]),
            None => Err(self.other("Reshape to sides that it is given")),
        }
    }
}
