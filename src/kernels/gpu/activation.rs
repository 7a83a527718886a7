//! Element-wise activations, one pass each.

use super::launch::{Bound, Kernel, MOST_GROUPS, Operand, launch};

const THREADS: usize = 256;

/// Functions of one number, and of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Function {
    Silu,
    Gelu,
    QuickGelu,
    GeGlu,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Activation {
    function: Function,
}

impl Kernel for Activation {
    const TEXT: &'static str = include_str!("activation.wgsl");
    const SIZES: &'static [&'static str] = &["count", "layer", "width"];

    fn labels(&self) -> Vec<(&'static str, String)> {
        let value = match self.function {
            Function::Silu => "silu(f32(x[at]))",
            Function::Gelu => "gelu(f32(x[at]))",
            Function::QuickGelu => "quick_gelu(f32(x[at]))",
            Function::GeGlu => {
                "f32(x[at + at / sizes.width * sizes.width]) * gelu(f32(x[at + at / sizes.width * sizes.width + sizes.width]))"
            }
        };
        vec![("threads", THREADS.to_string()), ("value", value.to_owned())]
    }
}

/// Of each number of `x`, or of the pairs along its last dimension; `shape` is the output's.
pub(super) fn activation<const D: usize>(
    x: &Operand,
    function: Function,
    shape: [usize; D],
) -> Option<Operand> {
    let count: usize = shape.iter().product();
    if count == 0 {
        return None;
    }
    let all = count.div_ceil(THREADS);
    let across = all.min(MOST_GROUPS);
    let layers = all.div_ceil(across);
    if layers > MOST_GROUPS {
        return None;
    }
    let out = x.room(shape);
    let [x, to] = [("x", x), ("out", &out)].map(|(name, held)| Bound::numbers(name, held, false));
    let sizes = [count, across * THREADS, shape[D - 1]];
    launch(Activation { function }, &[x, to], &sizes, [across, layers, 1]);
    Some(out)
}
