use ::image::{GrayImage, Rgb, imageops};

use super::*;
use facestudio_synth::{Scene, SceneOptions, render};

fn picture(index: u64, side: u32) -> RgbImage {
    render(&Scene::random(3, index, &SceneOptions::default()), side).image
}

fn marked(picture: &RgbImage) -> RgbImage {
    let mut marked = picture.clone();
    embed(&mut marked);
    marked
}

#[test]
fn columns_are_transformed_as_by_definition() {
    let value =
        |x: usize, y: usize| Complex { re: random((8 * x + y) as u64), im: random((99 + 8 * x + y) as u64) };
    let mut plane = Plane::new(3, 8);
    (0..24).for_each(|i| plane.set(i % 3, i / 3, value(i % 3, i / 3)));
    Fourier::new(8).columns(&mut plane);
    for (x, k) in (0..24).map(|i| (i % 3, i / 3)) {
        let mut sum = Complex::default();
        for y in 0..8 {
            let term = value(x, y).times(Complex::turned(-std::f32::consts::TAU * (k * y) as f32 / 8.0));
            sum = Complex { re: sum.re + term.re, im: sum.im + term.im };
        }
        let found = plane.at(x, k);
        assert!((found.re - sum.re).abs() < 1e-5 && (found.im - sum.im).abs() < 1e-5, "column {x}, row {k}");
    }
}

#[test]
fn the_tile_has_the_patterns_phases_and_unit_variance() {
    let pattern = Pattern::new();
    let tile = pattern.tile(&pattern.phases());
    let mean = tile.iter().sum::<f32>() / tile.len() as f32;
    assert!(mean.abs() < 1e-4, "{mean}");
    assert!((root_mean_square(&tile) - 1.0).abs() < 1e-3);
    let mut plane = Plane::new(TILE, TILE);
    plane.re().copy_from_slice(&tile);
    for (frequency, seen) in pattern.frequencies.iter().zip(pattern.spectrum(plane)) {
        let agreement = seen.direction().times(frequency.phase.conjugate()).re;
        assert!(agreement > 0.999, "({}, {}): {agreement}", frequency.u, frequency.v);
    }
}

/// Pictures marked by an older version must be found by a newer one.
#[test]
fn the_key_never_changes() {
    let pattern = Pattern::new();
    let hundredths = |value: &f32| (100.0 * value).round() as i32;
    let first: Vec<i32> = pattern.tile(&pattern.phases())[..8].iter().map(hundredths).collect();
    assert_eq!(first, [62, 26, -11, -19, -12, -19, -52, -84]);
    assert_eq!(pattern.frequencies.len(), 742);
}

#[test]
fn a_blur_is_the_mean_of_what_is_inside() {
    let plane: Vec<f32> = (0..35).map(random).collect();
    let blurred = blur(&plane, 7, 5, 2);
    for (x, y) in (0..35).map(|i| (i % 7, i / 7)) {
        let near: Vec<f32> = (0..35_usize)
            .filter(|i| (i % 7).abs_diff(x) <= 2 && (i / 7).abs_diff(y) <= 2)
            .map(|i| plane[i])
            .collect();
        let mean = near.iter().sum::<f32>() / near.len() as f32;
        assert!((blurred[7 * y + x] - mean).abs() < 1e-5, "{x}, {y}");
    }
}

#[test]
fn a_mark_is_found_at_the_scale_of_the_picture() {
    let (plain, large) = (picture(1, 128), picture(2, 256));
    assert!(!detect(&plain).unwrap().found());
    for (name, picture, scale) in [
        ("as it is", marked(&plain), 1.0),
        ("not square", marked(&imageops::crop_imm(&large, 9, 40, 180, 131).to_image()), 1.0),
        ("cropped", imageops::crop_imm(&marked(&large), 21, 70, 150, 140).to_image(), 1.0),
        ("halved", imageops::resize(&marked(&plain), 64, 64, imageops::FilterType::Triangle), 0.5),
        ("enlarged", imageops::resize(&marked(&plain), 192, 192, imageops::FilterType::CatmullRom), 1.5),
    ] {
        let found = detect(&picture).unwrap();
        assert!(found.found(), "{name}: {found:?}");
        assert!((found.scale / scale - 1.0).abs() < 0.012, "{name}: {found:?}");
    }
}

#[test]
fn a_mark_is_weak_in_flat_areas_and_everywhere_deterministic() {
    let gray = RgbImage::from_pixel(128, 128, Rgb([128; 3]));
    let change = marked(&gray);
    let most = change.iter().map(|level| level.abs_diff(128)).max().unwrap();
    assert!((1..=8).contains(&most), "{most} levels in a flat area");
    assert!(change.pixels().all(|pixel| pixel.0 == [pixel.0[0]; 3]), "colours stay");
    assert_eq!(change, marked(&gray));
    // A sharp edge hides nothing beyond itself.
    let edge = GrayImage::from_fn(128, 128, |x, _| ::image::Luma([if x < 64 { 60 } else { 190 }]));
    let edge = ::image::DynamicImage::from(edge).into_rgb8();
    let strength = strength(&luma(&edge), 128, 128);
    assert!(strength[64 * 128 + 20] < 1.01 * FLAT && strength[64 * 128 + 100] < 1.01 * FLAT);
}

#[test]
fn pictures_of_any_size_can_be_marked() {
    for (width, height) in [(0, 0), (1, 1), (1, 300), (300, 2), (31, 33)] {
        let picture = RgbImage::from_fn(width, height, |x, y| Rgb([(7 * x) as u8, (5 * y) as u8, 90]));
        assert_eq!(marked(&picture).dimensions(), (width, height));
    }
}

#[test]
fn nothing_is_found_in_what_has_no_detail() {
    for level in [0, 128, 255] {
        let found = detect(&RgbImage::from_pixel(64, 64, Rgb([level; 3]))).unwrap();
        assert_eq!(found.score, 0.0, "{found:?}");
    }
}

#[test]
fn a_picture_that_is_too_small_is_refused() {
    for (width, height) in [(0, 0), (31, 64), (64, 31)] {
        let error = detect(&RgbImage::new(width, height)).unwrap_err();
        assert_eq!(error.code, "watermark-size");
        assert!(error.message.contains(&format!("{width}×{height}")), "{error}");
    }
    assert!(detect(&RgbImage::new(32, 32)).is_ok());
}
