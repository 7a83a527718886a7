use burn::tensor::Device;

use crate::nn::{Pairs, Rotary};

/// Axes of a position: which picture, row, column, place in the text.
pub(super) const AXES: usize = 4;

/// Where a token is: which picture, row, column, place in the text.
pub type TokenId = [u32; AXES];

/// From one reference picture's first number to the next one's (diffusers' pipelines of FLUX.2).
const REFERENCE_STRIDE: usize = 10;

/// Ids of a text.
pub fn text_ids(tokens: usize) -> Vec<TokenId> {
    (0..tokens).map(|i| [0, 0, 0, i as u32]).collect()
}

/// Ids of the picture that is drawn, row by row.
pub fn image_ids(height: usize, width: usize) -> Vec<TokenId> {
    grid(0, height, width)
}

/// Ids of reference picture `number`, counted from 1.
pub fn reference_ids(number: usize, height: usize, width: usize) -> Vec<TokenId> {
    grid(REFERENCE_STRIDE * number, height, width)
}

fn grid(picture: usize, height: usize, width: usize) -> Vec<TokenId> {
    let row = |row| (0..width).map(move |column| [picture as u32, row as u32, column as u32, 0]);
    (0..height).flat_map(row).collect()
}

/// Frequencies of each axis.
#[derive(Debug, Clone, Default)]
pub(super) struct Positions {
    /// Of each pair of a head's channels: its axis and its angle at 1.
    pairs: Vec<(usize, f64)>,
}

impl Positions {
    /// Each axis turns `dims` channels of a head, the `i`-th pair of them by `θ^(−2i / dim)`.
    pub fn new(dims: &[usize], theta: f64) -> Self {
        let axis = |(axis, dim): (usize, &usize)| {
            let dim = *dim;
            (0..dim / 2).map(move |i| (axis, theta.powf(-((2 * i) as f64) / dim as f64)))
        };
        Self { pairs: dims.iter().enumerate().flat_map(axis).collect() }
    }

    pub fn rotary(&self, ids: &[TokenId], device: &Device) -> Rotary {
        let angles: Vec<f64> = ids
            .iter()
            .flat_map(|id| self.pairs.iter().map(|(axis, frequency)| f64::from(id[*axis]) * frequency))
            .collect();
        Rotary::new(&angles, ids.len(), Pairs::Neighbours, device)
    }
}
