//! What a device computes, held against the same on the CPU: small cases of every kernel, before any is trusted. A driver's compiler
//! may be wrong, and a wrong kernel gives a wrong picture and no error.
//!
//! Right answers are burn's operations on the CPU. Where a kernel is wrong, burn's own operation on the device takes its place, so
//! that is held against the answer too; where that is wrong, nothing on the device is.

use burn::tensor::{DType, Device, Tensor, TensorData, activation as stock, module, ops};

use super::super::{
    BLOCK, Blocks, Window, attention, attention_by_regions, conv2d, dense, geglu, gelu, group_norm,
    in_blocks, layer_norm, linear, linear_to_images, quick_gelu, rms_norm, silu, takes_halves,
};
use super::parts::{self, PARTS, Part};
use super::product::{self, TILES};

/// What an answer may be off, of its largest number: far more than devices round differently, and less than an eye sees.
const OFF: f32 = 1.0 / 4096.0;
/// The same in f16, whose own rounding is up to 2⁻¹⁰ where it is not to the nearest.
const OFF_HALF: f32 = 1.0 / 512.0;

/// Who computes a case.
#[derive(Clone, Copy)]
struct By<'a> {
    device: &'a Device,
    /// Of activations.
    dtype: DType,
    /// With burn's own operations.
    plain: bool,
}

impl By<'_> {
    /// Multiples of 1/64 from −1 to 1, which f16 holds; other ones for each `stream`.
    fn numbers<const D: usize>(self, stream: u32, shape: [usize; D]) -> Tensor<D> {
        self.tensor(values(stream, shape.iter().product()), shape)
    }

    fn tensor<const D: usize>(self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        tensor(self.device, self.dtype, values, shape)
    }

    /// Parameters are f32 beside activations in f16.
    fn parameters<const D: usize>(self, stream: u32, shape: [usize; D]) -> Tensor<D> {
        tensor(self.device, DType::F32, values(stream, shape.iter().product()), shape)
    }

    fn linear<const D: usize>(
        self,
        x: &Tensor<D>,
        weight: &Tensor<2>,
        bias: &Tensor<1>,
        added: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        if self.plain {
            let product = module::linear(x.clone(), weight.clone().transpose(), Some(bias.clone()));
            return Some(product + added.clone());
        }
        linear(x, weight, Some(bias), Some(added))
    }

    fn conv(
        self,
        x: &Tensor<4>,
        weight: &Tensor<4>,
        bias: &Tensor<1>,
        window: Window,
        added: Option<&Tensor<4>>,
    ) -> Option<Tensor<4>> {
        if !self.plain {
            return conv2d(x, weight, Some(bias), window, added);
        }
        let Window { stride, padding, seen } = window;
        let mut x = x.clone();
        if let Some([height, width]) = seen {
            let [n, c, h, w] = x.dims();
            let twice = x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, 2, w, 2]);
            x = twice.reshape([n, c, 2 * h, 2 * w]).slice([0..n, 0..c, 0..height, 0..width]);
        }
        let options = ops::ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
        let out = module::conv2d(x, weight.clone(), Some(bias.clone()), options);
        Some(match added {
            Some(added) => out + added.clone(),
            None => out,
        })
    }
}

/// See [`By::numbers`].
fn values(stream: u32, count: usize) -> Vec<f32> {
    let mut state = stream.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) % 129) as f32 / 64.0 - 1.0
        })
        .collect()
}

fn tensor<const D: usize>(device: &Device, dtype: DType, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(values, shape);
    let data = if dtype == DType::F16 { data.convert::<half::f16>() } else { data };
    Tensor::from_data(data, (device, dtype))
}

/// A case: what it proves, by which tile if that matters, and what is computed; `None` where no kernel takes it.
struct Case {
    part: Part,
    tile: usize,
    run: Box<dyn Fn(By) -> Option<Tensor<1>>>,
}

impl Case {
    fn new<const D: usize>(part: Part, run: impl Fn(By) -> Option<Tensor<D>> + 'static) -> Self {
        let run = move |by: By<'_>| run(by).map(|x| x.reshape([-1]));
        Self { part, tile: TILES.len() - 1, run: Box::new(run) }
    }

    fn by(self, tile: usize) -> Self {
        Self { tile, ..self }
    }

    /// With every product by the case's tile.
    fn launch(&self, by: By) -> Option<Tensor<1>> {
        let usual = product::borders();
        let mut borders = usual.map(|_| usize::MAX);
        if let Some(border) = borders.get_mut(self.tile) {
            *border = 1;
        }
        product::set_borders(borders);
        let out = (self.run)(by);
        product::set_borders(usual);
        out
    }
}

/// Of products: across tiles' borders, and every layout that networks have.
fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    for tile in 0..TILES.len() {
        cases.push(
            Case::new(Part::Linear, |by| {
                let (x, weight) = (by.numbers(1, [130, 36]), by.parameters(2, [132, 36]));
                by.linear(&x, &weight, &by.parameters(3, [132]), &by.numbers(4, [130, 132]))
            })
            .by(tile),
        );
        cases.push(
            Case::new(Part::Conv2d, |by| {
                let (x, weight) = (by.numbers(5, [2, 4, 9, 8]), by.parameters(6, [132, 4, 3, 3]));
                let window = Window { stride: 1, padding: 1, seen: None };
                by.conv(&x, &weight, &by.parameters(7, [132]), window, Some(&by.numbers(8, [2, 132, 9, 8])))
            })
            .by(tile),
        );
    }
    let conv = |stream, [from, to, kernel]: [usize; 3], size: [usize; 2], window: Window| {
        Case::new(Part::Conv2d, move |by| {
            let x = by.numbers(stream, [2, from, size[0], size[1]]);
            let weight = by.parameters(stream + 1, [to, from, kernel, kernel]);
            let added =
                (window.stride == 1 && window.seen.is_none()).then(|| by.numbers(stream + 2, [2, to, 1, 1]));
            by.conv(&x, &weight, &by.parameters(stream + 3, [to]), window, added.as_ref())
        })
    };
    cases.extend([
        conv(10, [3, 5, 3], [7, 5], Window { stride: 1, padding: 1, seen: None }),
        conv(20, [3, 5, 3], [7, 5], Window { stride: 2, padding: 1, seen: None }),
        conv(30, [4, 6, 3], [5, 6], Window { stride: 1, padding: 1, seen: Some([9, 12]) }),
        conv(40, [8, 6, 1], [6, 6], Window { stride: 1, padding: 0, seen: None }),
        Case::new(Part::Linear, |by| {
            let (x, weight) = (by.numbers(50, [7, 5]), by.parameters(51, [9, 5]));
            by.linear(&x, &weight, &by.parameters(52, [9]), &by.numbers(53, [7, 9]))
        }),
        // Feature maps seen as tokens.
        Case::new(Part::Linear, |by| {
            let (x, weight) = (by.numbers(54, [2, 6, 36]).swap_dims(1, 2), by.parameters(55, [9, 6]));
            by.linear(&x, &weight, &by.parameters(56, [9]), &by.numbers(57, [2, 36, 9]))
        }),
        Case::new(Part::LinearToImages, |by| {
            let (x, weight) = (by.numbers(60, [2, 36, 12]), by.parameters(61, [34, 12]));
            let (bias, added) = (by.parameters(62, [34]), by.numbers(63, [2, 34, 6, 6]));
            if by.plain {
                let product = module::linear(x, weight.transpose(), Some(bias));
                return Some(product.swap_dims(1, 2).reshape(added.dims()) + added);
            }
            linear_to_images(&x, &weight, Some(&bias), &added)
        }),
    ]);
    cases
}

/// How weights are stored.
#[derive(Clone, Copy)]
enum Stored {
    Half,
    /// In blocks of so many bits.
    Blocks(usize),
}

impl Stored {
    fn part(self) -> Part {
        match self {
            Self::Half => Part::HalfWeights,
            Self::Blocks(8) => Part::Blocks8,
            Self::Blocks(_) => Part::Blocks4,
        }
    }

    /// Integers from −7 to 7, and a scale for each block of them: what all kinds hold.
    fn integers(stream: u32, count: usize) -> (Vec<i8>, Vec<f32>) {
        let integers = values(stream, count).into_iter().map(|x| (x * 7.0).round() as i8).collect();
        (integers, (0..count / BLOCK).map(|i| (1 + i % 5) as f32 / 64.0).collect())
    }

    /// Weights whose rows are whole blocks: as they are stored, or in f32.
    fn weights<const D: usize>(self, by: By, stream: u32, shape: [usize; D]) -> Option<Tensor<D>> {
        let (integers, scales) = Self::integers(stream, shape.iter().product());
        match self {
            Self::Blocks(bits) if !by.plain => {
                let byte = |i: &i8| *i as u8;
                let nibbles = |two: &[i8]| (two[0] + 8) as u8 | ((two[1] + 8) as u8) << 4;
                let integers = match bits {
                    4 => integers.chunks_exact(2).map(nibbles).collect(),
                    _ => integers.iter().map(byte).collect(),
                };
                in_blocks(by.device, shape, &Blocks { bits, integers, scales })
            }
            _ => {
                let dtype = if by.plain { DType::F32 } else { DType::F16 };
                let values =
                    integers.iter().enumerate().map(|(i, x)| f32::from(*x) * scales[i / BLOCK]).collect();
                Some(tensor(by.device, dtype, values, shape))
            }
        }
    }

    fn cases(self) -> Vec<Case> {
        let mut cases = vec![
            Case::new(self.part(), move |by| {
                let weight = self.weights(by, 70, [40, 96])?;
                by.linear(
                    &by.numbers(71, [33, 96]),
                    &weight,
                    &by.parameters(72, [40]),
                    &by.numbers(73, [33, 40]),
                )
            }),
            Case::new(self.part(), move |by| {
                let weight = self.weights(by, 75, [34, 32, 3, 3])?;
                let window = Window { stride: 1, padding: 1, seen: None };
                by.conv(&by.numbers(76, [1, 32, 6, 5]), &weight, &by.parameters(77, [34]), window, None)
            }),
        ];
        if let Self::Blocks(_) = self {
            cases.push(Case::new(self.part(), move |by| Some(dense(self.weights(by, 78, [5, 64])?))));
        }
        cases
    }
}

/// Heads of as many dimensions as share out an output's rows among invocations in each way there is.
fn attentions() -> Vec<Case> {
    let heads = |by: By, stream, tokens, dim| {
        // As a layer has them: views of tokens whose heads lie side by side.
        by.numbers(stream, [1, tokens, 2 * dim]).reshape([1, tokens, 2, dim]).swap_dims(1, 2)
    };
    let attend = |query: Tensor<4>, key: Tensor<4>, value: Tensor<4>| {
        module::attention(query, key, value, None, None, Default::default())
    };
    let mut cases: Vec<Case> = [32, 40, 64, 160]
        .into_iter()
        .map(|dim| {
            Case::new(Part::Attention, move |by| {
                let (q, k, v) = (heads(by, 80, 33, dim), heads(by, 81, 35, dim), heads(by, 82, 35, dim));
                if by.plain { Some(attend(q, k, v)) } else { attention(&q, &k, &v) }
            })
        })
        .collect();
    cases.push(Case::new(Part::Regions, move |by| {
        let (q, k, v) = (heads(by, 83, 70, 40), heads(by, 84, 8, 40), heads(by, 85, 8, 40));
        // The first context acts within the first tile and a little beyond, the second everywhere else: tiles pass one over.
        let weights: Vec<f32> = (0..140).map(|i| f32::from((i % 70 < 34) == (i < 70))).collect();
        let weights = by.tensor(weights, [1, 2, 70]);
        if !by.plain {
            return attention_by_regions(&q, &k, &v, &weights);
        }
        let apart = |i| {
            let [k, v] = [&k, &v].map(|x| x.clone().narrow(2, 4 * i, 4));
            attend(q.clone(), k, v) * weights.clone().narrow(1, i, 1).reshape([1, 1, 70, 1])
        };
        Some(apart(0) + apart(1))
    }));
    cases
}

fn norms() -> Vec<Case> {
    let mut cases: Vec<Case> =
        [([2, 8, 5, 7], 4, true), ([1, 4, 33, 17], 2, false), ([1, 2, 70, 70], 1, true)]
            .into_iter()
            .map(|(shape @ [n, channels, height, width], groups, active)| {
                Case::new(Part::GroupNorm, move |by| {
                    let (x, weight, bias) =
                        (by.numbers(90, shape), by.parameters(91, [channels]), by.parameters(92, [channels]));
                    if !by.plain {
                        return group_norm(&x, &weight, &bias, groups, 1e-5, active);
                    }
                    let flat = x.reshape([n * groups, channels / groups * height * width]);
                    let apart = flat.clone() - flat.mean_dim(1);
                    let normed = apart.clone() * (apart.square().mean_dim(1) + 1e-5).sqrt().recip();
                    let along = |x: Tensor<1>| x.reshape([1, channels, 1, 1]);
                    let out = normed.reshape(shape) * along(weight) + along(bias);
                    Some(if active { stock::silu(out) } else { out })
                })
            })
            .collect();
    cases.extend([[70, 64], [3, 320]].map(|[rows, length]| {
        Case::new(Part::LayerNorm, move |by| {
            let (x, weight, bias) =
                (by.numbers(93, [1, rows, length]), by.parameters(94, [length]), by.parameters(95, [length]));
            if by.plain {
                return Some(module::layer_norm(x, weight, Some(bias), 1e-5));
            }
            layer_norm(&x, &weight, &bias, 1e-5)
        })
    }));
    cases.push(Case::new(Part::RmsNorm, |by| {
        let (x, weight, bias) =
            (by.numbers(96, [2, 6, 9, 8]), by.parameters(97, [6]), by.parameters(98, [6]));
        if !by.plain {
            return rms_norm(&x, &weight, &bias, 1e-5);
        }
        let scale = (x.clone().square().mean_dim(1) + 1e-5).sqrt().recip();
        Some(x * scale * weight.reshape([1, 6, 1, 1]) + bias.reshape([1, 6, 1, 1]))
    }));
    cases
}

fn activations() -> Vec<Case> {
    let case = |part, plain: fn(Tensor<1>) -> Tensor<1>, ours: fn(&Tensor<1>) -> Option<Tensor<1>>| {
        Case::new(part, move |by| {
            // To where exponentials underflow.
            let x = by.tensor(values(100, 515).into_iter().map(|x| x * 32.0).collect(), [515]);
            if by.plain { Some(plain(x)) } else { ours(&x) }
        })
    };
    vec![
        case(Part::Silu, stock::silu, silu),
        case(Part::Gelu, stock::gelu, gelu),
        case(Part::QuickGelu, |x| x.clone() * stock::sigmoid(x * 1.702), quick_gelu),
        Case::new(Part::GeGlu, |by| {
            let x = by.numbers(101, [1, 9, 66]) * 4.0;
            if by.plain {
                return Some(x.clone().narrow(2, 0, 33) * stock::gelu(x.narrow(2, 33, 33)));
            }
            geglu(&x)
        }),
    ]
}

/// What a sampling loop does between networks, with burn's operations alone.
fn burns() -> Case {
    Case::new(Part::Burn, |by| {
        let (a, b) = (by.numbers(110, [2, 3, 5, 7]), by.numbers(111, [2, 3, 5, 7]));
        let mixed = a.clone() * 0.75 + b.clone() * a.clone() - b.clone();
        let parts = Tensor::cat(vec![mixed.narrow(1, 1, 2), a.swap_dims(2, 3).reshape([2, 3, 5, 7])], 1);
        Some(parts.clone() - (parts * 0.25).exp().mean_dim(3))
    })
}

/// The parts whose answers are wrong on a device, by the names of [`parts::leave_out`]; from then on none is left out.
pub async fn prove(device: &Device) -> Vec<&'static str> {
    parts::leave_out::<&str>(&[]);
    let mut cases = products();
    cases.extend(attentions());
    cases.extend(norms());
    cases.extend(activations());
    cases.push(burns());
    let stored: Vec<Case> =
        [Stored::Half, Stored::Blocks(8), Stored::Blocks(4)].into_iter().flat_map(Stored::cases).collect();
    let cpu = Device::flex();
    let full = By { device, dtype: DType::F32, plain: false };
    let half = takes_halves(device).then_some(By { dtype: DType::F16, ..full });
    let answer = |case: &Case| (case.run)(By { device: &cpu, dtype: DType::F32, plain: true });

    // All are asked for before the first is waited for.
    let all: Vec<&Case> = cases.iter().chain(&stored).collect();
    let halves = cases.iter().filter_map(|case| Some((case, case.launch(half?))));
    let halves: Vec<_> = halves.collect();
    let made: Vec<_> = all.iter().map(|case| (*case, case.launch(full))).collect();
    let mut wrong = Vec::new();
    for (case, out) in made {
        let part = case.part;
        if wrong.contains(&part) || right(out, answer(case), OFF).await {
            continue;
        }
        wrong.push(part);
    }
    // What takes the place of a kernel, of layers with weights as they are stored aside: those are loaded in f32.
    let plain = By { plain: true, ..full };
    for case in &cases {
        let replaced = wrong.contains(&case.part);
        if replaced && !wrong.contains(&Part::Burn) && !right(case.launch(plain), answer(case), OFF).await {
            wrong.push(Part::Burn);
        }
    }
    for (case, out) in halves {
        if !wrong.contains(&Part::Halves)
            && !wrong.contains(&case.part)
            && !right(out, answer(case), OFF_HALF).await
        {
            wrong.push(Part::Halves);
        }
    }
    PARTS.iter().filter(|(part, _)| wrong.contains(part)).map(|(_, name)| *name).collect()
}

/// Whether a device's numbers are the answer's. What no kernel took is not used, and so not wrong.
async fn right(out: Option<Tensor<1>>, answer: Option<Tensor<1>>, off: f32) -> bool {
    let (Some(out), Some(answer)) = (out, answer) else { return true };
    // What a device cannot give back is wrong.
    let Ok(out) = out.into_data_async().await else { return false };
    let Ok(out) = out.convert::<f32>().try_into_vec::<f32>() else { return false };
    let Ok(answer) = answer.into_data_async().await else { return false };
    let Ok(answer) = answer.try_into_vec::<f32>() else { return false };
    let largest = answer.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    // A NaN is near nothing.
    out.len() == answer.len() && out.iter().zip(&answer).all(|(a, b)| (a - b).abs() <= off * largest)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use burn::tensor::DeviceKind;
    use pollster::block_on;

    use super::super::launch::BROKEN;
    use super::*;

    fn device() -> Device {
        Device::wgpu(DeviceKind::DefaultDevice)
    }

    fn broken(kernel: &'static str) -> Vec<&'static str> {
        BROKEN.set(Some(kernel));
        let found = block_on(prove(&device()));
        BROKEN.set(None);
        found
    }

    #[test]
    fn a_device_that_computes_rightly_is_used_as_a_whole() {
        let start = Instant::now();
        assert_eq!(block_on(prove(&device())), Vec::<&str>::new());
        let first = start.elapsed();
        assert_eq!(block_on(prove(&device())), Vec::<&str>::new());
        println!("proved in {first:?}, with compiled texts in {:?}", start.elapsed() - first);
    }

    #[test]
    fn a_broken_kernel_is_found_and_burns_takes_its_place() {
        let x = By { device: &device(), dtype: DType::F32, plain: false }.numbers(1, [1, 4, 5, 6]);
        let ones = Tensor::<1>::ones([4], &device());
        let norm = || group_norm(&x, &ones, &ones, 2, 1e-5, true);
        assert!(norm().is_some());
        // Groups that fit into a workgroup, and f16 is no better.
        let found = broken("::Whole");
        assert_eq!(found, ["group_norm"]);
        assert!(parts::leave_out(&found));
        assert!(norm().is_none() && silu(&x).is_some());
        assert!(!parts::leave_out(&["softmax"]));
        assert!(norm().is_none(), "nothing has changed");
        assert!(parts::leave_out::<&str>(&[]));
        assert!(norm().is_some());

        assert_eq!(broken("::RmsNorm"), ["rms_norm"]);
        assert_eq!(broken("::LayerNorm"), ["layer_norm"]);
        assert_eq!(broken("::Activation"), ["silu", "gelu", "quick_gelu", "geglu"]);
        assert_eq!(broken("::Attention"), ["attention", "attention_by_regions"]);
        assert_eq!(broken("::Dense"), ["weights_q8", "weights_q4"]);
        let products = ["conv2d", "linear", "linear_to_images", "weights_f16", "weights_q8", "weights_q4"];
        assert_eq!(broken("::Product"), products);
        // Where products are wrong, no weights stay as they were stored.
        assert!(parts::leave_out(&["linear"]));
        assert!(!super::super::takes_half_weights(&device(), &[4, 8]));
        assert!(!super::super::takes_blocks(&device(), &[4, 8], 8));
        assert!(parts::leave_out(&["weights_q8"]));
        assert!(!super::super::takes_blocks(&device(), &[4, 8], 8));
        assert!(super::super::takes_blocks(&device(), &[4, 8], 4));
        assert!(parts::leave_out(&["f16"]));
        assert!(!takes_halves(&device()));
        parts::leave_out::<&str>(&[]);
    }

    /// Wrong in f16 alone: f32 takes its place.
    #[test]
    fn what_is_wrong_in_f16_is_computed_in_f32() {
        if !takes_halves(&device()) {
            assert!(option_env!("EXPECT_F16").is_none(), "no f16 to try");
            return;
        }
        assert_eq!(broken("f16"), ["f16"]);
    }
}
