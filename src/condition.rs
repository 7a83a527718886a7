//! [`Condition`]: the one value that crosses from the guidance into the denoiser.

mod reference;
mod stream;

pub use reference::Reference;
pub use stream::{LayerScale, Masks, Places, Projection, Stream};

use burn::tensor::Tensor;

use crate::error::{Error, Result};

/// What a denoiser is told: tokens and where they act, and what it takes beside its timestep.
///
/// One stream everywhere is plain cross-attention. With [`Regions`], features at a position attend to each identity apart,
/// `F̂^i = Attention(Q, K^i, V^i)`, and are blended by the regions' weights there (paper section 3.4): an identity whose
/// weight is zero at a position cannot alter it. Streams are summed.
#[derive(Debug, Clone)]
pub struct Condition {
    /// That of the network's own keys and values, of scale 1 (guidance tokens of each identity, or a text's tokens), and
    /// one for each adapter that acts.
    pub streams: Vec<Stream>,
    /// `None` for networks that take tokens alone.
    pub added: Option<Added>,
}

/// What some denoisers add to their timestep's embedding.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one for a picture; its numbers lie elsewhere")]
pub enum Added {
    /// diffusers' `class_labels` where `class_embed_type` is `simple_projection`, `[batch, width]`: one embedding of the whole
    /// picture, `mini`'s style.
    ClassLabels(Tensor<2>),
    /// diffusers' `added_cond_kwargs`, as Stable Diffusion XL has them (arXiv 2307.01952, section 2.2).
    TextTime {
        /// Pooled text, `[batch, width]`.
        text_embeds: Tensor<2>,
        /// Original size, crop and target size in pixels, `[batch, 6]`.
        time_ids: Tensor<2>,
    },
    /// What FLUX.2 sees beside a text, the same for the whole batch.
    References {
        /// Pictures that are referred to.
        pictures: Vec<Reference>,
        /// The guidance scale of models that are distilled for one; `None` for all others.
        guidance: Option<f32>,
    },
}

impl Added {
    /// Along the batch; `None` where they are of different kinds.
    fn cat(self, second: Self) -> Option<Self> {
        let cat = |first, second| Tensor::cat(vec![first, second], 0);
        match (self, second) {
            (Self::ClassLabels(first), Self::ClassLabels(second)) => {
                Some(Self::ClassLabels(cat(first, second)))
            }
            (
                Self::TextTime { text_embeds, time_ids },
                Self::TextTime { text_embeds: text, time_ids: ids },
            ) => Some(Self::TextTime { text_embeds: cat(text_embeds, text), time_ids: cat(time_ids, ids) }),
            _ => None,
        }
    }
}

impl Condition {
    /// Tokens alone.
    pub fn new(streams: Vec<Stream>) -> Self {
        Self { streams, added: None }
    }

    /// The same, with what the network adds to its timestep's embedding.
    pub fn adding(self, added: Option<Added>) -> Self {
        Self { added, ..self }
    }

    /// One guidance everywhere, for the network's own keys and values: `tokens` is `[batch, tokens, channels]`.
    pub fn single(tokens: Tensor<3>) -> Self {
        Self::new(vec![Stream::everywhere(Projection::Own, tokens)])
    }

    /// All tokens, in the streams' order.
    pub fn tokens(&self) -> impl Iterator<Item = &Tensor<3>> {
        self.streams.iter().flat_map(|stream| &stream.tokens)
    }

    /// Pictures that are referred to.
    pub fn references(&self) -> &[Reference] {
        match &self.added {
            Some(Added::References { pictures, .. }) => pictures,
            _ => &[],
        }
    }

    /// With what `to` makes of each tokens, in the streams' order.
    pub fn map_tokens(mut self, mut to: impl FnMut(Tensor<3>) -> Tensor<3>) -> Self {
        for tokens in self.streams.iter_mut().flat_map(|stream| &mut stream.tokens) {
            *tokens = to(tokens.clone());
        }
        self
    }

    /// Concatenates two conditions along the batch: classifier-free guidance's two halves.
    ///
    /// Fails with `condition-shape` unless both have the same streams, of as many tokens, and add the same kind.
    pub fn cat(first: Self, second: Self) -> Result<Self> {
        let unlike = || Error::internal("condition-shape", "the two halves of guidance have other streams");
        if first.streams.len() != second.streams.len() {
            return Err(unlike());
        }
        let streams = first.streams.into_iter().zip(second.streams).map(|(first, second)| first.cat(second));
        let added = match (first.added, second.added) {
            (None, None) => None,
            (Some(first), Some(second)) => Some(first.cat(second).ok_or_else(unlike)?),
            _ => return Err(unlike()),
        };
        Ok(Self { streams: streams.collect::<Result<_>>()?, added })
    }
}

/// Weights in [0, 1] of each identity at each position of a reference grid; they sum to 1 everywhere. One set for the whole
/// batch, or one for each of its samples.
///
/// Kept on the host: they are resized (area average) to each attention level once per picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Regions {
    height: usize,
    width: usize,
    /// `[identities][samples · height · width]`, row-major.
    weights: Vec<Vec<f32>>,
}

impl Regions {
    /// Builds regions from one mask per identity (`height × width`, values in [0, 1]).
    ///
    /// Overlaps are shared in proportion; positions outside every mask (the non-human region) go to identity
    /// `background` (paper section 3.4: they may take any of the guidance vectors). A mask may be empty.
    pub fn new(height: usize, width: usize, masks: Vec<Vec<f32>>, background: usize) -> Result<Self> {
        if height == 0 || width == 0 || masks.is_empty() || background >= masks.len() {
            return Err(Error::input(
                "region-shape",
                "regions need a size, a mask and a background identity",
                "",
            ));
        }
        for (i, mask) in masks.iter().enumerate() {
            if mask.len() != height * width {
                return Err(Error::input(
                    "mask-size",
                    format!("mask {} has {} values, not {width}×{height}", i + 1, mask.len()),
                    "make the mask the size of the picture",
                ));
            }
            if mask.iter().any(|v| !(0.0..=1.0).contains(v)) {
                return Err(Error::input(
                    "mask-range",
                    format!("mask {} has values outside [0, 1]", i + 1),
                    "scale the mask to [0, 1]",
                ));
            }
        }
        let mut weights = masks;
        for p in 0..height * width {
            let total: f32 = weights.iter().map(|m| m[p]).sum();
            if total > 1.0 {
                weights.iter_mut().for_each(|m| m[p] /= total);
            } else {
                weights[background][p] += 1.0 - total;
            }
        }
        Ok(Self { height, width, weights })
    }

    /// One set for each sample of a batch, all of one size and with as many identities.
    pub fn stack(samples: &[Self]) -> Result<Self> {
        let Some(first) = samples.first() else {
            return Err(Error::internal("region-shape", "no regions to stack"));
        };
        let shape = |regions: &Self| (regions.height, regions.width, regions.count());
        if samples.iter().any(|regions| shape(regions) != shape(first)) {
            return Err(Error::internal("region-shape", "regions of different shapes in one batch"));
        }
        let of = |i: usize| samples.iter().flat_map(|regions| &regions.weights[i]).copied().collect();
        Ok(Self { weights: (0..first.count()).map(of).collect(), ..*first })
    }

    /// Those of two batches, one after the other; a set for a whole batch that serves both stays one.
    fn cat(mut self, other: Self) -> Self {
        if self.weights.iter().any(|w| w.len() != self.height * self.width) || self != other {
            self.weights.iter_mut().zip(other.weights).for_each(|(weights, more)| weights.extend(more));
        }
        self
    }

    /// Number of identities.
    pub fn count(&self) -> usize {
        self.weights.len()
    }

    /// `(height, width)` of the reference grid.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The weights area-averaged to `height × width`, `[identities][samples · height · width]`.
    ///
    /// Averages over exact (fractional) cells, so that each position's weights still sum to 1 at any ratio.
    pub fn resized(&self, height: usize, width: usize) -> Vec<Vec<f32>> {
        if (height, width) == (self.height, self.width) {
            return self.weights.clone();
        }
        let rows = covered_cells(self.height, height);
        let columns = covered_cells(self.width, width);
        self.weights
            .iter()
            .map(|weights| {
                let samples = weights.chunks_exact(self.height * self.width);
                let mut out = Vec::with_capacity(samples.len() * height * width);
                for mask in samples {
                    for row in &rows {
                        for column in &columns {
                            let mut sum = 0.0;
                            for &(y, wy) in row {
                                for &(x, wx) in column {
                                    sum += wy * wx * mask[y * self.width + x];
                                }
                            }
                            out.push(sum);
                        }
                    }
                }
                out
            })
            .collect()
    }
}

/// For each of `to` cells over `from` samples: the samples it covers with weights that sum to 1.
pub(crate) fn covered_cells(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| {
            let (start, end) = (i as f64 * scale, (i + 1) as f64 * scale);
            (start.floor() as usize..(end.ceil() as usize).min(from))
                .filter_map(|j| {
                    let overlap = (end.min((j + 1) as f64) - start.max(j as f64)).max(0.0);
                    (overlap > 0.0).then_some((j, (overlap / scale) as f32))
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resized_weights_sum_to_one_at_any_ratio() {
        let left: Vec<f32> = (0..12 * 9).map(|p| if p % 9 < 4 { 1.0 } else { 0.0 }).collect();
        let middle: Vec<f32> =
            (0..12 * 9).map(|p| if (3..6).contains(&(p % 9)) { 0.8 } else { 0.0 }).collect();
        let regions = Regions::new(12, 9, vec![left, middle, vec![0.0; 12 * 9]], 2).unwrap();
        for (h, w) in [(12, 9), (6, 3), (5, 7), (1, 1), (24, 18)] {
            let weights = regions.resized(h, w);
            for p in 0..h * w {
                let total: f32 = weights.iter().map(|m| m[p]).sum();
                assert!((total - 1.0).abs() < 1e-5, "{h}×{w} at {p}: {total}");
            }
        }
    }

    #[test]
    fn stacked_regions_are_each_samples_own() {
        let split = |first: Vec<f32>| {
            let second = first.iter().map(|w| 1.0 - w).collect();
            Regions::new(2, 2, vec![first, second], 0).unwrap()
        };
        let (left, top) = (split(vec![1.0, 0.0, 1.0, 0.0]), split(vec![1.0, 1.0, 0.0, 0.0]));
        let both = Regions::stack(&[left.clone(), top.clone()]).unwrap();
        for size in [(2, 2), (1, 2), (4, 4)] {
            for (i, weights) in both.resized(size.0, size.1).into_iter().enumerate() {
                let apart = [&left, &top]
                    .iter()
                    .flat_map(|r| r.resized(size.0, size.1)[i].clone())
                    .collect::<Vec<_>>();
                assert_eq!(weights, apart, "{size:?}");
            }
        }
        assert!(Regions::stack(&[left, Regions::new(1, 4, vec![vec![1.0; 4]; 2], 0).unwrap()]).is_err());
    }

    #[test]
    fn a_mask_of_the_wrong_size_is_named() {
        let error = Regions::new(4, 4, vec![vec![0.0; 15]], 0).unwrap_err();
        assert_eq!(error.code, "mask-size");
    }

    #[test]
    fn overlaps_are_shared_in_proportion_and_the_rest_is_the_backgrounds() {
        let masks = vec![vec![0.75, 0.5, 0.25, 0.0], vec![0.5, 0.5, 0.25, 0.0]];
        let regions = Regions::new(1, 4, masks, 1).unwrap();
        assert_eq!((regions.count(), regions.size()), (2, (1, 4)));
        assert_eq!(regions.resized(1, 4), [vec![0.6, 0.5, 0.25, 0.0], vec![0.4, 0.5, 0.75, 1.0]]);
    }

    #[test]
    fn regions_that_cannot_be_are_refused() {
        let new = |height, width, masks: &[Vec<f32>], background| {
            Regions::new(height, width, masks.to_vec(), background).unwrap_err().code
        };
        let one = [vec![0.5]];
        assert_eq!(new(0, 1, &[vec![]], 0), "region-shape");
        assert_eq!(new(1, 0, &[vec![]], 0), "region-shape");
        assert_eq!(new(1, 1, &[], 0), "region-shape");
        assert_eq!(new(1, 1, &one, 1), "region-shape");
        for value in [-0.1, 1.1, f32::NAN] {
            assert_eq!(new(1, 1, &[vec![0.5], vec![value]], 0), "mask-range");
        }
        assert!(Regions::new(1, 1, one.to_vec(), 0).is_ok());
        assert_eq!(Regions::stack(&[]).unwrap_err().code, "region-shape");
    }

    #[test]
    fn a_cell_counts_what_it_covers_by_its_share() {
        assert_eq!(
            covered_cells(5, 2),
            [vec![(0, 0.4), (1, 0.4), (2, 0.2)], vec![(2, 0.2), (3, 0.4), (4, 0.4)]]
        );
        assert_eq!(covered_cells(2, 4), [[(0, 1.0)], [(0, 1.0)], [(1, 1.0)], [(1, 1.0)]]);
        let regions = Regions::new(2, 2, vec![vec![1.0, 0.0, 0.5, 0.5]], 0).unwrap();
        assert_eq!(regions.resized(1, 1), [[1.0]], "a single identity has everything");
        let left = Regions::new(2, 2, vec![vec![1.0, 0.0, 0.5, 0.25], vec![0.0; 4]], 1).unwrap();
        assert_eq!(left.resized(1, 2), [[0.75, 0.125], [0.25, 0.875]]);
        assert_eq!(left.resized(2, 1), [[0.5, 0.375], [0.5, 0.625]]);
    }

    fn tokens(value: f32, shape: [usize; 3]) -> Tensor<3> {
        Tensor::full(shape, value, &burn::tensor::Device::flex())
    }

    fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
        tensor.clone().try_into_vec_as().unwrap()
    }

    #[test]
    fn the_halves_of_guidance_lie_one_after_the_other() {
        let device = burn::tensor::Device::flex();
        let labels = |value: f32| Some(Added::ClassLabels(Tensor::full([1, 2], value, &device)));
        let sized = |value: f32| {
            Some(Added::TextTime {
                text_embeds: Tensor::full([1, 1], value, &device),
                time_ids: Tensor::full([1, 1], -value, &device),
            })
        };
        let half = |value: f32, added| Condition::single(tokens(value, [1, 2, 1])).adding(added);
        let both = Condition::cat(half(1.0, labels(3.0)), half(2.0, labels(4.0))).unwrap();
        assert_eq!(values(&both.streams[0].tokens[0]), [1.0, 1.0, 2.0, 2.0]);
        let Some(Added::ClassLabels(both)) = both.added else { panic!("nothing is added") };
        assert_eq!(values(&both), [3.0, 3.0, 4.0, 4.0]);
        let both = Condition::cat(half(1.0, sized(3.0)), half(2.0, sized(4.0))).unwrap();
        let Some(Added::TextTime { text_embeds, time_ids }) = both.added else { panic!("nothing is added") };
        assert_eq!((values(&text_embeds), values(&time_ids)), (vec![3.0, 4.0], vec![-3.0, -4.0]));

        let two = |value| Condition::new([half(value, None).streams, half(value, None).streams].concat());
        let adapter =
            Condition::new(vec![Stream::everywhere(Projection::Adapter(0), tokens(1.0, [1, 2, 1]))]);
        for (first, second) in [
            (half(1.0, labels(1.0)), half(1.0, None)),
            (half(1.0, labels(1.0)), half(1.0, sized(1.0))),
            (half(1.0, None), two(1.0)),
            (half(1.0, None), Condition::single(tokens(1.0, [1, 3, 1]))),
            (half(1.0, None), Condition::single(tokens(1.0, [1, 2, 2]))),
            (half(1.0, None), adapter),
        ] {
            assert_eq!(Condition::cat(first, second).unwrap_err().code, "condition-shape");
        }
    }

    #[test]
    fn regions_that_are_one_stay_one_and_those_of_samples_follow_each_other() {
        let split = |share: f32| Regions::new(1, 1, vec![vec![share], vec![1.0 - share]], 0).unwrap();
        let joined = |first: Regions, second: Regions| {
            let of = |regions, n| {
                let tokens = vec![tokens(1.0, [n, 1, 1]); 2];
                Condition::new(vec![
                    Stream::new(Projection::Own, tokens, Some(Places::Regions(regions))).unwrap(),
                ])
            };
            let (n, m) = (first.weights[0].len(), second.weights[0].len());
            let places = Condition::cat(of(first, n), of(second, m)).unwrap().streams.remove(0).places;
            let Some(Places::Regions(mut regions)) = places else { panic!("no regions") };
            regions.weights.remove(0)
        };
        let pair = |a, b| Regions::stack(&[split(a), split(b)]).unwrap();
        assert_eq!(joined(split(0.25), split(0.25)), [0.25]);
        assert_eq!(joined(split(0.25), split(0.5)), [0.25, 0.5]);
        assert_eq!(joined(pair(0.25, 0.5), pair(0.25, 0.5)), [0.25, 0.5, 0.25, 0.5]);
    }
}
