//! Convolution as a product of the weights with panels of gathered pixels (im2col, a panel at a time).

use super::product::{Left, Start, product};
use super::simd::{MOST_LANES, MOST_ROWS, Simd, Task, Width};
use super::weights::Weights;
use super::{Geometry, Shared, for_each, written};

/// Panels that share one gathering: the weights then pass the cache once for all of them.
const GROUP: usize = 4;

/// `x`: `[batch, in, height, width]`, `weight`: `[out, in, kernel, kernel]`, `bias`: `[out]` → `[batch, out, height',
/// width']`.
pub(super) fn conv2d(x: &[f32], weight: Weights, bias: Option<&[f32]>, geometry: Geometry) -> Vec<f32> {
    let Geometry { batch, channels_in, channels_out, kernel, .. } = geometry;
    let [height_out, width_out] = geometry.output();
    let positions = height_out * width_out;
    let padded = padded(x, geometry);
    let (x, plane, row) = match &padded {
        Some((x, plane, row)) => (x.as_slice(), *plane, *row),
        None => (x, geometry.height * geometry.width, geometry.width),
    };
    let count = batch * channels_out * positions;
    let mut out = Vec::with_capacity(count);
    let shared = Shared(out.as_mut_ptr());
    let width = Width::of(positions);
    let group = GROUP * width.panel();
    let groups = positions.div_ceil(group);
    for_each(batch * groups, 2 * channels_out * channels_in * kernel * kernel * group, |task| {
        let (image, group_index) = (task / groups, task % groups);
        let first = group_index * group;
        let gather = Gather {
            x: &x[image * channels_in * plane..(image + 1) * channels_in * plane],
            weight,
            bias,
            geometry,
            plane,
            row,
            width_out,
            positions: [first, (first + group).min(positions)],
            // SAFETY: images are `channels_out · positions` apart.
            out: unsafe { shared.get().add(image * channels_out * positions) },
            out_row: positions,
        };
        // SAFETY: tasks write different positions of `out`, which is alive, and read slices.
        unsafe { width.run(&gather) };
    });
    // SAFETY: groups cover all positions of all images.
    unsafe { written(out, count) }
}

/// The input with a border of zeros, the size of its planes and of their rows; `None` without padding.
fn padded(x: &[f32], geometry: Geometry) -> Option<(Vec<f32>, usize, usize)> {
    let Geometry { height, width, padding, .. } = geometry;
    if padding == 0 {
        return None;
    }
    let row = width + 2 * padding;
    let plane = (height + 2 * padding) * row;
    let planes = geometry.batch * geometry.channels_in;
    let mut padded = vec![0.0; planes * plane];
    let shared = Shared(padded.as_mut_ptr());
    for_each(planes, plane, |i| {
        let from = &x[i * height * width..(i + 1) * height * width];
        for (y, from) in from.chunks_exact(width).enumerate() {
            let start = i * plane + (y + padding) * row + padding;
            // SAFETY: tasks write different planes of `padded`, inside of their borders.
            unsafe { shared.get().add(start).copy_from_nonoverlapping(from.as_ptr(), width) };
        }
    });
    Some((padded, plane, row))
}

/// A few panels of one image's output.
struct Gather<'a> {
    x: &'a [f32],
    weight: Weights<'a>,
    bias: Option<&'a [f32]>,
    geometry: Geometry,
    /// Size of a plane of `x`, and of its rows, border included.
    plane: usize,
    row: usize,
    width_out: usize,
    /// From the first position to beyond the last.
    positions: [usize; 2],
    out: *mut f32,
    /// Positions of a channel of `out`.
    out_row: usize,
}

impl Task for Gather<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self) {
        let Geometry { channels_in, channels_out, kernel, stride, .. } = self.geometry;
        let lanes = 2 * S::LANES;
        let depth = channels_in * kernel * kernel;
        let taps: Vec<usize> = (0..kernel).flat_map(|y| (0..kernel).map(move |x| y * self.row + x)).collect();
        let [first, end] = self.positions;
        let count = (end - first).div_ceil(lanes);
        let mut panels = Vec::<f32>::with_capacity(count * depth * lanes);
        // Four neighbours in a row of the output are neighbours in the input.
        let together = stride == 1 && self.width_out.is_multiple_of(4);
        let mut offsets = [0; MOST_LANES];
        for p in 0..count {
            let start = first + p * lanes;
            // Lanes beyond the end repeat the last position; what they get is dropped.
            for (lane, offset) in offsets[..lanes].iter_mut().enumerate() {
                let position = (start + lane).min(end - 1);
                *offset = position / self.width_out * stride * self.row + position % self.width_out * stride;
            }
            let whole = start + lanes <= end;
            // SAFETY: panels have room for `count` of them.
            let mut to = unsafe { panels.as_mut_ptr().add(p * depth * lanes) };
            for channel in 0..channels_in {
                for tap in &taps {
                    // SAFETY: the window of every position lies inside the plane; `to` moves over `depth · lanes`.
                    unsafe {
                        let from = self.x.as_ptr().add(channel * self.plane + tap);
                        if together && whole {
                            for quad in (0..lanes).step_by(4) {
                                let four = from.add(offsets[quad]).cast::<[f32; 4]>().read_unaligned();
                                to.add(quad).cast::<[f32; 4]>().write_unaligned(four);
                            }
                        } else {
                            for (lane, offset) in offsets[..lanes].iter().enumerate() {
                                *to.add(lane) = *from.add(*offset);
                            }
                        }
                        to = to.add(lanes);
                    }
                }
            }
        }
        // SAFETY: all panels are written, down to their lanes beyond the end.
        let panels = unsafe { written(panels, count * depth * lanes) };
        let bias = Start::rows(self.bias);
        // A few rows of weights at a time for all panels, so that they are read from memory once.
        let (mut scratch, mut unpacked) = ([0.0; MOST_ROWS * MOST_LANES], Vec::new());
        let blocks = channels_out.div_ceil(S::ROWS);
        for block in 0..blocks {
            let rows = [channels_out * block / blocks, channels_out * (block + 1) / blocks];
            let left =
                Left { from: self.weight.rows(rows, depth, &mut unpacked).as_ptr(), row: depth, step: 1 };
            let sizes = [rows[1] - rows[0], depth];
            for (p, panel) in panels.chunks_exact(depth * lanes).enumerate() {
                let start = first + p * lanes;
                // SAFETY: `rows` of weights and bias are in range; `out` has `out_row` positions a channel, of which
                // this task owns `first` to `end`; `scratch` holds the rows of a block.
                unsafe {
                    let bias = bias.at_row(rows[0]);
                    let out = self.out.add(rows[0] * self.out_row + start);
                    if start + lanes <= end {
                        product::<S>(left, sizes, panel.as_ptr(), bias, out, self.out_row);
                    } else {
                        product::<S>(left, sizes, panel.as_ptr(), bias, scratch.as_mut_ptr(), lanes);
                        for row in 0..sizes[0] {
                            let to = out.add(row * self.out_row);
                            scratch.as_ptr().add(row * lanes).copy_to_nonoverlapping(to, end - start);
                        }
                    }
                }
            }
        }
    }
}
