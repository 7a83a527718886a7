//! What kernels are told of their inputs, which are looked at before.

/// Values of a row of weights that share a scale, where they are in blocks; a row's last block may be shorter.
pub const BLOCK: usize = 32;

/// Sizes of a convolution, NCHW with square kernels; those of the input as it is seen.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub batch: usize,
    pub channels_in: usize,
    pub channels_out: usize,
    pub height: usize,
    pub width: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Geometry {
    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| (side + 2 * self.padding - self.kernel) / self.stride + 1)
    }
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub batch: usize,
    pub heads: usize,
    pub queries: usize,
    /// What is attended to apart from each other, and the keys of each.
    pub contexts: usize,
    pub keys: usize,
    pub dim: usize,
}
