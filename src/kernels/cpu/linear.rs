//! Linear layers: checkpoints' weights, `[out, in]`, times panels of tokens; or, of many tokens, these times panels of weights.

use super::product::{Left, Start, product};
use super::simd::{MOST_LANES, MOST_ROWS, Simd, Task, Width};
use super::weights::Weights;
use super::{Shared, for_each, written};

/// Panels that share one pass over the weights.
const GROUP: usize = 4;
/// Fewer tokens than this are multiplied one by one, along the weights' rows: they would leave a panel almost empty.
const FEW: usize = 4;
/// Tokens of a task that multiplies them by panels of weights.
const ROWS: usize = 48;

/// `x`: `[tokens, in]`, `weight`: `[out, in]`, `bias`: `[out]` → `[tokens, out]`.
pub(super) fn linear(x: &[f32], weight: Weights, bias: Option<&[f32]>, [from, to]: [usize; 2]) -> Vec<f32> {
    let tokens = x.len() / from;
    // What is turned one by one: the weights, or all tokens and their outputs.
    if from * to < tokens * (from + to) {
        return many(x, weight, bias, [from, to]);
    }
    let mut out = Vec::with_capacity(tokens * to);
    let shared = Shared(out.as_mut_ptr());
    let task = |tokens: [usize; 2], outputs: [usize; 2]| Tokens {
        x,
        weight,
        bias,
        sizes: [from, to],
        tokens,
        outputs,
        out: shared.get(),
    };
    let width = if tokens < FEW { Width::widest() } else { Width::of(tokens) };
    let group = if tokens < FEW { tokens } else { GROUP * width.panel() };
    let groups = tokens.div_ceil(group);
    // Few tokens are shared out by outputs too.
    let split = if groups < 4 { (to / 64).clamp(1, 4) } else { 1 };
    for_each(groups * split, 2 * from * to * group / split, |i| {
        let (first, part) = (i / split * group, i % split);
        let task = task([first, (first + group).min(tokens)], [to * part / split, to * (part + 1) / split]);
        // SAFETY: tasks write different tokens or outputs of `out`, which is alive, and read slices.
        unsafe { width.run(&task) };
    });
    // SAFETY: tasks cover all outputs of all tokens.
    unsafe { written(out, tokens * to) }
}

/// As [`linear`], by panels of weights: outputs are written side by side.
fn many(x: &[f32], weight: Weights, bias: Option<&[f32]>, [from, to]: [usize; 2]) -> Vec<f32> {
    let tokens = x.len() / from;
    let width = Width::of(to);
    let lanes = width.panel();
    let panels = turned(weight, [to, from], lanes);
    let mut start = bias.map_or_else(|| vec![0.0; to], <[f32]>::to_vec);
    start.resize(to.next_multiple_of(lanes), 0.0);
    let mut out = Vec::with_capacity(tokens * to);
    let shared = Shared(out.as_mut_ptr());
    for_each(tokens.div_ceil(ROWS), 2 * from * to * ROWS, |i| {
        let first = i * ROWS;
        let count = ROWS.min(tokens - first);
        // SAFETY: `out` holds `to` floats for each of `tokens`.
        let out = unsafe { shared.get().add(first * to) };
        let task = Rows {
            x: &x[first * from..][..count * from],
            panels: &panels,
            start: &start,
            sizes: [from, to],
            out,
        };
        // SAFETY: tasks write different tokens of `out`, which is alive, and read slices.
        unsafe { width.run(&task) };
    });
    // SAFETY: tasks cover all tokens.
    unsafe { written(out, tokens * to) }
}

/// Rows of `[rows, depth]`, weights or tokens, side by side in panels, step by step; lanes beyond the last row repeat it.
fn turned(x: Weights, [rows, depth]: [usize; 2], lanes: usize) -> Vec<f32> {
    let count = rows.div_ceil(lanes);
    let mut panels = Vec::<f32>::with_capacity(count * depth * lanes);
    let mut unpacked = Vec::new();
    for p in 0..count {
        for lane in 0..lanes {
            let row = (p * lanes + lane).min(rows - 1);
            for (k, x) in x.rows([row, row + 1], depth, &mut unpacked).iter().enumerate() {
                // SAFETY: panels have room for `count` times `depth` rows of `lanes`.
                unsafe { *panels.as_mut_ptr().add((p * depth + k) * lanes + lane) = *x };
            }
        }
    }
    // SAFETY: all panels are written, down to their lanes beyond the end.
    unsafe { written(panels, count * depth * lanes) }
}

/// All outputs of some tokens.
struct Rows<'a> {
    x: &'a [f32],
    /// Of the weights.
    panels: &'a [f32],
    /// What sums begin with, in whole panels.
    start: &'a [f32],
    sizes: [usize; 2],
    out: *mut f32,
}

impl Task for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let lanes = 2 * S::LANES;
        let [from, to] = self.sizes;
        let count = self.x.len() / from;
        let left = Left { from: self.x.as_ptr(), row: from, step: 1 };
        let mut scratch = [0.0; ROWS * MOST_LANES];
        for (p, panel) in self.panels.chunks_exact(from * lanes).enumerate() {
            let first = p * lanes;
            let start = Start::Lanes(self.start[first..].as_ptr());
            // SAFETY: `count` rows are in range, whole panels of outputs lie in `out`, and `scratch` holds one.
            unsafe {
                let out = self.out.add(first);
                if first + lanes <= to {
                    product::<S>(left, [count, from], panel.as_ptr(), start, out, to);
                    continue;
                }
                product::<S>(left, [count, from], panel.as_ptr(), start, scratch.as_mut_ptr(), lanes);
                for row in 0..count {
                    out.add(row * to).copy_from_nonoverlapping(scratch.as_ptr().add(row * lanes), to - first);
                }
            }
        }
    }
}

/// Some outputs of some tokens.
struct Tokens<'a> {
    x: &'a [f32],
    weight: Weights<'a>,
    bias: Option<&'a [f32]>,
    sizes: [usize; 2],
    tokens: [usize; 2],
    outputs: [usize; 2],
    out: *mut f32,
}

impl Task for Tokens<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        // SAFETY: as the caller's.
        unsafe {
            if self.tokens[1] - self.tokens[0] < FEW { self.one_by_one::<S>() } else { self.panels::<S>() }
        }
    }
}

impl Tokens<'_> {
    #[inline(always)]
    unsafe fn panels<S: Simd>(&self) {
        let lanes = 2 * S::LANES;
        let [from, to] = self.sizes;
        let [first, end] = self.tokens;
        // What lanes beyond the end get is dropped.
        let panels = turned(Weights::Numbers(&self.x[first * from..end * from]), [end - first, from], lanes);
        let bias = Start::rows(self.bias);
        let (mut scratch, mut unpacked) = ([0.0; MOST_ROWS * MOST_LANES], Vec::new());
        let outputs = self.outputs[1] - self.outputs[0];
        let blocks = outputs.div_ceil(S::ROWS);
        for block in 0..blocks {
            let rows = [block, block + 1].map(|b| self.outputs[0] + outputs * b / blocks);
            let left =
                Left { from: self.weight.rows(rows, from, &mut unpacked).as_ptr(), row: from, step: 1 };
            let sizes = [rows[1] - rows[0], from];
            for (p, panel) in panels.chunks_exact(from * lanes).enumerate() {
                let start = first + p * lanes;
                // SAFETY: `rows` of weights and bias are in range, `scratch` holds a block, and this task owns `rows` of
                // its tokens in `out`.
                unsafe {
                    let bias = bias.at_row(rows[0]);
                    product::<S>(left, sizes, panel.as_ptr(), bias, scratch.as_mut_ptr(), lanes);
                    for token in start..(start + lanes).min(end) {
                        let out = self.out.add(token * to + rows[0]);
                        for row in 0..sizes[0] {
                            *out.add(row) = scratch[row * lanes + token - start];
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn one_by_one<S: Simd>(&self) {
        let [from, to] = self.sizes;
        let even = from / S::LANES * S::LANES;
        let mut unpacked = Vec::new();
        for output in self.outputs[0]..self.outputs[1] {
            let weight = self.weight.rows([output, output + 1], from, &mut unpacked);
            for token in self.tokens[0]..self.tokens[1] {
                let x = &self.x[token * from..(token + 1) * from];
                // SAFETY: `even` floats of both are whole vectors; this task owns its outputs of its tokens.
                unsafe {
                    let mut sum = S::splat(0.0);
                    for k in (0..even).step_by(S::LANES) {
                        sum = S::mul_add(S::load(weight.as_ptr().add(k)), S::load(x.as_ptr().add(k)), sum);
                    }
                    let rest: f32 = weight[even..].iter().zip(&x[even..]).map(|(w, x)| w * x).sum();
                    let bias = self.bias.map_or(0.0, |bias| bias[output]);
                    *self.out.add(token * to + output) = S::sum(sum) + rest + bias;
                }
            }
        }
    }
}
