use super::*;
use crate::train::data::{Meta, OwnedPicture};

#[test]
fn a_shifted_edge_costs_more_than_the_same_error_spread_out() {
    let device = Device::flex();
    let flat = Tensor::<4>::full([1, 3, 8, 8], 0.125, &device);
    let mut values = vec![0.0; 192];
    (0..192).step_by(8).for_each(|i| values[i + 3] = 1.0);
    let edge = Tensor::<4>::from_data(TensorData::new(values, [1, 3, 8, 8]), &device);
    let loss = |error| reconstruction_loss(error).into_scalar::<f32>();
    assert!(loss(edge) > 1.2 * loss(flat));
}

#[test]
fn a_contest_teaches_both_and_deceit_the_decoder_alone() {
    let device = Device::flex().autodiff();
    let discriminator = Discriminator::new(&device);
    let picture = |stream| {
        let values = crate::train::rng::Rng::new(5, stream).normals(3 * 32 * 32);
        Tensor::<4>::from_data(TensorData::new(values, [1, 3, 32, 32]), &device)
    };
    let gradients = |deceive| {
        let decoded = picture(1).require_grad();
        let loss = contest(&discriminator, picture(0), decoded.clone(), deceive, DType::F32);
        let gradients = loss.backward();
        let weight = discriminator.weights().remove(0).grad(&gradients).unwrap();
        [decoded.grad(&gradients).unwrap().into_data(), weight.into_data()]
    };
    let ([decoder, own], [deceiving, same]) = (gradients(false), gradients(true));
    assert_ne!(decoder, deceiving);
    assert_eq!(own, same);
}

#[test]
fn faces_weigh_more_and_follow_a_mirrored_picture() {
    let picture =
        OwnedPicture { rgb: vec![0; 12], people: vec![0; 4], faces: vec![1, 0, 0, 0], meta: Meta::default() };
    let pictures = Pictures::of(2, &[picture]);
    let whole = View::whole(2);
    let corner = View { side: 1, ..whole };
    let of = |views: &[View]| -> Vec<f32> {
        face_weights(&pictures, &[0, 0], views, &Device::flex()).try_into_vec_as().unwrap()
    };
    let face = 1.0 + FACE_WEIGHT;
    let mirrored = View { mirrored: true, ..whole };
    assert_eq!(of(&[whole, mirrored]), [face, 1.0, 1.0, 1.0, 1.0, face, 1.0, 1.0]);
    assert_eq!(of(&[corner, View { left: 1, ..corner }]), [face, 1.0]);
}

#[test]
fn an_error_in_a_face_costs_as_much_more_as_it_weighs() {
    let device = Device::flex();
    let halves = |left: f32, right: f32, channels: usize| {
        let values = (0..16 * channels).map(|p| if p % 4 < 2 { left } else { right }).collect();
        Tensor::<4>::from_data(TensorData::new::<f32, _>(values, [1, channels, 4, 4]), &device)
    };
    let images = halves(0.0, 0.0, 3);
    let weight = halves(1.0 + FACE_WEIGHT, 1.0, 1);
    let encoded = Encoded { noisy: images.clone(), latents: images.clone(), images, weight };
    let loss = |left, right| encoded.reconstruction(halves(left, right, 3)).into_scalar::<f32>();
    assert!((loss(0.1, 0.0) / loss(0.0, 0.1) - 1.0 - FACE_WEIGHT).abs() < 1e-3);
}

#[test]
fn large_latents_cost_a_little() {
    let device = Device::flex();
    let images = Tensor::<4>::zeros([1, 3, 4, 4], &device);
    let latents = Tensor::<1>::from_floats([3.0, -1.0], &device).reshape([1, 2, 1, 1]);
    let (noisy, weight) = (latents.zeros_like(), Tensor::ones([1, 1, 4, 4], &device));
    let encoded = Encoded { images: images.clone(), noisy, latents, weight };
    // 3e-4 of the mean of 9 and 1.
    let loss = |decoded| encoded.loss(decoded).into_scalar::<f32>();
    assert!((loss(images.clone()) - 1.5e-3).abs() < 1e-8);
    // An error of 0.1 everywhere has no edges: 0.1 itself, and half of it at the two coarser scales.
    assert!((loss(images + 0.1) - 1.5e-3 - 0.15).abs() < 1e-6);
}

/// Half of the distance of features and, from step 200 on, a twentieth of the scores, beside hinge and reconstruction.
#[test]
fn a_decoder_learns_from_reconstruction_and_contest() {
    let device = Device::flex();
    let discriminator = Discriminator::new(&device);
    let picture = |stream| {
        let values = Rng::new(3, stream).normals(3 * 32 * 32);
        Tensor::<4>::from_data(TensorData::new(values, [1, 3, 32, 32]), &device)
    };
    let (images, decoded) = (picture(0), picture(1));
    let judge = |picture: &Tensor<4>| discriminator.forward(picture.clone(), DType::F32);
    let (truth, ours) = (judge(&images), judge(&decoded));
    let [hinge, matched, deceived] =
        [hinge(&truth, &ours), matched(&truth, &ours), deceived(&ours)].map(Tensor::into_scalar::<f32>);
    let latents = Tensor::<4>::ones([1, 2, 1, 1], &device);
    let weight = Tensor::ones([1, 1, 32, 32], &device);
    let encoded = Encoded { images, noisy: latents.clone(), latents, weight };
    let kept = encoded.reconstruction(decoded.clone()).into_scalar::<f32>();
    for (step, expected) in
        [(199, kept + hinge + 0.5 * matched), (200, kept + hinge + 0.5 * matched + 0.05 * deceived)]
    {
        let loss = encoded.decoder_loss(decoded.clone(), &discriminator, step, DType::F32);
        let loss = loss.into_scalar::<f32>();
        assert!((loss - expected).abs() < 1e-5, "step {step}: {loss}, not {expected}");
    }
    assert!(deceived.abs() > 1e-3, "{deceived}");
}

#[test]
fn noise_is_a_share_of_each_channels_own_spread() {
    let device = Device::flex();
    let values = crate::train::rng::Rng::new(7, 7).normals(4 * 2 * 64);
    let values = values.chunks(64).enumerate().flat_map(|(plane, chunk)| {
        let [mean, deviation] = [[5.0, 0.01], [-1.0, 20.0]][plane % 2];
        chunk.iter().map(move |v| mean + deviation * v).collect::<Vec<_>>()
    });
    let latents = Tensor::<4>::from_data(TensorData::new(values.collect(), [4, 2, 8, 8]), &device);
    let noisy = noisy(latents.clone(), &mut Rng::new(1, 2));
    let change = (noisy - latents).square().mean_dims(&[0, 2, 3]).sqrt();
    let change: Vec<f32> = change.try_into_vec_as().unwrap();
    // A share τ moves a value by τ · √2 standard deviations; its root mean square over [0, 0.3] is 0.3 · √(2 / 3).
    let expected = LATENT_NOISE * (2.0f32 / 3.0).sqrt();
    for (change, deviation) in change.iter().zip([0.01, 20.0]) {
        let ratio = change / deviation / expected;
        assert!((0.5..1.5).contains(&ratio), "{ratio}");
    }
}

#[test]
fn scaled_latents_have_unit_variance_together_and_keep_their_order() {
    let deviations = [0.5, 1.0, 4.0, 8.0];
    let scaled: Vec<f64> = deviations.iter().zip(root_scaled(&deviations)).map(|(d, s)| d / s).collect();
    assert!(scaled.is_sorted(), "{scaled:?}");
    let variance = scaled.iter().map(|d| d * d).sum::<f64>() / 4.0;
    assert!((variance - 1.0).abs() < 1e-12, "{variance}");
    assert!((scaled[3] / scaled[1] - 8f64.sqrt()).abs() < 1e-12, "{scaled:?}");
}

#[test]
fn psnr_of_a_known_error() {
    let device = Device::flex();
    let zeros = Tensor::<4>::zeros([1, 3, 4, 4], &device);
    // An error of 0.2 of a range of 2 is 20 dB.
    assert!((psnr(zeros.clone() + 0.2, zeros).unwrap() - 20.0).abs() < 1e-3);
}

#[test]
fn the_loss_is_that_of_values_gradients_and_coarser_scales() {
    let error: Vec<f32> = (0..16).map(|i| ((i * 7) % 11) as f32 - 4.5).collect();
    let at = |y: usize, x: usize| error[4 * y + x];
    let places = |height, width| (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)));
    let mean = |values: Vec<f32>| values.iter().map(|v| v.abs()).sum::<f32>() / values.len() as f32;
    let across = mean(places(4, 3).map(|(y, x)| at(y, x + 1) - at(y, x)).collect());
    let down = mean(places(3, 4).map(|(y, x)| at(y + 1, x) - at(y, x)).collect());
    let block = |y: usize, x: usize, side: usize| {
        let sum: f32 = places(side, side).map(|(v, u)| at(side * y + v, side * x + u)).sum();
        sum / (side * side) as f32
    };
    let half = mean(places(2, 2).map(|(y, x)| block(y, x, 2)).collect());
    let quarter = mean(vec![block(0, 0, 4)]);
    let expected = mean(error.clone()) + 0.5 * (across + down) + 0.25 * (half + quarter);
    let error = Tensor::<4>::from_data(TensorData::new(error, [1, 1, 4, 4]), &Device::flex());
    let loss = reconstruction_loss(error).into_scalar::<f32>();
    assert!((loss - expected).abs() < 1e-5, "{loss}, not {expected}");
}

/// `(1 − τ) z + τ n`, τ even in [0, 0.1], `n` normal with each channel's mean and deviation.
#[test]
fn noisy_latents_are_a_mix_with_noise_of_their_own_mean_and_spread() {
    const PLANE: usize = 16;
    let values: Vec<f32> = Rng::new(4, 4).normals(3 * 2 * PLANE).chunks(PLANE).enumerate().fold(
        Vec::new(),
        |mut all, (i, v)| {
            let [mean, deviation] = [[5.0, 0.5], [-1.0, 3.0]][i % 2];
            all.extend(v.iter().map(|v| mean + deviation * v));
            all
        },
    );
    let latents = Tensor::<4>::from_data(TensorData::new(values.clone(), [3, 2, 4, 4]), &Device::flex());
    let found: Vec<f32> = noisy(latents, &mut Rng::new(1, 2)).try_into_vec_as().unwrap();
    let mut rng = Rng::new(1, 2);
    let shares: Vec<f32> = (0..3).map(|_| 0.1 * rng.uniform()).collect();
    let noise = rng.normals(values.len());
    let channel = |c: usize| (0..values.len()).filter(move |i| i / PLANE % 2 == c);
    for c in 0..2 {
        let mean = channel(c).map(|i| values[i]).sum::<f32>() / (3 * PLANE) as f32;
        let square = channel(c).map(|i| (values[i] - mean).powi(2)).sum::<f32>() / (3 * PLANE) as f32;
        for i in channel(c) {
            let share = shares[i / PLANE / 2];
            let expected = (1.0 - share) * values[i] + share * (mean + square.sqrt() * noise[i]);
            assert!((found[i] - expected).abs() < 1e-4, "{i}: {}, not {expected}", found[i]);
        }
    }
}

/// More pictures than are encoded at once, of which the last is not looked at.
#[test]
fn statistics_are_those_of_each_latent_channel() {
    let json = serde_json::json!({
        "latent_channels": 2, "scaling_factor": 1.0,
        "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": [4, 4], "decoder_block_out_channels": [4, 4],
        "encoder_layers_per_block": [0, 1], "decoder_layers_per_block": [0, 1],
    });
    let config: AutoencoderDcConfig = serde_json::from_value(json).unwrap();
    let device = Device::flex();
    let model = config.init(&device).unwrap();
    let mut rng = Rng::new(6, 6);
    let pictures: Vec<OwnedPicture> = (0..19)
        .map(|_| OwnedPicture {
            rgb: (0..3 * 64).map(|_| rng.below(256) as u8).collect(),
            people: vec![0; 64],
            faces: vec![0; 64],
            meta: Meta::default(),
        })
        .collect();
    let pictures = Pictures::of(8, &pictures);
    let (mean, std) = latent_statistics(&model, &pictures, 18, DType::F32, &device).unwrap();
    let all: Vec<usize> = (0..18).collect();
    let latents = model.encode(pictures.tensor(&all, &device));
    let [_, channels, height, width] = latents.dims();
    assert_eq!((channels, mean.len(), std.len()), (2, 2, 2));
    let values: Vec<f32> = latents.try_into_vec_as().unwrap();
    for c in 0..channels {
        let plane = height * width;
        let of: Vec<f64> =
            (0..values.len()).filter(|i| i / plane % channels == c).map(|i| f64::from(values[i])).collect();
        let expected = of.iter().sum::<f64>() / of.len() as f64;
        let square = of.iter().map(|v| (v - expected).powi(2)).sum::<f64>() / of.len() as f64;
        assert!((mean[c] - expected).abs() < 1e-5, "{} {expected}", mean[c]);
        assert!(square > 1e-3 && (std[c] - square.sqrt()).abs() < 1e-5, "{} {}", std[c], square.sqrt());
    }
}
