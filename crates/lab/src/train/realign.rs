//! A shared Linear that knew other encoders' style embeddings.
//!
//! Where a base's vision encoders were trained on or anew, what its Linear reads has turned under it. A linear map from the new
//! embeddings to the old ones, fitted by least squares on pictures that both see, is put before it, so that the UNet goes on from
//! what it knows.

use std::path::Path;
use std::sync::atomic::Ordering;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use super::Setup;
use super::data::Pictures;
use super::encoded::{Encoded, Styles, at_once};
use super::run::Event;
use facestudio::error::{Error, Result};
use facestudio::guidance::fusion::Fusion;

/// Pictures that the map is fitted on, each with its heads hidden and as it is.
const PICTURES: usize = 6000;
/// What is added to the diagonal of the normal equations, of its mean: it keeps directions that no picture uses small.
const RIDGE: f64 = 1e-3;

/// `guidance`, which read what the encoders of the model folder `base` say, made to read `encoded`. As it is where the base has no vision
/// encoders, or the same.
pub fn realign(
    guidance: Fusion,
    base: &Path,
    setup: &Setup,
    pictures: &Pictures,
    encoded: &Encoded,
    log: &mut dyn FnMut(Event),
) -> Result<Fusion> {
    // A checkpoint's Linear was turned when its run began.
    if setup.run.goes_on()
        || Styles::folders(base).is_empty()
        || Styles::key(base)? == Styles::key(&setup.out)?
    {
        return Ok(guidance);
    }
    let (device, dtype) = (setup.run.backend.device()?.without_autodiff(), setup.run.backend.dtype());
    let styles = Styles::load(base, &device)?;
    let (width, count) = (encoded.image_embed_dim(), pictures.len().min(PICTURES));
    if styles.width() != width {
        return Err(Error::input(
            "base-mismatch",
            format!("the base's style embeddings have {} values, these {width}", styles.width()),
            "put vision encoders of the same widths into the model folder",
        ));
    }
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (rows, hide) in [(&encoded.image_embeds, true), (&encoded.whole_embeds, false)] {
        for indices in (0..count).collect::<Vec<_>>().chunks(at_once(pictures.size())) {
            if setup.run.stop.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            old.extend(styles.embed(pictures, indices, hide, dtype, &device)?);
        }
        new.extend_from_slice(&rows[..count * width]);
    }
    let (map, explained) = least_squares(&new, &old, width)?;
    log(Event::Note(format!(
        "the base's style encoders are others: its shared Linear is turned to these, which tell {:.0} % of what those told",
        100.0 * explained
    )));
    Ok(turned(guidance, map, width))
}

/// `guidance` that makes of `x` what it made of `x map`, `map`: `[width, width]`.
fn turned(mut guidance: Fusion, map: Vec<f32>, width: usize) -> Fusion {
    let weight = guidance.proj.weight.val();
    let columns = weight.dims()[1];
    let map = Tensor::<2>::from_data(TensorData::new(map, [width, width]), &weight.device());
    let style = weight.clone().narrow(1, 0, width).matmul(map.transpose());
    let turned = Tensor::cat(vec![style, weight.narrow(1, width, columns - width)], 1);
    guidance.proj.weight = Param::from_tensor(turned.detach().require_grad());
    guidance
}

/// `A`, `[width, width]`, for which `x A` is nearest to `y` over the even rows, and how much of `y`'s squares it explains on the
/// odd ones. Through zero, which stands for no style.
fn least_squares(x: &[f32], y: &[f32], width: usize) -> Result<(Vec<f32>, f64)> {
    let half = |values: &[f32], parity: usize| -> Vec<f64> {
        let rows = values.chunks_exact(width).skip(parity).step_by(2);
        rows.flatten().map(|v| f64::from(*v)).collect()
    };
    let (fit_x, fit_y) = (half(x, 0), half(y, 0));
    // XᵀX and XᵀY side by side, `[width, 2 · width]`.
    let mut system = vec![0.0; 2 * width * width];
    for (x, y) in fit_x.chunks_exact(width).zip(fit_y.chunks_exact(width)) {
        for (row, a) in system.chunks_exact_mut(2 * width).zip(x) {
            for (sum, b) in row.iter_mut().zip(x.iter().chain(y)) {
                *sum += a * b;
            }
        }
    }
    let trace: f64 = (0..width).map(|i| system[i * 2 * width + i]).sum();
    for i in 0..width {
        system[i * 2 * width + i] += RIDGE * trace / width as f64;
    }
    // Positive definite by the ridge: Gauss and Jordan's elimination needs no pivoting.
    for pivot in 0..width {
        let mut row = system[pivot * 2 * width..(pivot + 1) * 2 * width].to_vec();
        let by = row[pivot];
        if !by.is_normal() || by < 0.0 {
            return Err(Error::weights(
                "style-embeddings",
                "the vision encoders give nothing but zeros, or no finite numbers",
                "use encoders that were trained",
            ));
        }
        row.iter_mut().for_each(|v| *v /= by);
        for (i, other) in system.chunks_exact_mut(2 * width).enumerate() {
            if i != pivot {
                let factor = other[pivot];
                other.iter_mut().zip(&row).for_each(|(v, p)| *v -= factor * p);
            }
        }
        system[pivot * 2 * width..(pivot + 1) * 2 * width].copy_from_slice(&row);
    }
    let map: Vec<f64> = system.chunks_exact(2 * width).flat_map(|row| &row[width..]).copied().collect();
    let (held_x, held_y) = (half(x, 1), half(y, 1));
    let (mut left, mut all) = (0.0, 0.0);
    for (x, y) in held_x.chunks_exact(width).zip(held_y.chunks_exact(width)) {
        for (j, y) in y.iter().enumerate() {
            let told: f64 = x.iter().enumerate().map(|(i, x)| x * map[i * width + j]).sum();
            left += (y - told).powi(2);
            all += y * y;
        }
    }
    Ok((map.into_iter().map(|v| v as f32).collect(), 1.0 - left / all))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::train::rng::Rng;
    use facestudio::guidance::fusion::FusionConfig;

    #[test]
    fn a_turned_linear_makes_of_new_embeddings_what_it_made_of_old_ones() {
        let config: FusionConfig = serde_json::from_value(serde_json::json!({
            "image_embed_dim": 3, "id_embed_dim": 2, "n_tokens": 2, "cross_attention_dim": 4,
        }))
        .unwrap();
        let device = Device::flex().autodiff();
        let before = config.init(&device).unwrap();
        let mut rng = Rng::new(4, 4);
        let mut random = |shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(rng.normals(shape[0] * shape[1]), shape), &device)
        };
        let (new, map, id) = (random([5, 3]), random([3, 3]), random([5, 2]));
        let values = map.clone().try_into_vec_as::<f32>().unwrap();
        let after = turned(before.clone(), values, 3);
        let off = after.forward(new.clone(), id.clone()) - before.forward(new.matmul(map), id);
        let off: f32 = off.abs().max().into_scalar();
        assert!(off < 1e-5, "{off}");
    }

    /// Of rows (1, 0) and (0, 3), XᵀX is diag(1, 9): a thousandth of the mean, 5, is added to each.
    #[test]
    fn the_ridge_is_a_thousandth_of_the_mean_square() {
        // Every second row is held out.
        let x = [1.0, 0.0, 7.0, 7.0, 0.0, 3.0, 7.0, 7.0];
        let y = [2.0, 5.0, 7.0, 7.0, -1.0, 4.0, 7.0, 7.0];
        let (map, _) = least_squares(&x, &y, 2).unwrap();
        let expected = [2.0 / 1.005, 5.0 / 1.005, -3.0 / 9.005, 12.0 / 9.005];
        assert!(map.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{map:?}, not {expected:?}");
    }

    #[test]
    fn least_squares_finds_the_map_that_made_the_rows() {
        let (width, rows) = (5, 400);
        let mut rng = Rng::new(1, 2);
        let [map, x] = [width * width, rows * width].map(|n| rng.normals(n));
        let apply = |map: &[f32]| -> Vec<f32> {
            let row = |x: &[f32]| -> Vec<f32> {
                (0..width).map(|j| (0..width).map(|i| x[i] * map[i * width + j]).sum()).collect()
            };
            x.chunks_exact(width).flat_map(row).collect()
        };
        let y = apply(&map);
        let (found, explained) = least_squares(&x, &y, width).unwrap();
        assert!(explained > 0.9999, "{explained}");
        // The ridge shrinks what it finds by a thousandth.
        assert!(found.iter().zip(&map).all(|(a, b)| (a - b).abs() < 5e-3), "{found:?} {map:?}");
        let noise = rng.normals(y.len());
        let noised: Vec<f32> = y.iter().zip(&noise).map(|(y, n)| y + n).collect();
        let (_, explained) = least_squares(&x, &noised, width).unwrap();
        assert!((0.5..0.99).contains(&explained), "{explained}");
        assert_eq!(least_squares(&[0.0; 20], &y[..20], width).unwrap_err().code, "style-embeddings");
    }
}
