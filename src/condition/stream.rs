//! [`Stream`]: tokens, whose keys and values they become, and where, when and how much they act.

use std::ops::Range;

use burn::tensor::Tensor;

use super::Regions;
use crate::error::{Error, Result};

/// Which layers of a cross-attention make keys and values of a stream's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// The network's own, which it was trained with.
    Own,
    /// Those of one of its adapters, counted from 0 (decoupled cross-attention: IP-Adapter, arXiv 2308.06721, section 3.2).
    Adapter(usize),
}

/// What every cross-attention adds for some tokens: `scale · Σᵢ wᵢ · Attention(Q, Kⁱ, Vⁱ)`, where `i` counts identities.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Tokens of each identity, `[batch, tokens, channels]`; their number may differ.
    pub tokens: Vec<Tensor<3>>,
    /// What makes keys and values of them.
    pub projection: Projection,
    /// Where each identity acts; `None` is everywhere, only with a single one.
    pub places: Option<Places>,
    /// How much is added at each layer.
    pub scale: LayerScale,
    /// The part of the sampling steps in which it acts, from 0 to 1, its end excluded.
    pub interval: Range<f32>,
}

impl Stream {
    /// `tokens` (`[batch, tokens, channels]`) everywhere, in every step and layer, with scale 1.
    pub fn everywhere(projection: Projection, tokens: Tensor<3>) -> Self {
        Self {
            tokens: vec![tokens],
            projection,
            places: None,
            scale: LayerScale::All(1.0),
            interval: 0.0..1.0,
        }
    }

    /// Each identity's tokens in its place, in every step and layer, with scale 1.
    ///
    /// Fails with `no-identity` without tokens, with `region-count` unless there is one place for each (without places
    /// there is one, everywhere), and with `condition-shape` where the tokens' batches or channels differ.
    pub fn new(projection: Projection, tokens: Vec<Tensor<3>>, places: Option<Places>) -> Result<Self> {
        let Some(first) = tokens.first().cloned() else {
            return Err(Error::input(
                "no-identity",
                "a condition needs at least one identity",
                "give a face",
            ));
        };
        let count = places.as_ref().map_or(1, Places::count);
        if count != tokens.len() {
            return Err(Error::input(
                "region-count",
                format!("{count} regions for {} people", tokens.len()),
                "give one region (box or mask) per person",
            ));
        }
        let outer = |tokens: &Tensor<3>| [tokens.dims()[0], tokens.dims()[2]];
        if tokens.iter().any(|tokens| outer(tokens) != outer(&first)) {
            return Err(Error::internal("condition-shape", "guidance tokens of different shapes"));
        }
        Ok(Self { tokens, places, ..Self::everywhere(projection, first) })
    }

    /// Concatenates two streams that differ in their tokens and regions alone along the batch.
    pub(super) fn cat(self, second: Self) -> Result<Self> {
        let shapes = |stream: &Self| {
            stream.tokens.iter().map(|tokens| [tokens.dims()[1], tokens.dims()[2]]).collect::<Vec<_>>()
        };
        if self.projection != second.projection || shapes(&self) != shapes(&second) {
            return Err(Error::internal("condition-shape", "the two halves of guidance have other streams"));
        }
        let pairs = self.tokens.into_iter().zip(second.tokens);
        let tokens = pairs.map(|(first, second)| Tensor::cat(vec![first, second], 0)).collect();
        let places = match (self.places, second.places) {
            (Some(Places::Regions(first)), Some(Places::Regions(second))) => {
                Some(Places::Regions(first.cat(second)))
            }
            (places, _) => places,
        };
        Ok(Self { tokens, places, ..self })
    }
}

/// How much a stream adds, by cross-attention layer.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerScale {
    /// The same at every layer.
    All(f32),
    /// One value for each layer, in the order in which checkpoints number them; 0 for layers beyond the list.
    Each(Vec<f32>),
}

impl LayerScale {
    /// At the `layer`-th cross-attention.
    pub fn at(&self, layer: usize) -> f32 {
        match self {
            Self::All(scale) => *scale,
            Self::Each(scales) => scales.get(layer).copied().unwrap_or(0.0),
        }
    }

    /// Every value times `factor`.
    pub fn times(self, factor: f32) -> Self {
        match self {
            Self::All(scale) => Self::All(scale * factor),
            Self::Each(scales) => Self::Each(scales.into_iter().map(|scale| scale * factor).collect()),
        }
    }
}

/// Where each identity of a stream acts.
#[derive(Debug, Clone, PartialEq)]
pub enum Places {
    /// FaceStudio's regions: they sum to 1 everywhere and are averaged over areas.
    Regions(Regions),
    /// diffusers' `ip_adapter_masks`.
    Masks(Masks),
}

impl Places {
    /// Number of identities.
    pub fn count(&self) -> usize {
        match self {
            Self::Regions(regions) => regions.count(),
            Self::Masks(masks) => masks.values.len(),
        }
    }

    /// `(height, width)` of the grid that they are given on.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Self::Regions(regions) => regions.size(),
            Self::Masks(masks) => (masks.height, masks.width),
        }
    }

    /// The weights on that grid, `[identities][height × width]`.
    pub fn weights(&self) -> Vec<Vec<f32>> {
        let (height, width) = self.size();
        self.resized(height, width)
    }

    /// The weights at `height × width`, `[identities][height × width]`.
    pub fn resized(&self, height: usize, width: usize) -> Vec<Vec<f32>> {
        match self {
            Self::Regions(regions) => regions.resized(height, width),
            Self::Masks(masks) => masks.resized(height, width),
        }
    }
}

/// Masks that know nothing of each other: where they overlap both act, outside all of them none does.
#[derive(Debug, Clone, PartialEq)]
pub struct Masks {
    height: usize,
    width: usize,
    /// `[identities][height × width]`, row-major.
    values: Vec<Vec<f32>>,
}

impl Masks {
    /// One mask per identity, `height × width` values each. Fails with `mask-size` on another number of values.
    pub fn new(height: usize, width: usize, values: Vec<Vec<f32>>) -> Result<Self> {
        let full = height > 0 && width > 0;
        if let Some(i) = values.iter().position(|mask| !full || mask.len() != height * width) {
            return Err(Error::input(
                "mask-size",
                format!("mask {} has {} values, not {width}×{height}", i + 1, values[i].len()),
                "make the mask the size of the picture",
            ));
        }
        Ok(Self { height, width, values })
    }

    /// Resized as diffusers' `IPAdapterMaskProcessor.downsample` does, by bicubic interpolation without anti-aliasing
    /// (PyTorch's `interpolate`): values may leave [0, 1] beside an edge.
    fn resized(&self, height: usize, width: usize) -> Vec<Vec<f32>> {
        let (rows, columns) = (cubic_taps(self.height, height), cubic_taps(self.width, width));
        let resize = |mask: &Vec<f32>| {
            let mut out = Vec::with_capacity(height * width);
            for row in &rows {
                for column in &columns {
                    let across = |y: usize| -> f32 {
                        column.iter().map(|(x, weight)| weight * mask[y * self.width + x]).sum()
                    };
                    out.push(row.iter().map(|(y, weight)| weight * across(*y)).sum());
                }
            }
            out
        };
        self.values.iter().map(resize).collect()
    }
}

/// Coefficient of the cubic convolution (Keys 1981), as in PyTorch's `upsample_bicubic2d`.
const CUBIC: f32 = -0.75;

/// For each of `to` samples: four of `from` samples and their weights. Beyond the border the last sample repeats.
fn cubic_taps(from: usize, to: usize) -> Vec<[(usize, f32); 4]> {
    let near = |x: f32| ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC;
    (0..to)
        .map(|i| {
            let place = (i as f32 + 0.5) * from as f32 / to as f32 - 0.5;
            let (whole, t) = (place.floor(), place - place.floor());
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            [0, 1, 2, 3].map(|k: usize| {
                let sample = whole as isize + k as isize - 1;
                (sample.clamp(0, from as isize - 1) as usize, weights[k])
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_the_same_size_stay_and_constants_are_kept_at_any_size() {
        let values: Vec<f32> = (0..12).map(|v| (v % 2) as f32).collect();
        let masks = Places::Masks(Masks::new(3, 4, vec![values.clone(), vec![1.0; 12]]).unwrap());
        assert_eq!(masks.resized(3, 4)[0], values);
        for (height, width) in [(1, 1), (2, 2), (6, 5)] {
            let whole = &masks.resized(height, width)[1];
            assert!(whole.iter().all(|v| (v - 1.0).abs() < 1e-6), "{whole:?}");
        }
    }

    /// `torch.nn.functional.interpolate(torch.tensor([[[[0., 0., 1., 1.]]]]), size=(1, 2), mode="bicubic")`
    #[test]
    fn halving_an_edge_overshoots_as_in_pytorch() {
        let masks = Masks::new(1, 4, vec![vec![0.0, 0.0, 1.0, 1.0]]).unwrap();
        let halved = &masks.resized(1, 2)[0];
        assert!((halved[0] + 0.09375).abs() < 1e-6 && (halved[1] - 1.09375).abs() < 1e-6, "{halved:?}");
    }

    #[test]
    fn scales_are_by_layer() {
        let scale = LayerScale::Each(vec![0.0, 0.5]).times(2.0);
        assert_eq!([0, 1, 2].map(|layer| scale.at(layer)), [0.0, 1.0, 0.0]);
        assert_eq!(LayerScale::All(0.5).at(7), 0.5);
    }

    #[test]
    fn a_mask_of_the_wrong_size_is_named() {
        assert_eq!(Masks::new(2, 2, vec![vec![0.0; 4], vec![0.0; 3]]).unwrap_err().code, "mask-size");
    }

    /// Keys 1981 with PyTorch's −0.75: the weight of a sample at a distance; beyond the border the last one repeats.
    #[test]
    fn resizing_is_cubic_convolution_in_both_directions() {
        let cubic = |distance: f32| {
            let d = distance.abs();
            if d <= 1.0 {
                1.25 * d.powi(3) - 2.25 * d.powi(2) + 1.0
            } else if d <= 2.0 {
                -0.75 * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0)
            } else {
                0.0
            }
        };
        let (height, width) = (3, 5);
        let values: Vec<f32> = (0..15).map(|i| ((i * 7) % 4) as f32).collect();
        let masks = Masks::new(height, width, vec![values.clone()]).unwrap();
        for (to_height, to_width) in [(2, 3), (5, 8), (3, 4), (7, 1)] {
            let found = &masks.resized(to_height, to_width)[0];
            for (p, found) in found.iter().enumerate() {
                let place =
                    |i: usize, from: usize, to: usize| (i as f32 + 0.5) * from as f32 / to as f32 - 0.5;
                let (y, x) = (place(p / to_width, height, to_height), place(p % to_width, width, to_width));
                let mut expected = 0.0;
                for (v, u) in (-3..8i32).flat_map(|v| (-3..8i32).map(move |u| (v, u))) {
                    let at = v.clamp(0, height as i32 - 1) * width as i32 + u.clamp(0, width as i32 - 1);
                    expected += cubic(y - v as f32) * cubic(x - u as f32) * values[at as usize];
                }
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{to_height}×{to_width} at {p}: {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_stream_has_a_place_for_each_identity_and_tokens_of_one_shape() {
        let tokens = |batch, count, channels| {
            Tensor::<3>::zeros([batch, count, channels], &burn::tensor::Device::flex())
        };
        let halves = || Some(Places::Masks(Masks::new(1, 2, vec![vec![1.0, 0.0], vec![0.0, 1.0]]).unwrap()));
        let code = |tokens, places| Stream::new(Projection::Own, tokens, places).unwrap_err().code;
        assert_eq!(code(Vec::new(), None), "no-identity");
        assert_eq!(code(vec![tokens(1, 2, 3)], halves()), "region-count");
        assert_eq!(code(vec![tokens(1, 2, 3); 2], None), "region-count");
        assert_eq!(code(vec![tokens(1, 2, 3), tokens(1, 2, 4)], halves()), "condition-shape");
        assert_eq!(code(vec![tokens(1, 2, 3), tokens(2, 2, 3)], halves()), "condition-shape");
        // Each as many as it likes, in all layers and steps.
        let stream = Stream::new(Projection::Own, vec![tokens(1, 2, 3), tokens(1, 5, 3)], halves()).unwrap();
        assert_eq!((stream.scale, stream.interval, stream.tokens.len()), (LayerScale::All(1.0), 0.0..1.0, 2));
    }

    #[test]
    fn masks_without_pixels_are_refused() {
        for (height, width) in [(0, 2), (2, 0)] {
            assert_eq!(Masks::new(height, width, vec![Vec::new()]).unwrap_err().code, "mask-size");
        }
    }
}
