//! What the denoiser computes in.

use std::str::FromStr;

use burn::tensor::{DType, Device};

use crate::error::{Error, Result};
use crate::kernels;

/// Precision of the denoiser's activations. f16 takes half of their memory and traffic; sums, norms and softmax are f32 all
/// the same, as are latents, guidance, sampling, encoders and the autoencoder (whose larger kinds leave f16's range).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// f16 where the device computes it in all of our kernels (WebGPU's feature `shader-f16`), f32 elsewhere.
    #[default]
    Auto,
    /// f16; a device that does not compute it is refused.
    F16,
    /// f32.
    F32,
}

impl Precision {
    /// Fails with `precision` where the device has no f16 and is to have it.
    pub fn check(self, device: &Device) -> Result<()> {
        self.dtype(device).map(|_| ())
    }

    /// The numbers that this means on a device; fails as [`check`](Self::check).
    pub(super) fn dtype(self, device: &Device) -> Result<DType> {
        match (self, kernels::takes_halves(device)) {
            (Self::Auto | Self::F16, true) => Ok(DType::F16),
            (Self::Auto, false) | (Self::F32, _) => Ok(DType::F32),
            (Self::F16, false) => {
                Err(Error::device("precision", "this device does not compute in f16", "use `auto` or `f32`"))
            }
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            _ => Err(Error::input(
                "precision-name",
                format!("there is no precision '{name}'"),
                "use `auto`, `f16` or `f32`",
            )),
        }
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_the_processor_computes_in_f32() {
        let device = Device::flex();
        let dtype = |name: &str| Precision::from_str(name).and_then(|precision| precision.dtype(&device));
        assert_eq!((dtype("auto").unwrap(), dtype("f32").unwrap()), (DType::F32, DType::F32));
        assert_eq!(["f16", "f64"].map(|name| dtype(name).unwrap_err().code), ["precision", "precision-name"]);
    }

    /// A UNet of each kind of block in f16 beside f32: what rounding to eleven bits leaves of the noise that it predicts.
    #[cfg(feature = "gpu")]
    #[test]
    fn half_precision_predicts_nearly_the_same() {
        use burn::tensor::Tensor;

        use crate::condition::{Condition, Places, Projection, Regions, Stream};
        use crate::sampling::NoiseSource;
        use crate::unet::UNet2DConditionConfig;

        let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
        let Ok(DType::F16) = Precision::Auto.dtype(&device) else {
            assert!(option_env!("EXPECT_F16").is_none(), "{device:?} does not compute in f16");
            return;
        };
        let config: UNet2DConditionConfig = serde_json::from_value(serde_json::json!({
            "in_channels": 4, "out_channels": 4, "block_out_channels": [32, 64], "layers_per_block": 1,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 24, "attention_head_dim": 4, "norm_num_groups": 8,
        }))
        .unwrap();
        let unet = config.init(&device).unwrap();
        let random = |stream, shape| NoiseSource::new(5).tensor::<4>(stream, shape, &device);
        let tokens = |stream| random(stream, [1, 2, 4, 24]).reshape([2, 4, 24]);
        let left: Vec<f32> = (0..12 * 16).map(|i| if i % 16 < 9 { 1.0 } else { 0.0 }).collect();
        let right = left.iter().map(|weight| 1.0 - weight).collect();
        let regions = Regions::new(12, 16, vec![left, right], 0).unwrap();
        for condition in [
            Condition::single(tokens(1)),
            Condition::new(vec![
                Stream::new(Projection::Own, vec![tokens(1), tokens(2)], Some(Places::Regions(regions)))
                    .unwrap(),
            ]),
        ] {
            let sample = random(3, [2, 4, 12, 16]);
            let timestep = Tensor::full([2], 500.0, &device);
            let predict = |dtype| {
                let predicted = unet.forward(sample.clone().cast(dtype), timestep.clone(), &condition);
                predicted.unwrap().cast(DType::F32)
            };
            let [half, full] = [DType::F16, DType::F32].map(predict);
            let off = (half - full.clone()).square().mean().sqrt() / full.square().mean().sqrt();
            let off: f32 = off.into_scalar();
            // A residual network rounds its stream once a layer, some forty times 2⁻¹² on average, as a random walk.
            assert!(off > 0.0 && off < 2e-3, "off by {off} of the prediction");
        }
    }
}
