//! Changes to a picture that its labels outlive: colour, sharpness, noise.

use super::rng::Rng;

/// Brightness, contrast and tint of three planes in [-1, 1]; sometimes a blur or noise, as an autoencoder leaves.
pub fn recolour(planes: &mut [f32], size: usize, rng: &mut Rng) {
    let (gain, lift) = (rng.range(0.85, 1.15), rng.range(-0.12, 0.12));
    for plane in planes.chunks_exact_mut(size * size) {
        let (gain, lift) = (gain * rng.range(0.95, 1.05), lift + rng.range(-0.05, 0.05));
        plane.iter_mut().for_each(|v| *v = (*v * gain + lift).clamp(-1.0, 1.0));
    }
    if rng.chance(0.4) {
        let weight = rng.range(0.1, 0.34);
        for plane in planes.chunks_exact_mut(size * size) {
            blur(plane, size, weight);
        }
    }
    if rng.chance(0.3) {
        let strength = rng.range(0.0, 0.08);
        let noise = rng.normals(planes.len());
        planes.iter_mut().zip(noise).for_each(|(v, n)| *v += strength * n);
    }
}

/// A 3-tap filter `[weight, 1 − 2·weight, weight]` in both directions.
fn blur(plane: &mut [f32], size: usize, weight: f32) {
    for step in [1, size] {
        let source = plane.to_vec();
        for (p, value) in plane.iter_mut().enumerate() {
            let place = if step == 1 { p % size } else { p / size };
            let before = if place > 0 { source[p - step] } else { source[p] };
            let after = if place + 1 < size { source[p + step] } else { source[p] };
            *value = weight * (before + after) + (1.0 - 2.0 * weight) * source[p];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blur_keeps_the_mean_of_an_inner_dot_and_spreads_it() {
        let mut plane = vec![0.0; 25];
        plane[12] = 1.0;
        blur(&mut plane, 5, 0.25);
        assert!((plane.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((plane[12] - 0.25).abs() < 1e-6 && (plane[11] - 0.125).abs() < 1e-6);
    }

    #[test]
    fn a_border_repeats_in_a_blur() {
        let mut plane: Vec<f32> = (0..9).map(|v| (v * v) as f32).collect();
        blur(&mut plane, 3, 0.2);
        let source = |y: i32, x: i32| {
            let p = 3 * y.clamp(0, 2) + x.clamp(0, 2);
            (p * p) as f32
        };
        let across = |y: i32, x: i32| {
            let value = |dx: i32| source(y.clamp(0, 2), (x + dx).clamp(0, 2));
            0.2 * (value(-1) + value(1)) + 0.6 * value(0)
        };
        for p in 0..9 {
            let (y, x) = (p / 3, p % 3);
            let expected = 0.2 * (across(y - 1, x) + across(y + 1, x)) + 0.6 * across(y, x);
            assert!((plane[p as usize] - expected).abs() < 1e-4, "{p}");
        }
    }

    /// Of flat planes of three values, over many draws: how far gain and lift go, how often there is noise.
    #[test]
    fn colours_change_within_bounds_and_some_pictures_have_noise() {
        let (mut lowest, mut highest, mut noisy) = ([f32::MAX; 2], [f32::MIN; 2], 0);
        const DRAWS: u64 = 4000;
        for seed in 0..DRAWS {
            let mut planes = [0.0f32, 0.5, 1.0].iter().flat_map(|v| [*v; 16]).collect::<Vec<f32>>();
            recolour(&mut planes, 4, &mut Rng::new(seed, 0));
            let spread = |k: usize| {
                let plane = &planes[16 * k..16 * (k + 1)];
                let mean = plane.iter().sum::<f32>() / 16.0;
                (mean, plane.iter().map(|v| (v - mean).powi(2)).sum::<f32>())
            };
            if spread(0).1 > 1e-9 {
                noisy += 1;
                continue;
            }
            // The first plane is the lift alone, the second half of the gain beside it.
            for (i, value) in [spread(0).0, spread(1).0].into_iter().enumerate() {
                lowest[i] = lowest[i].min(value);
                highest[i] = highest[i].max(value);
            }
            assert!(planes.iter().all(|v| (-1.0..=1.0).contains(v)));
        }
        let share = noisy as f32 / DRAWS as f32;
        assert!((share - 0.3).abs() < 0.03, "{share}");
        // A lift of ±0.12 and ±0.05 for each plane; a gain of 0.85 to 1.15, and of 0.95 to 1.05.
        for (found, bound) in [
            (-lowest[0], 0.17),
            (highest[0], 0.17),
            (0.5 - lowest[1], 0.5 - 0.5 * 0.85 * 0.95 + 0.17),
            (highest[1] - 0.5, 0.5 * 1.15 * 1.05 + 0.17 - 0.5),
        ] {
            assert!(found <= bound + 1e-5 && found > 0.75 * bound, "{found}, not nearly {bound}");
        }
    }
}
