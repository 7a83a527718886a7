//! The product that everything heavy here comes down to: rows times a panel.
//!
//! A panel is a slice of the right matrix, two vectors wide and stored row by row, so that a step along `k` reads it in
//! order. The left matrix stays where it is: weights are read in the layout of checkpoints.

use super::simd::Simd;

/// The left matrix: element `(m, k)` is at `from + m · row + k · step`.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub from: *const f32,
    pub row: usize,
    pub step: usize,
}

/// What sums begin with.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Zero,
    /// A number a row.
    Rows(*const f32),
    /// A number a lane, `2 · LANES` of them.
    Lanes(*const f32),
}

impl Start {
    /// A number a row, if there are any.
    pub(super) fn rows(values: Option<&[f32]>) -> Self {
        values.map_or(Self::Zero, |values| Self::Rows(values.as_ptr()))
    }

    /// From row `m` on.
    #[inline(always)]
    pub(super) unsafe fn at_row(self, m: usize) -> Self {
        match self {
            // SAFETY: the caller's rows are in range.
            Self::Rows(at) => Self::Rows(unsafe { at.add(m) }),
            other => other,
        }
    }
}

/// `out[m · stride + lane] = start + Σ_k left(m, k) · panel[k][lane]` for `m < rows`.
///
/// # Safety
/// The processor has `S`. `left` holds `rows × depth` elements, `panel` `depth` times `2 · LANES`, `start` what it says, and
/// `out` has room for `rows` rows of `2 · LANES`.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    left: Left,
    [rows, depth]: [usize; 2],
    panel: *const f32,
    start: Start,
    out: *mut f32,
    stride: usize,
) {
    // Blocks of even sizes: 8 rows are 4 and 4, not 6 and 2.
    let blocks = rows.div_ceil(S::ROWS);
    let mut done = 0;
    for i in 0..blocks {
        let next = rows * (i + 1) / blocks;
        // SAFETY: rows `done` to `next` are in range.
        unsafe {
            let left = Left { from: left.from.add(done * left.row), ..left };
            let start = start.at_row(done);
            let out = out.add(done * stride);
            match next - done {
                1 => tile::<S, 1>(left, depth, panel, start, out, stride),
                2 => tile::<S, 2>(left, depth, panel, start, out, stride),
                3 => tile::<S, 3>(left, depth, panel, start, out, stride),
                4 => tile::<S, 4>(left, depth, panel, start, out, stride),
                5 => tile::<S, 5>(left, depth, panel, start, out, stride),
                6 => tile::<S, 6>(left, depth, panel, start, out, stride),
                // Code that only vectors with so many rows have.
                7 if S::ROWS > 6 => tile::<S, 7>(left, depth, panel, start, out, stride),
                8 if S::ROWS > 6 => tile::<S, 8>(left, depth, panel, start, out, stride),
                9 if S::ROWS > 6 => tile::<S, 9>(left, depth, panel, start, out, stride),
                10 if S::ROWS > 6 => tile::<S, 10>(left, depth, panel, start, out, stride),
                11 if S::ROWS > 6 => tile::<S, 11>(left, depth, panel, start, out, stride),
                12 if S::ROWS > 6 => tile::<S, 12>(left, depth, panel, start, out, stride),
                _ => unreachable!("blocks have at most {} rows", S::ROWS),
            }
        }
        done = next;
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const M: usize>(
    left: Left,
    depth: usize,
    panel: *const f32,
    start: Start,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: as `product` says.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; M];
        match start {
            Start::Zero => {}
            Start::Rows(start) => {
                for (m, sums) in sums.iter_mut().enumerate() {
                    *sums = [S::splat(*start.add(m)); 2];
                }
            }
            Start::Lanes(start) => sums = [[S::load(start), S::load(start.add(S::LANES))]; M],
        }
        let mut rows: [*const f32; M] = std::array::from_fn(|m| left.from.add(m * left.row));
        let mut panel = panel;
        for _ in 0..depth {
            let right = [S::load(panel), S::load(panel.add(S::LANES))];
            for m in 0..M {
                let factor = S::splat(*rows[m]);
                sums[m] =
                    [S::mul_add(factor, right[0], sums[m][0]), S::mul_add(factor, right[1], sums[m][1])];
                // The last step leads beyond the matrix, where nothing is read.
                rows[m] = rows[m].wrapping_add(left.step);
            }
            panel = panel.add(2 * S::LANES);
        }
        for (m, sums) in sums.iter().enumerate() {
            S::store(out.add(m * stride), sums[0]);
            S::store(out.add(m * stride + S::LANES), sums[1]);
        }
    }
}
