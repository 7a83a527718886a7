//! What a kernel takes, for whoever measures a device.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::super::{BLOCK, Blocks, Window, attention, conv2d, in_blocks, linear};
use super::launch::Operand;

/// Milliseconds of a measurement at least, in which one wait for the queue is little.
const LONG: f64 = 20.0;
/// Launches of a measurement at most.
const MOST: usize = 256;

/// See [`time_kernel`](super::super::time_kernel).
pub async fn time(
    device: &Device,
    kernel: &str,
    numbers: &str,
    [first, second, third]: [usize; 3],
    now: impl Fn() -> f64,
) -> Option<f64> {
    if [first, second, third].contains(&0) {
        return None;
    }
    let run: Box<dyn Fn() -> Option<Operand>> = match kernel {
        "linear" => {
            let x = zeros(device, numbers, [first, second])?;
            let weight = weights(device, numbers, [third, second])?;
            Box::new(move || Operand::from_tensor(&linear(&x, &weight, None, None)?))
        }
        "conv2d" => {
            let x = zeros(device, numbers, [1, first, third, third])?;
            let weight = weights(device, numbers, [second, first, 3, 3])?;
            let window = Window { stride: 1, padding: 1, seen: None };
            Box::new(move || Operand::from_tensor(&conv2d(&x, &weight, None, window, None)?))
        }
        "attention" if ["f32", "f16"].contains(&numbers) => {
            let x: Tensor<4> = zeros(device, numbers, [1, first, second, third])?;
            Box::new(move || Operand::strided(&attention(&x, &x, &x)?))
        }
        _ => return None,
    };
    // The text is compiled before the clock runs.
    run()?.finished().await?;
    let mut launches = 1;
    loop {
        let start = now();
        let mut last = run()?;
        for _ in 1..launches {
            last = run()?;
        }
        last.finished().await?;
        let took = now() - start;
        if took >= LONG || launches == MOST {
            return Some(took / launches as f64);
        }
        launches *= 2;
    }
}

/// What is multiplied; `None` where the device has no such numbers.
fn zeros<const D: usize>(device: &Device, numbers: &str, shape: [usize; D]) -> Option<Tensor<D>> {
    let dtype = match numbers {
        "f16" if super::takes_halves(device) => DType::F16,
        "f32" | "q8" | "q4" => DType::F32,
        _ => return None,
    };
    Some(Tensor::zeros(shape, (device, dtype)))
}

fn weights<const D: usize>(device: &Device, numbers: &str, shape: [usize; D]) -> Option<Tensor<D>> {
    let bits = match numbers {
        "q8" => 8,
        "q4" => 4,
        // f16 weights are held as such, as a large network's are.
        "f16" => {
            let data = TensorData::new(vec![half::f16::ZERO; shape.iter().product()], shape);
            return Some(Tensor::from_data(data, (device, DType::F16)));
        }
        _ => return zeros(device, numbers, shape),
    };
    let (rows, depth) = (shape[0], shape[1..].iter().product::<usize>());
    let of_row = depth.div_ceil(BLOCK);
    let integers = if bits == 4 { of_row * BLOCK / 2 } else { depth };
    in_blocks(
        device,
        shape,
        &Blocks { bits, integers: vec![0; rows * integers], scales: vec![0.0; rows * of_row] },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use burn::tensor::DeviceKind;
    use pollster::block_on;

    use super::*;

    #[test]
    fn kernels_are_timed_in_every_number_that_the_device_has() {
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let start = Instant::now();
        let took = |kernel: &str, numbers: &str, sizes| {
            block_on(time(&device, kernel, numbers, sizes, || start.elapsed().as_secs_f64() * 1e3))
        };
        for (kernel, sizes) in [("linear", [64, 64, 64]), ("conv2d", [4, 8, 16]), ("attention", [1, 64, 32])]
        {
            assert!(took(kernel, "f32", sizes).unwrap() > 0.0, "{kernel}");
            assert_eq!(took(kernel, "f16", sizes).is_some(), super::super::takes_halves(&device));
            assert_eq!(took(kernel, "q8", sizes).is_some(), kernel != "attention");
            assert_eq!(took(kernel, "q4", sizes).is_some(), kernel != "attention");
            assert!(took(kernel, "f64", sizes).is_none() && took(kernel, "f32", [0, 4, 4]).is_none());
        }
        assert!(took("softmax", "f32", [4, 4, 4]).is_none());
    }
}
