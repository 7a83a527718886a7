//! Normalisation.

use super::launch::{Bound, Kernel, MOST_GROUPS, Operand, launch};

/// Invocations of a workgroup that share a chunk.
const THREADS: usize = 256;
/// Numbers that an invocation holds in registers.
const EACH: usize = 16;
/// Numbers of a chunk.
const CHUNK: usize = EACH * THREADS;

fn bound<'a>(name: &'static str, held: &'a Operand) -> Bound<'a> {
    Bound::numbers(name, held, false)
}

/// Constants that texts share.
fn shared(threads: usize) -> Vec<(&'static str, String)> {
    vec![
        ("threads", threads.to_string()),
        ("lanes", threads.to_string()),
        ("chunk", CHUNK.to_string()),
        ("each", EACH.to_string()),
    ]
}

/// Workgroups in two dimensions of a dispatch: how many a layer has, and layers.
fn layered(groups: usize) -> [usize; 2] {
    let layer = groups.min(MOST_GROUPS);
    [layer, groups.div_ceil(layer)]
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Statistics;

impl Kernel for Statistics {
    const TEXT: &'static str = concat!(include_str!("total.wgsl"), include_str!("statistics.wgsl"));
    const SIZES: &'static [&'static str] = &["rows", "row_layer", "length", "chunks"];

    fn labels(&self) -> Vec<(&'static str, String)> {
        shared(THREADS)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Normalise {
    /// Of the f32: floats themselves are neither `Eq` nor `Hash`.
    eps: u32,
    silu: bool,
}

impl Kernel for Normalise {
    const TEXT: &'static str = include_str!("group_norm.wgsl");
    const SIZES: &'static [&'static str] =
        &["rows", "row_layer", "length", "chunks", "groups", "group_channels", "positions"];

    fn labels(&self) -> Vec<(&'static str, String)> {
        let mut labels = shared(THREADS);
        labels.extend(self.last());
        labels
    }
}

impl Normalise {
    fn last(&self) -> [(&'static str, String); 2] {
        let activated = if self.silu { "y / (1.0 + exp(-y))" } else { "y" };
        [("eps", literal(self.eps)), ("activated", activated.to_owned())]
    }
}

/// Of groups that a workgroup of so many invocations holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Whole {
    threads: usize,
    normalise: Normalise,
}

impl Whole {
    /// Invocations that hold so many numbers, if there may be so many of them.
    fn threads(length: usize) -> Option<usize> {
        [64, THREADS].into_iter().find(|threads| length <= threads * EACH)
    }
}

impl Kernel for Whole {
    const TEXT: &'static str = concat!(include_str!("total.wgsl"), include_str!("group_norm_whole.wgsl"));
    const SIZES: &'static [&'static str] = Normalise::SIZES;

    fn labels(&self) -> Vec<(&'static str, String)> {
        let mut labels = shared(self.threads);
        labels.extend(self.normalise.last());
        labels
    }
}

/// A number with its decimals in WGSL.
fn literal(bits: u32) -> String {
    format!("{:?}f", f32::from_bits(bits))
}

/// Sizes of a group normalisation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub batch: usize,
    pub channels: usize,
    pub groups: usize,
    pub size: [usize; 2],
    pub eps: f32,
    pub silu: bool,
}

/// `x`: `[batch, channels, h, w]`, `weight` and `bias`: `[channels]`.
pub(super) fn group_norm(x: &Operand, weight: &Operand, bias: &Operand, sizes: Groups) -> Option<Operand> {
    let Groups { batch, channels, groups, size: [height, width], eps, silu } = sizes;
    let positions = height * width;
    let (rows, length) = (batch * groups, channels / groups * positions);
    let chunks = length.div_ceil(CHUNK);
    let [layer, layers] = layered(rows);
    if chunks > MOST_GROUPS || layers > MOST_GROUPS {
        return None;
    }
    let dispatch = [chunks, layer, layers];
    let numbers = [rows, layer, length, chunks, groups, channels / groups, positions];
    let out = x.room([batch, channels, height, width]);
    let kernel = Normalise { eps: eps.to_bits(), silu };
    if let Some(threads) = Whole::threads(length) {
        let tensors = [bound("x", x), bound("weight", weight), bound("bias", bias), bound("out", &out)];
        launch(Whole { threads, normalise: kernel }, &tensors, &numbers, dispatch);
        return Some(out);
    }
    let statistics = x.room_f32([rows, chunks, 2]);
    launch(Statistics, &[bound("x", x), bound("out", &statistics)], &numbers[..4], dispatch);
    let tensors = [
        bound("x", x),
        bound("weight", weight),
        bound("bias", bias),
        bound("statistics", &statistics),
        bound("out", &out),
    ];
    launch(kernel, &tensors, &numbers, dispatch);
    Some(out)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LayerNorm {
    eps: u32,
    /// Invocations that share a row.
    lanes: usize,
}

/// Invocations of a workgroup for rows.
const ROW_THREADS: usize = 64;
/// Of them, those that share a row of up to sixteen numbers each: fewer wait for each other less often.
const SHORT_LANES: usize = 16;

impl Kernel for LayerNorm {
    const TEXT: &'static str = concat!(include_str!("total.wgsl"), include_str!("layer_norm.wgsl"));
    const SIZES: &'static [&'static str] = &["rows", "group_layer", "length"];

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("threads", ROW_THREADS.to_string()),
            ("lanes", self.lanes.to_string()),
            ("eps", literal(self.eps)),
        ]
    }
}

/// `x`: `rows` of `length`, `weight` and `bias`: `[length]`.
pub(super) fn layer_norm(
    x: &Operand,
    weight: &Operand,
    bias: &Operand,
    [rows, length]: [usize; 2],
    eps: f32,
) -> Operand {
    let out = x.room([rows, length]);
    let lanes = if length <= SHORT_LANES * EACH { SHORT_LANES } else { ROW_THREADS };
    let kernel = LayerNorm { eps: eps.to_bits(), lanes };
    let tensors = [bound("x", x), bound("weight", weight), bound("bias", bias), bound("out", &out)];
    let [layer, layers] = layered(rows.div_ceil(ROW_THREADS / lanes));
    launch(kernel, &tensors, &[rows, layer, length], [layer, layers, 1]);
    out
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RmsNorm {
    eps: u32,
}

impl Kernel for RmsNorm {
    const TEXT: &'static str = include_str!("rms_norm.wgsl");
    const SIZES: &'static [&'static str] = &["channels", "positions"];

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("threads", ROW_THREADS.to_string()), ("eps", literal(self.eps))]
    }
}

/// `x`: `[batch, channels, h, w]`, over its channels; `weight` and `bias`: `[channels]`.
pub(super) fn rms_norm(
    x: &Operand,
    weight: &Operand,
    bias: &Operand,
    shape: [usize; 4],
    eps: f32,
) -> Option<Operand> {
    let [batch, channels, height, width] = shape;
    let positions = height * width;
    let groups = [positions.div_ceil(ROW_THREADS), batch, 1];
    if groups.iter().any(|groups| *groups > MOST_GROUPS) {
        return None;
    }
    let out = x.room(shape);
    let kernel = RmsNorm { eps: eps.to_bits() };
    let tensors = [bound("x", x), bound("weight", weight), bound("bias", bias), bound("out", &out)];
    launch(kernel, &tensors, &[channels, positions], groups);
    Some(out)
}
