//! `--backend`, and `--tuning-backend`.

use burn::tensor::Device;
use facestudio::Result;

/// Where networks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Backend {
    /// The processor.
    #[default]
    Cpu,
    /// A graphics card, through WebGPU.
    Gpu,
}

impl Backend {
    /// The device; fails where this program was built without it.
    pub fn device(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::Gpu => gpu(),
        }
    }
}

/// Where networks learn.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum TrainingBackend {
    /// burn's CPU backend, f32.
    Cpu,
    /// libtorch on the CPU, bf16 where the processor has it (needs the feature `torch`).
    Torch,
    /// libtorch on CUDA, bf16 (needs the feature `torch`).
    TorchCuda,
}

impl From<TrainingBackend> for facestudio_lab::train::Backend {
    fn from(backend: TrainingBackend) -> Self {
        match backend {
            TrainingBackend::Cpu => Self::Cpu,
            TrainingBackend::Torch => Self::Torch,
            TrainingBackend::TorchCuda => Self::TorchCuda,
        }
    }
}

#[cfg(feature = "gpu")]
fn gpu() -> Result<Device> {
    Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "gpu"))]
fn gpu() -> Result<Device> {
    Err(facestudio::Error::device(
        "backend-missing",
        "this program was built without the 'gpu' feature",
        "build it with `cargo build --release --features gpu`, or choose another --backend",
    ))
}
