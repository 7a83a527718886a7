//! One level more for a trained autoencoder: latents of half the side, in which it goes on as good as before.
//!
//! A denoiser learns sooner where a picture is few positions of many numbers, and an autoencoder sooner where it is many positions
//! of few. So the autoencoder learns the latter first; then each 2×2 of its positions become one, of their principal components.
//! Both ways are linear, and the layers of one more level of `AutoencoderDC` can do exactly that: nothing but the components that are
//! cut off is lost at first, and training goes on from there.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::DType;

use super::data::Pictures;
use crate::matrix::eigen;
use facestudio::error::{Error, Result};
use facestudio::vae::{AutoencoderDc, AutoencoderDcConfig, PerLevel};
use facestudio::weights::{Tensors, collect};

/// Pictures over which the components are taken.
const PICTURES: usize = 1000;
/// Positions of a 3×3 kernel.
const TAPS: usize = 9;

/// The config with one level more, whose latents have `channels`.
///
/// Fails with `base-mismatch` where the config's last level is none that another can follow.
pub fn config(base: &AutoencoderDcConfig, channels: usize) -> Result<AutoencoderDcConfig> {
    let base = base.clone();
    let mut config = base.clone();
    config.latent_channels = channels;
    config.encoder_out_shortcut = false;
    config.decoder_in_shortcut = true;
    config.latents_mean = None;
    config.latents_std = None;
    let widths = [last(&base.encoder_block_out_channels), last(&base.decoder_block_out_channels)];
    config.encoder_block_out_channels.push(4 * widths[0]);
    config.decoder_block_out_channels.push(channels);
    config.encoder_layers_per_block.push(0);
    config.decoder_layers_per_block.push(0);
    for each in [
        &mut config.encoder_block_types,
        &mut config.decoder_block_types,
        &mut config.decoder_norm_types,
        &mut config.decoder_act_fns,
    ] {
        // The new level has no blocks: any kind that is known will do.
        if let PerLevel::Each(kinds) = each {
            kinds.extend(kinds.last().cloned());
        }
    }
    let layers = [last(&base.encoder_layers_per_block), last(&base.decoder_layers_per_block)];
    let shuffles =
        base.downsample_block_type == "pixel_unshuffle" && base.upsample_block_type == "pixel_shuffle";
    let shortcuts = base.encoder_out_shortcut && base.decoder_in_shortcut;
    let fits = shuffles
        && shortcuts
        && layers.iter().all(|count| *count > 0)
        && (1..=4 * base.latent_channels).contains(&channels)
        && (4 * widths[1]).is_multiple_of(channels);
    if fits {
        return Ok(config);
    }
    Err(Error::input(
        "base-mismatch",
        format!(
            "the base's autoencoder ({} channels of latents, {layers:?} layers at its last levels of {widths:?} channels) cannot get a \
             level of {channels}",
            base.latent_channels
        ),
        format!(
            "--deepen takes at most {} channels that divide {}, and a base that shuffles pixels and has both shortcuts",
            4 * base.latent_channels,
            4 * widths[1]
        ),
    ))
}

fn last(values: &[usize]) -> usize {
    values.last().copied().unwrap_or_default()
}

/// The weights of [`config`]: those of `model`, whose config is `base`, and the new level's from the principal components of its
/// latents of the first `trained` pictures.
pub fn weights(
    base: &AutoencoderDcConfig,
    model: &AutoencoderDc,
    pictures: &Pictures,
    trained: usize,
    channels: usize,
    dtype: DType,
) -> Result<Tensors> {
    let components = components(model, pictures, trained, [base.latent_channels, channels], dtype)?;
    deepened(base, collect(model, "")?, &components, channels)
}

/// The first `channels` principal components of 2×2 positions, `[4 · latent_channels][channels]`, a row for channel `c` at
/// `(a, b)` being number `4c + 2a + b`. They are taken about 0, not about the mean, so that the borders' zeros stay zeros.
fn components(
    model: &AutoencoderDc,
    pictures: &Pictures,
    trained: usize,
    [latent_channels, channels]: [usize; 2],
    dtype: DType,
) -> Result<Vec<f64>> {
    let n = 4 * latent_channels;
    let mut moments = vec![0f64; n * n];
    let device = model.devices().into_iter().next().unwrap_or_default();
    let indices: Vec<usize> = (0..trained.min(PICTURES)).collect();
    for chunk in indices.chunks(8) {
        let latents = model.encode(pictures.tensor(chunk, &device).cast(dtype)).cast(DType::F32);
        let [count, c, h, w] = latents.dims();
        let values: Vec<f32> = latents
            .try_into_vec_as::<f32>()
            .map_err(|e| Error::device("read-back", format!("could not read latents back: {e:?}"), ""))?;
        let mut row = vec![0f64; n];
        for picture in 0..count {
            for (y, x) in (0..h / 2).flat_map(|y| (0..w / 2).map(move |x| (y, x))) {
                for (i, value) in row.iter_mut().enumerate() {
                    let (channel, a, b) = (i / 4, i / 2 % 2, i % 2);
                    *value = f64::from(values[((picture * c + channel) * h + 2 * y + a) * w + 2 * x + b]);
                }
                for (i, left) in row.iter().enumerate() {
                    for (moment, right) in moments[i * n..(i + 1) * n].iter_mut().zip(&row) {
                        *moment += left * right;
                    }
                }
            }
        }
    }
    let (values, vectors) = eigen(&moments, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    Ok((0..n)
        .flat_map(|i| order[..channels].iter().map(move |k| (i, *k)))
        .map(|(i, k)| vectors[i * n + k])
        .collect())
}

/// A 3×3 convolution `[out][in][3][3]` in `f64`.
struct Kernel {
    inputs: usize,
    values: Vec<f64>,
}

impl Kernel {
    fn zeros(outputs: usize, inputs: usize) -> Self {
        Self { inputs, values: vec![0.0; outputs * inputs * TAPS] }
    }

    fn at(&mut self, output: usize, input: usize, y: usize, x: usize) -> &mut f64 {
        &mut self.values[(output * self.inputs + input) * TAPS + 3 * y + x]
    }

    fn read(&self, output: usize, input: usize, y: usize, x: usize) -> f64 {
        self.values[(output * self.inputs + input) * TAPS + 3 * y + x]
    }
}

/// What moving by `tap - 1` from place `sub` of a 2×2 block leads to: the tap of the block, and the place in it.
fn moved(sub: usize, tap: usize) -> (usize, usize) {
    // One block is two places; the block before is tap 0.
    let place = sub + tap + 1;
    (place / 2, place % 2)
}

fn mismatch(name: &str) -> Error {
    Error::weights(
        "weights-mismatch",
        format!("the base's '{name}' is not there, or none of an AutoencoderDC"),
        "use the weights that belong to config.json",
    )
}

fn deepened(
    base: &AutoencoderDcConfig,
    tensors: Tensors,
    components: &[f64],
    channels: usize,
) -> Result<Tensors> {
    let level = base.decoder_block_out_channels.len() - 1;
    let below = base.encoder_layers_per_block[level];
    let mut all = BTreeMap::new();
    let mut edge = BTreeMap::new();
    let first = format!("decoder.up_blocks.{level}.");
    for (name, tensor) in tensors.0 {
        if ["encoder.conv_out.", "decoder.conv_in."].iter().any(|edge| name.starts_with(edge)) {
            edge.insert(name, tensor);
        } else if let Some(rest) = name.strip_prefix(&first) {
            // The level now begins with the way up to it.
            let (number, rest) = rest.split_once('.').unwrap_or((rest, ""));
            let number: usize = number.parse().map_err(|_| mismatch(&name))?;
            all.insert(format!("{first}{}.{rest}", number + 1), tensor);
        } else {
            all.insert(name, tensor);
        }
    }
    let mut take = |name: &str| -> Result<Vec<f64>> {
        let (_, values) = edge.remove(name).ok_or_else(|| mismatch(name))?;
        Ok(values.into_iter().map(f64::from).collect())
    };
    let latents = base.latent_channels;
    let widths = [last(&base.encoder_block_out_channels), last(&base.decoder_block_out_channels)];
    let component = |row: usize, k: usize| components[row * channels + k];

    // The base's last layer with its shortcut, which averages channels.
    let mut out = Kernel { inputs: widths[0], values: take("encoder.conv_out.weight")? };
    let group = widths[0] / latents;
    for (channel, member) in (0..latents).flat_map(|c| (0..group).map(move |g| (c, g))) {
        *out.at(channel, channel * group + member, 1, 1) += 1.0 / group as f64;
    }
    let out_bias = take("encoder.conv_out.bias")?;
    let mut encode = Kernel::zeros(channels, 4 * widths[0]);
    let mut encode_bias = vec![0f64; channels];
    for (place, channel) in (0..4).flat_map(|place| (0..latents).map(move |c| (place, c))) {
        let row = 4 * channel + place;
        for (k, bias) in encode_bias.iter_mut().enumerate() {
            *bias += component(row, k) * out_bias[channel];
        }
        for (y, x) in (0..3).flat_map(|y| (0..3).map(move |x| (y, x))) {
            let ((block_y, a), (block_x, b)) = (moved(place / 2, y), moved(place % 2, x));
            for input in 0..widths[0] {
                let value = out.read(channel, input, y, x);
                for k in 0..channels {
                    *encode.at(k, 4 * input + 2 * a + b, block_y, block_x) += component(row, k) * value;
                }
            }
        }
    }

    // The base's first layer with its shortcut, which repeats channels.
    let mut first_layer = Kernel { inputs: latents, values: take("decoder.conv_in.weight")? };
    let repeats = widths[1] / latents;
    for output in 0..widths[1] {
        *first_layer.at(output, output / repeats, 1, 1) += 1.0;
    }
    let in_bias = take("decoder.conv_in.bias")?;
    let mut decode = Kernel::zeros(4 * widths[1], channels);
    for (place, output) in (0..4).flat_map(|place| (0..widths[1]).map(move |o| (place, o))) {
        for (y, x) in (0..3).flat_map(|y| (0..3).map(move |x| (y, x))) {
            let ((block_y, a), (block_x, b)) = (moved(place / 2, y), moved(place % 2, x));
            for channel in 0..latents {
                let value = first_layer.read(output, channel, y, x);
                for k in 0..channels {
                    *decode.at(4 * output + place, k, block_y, block_x) +=
                        value * component(4 * channel + 2 * a + b, k);
                }
            }
        }
        // The new level's own shortcut repeats channels too; none of that is wanted.
        let repeats = 4 * widths[1] / channels;
        *decode.at(4 * output + place, (4 * output + place) / repeats, 1, 1) -= 1.0;
    }
    let decode_bias: Vec<f64> = in_bias.iter().flat_map(|bias| [*bias; 4]).collect();

    let mut put = |name: String, shape: Vec<usize>, values: Vec<f64>| {
        all.insert(name, (shape, values.into_iter().map(|v| v as f32).collect()));
    };
    let down = format!("encoder.down_blocks.{level}.{below}.conv");
    put(format!("{down}.weight"), vec![widths[0], widths[0], 3, 3], vec![0.0; widths[0] * widths[0] * TAPS]);
    put(format!("{down}.bias"), vec![widths[0]], vec![0.0; widths[0]]);
    put("encoder.conv_out.weight".to_owned(), vec![channels, 4 * widths[0], 3, 3], encode.values);
    put("encoder.conv_out.bias".to_owned(), vec![channels], encode_bias);
    put(
        "decoder.conv_in.weight".to_owned(),
        vec![channels, channels, 3, 3],
        vec![0.0; channels * channels * TAPS],
    );
    put("decoder.conv_in.bias".to_owned(), vec![channels], vec![0.0; channels]);
    let up = format!("decoder.up_blocks.{level}.0.conv");
    put(format!("{up}.weight"), vec![4 * widths[1], channels, 3, 3], decode.values);
    put(format!("{up}.bias"), vec![4 * widths[1]], decode_bias);
    Ok(Tensors(all))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::train::rng::Rng;
    use facestudio::weights::apply;

    fn base() -> AutoencoderDcConfig {
        let json = serde_json::json!({
            "latent_channels": 4,
            "encoder_block_out_channels": [8, 8, 16], "decoder_block_out_channels": [8, 8, 16],
            "encoder_layers_per_block": [0, 1, 1], "decoder_layers_per_block": [0, 1, 2],
            "decoder_norm_types": ["rms_norm", "rms_norm", "rms_norm"],
        });
        serde_json::from_value(json).unwrap()
    }

    /// With all of the components nothing is lost, at the borders neither.
    #[test]
    fn a_deeper_autoencoder_draws_what_its_base_does() {
        let device = Device::flex();
        let base = base();
        let model = base.init(&device).unwrap();
        let deeper = config(&base, 16).unwrap();
        // Any rotation will do.
        let mixed = Rng::new(3, 3).normals(16 * 16);
        let symmetric: Vec<f64> =
            (0..256).map(|i| f64::from(mixed[i] + mixed[i % 16 * 16 + i / 16])).collect();
        let (_, rotation) = eigen(&symmetric, 16);
        let tensors = deepened(&base, collect(&model, "").unwrap(), &rotation, 16).unwrap();
        let deep = apply(deeper.init(&device).unwrap(), &tensors, "").unwrap();
        let picture = Rng::new(1, 1).normals(3 * 32 * 48);
        let picture = Tensor::<4>::from_data(TensorData::new(picture, [1, 3, 32, 48]), &device);
        let [latents, halved] = [&model, &deep].map(|model| model.encode(picture.clone()));
        assert_eq!((latents.dims(), halved.dims()), ([1, 4, 8, 12], [1, 16, 4, 6]));
        let power = |latents: Tensor<4>| latents.square().sum().into_scalar::<f32>();
        assert!((power(latents.clone()) / power(halved.clone()) - 1.0).abs() < 1e-4);
        let difference = (model.decode(latents) - deep.decode(halved)).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-4, "{difference}");
    }

    #[test]
    fn a_level_that_does_not_fit_is_refused() {
        assert!([1, 16].iter().all(|channels| config(&base(), *channels).is_ok()));
        for (base, channels) in [
            (base(), 17),
            (base(), 0),
            (base(), 5),
            (AutoencoderDcConfig { encoder_out_shortcut: false, ..base() }, 8),
            (AutoencoderDcConfig { decoder_in_shortcut: false, ..base() }, 8),
            (AutoencoderDcConfig { upsample_block_type: "interpolate".to_owned(), ..base() }, 8),
            (AutoencoderDcConfig { downsample_block_type: "Conv".to_owned(), ..base() }, 8),
            (AutoencoderDcConfig { encoder_layers_per_block: vec![0, 1, 0], ..base() }, 8),
            (AutoencoderDcConfig { decoder_layers_per_block: vec![0, 1, 0], ..base() }, 8),
        ] {
            assert_eq!(config(&base, channels).unwrap_err().code, "base-mismatch");
        }
    }

    #[test]
    fn the_new_level_is_the_last_of_every_list() {
        let deeper = config(&base(), 8).unwrap();
        assert_eq!(deeper.latent_channels, 8);
        assert_eq!((deeper.encoder_out_shortcut, deeper.decoder_in_shortcut), (false, true));
        // Four positions of the base's 16 channels side by side.
        assert_eq!(deeper.encoder_block_out_channels, [8, 8, 16, 64]);
        assert_eq!(deeper.decoder_block_out_channels, [8, 8, 16, 8]);
        assert_eq!(deeper.encoder_layers_per_block, [0, 1, 1, 0]);
        assert_eq!(deeper.decoder_layers_per_block, [0, 1, 2, 0]);
        let PerLevel::Each(norms) = deeper.decoder_norm_types else { panic!("one norm for all levels") };
        assert_eq!(norms.len(), 4);
        assert!((deeper.latents_mean, deeper.latents_std) == (None, None));
    }

    /// A level goes one block on where a tap leads out of a place's own.
    #[test]
    fn a_tap_leads_to_a_block_and_a_place_in_it() {
        let all: Vec<_> = [0, 1].into_iter().flat_map(|sub| [0, 1, 2].map(|tap| moved(sub, tap))).collect();
        assert_eq!(all, [(0, 1), (1, 0), (1, 1), (1, 0), (1, 1), (2, 0)]);
    }

    /// Of all components: positions of one picture, seen along them, have nothing in common, and the first vary most.
    #[test]
    fn components_are_the_directions_in_which_blocks_vary_most() {
        use crate::train::data::{Meta, OwnedPicture};
        let device = Device::flex();
        let model = base().init(&device).unwrap();
        let mut rng = Rng::new(8, 8);
        let picture = |_| OwnedPicture {
            rgb: (0..3 * 32 * 32).map(|_| rng.below(256) as u8).collect(),
            people: vec![0; 32 * 32],
            faces: vec![0; 32 * 32],
            meta: Meta::default(),
        };
        let pictures = Pictures::of(32, &(0..10).map(picture).collect::<Vec<_>>());
        let found = components(&model, &pictures, 9, [4, 16], DType::F32).unwrap();
        let latents = model.encode(pictures.tensor(&(0..9).collect::<Vec<_>>(), &device));
        let [count, c, h, w] = latents.dims();
        assert_eq!((count, c, h, w), (9, 4, 8, 8));
        let values: Vec<f32> = latents.try_into_vec_as().unwrap();
        let mut moments = vec![0f64; 256];
        for (n, y, x) in (0..9).flat_map(|n| (0..4).flat_map(move |y| (0..4).map(move |x| (n, y, x)))) {
            let block = |i: usize| {
                let (channel, a, b) = (i / 4, i % 4 / 2, i % 2);
                f64::from(values[((n * 4 + channel) * 8 + 2 * y + a) * 8 + 2 * x + b])
            };
            let along: Vec<f64> =
                (0..16).map(|k| (0..16).map(|i| block(i) * found[16 * i + k]).sum()).collect();
            for (i, j) in (0..16).flat_map(|i| (0..16).map(move |j| (i, j))) {
                moments[16 * i + j] += along[i] * along[j];
            }
        }
        let powers: Vec<f64> = (0..16).map(|k| moments[17 * k]).collect();
        assert!(powers[0] > 2.0 * powers[15] && powers.windows(2).all(|w| w[0] >= w[1]), "{powers:?}");
        let apart = (0..256).filter(|p| p % 17 != 0).all(|p| moments[p].abs() < 1e-6 * powers[0]);
        assert!(apart, "{moments:?}");
        let two = components(&model, &pictures, 9, [4, 2], DType::F32).unwrap();
        let first: Vec<f64> = (0..16).flat_map(|i| [found[16 * i], found[16 * i + 1]]).collect();
        assert_eq!(two, first);
    }
}
