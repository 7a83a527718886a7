//! Other numbers than f32: weights and activations in f16, weights in blocks.

use super::*;

/// f16 weights beside f32 inputs: the result is that of the rounded weights in f32.
#[test]
fn weights_may_be_half() {
    let rounded = |x: Vec<f32>| x.into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect::<Vec<f32>>();
    for device in devices() {
        assert_eq!(takes_half_weights(&device, &[5, 8]), !is_cpu(&device));
        assert!(!takes_half_weights(&device, &[5, 7]) && !takes_half_weights(&device, &[8]));
        for (tokens, from, to) in [(3, 4, 5), (70, 64, 33), (257, 320, 256)] {
            let (x, weight) = (random([tokens, from]), random([to, from]).try_into_vec_as::<f32>().unwrap());
            let data = TensorData::new(rounded(weight), [to, from]);
            let exact = Tensor::<2>::from_data(data.clone(), &Device::flex());
            let stock = module::linear(x.clone(), exact.clone().transpose(), None);
            if is_cpu(&device) {
                let half = exact.cast(DType::F16);
                assert!(linear(&x, &half, None, None).is_none());
                continue;
            }
            let half = Tensor::<2>::from_data(data.convert::<half::f16>(), (&device, DType::F16));
            assert_eq!(half.dtype(), DType::F16);
            assert_close(linear(&on(&device, &x), &half, None, None).unwrap(), stock, from);
        }
        let (x, weight) = (random([2, 4, 9, 7]), random([12, 4, 3, 3]).try_into_vec_as::<f32>().unwrap());
        let data = TensorData::new(rounded(weight), [12, 4, 3, 3]);
        let options = ops::ConvOptions::new([1; 2], [1; 2], [1, 1], 1);
        let exact = Tensor::from_data(data.clone(), &Device::flex());
        let stock = module::conv2d(x.clone(), exact, None, options);
        if !is_cpu(&device) {
            let half = Tensor::<4>::from_data(data.convert::<half::f16>(), (&device, DType::F16));
            assert_close(conv2d(&on(&device, &x), &half, None, WHOLE, None).unwrap(), stock, 36);
        }
    }
}

/// Tensors of f16 where the device computes them: what comes out is what f32 makes of the same numbers, rounded to f16, which
/// is off by 2⁻¹¹ of each.
#[test]
fn activations_may_be_half() {
    for device in devices() {
        if !takes_halves(&device) {
            assert!(silu(&random([1, 2, 3, 4]).cast(DType::F16)).is_none());
            let expected = option_env!("EXPECT_F16").is_some() && !is_cpu(&device);
            assert!(!expected, "{device:?} does not compute in f16");
            continue;
        }
        fn half<const D: usize>(device: &Device, x: &Tensor<D>) -> Tensor<D> {
            on(device, x).cast(DType::F16)
        }
        // Inputs are what f16 holds, so that only the result is rounded.
        fn exact<const D: usize>(shape: [usize; D]) -> Tensor<D> {
            random(shape).cast(DType::F16).cast(DType::F32)
        }
        #[track_caller]
        fn assert_rounded<const D: usize>(ours: Option<Tensor<D>>, stock: Tensor<D>, depth: usize) {
            let ours = ours.expect("a kernel takes it");
            assert_eq!((ours.dtype(), ours.dims()), (DType::F16, stock.dims()));
            let off = (ours.cast(DType::F32).to_device(&Device::flex()) - stock.clone()).abs();
            let allowed = stock.abs() * 2f32.powi(-11) + (2e-6 + 3e-7 * depth as f32);
            let most: f32 = (off / allowed).max().into_scalar();
            assert!(most <= 1.0, "off by {most} of what is allowed");
        }
        let of = |x: &Tensor<4>| half(&device, x);
        for (channels_in, channels_out, height, width) in
            [(1, 1, 1, 1), (3, 5, 4, 4), (8, 33, 5, 3), (32, 24, 16, 10)]
        {
            let x = exact([2, channels_in, height, width]);
            let bias = exact([channels_out]);
            let same = exact([2, channels_out, height, width]);
            let channels = exact([2, channels_out, 1, 1]);
            for kernel in [1, 3] {
                let weight = exact([channels_out, channels_in, kernel, kernel]);
                let window = Window { stride: 1, padding: kernel / 2, seen: None };
                let options = ops::ConvOptions::new([1; 2], [kernel / 2; 2], [1, 1], 1);
                let stock = module::conv2d(x.clone(), weight.clone(), Some(bias.clone()), options);
                // Weights and biases stay as they are loaded, or are f16 as well.
                let (w, b) = (on(&device, &weight), on(&device, &bias));
                let ours = |added: Option<&Tensor<4>>| conv2d(&of(&x), &w, Some(&b), window, added);
                let depth = channels_in * kernel * kernel;
                assert_rounded(ours(None), stock.clone(), depth);
                assert_rounded(ours(Some(&of(&same))), stock.clone() + same.clone(), depth);
                let ours =
                    conv2d(&of(&x), &of(&weight), Some(&half(&device, &bias)), window, Some(&of(&channels)));
                assert_rounded(ours, stock + channels.clone(), depth);
            }
        }
        for (tokens, from, to) in [(1, 1, 1), (3, 7, 5), (70, 64, 33), (257, 320, 256)] {
            let (x, weight, bias) = (exact([tokens, from]), exact([to, from]), exact([to]));
            let added = exact([tokens, to]);
            let stock = module::linear(x.clone(), weight.clone().transpose(), Some(bias.clone()));
            let (w, b) = (on(&device, &weight), on(&device, &bias));
            assert_rounded(linear(&half(&device, &x), &w, Some(&b), None), stock.clone(), from);
            let ours =
                linear(&half(&device, &x), &half(&device, &weight), Some(&b), Some(&half(&device, &added)));
            assert_rounded(ours, stock.clone() + added.clone(), from);
            let added = added.reshape([1, tokens, 1, to]).swap_dims(1, 3);
            let x = half(&device, &x).reshape([1, tokens, from]);
            let ours = linear_to_images(&x, &w, Some(&b), &of(&added));
            assert_rounded(ours, stock.reshape([1, tokens, 1, to]).swap_dims(1, 3) + added, from);
        }
        let maps = exact([2, 6, 12]);
        let weight = exact([7, 6]);
        let stock = module::linear(maps.clone().swap_dims(1, 2), weight.clone().transpose(), None);
        let ours = linear(&half(&device, &maps).swap_dims(1, 2), &on(&device, &weight), None, None);
        assert_rounded(ours, stock, 6);

        for (heads, dim, queries, keys) in [(1, 4, 1, 1), (2, 32, 40, 33), (1, 160, 65, 4)] {
            let q = exact([2, heads, queries, dim]);
            let [k, v] = [(); 2].map(|()| exact([2, heads, 2 * keys, dim]));
            let depth = score_depth(&q, &k, &v);
            let attend = |k: Tensor<4>, v| module::attention(q.clone(), k, v, None, None, Default::default());
            assert_rounded(attention(&of(&q), &of(&k), &of(&v)), attend(k.clone(), v.clone()), depth);
            let weights = Tensor::<3>::full([1, 2, queries], 0.5, &Device::flex());
            let apart =
                |i| attend(k.clone().narrow(2, i * keys, keys), v.clone().narrow(2, i * keys, keys)) * 0.5;
            let ours = attention_by_regions(&of(&q), &of(&k), &of(&v), &half(&device, &weights));
            assert_rounded(ours, apart(0) + apart(1), depth);
        }

        for (channels, groups, height, width) in [(4, 2, 1, 3), (6, 3, 33, 17), (4, 1, 70, 70)] {
            let x = (exact([2, channels, height, width]) + 3.0).cast(DType::F16).cast(DType::F32);
            let (weight, bias) = (exact([channels]), exact([channels]));
            let (expected, spread) = exact_group_norm(&x, &weight, &bias, groups, 1e-5);
            // As in `norms_are_burns`: a small spread magnifies what is off.
            let depth = (100.0 / spread.min().into_scalar::<f32>().min(1.0)) as usize;
            let (w, b) = (on(&device, &weight), on(&device, &bias));
            assert_rounded(group_norm(&of(&x), &w, &b, groups, 1e-5, false), expected.clone(), depth);
            assert_rounded(group_norm(&of(&x), &w, &b, groups, 1e-5, true), stock::silu(expected), depth);
            let per_channel = |x: &Tensor<1>| x.clone().reshape([1, channels, 1, 1]);
            let scale = (x.clone().square().mean_dim(1) + 1e-5).sqrt().recip();
            let stock = x.clone() * scale * per_channel(&weight) + per_channel(&bias);
            assert_rounded(rms_norm(&of(&x), &w, &b, 1e-5), stock, 10);
        }
        let (x, weight, bias) = (exact([3, 320]), exact([320]), exact([320]));
        let stock = module::layer_norm(x.clone(), weight.clone(), Some(bias.clone()), 1e-5);
        let ours = layer_norm(&half(&device, &x), &on(&device, &weight), &on(&device, &bias), 1e-5);
        assert_rounded(ours, stock, 10);

        let x = exact([1, 3, 10]) * 4.0;
        let x = x.cast(DType::F16).cast(DType::F32);
        assert_rounded(silu(&half(&device, &x)), stock::silu(x.clone()), 4);
        assert_rounded(gelu(&half(&device, &x)), stock::gelu(x.clone()), 4);
        assert_rounded(quick_gelu(&half(&device, &x)), x.clone() * stock::sigmoid(x.clone() * 1.702), 4);
        let stock = x.clone().narrow(2, 0, 5) * stock::gelu(x.clone().narrow(2, 5, 5));
        assert_rounded(geglu(&half(&device, &x)), stock, 4);
    }
}

/// Weights in blocks, beside the same weights in f32: rows end within a block, at its end, and after several.
#[test]
fn weights_may_be_in_blocks() {
    let count = Cell::new(0_u32);
    let next = |below: u32| {
        count.set(count.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        (count.get() >> 8) % below
    };
    // What is stored, and what it says.
    let weights = |bits: usize, rows: usize, depth: usize| {
        let of_row = depth.div_ceil(32);
        let scales: Vec<f32> = (0..rows * of_row).map(|_| next(100) as f32 / 2000.0 - 0.02).collect();
        let (mut integers, mut values) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let scale = |k: usize| scales[row * of_row + k / 32];
            if bits == 8 {
                let bytes: Vec<i8> = (0..depth).map(|_| (next(255) as i32 - 127) as i8).collect();
                values.extend(bytes.iter().enumerate().map(|(k, i)| f32::from(*i) * scale(k)));
                integers.extend(bytes.iter().map(|i| *i as u8));
            } else {
                let filled = (0..of_row * 32).map(|k| if k < depth { next(16) as u8 } else { 8 });
                let nibbles: Vec<u8> = filled.collect();
                let real = nibbles[..depth].iter().enumerate();
                values.extend(real.map(|(k, i)| (f32::from(*i) - 8.0) * scale(k)));
                integers.extend(nibbles.chunks_exact(2).map(|two| two[0] | two[1] << 4));
            }
        }
        (Blocks { bits, integers, scales }, values)
    };
    for device in devices() {
        assert!(takes_blocks(&device, &[1024, 1280]) && takes_blocks(&device, &[5, 8]) != is_cpu(&device));
        for bits in [8, 4] {
            // On the CPU by weights' rows, one by one, and by panels of either side.
            for (tokens, from, to) in [(3, 4, 5), (70, 64, 33), (9, 36, 40), (20, 96, 70), (257, 320, 256)] {
                let (blocks, values) = weights(bits, to, from);
                let held: Tensor<2> = in_blocks(&device, [to, from], &blocks).unwrap();
                let exact =
                    Tensor::<2>::from_data(TensorData::new(values.clone(), [to, from]), &Device::flex());
                let x = random([tokens, from]);
                let stock = module::linear(x.clone(), exact.clone().transpose(), None);
                assert_close(linear(&on(&device, &x), &held, None, None).unwrap(), stock, from);
                let dense = dense(held).try_into_vec_as::<f32>().unwrap();
                assert_eq!(dense, values, "{bits} bits, {to}×{from}");
            }
            for (from, to) in [(4, 12), (32, 40), (12, 64)] {
                let (blocks, values) = weights(bits, to, from * 9);
                let held = in_blocks(&device, [to, from, 3, 3], &blocks).unwrap();
                let exact = Tensor::from_data(TensorData::new(values, [to, from, 3, 3]), &Device::flex());
                let x = random([2, from, 9, 7]);
                let options = ops::ConvOptions::new([1; 2], [1; 2], [1, 1], 1);
                let stock = module::conv2d(x.clone(), exact, None, options);
                assert_close(conv2d(&on(&device, &x), &held, None, WHOLE, None).unwrap(), stock, 9 * from);
            }
            let (mut blocks, _) = weights(bits, 3, 6);
            assert_eq!(
                in_blocks(&device, [3, 6], &blocks).is_some(),
                is_cpu(&device),
                "rows that begin within words"
            );
            blocks.scales.pop();
            assert!(in_blocks(&device, [3, 6], &blocks).is_none(), "a scale is missing");
        }
    }
}
