//! Pictures to latents and back: one [`Vae`] for every autoencoder layout.

mod dc;
mod kl;
mod kl_flux2;
mod strips;
mod tiny;

pub use dc::{AutoencoderDc, AutoencoderDcConfig, PerLevel};
pub use kl::{AutoencoderKl, AutoencoderKlConfig};
pub use kl_flux2::{AutoencoderKlFlux2, AutoencoderKlFlux2Config};
pub use tiny::{AutoencoderTiny, AutoencoderTinyConfig};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::nn::Conv2dConfig;
use crate::weights::{Component, TensorSource, apply, config_range};

/// Most levels, layers of a level and channels: bounds what a hostile config can allocate.
const MAX_LEVELS: usize = 12;
const MAX_LAYERS: usize = 64;
const MAX_CHANNELS: usize = 8192;

/// `config.json` of an autoencoder.
#[derive(Debug, Clone, PartialEq)]
pub enum VaeConfig {
    /// `AutoencoderKL`.
    Kl(AutoencoderKlConfig),
    /// `AutoencoderKLFlux2`.
    KlFlux2(AutoencoderKlFlux2Config),
    /// `AutoencoderDC`.
    Dc(AutoencoderDcConfig),
    /// `AutoencoderTiny`.
    Tiny(AutoencoderTinyConfig),
}

impl VaeConfig {
    /// Reads `config.json`; its `_class_name` says which autoencoder it is.
    pub fn from_component(component: &Component) -> Result<Self> {
        #[derive(Deserialize)]
        struct Class {
            #[serde(rename = "_class_name")]
            name: String,
        }
        let file = "config.json";
        match component.json::<Class>(file)?.name.as_str() {
            "AutoencoderKL" => Ok(Self::Kl(component.json(file)?)),
            "AutoencoderKLFlux2" => Ok(Self::KlFlux2(component.json(file)?)),
            "AutoencoderDC" => Ok(Self::Dc(component.json(file)?)),
            "AutoencoderTiny" => Ok(Self::Tiny(component.json(file)?)),
            other => Err(Error::weights(
                "config-unsupported",
                format!("autoencoder class '{other}' is not supported"),
                "use an AutoencoderKL, AutoencoderKLFlux2, AutoencoderDC or AutoencoderTiny",
            )),
        }
    }

    /// Fails on sizes that are out of range, and on what is not supported.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Kl(config) => config.check(),
            Self::KlFlux2(config) => config.check(),
            Self::Dc(config) => config.check(),
            Self::Tiny(config) => config.check(),
        }
    }

    /// Channels of the denoiser's latents.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::KlFlux2(config) => config.patch_channels(),
            Self::Dc(config) => config.latent_channels,
            Self::Tiny(config) => config.latent_channels,
        }
    }

    /// Side of a picture over side of the denoiser's latents.
    pub fn downsampling(&self) -> usize {
        match self {
            Self::Kl(config) => config.downsampling(),
            Self::KlFlux2(config) => config.downsampling(),
            Self::Dc(config) => config.downsampling(),
            Self::Tiny(config) => config.downsampling(),
        }
    }

    /// Creates the autoencoder with random weights. Fails on sizes and statistics that are out of range.
    pub fn init(&self, device: &Device) -> Result<Vae> {
        let (network, normalisation, in_channels) = match self {
            Self::Kl(config) => (
                Network::Kl(config.init(device)?),
                Some(Normalisation::new(
                    config.latent_channels,
                    config.scaling_factor,
                    config.shift_factor,
                    config.latents_mean.as_deref(),
                    config.latents_std.as_deref(),
                )?),
                config.in_channels,
            ),
            // Its statistics are weights.
            Self::KlFlux2(config) => (Network::KlFlux2(config.init(device)?), None, config.in_channels),
            Self::Dc(config) => (
                Network::Dc(config.init(device)?),
                Some(Normalisation::new(
                    config.latent_channels,
                    config.scaling_factor,
                    None,
                    config.latents_mean.as_deref(),
                    config.latents_std.as_deref(),
                )?),
                config.in_channels,
            ),
            Self::Tiny(config) => (
                Network::Tiny(config.init(device)?),
                Some(Normalisation::new(
                    config.latent_channels,
                    config.scaling_factor,
                    Some(config.shift_factor),
                    None,
                    None,
                )?),
                config.in_channels,
            ),
        };
        let (latent_channels, downsampling) = (self.latent_channels(), self.downsampling());
        let patch = if matches!(self, Self::KlFlux2(_)) { kl_flux2::PATCH } else { 1 };
        Ok(Vae { network, normalisation, in_channels, latent_channels, downsampling, patch })
    }
}

/// What an encoder says of the unscaled latents, `[n, channels, h, w]` each.
#[derive(Debug, Clone)]
pub struct Moments {
    /// The mean; the latents themselves where the encoder is deterministic.
    pub mean: Tensor<4>,
    /// Logarithm of the variance; `None` where the encoder is deterministic.
    pub logvar: Option<Tensor<4>>,
}

/// An autoencoder with the normalisation that its config or its weights state.
///
/// Unscaled latents are the network's own. The denoiser's are normalised, and with FLUX.2 put together in patches.
#[derive(Debug, Clone)]
pub struct Vae {
    network: Network,
    /// What the config states; `None` where the weights do.
    normalisation: Option<Normalisation>,
    in_channels: usize,
    latent_channels: usize,
    downsampling: usize,
    /// Side of a patch of the denoiser's latents, in unscaled ones.
    patch: usize,
}

impl Vae {
    /// Loads `config.json` and weights.
    pub fn load(component: &Component, device: &Device) -> Result<Self> {
        let vae = VaeConfig::from_component(component)?.init(device)?;
        vae.with_weights(component.tensors()?.as_ref())
    }

    /// The same autoencoder with the parameters of `source`.
    pub fn with_weights(self, source: &dyn TensorSource) -> Result<Self> {
        let network = match self.network {
            Network::Kl(network) => Network::Kl(network.load(source)?),
            Network::KlFlux2(network) => Network::KlFlux2(apply(network, source, "")?),
            Network::Dc(network) => Network::Dc(apply(network, source, "")?),
            Network::Tiny(network) => Network::Tiny(apply(network, source, "")?),
        };
        Ok(Self { network, ..self })
    }

    /// Channels of the denoiser's latents.
    pub fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    /// Channels of the unscaled latents.
    pub fn unscaled_channels(&self) -> usize {
        self.latent_channels / (self.patch * self.patch)
    }

    /// Side of a picture over side of the denoiser's latents.
    pub fn downsampling(&self) -> usize {
        self.downsampling
    }

    /// Pictures `[n, 3, h, w]` in [-1, 1] → unscaled latents `[n, channels, h / f, w / f]`.
    ///
    /// Fails if sides are no multiples of [`Vae::downsampling`] or the channels are not the config's.
    pub fn encode(&self, images: Tensor<4>) -> Result<Moments> {
        let [_, channels, height, width] = images.dims();
        let fits = |side: usize| side > 0 && side.is_multiple_of(self.downsampling);
        if channels != self.in_channels || !fits(height) || !fits(width) {
            return Err(Error::input(
                "vae-input",
                format!("a picture of {channels} channels and {width}×{height} pixels for the autoencoder"),
                format!(
                    "give {} channels, and sides that are multiples of {}",
                    self.in_channels, self.downsampling
                ),
            ));
        }
        Ok(match &self.network {
            Network::Kl(network) => network.encode(images),
            Network::KlFlux2(network) => network.encode(images),
            Network::Dc(network) => Moments { mean: network.encode(images), logvar: None },
            Network::Tiny(network) => Moments { mean: network.encode(images), logvar: None },
        })
    }

    /// Unscaled latents `[n, channels, h, w]` → pictures `[n, 3, h · f, w · f]` in about [-1, 1].
    ///
    /// Fails if the channels are not the config's.
    pub fn decode(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        let [_, channels, height, width] = latents.dims();
        let expected = self.unscaled_channels();
        if channels != expected || height == 0 || width == 0 {
            return Err(unfit(&latents, expected));
        }
        Ok(match &self.network {
            Network::Kl(network) => network.decode(latents),
            Network::KlFlux2(network) => network.decode(latents),
            Network::Dc(network) => network.decode(latents),
            Network::Tiny(network) => network.decode(latents),
        })
    }

    /// Pictures → the denoiser's latents `[n, latent_channels, h / f, w / f]`: the encoder's mean, normalised.
    pub fn encode_latents(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        let latents = self.encode(images)?.mean;
        Ok(match (&self.network, &self.normalisation) {
            (Network::KlFlux2(network), _) => network.normalise(latents),
            (_, Some(normalisation)) => normalisation.normalise(latents),
            (_, None) => latents,
        })
    }

    /// The denoiser's latents → pictures.
    pub fn decode_latents(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        if latents.dims()[1] != self.latent_channels || latents.dims().contains(&0) {
            return Err(unfit(&latents, self.latent_channels));
        }
        self.decode(match (&self.network, &self.normalisation) {
            (Network::KlFlux2(network), _) => network.restore(latents),
            (_, Some(normalisation)) => normalisation.restore(latents),
            (_, None) => latents,
        })
    }
}

/// Latents of the wrong shape.
fn unfit(latents: &Tensor<4>, expected: usize) -> Error {
    let [_, channels, height, width] = latents.dims();
    Error::input(
        "vae-input",
        format!("latents of {channels} channels and {width}×{height} for the autoencoder"),
        format!("give {expected} channels, and at least one position"),
    )
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one in a model
enum Network {
    Kl(AutoencoderKl),
    KlFlux2(AutoencoderKlFlux2),
    Dc(AutoencoderDc),
    Tiny(AutoencoderTiny),
}

/// Between unscaled latents and those of the denoiser, `(z − shift) · scale` channel by channel.
#[derive(Debug, Clone, PartialEq)]
struct Normalisation {
    shift: Vec<f32>,
    scale: Vec<f32>,
}

impl Normalisation {
    /// As diffusers' pipelines: `(z − mean) · scaling_factor / std`, where a config without channel means may state one
    /// `shift_factor` for all.
    fn new(
        channels: usize,
        scaling_factor: f64,
        shift_factor: Option<f64>,
        mean: Option<&[f64]>,
        std: Option<&[f64]>,
    ) -> Result<Self> {
        let wrong = |name: &str| range("autoencoder", format!("{name} is not {channels} usable numbers"));
        let mean = mean.map_or_else(|| vec![shift_factor.unwrap_or(0.0); channels], <[f64]>::to_vec);
        if mean.len() != channels || !mean.iter().all(|m| m.is_finite()) {
            return Err(wrong("latents_mean"));
        }
        let std = std.map_or_else(|| vec![1.0; channels], <[f64]>::to_vec);
        if std.len() != channels || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(wrong("latents_std"));
        }
        if !(scaling_factor.is_finite() && scaling_factor > 0.0) {
            return Err(range("autoencoder", format!("scaling_factor is {scaling_factor}")));
        }
        Ok(Self {
            shift: mean.iter().map(|m| *m as f32).collect(),
            scale: std.iter().map(|s| (scaling_factor / s) as f32).collect(),
        })
    }

    fn normalise(&self, latents: Tensor<4>) -> Tensor<4> {
        let (shift, scale) = self.tensors(&latents);
        (latents - shift) * scale
    }

    fn restore(&self, latents: Tensor<4>) -> Tensor<4> {
        let (shift, scale) = self.tensors(&latents);
        latents / scale + shift
    }

    /// `[1, channels, 1, 1]` each, in the latents' precision and on their device.
    fn tensors(&self, like: &Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let tensor = |values: &[f32]| {
            let values = Tensor::<1>::from_floats(values, &like.device()).cast(like.dtype());
            values.reshape([1, self.shift.len(), 1, 1])
        };
        (tensor(&self.shift), tensor(&self.scale))
    }
}

fn range(class: &str, message: String) -> Error {
    config_range(format!("{class} config: {message}"))
}

fn conv3(channels_in: usize, channels_out: usize, stride: usize) -> Conv2dConfig {
    Conv2dConfig::new(channels_in, channels_out, 3).with_stride(stride).with_padding(1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::weights::MemoryFiles;

    /// A small config of each class.
    fn configs() -> [Value; 4] {
        [
            json!({
                "_class_name": "AutoencoderKL", "block_out_channels": [4, 8], "norm_num_groups": 2,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
                "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
            }),
            json!({
                "_class_name": "AutoencoderDC", "latent_channels": 4,
                "encoder_block_out_channels": [4, 8], "decoder_block_out_channels": [4, 8],
                "encoder_layers_per_block": [1, 1], "decoder_layers_per_block": [1, 1],
            }),
            json!({
                "_class_name": "AutoencoderTiny",
                "encoder_block_out_channels": [4, 4], "decoder_block_out_channels": [4, 4],
                "num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1],
            }),
            json!({
                "_class_name": "AutoencoderKLFlux2", "block_out_channels": [4], "norm_num_groups": 2,
                "down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"],
                "latent_channels": 1, "decoder_block_out_channels": [6],
            }),
        ]
    }

    fn init(config: &Value) -> Result<Vae> {
        let files = MemoryFiles([("config.json".to_owned(), config.to_string().into_bytes())].into());
        VaeConfig::from_component(&Component::new(&files, ""))?.init(&Device::flex())
    }

    #[test]
    fn pictures_keep_their_size_and_wrong_shapes_are_refused() {
        let device = Device::flex();
        for config in configs() {
            let vae = init(&config).unwrap();
            assert_eq!((vae.downsampling(), vae.latent_channels()), (2, 4));
            let latents = vae.encode_latents(Tensor::zeros([1, 3, 8, 12], &device)).unwrap();
            assert_eq!(latents.dims(), [1, 4, 4, 6]);
            assert_eq!(vae.decode_latents(latents).unwrap().dims(), [1, 3, 8, 12]);
            for dims in [[1, 3, 8, 11], [1, 3, 0, 8], [1, 4, 8, 8]] {
                assert_eq!(vae.encode(Tensor::zeros(dims, &device)).unwrap_err().code, "vae-input");
            }
            for error in [
                vae.decode(Tensor::zeros([1, 3, 4, 4], &device)).unwrap_err(),
                vae.decode_latents(Tensor::zeros([1, 5, 4, 4], &device)).unwrap_err(),
            ] {
                assert_eq!(error.code, "vae-input");
            }
        }
    }

    #[test]
    fn normalising_is_undone_by_restoring() {
        let device = Device::flex();
        let latents = Tensor::<4>::from_floats([[[[1.5]], [[-2.0]]]], &device);
        let normalisation = Normalisation::new(2, 0.5, None, Some(&[0.5, 1.0]), Some(&[2.0, 0.25])).unwrap();
        let normalised = normalisation.normalise(latents.clone());
        // (1.5 − 0.5) · 0.5 / 2 and (−2 − 1) · 0.5 / 0.25
        assert_eq!(normalised.clone().try_into_vec_as::<f32>().unwrap(), [0.25, -6.0]);
        let restored = normalisation.restore(normalised);
        assert_eq!(restored.try_into_vec_as::<f32>().unwrap(), [1.5, -2.0]);
    }

    /// Every number of every config at absurd values: an error or a network, never a panic.
    #[test]
    fn absurd_configs_are_errors_not_panics() {
        for config in configs() {
            let mut refused = 0;
            for (key, value) in config.as_object().unwrap() {
                for absurd in [0, 1, 3, 5, 1 << 20, usize::MAX >> 1] {
                    let Some(list) = value.as_array() else { continue };
                    if !list.iter().all(Value::is_u64) {
                        continue;
                    }
                    for i in 0..list.len() {
                        let mut changed = config.clone();
                        changed[key][i] = absurd.into();
                        refused += usize::from(init(&changed).is_err());
                    }
                    let mut longer = config.clone();
                    longer[key].as_array_mut().unwrap().push(absurd.into());
                    assert!(init(&longer).is_err(), "{longer}");
                }
                let mut empty = config.clone();
                if value.is_array() {
                    empty[key] = json!([]);
                    assert!(init(&empty).is_err(), "{empty}");
                }
            }
            assert!(refused > 0, "{config}");
            for (key, values) in [
                ("latent_channels", [0, 3000, usize::MAX >> 1]),
                ("in_channels", [0, 3000, usize::MAX >> 1]),
                ("scaling_factor", [0, 0, 0]),
            ] {
                if key == "scaling_factor" && config["_class_name"] == "AutoencoderKLFlux2" {
                    continue; // it has none
                }
                for value in values {
                    let mut changed = config.clone();
                    changed[key] = value.into();
                    assert_eq!(init(&changed).unwrap_err().code, "config-range", "{changed}");
                }
            }
        }
        let unknown = json!({ "_class_name": "VQModel" });
        assert_eq!(init(&unknown).unwrap_err().code, "config-unsupported");
        let mut efficient = configs()[1].clone();
        efficient["encoder_block_types"] = json!(["ResBlock", "EfficientViTBlock"]);
        assert_eq!(init(&efficient).unwrap_err().code, "config-unsupported");
        let mut patches = configs()[3].clone();
        patches["patch_size"] = json!([1, 2]);
        assert_eq!(init(&patches).unwrap_err().code, "config-unsupported");
        patches = configs()[3].clone();
        patches["batch_norm_eps"] = json!(0);
        assert_eq!(init(&patches).unwrap_err().code, "config-range");
        let mut statistics = configs()[1].clone();
        statistics["latents_std"] = json!([1.0, 0.0, 1.0, 1.0]);
        assert_eq!(init(&statistics).unwrap_err().code, "config-range");
    }
}
