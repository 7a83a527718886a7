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
}
