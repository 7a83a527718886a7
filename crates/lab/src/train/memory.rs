//! How much memory the diffusion stage takes, from its sizes alone: told before anything is allocated.
//!
//! What burn's autodiff keeps was counted operation by operation and held against an allocator that counts
//! (`tests/training_memory.rs`). With `d` bytes a value in the activations' precision:
//!
//! | | bytes kept of each value |
//! |---|---|
//! | GroupNorm, SiLU and the convolution's input | 8 (f32 whatever `d` is) + 3 `d` of the input |
//! | a transformer around its blocks | 8 + 3 `d` |
//! | a transformer block | three LayerNorms 24 + 3 `d`, self-attention 4 `d`, cross-attention 2 `d` and `d` for each person, feed-forward 16 `d` |
//! | attention | 3 `d` of each score: before and after the exponential, and divided by their sum |
//!
//! Beside them are the weights' copies in that precision, and what one operation needs while it computes.

use burn::module::Module;
use burn::tensor::DType;

use facestudio::internal::MOST_SCORES;
use facestudio::unet::{Extent, Skip, UNet2DConditionModel};

/// What a step trains on.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Samples at once.
    pub samples: usize,
    /// Height and width of the latents.
    pub size: [usize; 2],
    /// Guidance tokens of an identity.
    pub tokens: usize,
    /// Identities of a sample.
    pub people: usize,
    /// Precision of the activations.
    pub dtype: DType,
}

/// Bytes that training a UNet takes: without the shared Linear, the frozen networks and the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The weights, f32, on the device.
    pub weights: u64,
    /// What the optimiser has on the host, f32: the weights, both moments, their average, the gradients.
    pub optimizer: u64,
    /// The most that a step takes on the device beside the weights.
    pub step: u64,
    /// The same where segments are computed again.
    pub step_again: u64,
}

/// Bytes of an f32.
const F32: u64 = 4;

impl Estimate {
    /// Of training `unet` on such batches; allocates no weight that is not there yet.
    pub fn new(unet: &UNet2DConditionModel, batch: &Batch) -> Self {
        let segments = unet.segments();
        let parts: Vec<SegmentMemory> = segments
            .iter()
            .map(|segment| SegmentMemory::new(&segment.extent(), segment.skip, batch))
            .collect();
        let (mut step, mut step_again, mut gradients) = (0, 0, 0);
        for (i, part) in parts.iter().enumerate().rev() {
            let sum = |of: fn(&SegmentMemory) -> u64| parts[..=i].iter().map(of).sum::<u64>();
            gradients += part.gradients;
            step = step.max(sum(|part| part.kept) + part.passing + gradients);
            step_again = step_again.max(sum(|part| part.input) + part.kept + part.passing + part.gradients);
        }
        let parameters = unet.num_params() as u64;
        Self { weights: F32 * parameters, optimizer: 5 * F32 * parameters, step, step_again }
    }
}

impl Batch {
    /// Positions of a sample at a level.
    fn positions(&self, level: usize) -> u64 {
        self.size.iter().map(|side| (0..level).fold(*side, |side, _| side.div_ceil(2)) as u64).product()
    }
}

/// Bytes of a segment.
struct SegmentMemory {
    /// Its input.
    input: u64,
    /// What it keeps for its gradients, its output included.
    kept: u64,
    /// What its largest operation needs as it computes.
    passing: u64,
    /// Its weights' gradients.
    gradients: u64,
}

impl SegmentMemory {
    fn new(extent: &Extent, skip: Skip, batch: &Batch) -> Self {
        let d = batch.dtype.size() as u64;
        let samples = batch.samples as u64;
        let Extent { channels_in, channels_out, parameters, norms, transformer, .. } = *extent;
        let positions = batch.positions(extent.level);
        let before = samples * positions * channels_in as u64;
        let after = samples * batch.positions(extent.level_out) * channels_out as u64;

        let normalised = [before, after].iter().take(norms).sum::<u64>();
        let mut kept = normalised * (2 * F32 + 3 * d) + after * d;
        // Skips are joined to the input, and an upsampled input is another tensor: of its output's size.
        if skip == Skip::Takes {
            kept += before * d;
        } else if extent.level_out < extent.level {
            kept += after / channels_out as u64 * channels_in as u64 * d;
        }
        // A convolution's window is gathered: 3×3 values, and the gradients of input and output.
        let mut passing = 11 * F32 * before.max(after);
        let mut copied = 0;
        if let Some(transformer) = transformer {
            let block = 6 * F32 + (3 + 4 + 2 + 16 + batch.people as u64) * d;
            kept += after * (2 * F32 + 3 * d + block * transformer.blocks as u64);
            let of_score = if transformer.upcast { F32 } else { d };
            let rows = samples * transformer.heads as u64 * positions;
            let keys = positions + (batch.people * batch.tokens) as u64;
            kept += 3 * of_score * rows * keys * transformer.blocks as u64;
            passing = passing.max(2 * F32 * (rows * positions).min(MOST_SCORES as u64));
            copied = transformer.parameters;
        }
        // Weights are f32; burn's CPU backend copies those of linear layers over sequences even so.
        let copied = if d == F32 { copied } else { parameters } as u64 * d;
        Self { input: before * d, kept: kept + copied, passing, gradients: F32 * parameters as u64 }
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let size = |bytes: u64| match bytes as f64 / f64::from(1 << 20) {
            mib if mib < 1024.0 => format!("{mib:.0} MiB"),
            mib => format!("{:.1} GiB", mib / 1024.0),
        };
        write!(
            f,
            "memory, estimated: {} of weights on the device and {} of the optimiser on the host; a step {} on the device, {} \
             with --gradient-checkpointing",
            size(self.weights),
            size(self.optimizer),
            size(self.step),
            size(self.step_again)
        )
    }
}
