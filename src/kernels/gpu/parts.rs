//! Which kernels are used: all but those that compute wrongly on this adapter.

use std::cell::Cell;

/// What is [proved](super::proof), and left out where it fails, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Conv2d,
    Linear,
    LinearToImages,
    /// Weights in f16 beside inputs in f32.
    HalfWeights,
    /// Weights in blocks of 8 bits.
    Blocks8,
    Blocks4,
    Attention,
    /// Attention to several contexts by regions.
    Regions,
    GroupNorm,
    LayerNorm,
    RmsNorm,
    Silu,
    Gelu,
    QuickGelu,
    GeGlu,
    /// Every kernel with activations in f16.
    Halves,
    /// burn's own operations: without them nothing can be computed on the adapter.
    #[cfg(any(test, target_family = "wasm"))]
    Burn,
}

/// All of them, by the names that notices and stored verdicts have for them.
#[cfg(any(test, target_family = "wasm"))]
pub const PARTS: [(Part, &str); 17] = [
    (Part::Conv2d, "conv2d"),
    (Part::Linear, "linear"),
    (Part::LinearToImages, "linear_to_images"),
    (Part::HalfWeights, "weights_f16"),
    (Part::Blocks8, "weights_q8"),
    (Part::Blocks4, "weights_q4"),
    (Part::Attention, "attention"),
    (Part::Regions, "attention_by_regions"),
    (Part::GroupNorm, "group_norm"),
    (Part::LayerNorm, "layer_norm"),
    (Part::RmsNorm, "rms_norm"),
    (Part::Silu, "silu"),
    (Part::Gelu, "gelu"),
    (Part::QuickGelu, "quick_gelu"),
    (Part::GeGlu, "geglu"),
    (Part::Halves, "f16"),
    (Part::Burn, "burn"),
];

thread_local! {
    /// A bit each. A module that has WebGPU has one thread.
    static LEFT_OUT: Cell<u32> = const { Cell::new(0) };
}

/// Whether a part may be used.
pub fn used(part: Part) -> bool {
    LEFT_OUT.get() & bit(part) == 0
}

fn bit(part: Part) -> u32 {
    1 << part as u32
}

/// Leaves out these parts from now on, and no others. False, and nothing changes, where there is no part of such a name.
#[cfg(any(test, target_family = "wasm"))]
pub fn leave_out<T: AsRef<str>>(names: &[T]) -> bool {
    let of = |name: &T| PARTS.iter().find(|(_, known)| *known == name.as_ref()).map(|(part, _)| bit(*part));
    let bits: Option<u32> = names.iter().map(of).sum();
    if let Some(bits) = bits {
        LEFT_OUT.set(bits);
    }
    bits.is_some()
}
