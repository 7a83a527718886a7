//! Training: one file a stage, its objective beside it, over one loop.
//!
//! ```text
//! synth ─ data::Pictures (rendered once, cached) ─ Step::rng ─ batch ─ objective ─ backward ─ optim::AdamW
//!                                                                                               │
//!                                        run::train: schedule, checkpoints, report, EMA ◄───────┘
//! ```
//!
//! A stage gives [`run::train`] a module and an objective. Everything random in a step is drawn from
//! [`Step::rng`](run::Step::rng), which depends on the seed and the step's number alone: a run that was stopped and
//! resumed is the run that was never stopped.

pub mod checkpoint;
pub mod optim;
pub mod plot;
pub mod rng;
pub mod run;

use burn::tensor::{DType, Device};

use crate::error::{Error, Result};

/// Where training computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// burn's own CPU backend, in f32.
    #[default]
    Cpu,
    /// libtorch on the CPU, activations in bf16 (needs the feature `torch`).
    Torch,
    /// libtorch on the first CUDA device, activations in bf16 (needs the feature `torch`).
    TorchCuda,
}

impl Backend {
    /// The device, recording gradients. Fails where this build lacks the backend.
    pub fn device(self) -> Result<Device> {
        match self {
            Self::Cpu => cpu(),
            Self::Torch => torch(false),
            Self::TorchCuda => torch(true),
        }
    }

    /// Precision of the activations; weights and losses are always f32.
    pub fn dtype(self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Torch | Self::TorchCuda => DType::BF16,
        }
    }
}

#[cfg(feature = "cpu")]
fn cpu() -> Result<Device> {
    Ok(Device::flex().autodiff())
}

#[cfg(not(feature = "cpu"))]
fn cpu() -> Result<Device> {
    Err(Error::device(
        "backend-missing",
        "this build has no CPU backend",
        "build with `--features cpu`, or use `--backend torch`",
    ))
}

#[cfg(feature = "torch")]
#[allow(deprecated)] // burn deprecates libtorch; training alone uses it, behind this feature
fn torch(cuda: bool) -> Result<Device> {
    Ok(if cuda { Device::libtorch_cuda(0) } else { Device::libtorch() }.autodiff())
}

#[cfg(not(feature = "torch"))]
fn torch(_cuda: bool) -> Result<Device> {
    Err(Error::device(
        "backend-missing",
        "this build has no libtorch",
        "build with `--features torch` (README, \"Train\"), or use `--backend cpu`",
    ))
}
