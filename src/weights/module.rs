//! Between named tensors and burn modules: a parameter's name is its path through the module's fields.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use half::f16;

use super::parameters::{ParameterMapper, ParameterVisitor, Place, map_parameters, visit_parameters};
use super::tensors::{TensorSource, Tensors};
use crate::error::{Error, Result};
use crate::kernels::{in_blocks, takes_blocks, takes_half_weights};

/// Loads every parameter of `module` from `source`; a parameter at path `a.b` is tensor `{prefix}a.b`.
///
/// Fails, naming them, if tensors are missing or have another shape, before any parameter is allocated. Tensors that
/// no parameter asks for are not an error: checkpoints carry buffers such as `position_ids`.
pub fn apply<M: Module>(module: M, source: &dyn TensorSource, prefix: &str) -> Result<M> {
    let prefix = match prefix.trim_end_matches('.') {
        "" => String::new(),
        prefix => format!("{prefix}."),
    };
    let mut checker = Checker { source, prefix: &prefix, problems: Vec::new() };
    visit_parameters(&module, &mut checker);
    let mut problems = checker.problems;
    if !problems.is_empty() {
        let count = problems.len();
        problems.truncate(8);
        let more = if count > 8 { format!("; and {} more", count - 8) } else { String::new() };
        return Err(Error::weights(
            "weights-mismatch",
            format!("{}{more}", problems.join("; ")),
            "check that config.json and the weights belong together",
        ));
    }
    let mut loader = Loader { source, prefix: &prefix, error: None };
    let module = map_parameters(module, &mut loader);
    loader.error.map_or(Ok(module), Err)
}

/// Collects every parameter of `module` under `{prefix}path`.
pub fn collect<M: Module>(module: &M, prefix: &str) -> Result<Tensors> {
    let mut collector = Collector { out: Tensors::default(), prefix, error: None };
    visit_parameters(module, &mut collector);
    collector.error.map_or(Ok(collector.out), Err)
}

/// Compares names and shapes without touching a value.
struct Checker<'a> {
    source: &'a dyn TensorSource,
    prefix: &'a str,
    problems: Vec<String>,
}

impl ParameterVisitor for Checker<'_> {
    fn visit<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        let name = format!("{}{}", self.prefix, place.name());
        let expected: Vec<usize> = param.lazy_shape().to_vec();
        let Some(shape) = self.source.shape(&name) else {
            self.problems.push(format!("'{name}' is missing"));
            return;
        };
        // A 1×1 convolution and a linear layer hold the same numbers.
        let unpadded = |s: &[usize]| s.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
        if shape != expected && unpadded(&shape) != unpadded(&expected) {
            self.problems.push(format!("'{name}' has shape {shape:?}, the config asks for {expected:?}"));
        }
    }
}

struct Loader<'a> {
    source: &'a dyn TensorSource,
    prefix: &'a str,
    error: Option<Error>,
}

impl Loader<'_> {
    /// The parameter's tensor, as it was stored where its layer's kernels read that.
    fn tensor<const D: usize>(&self, place: &Place, param: &Param<Tensor<D>>) -> Result<Tensor<D>> {
        let (name, device) = (format!("{}{}", self.prefix, place.name()), param.lazy_device());
        let shape: [usize; D] = param.lazy_shape().dims();
        // Whether it is the weights of a layer whose kernels may take f16.
        let of_kernels =
            place.field() == "weight" && ["Struct:Linear", "Struct:Conv2d"].contains(&place.layer());
        // Blocks are cut by the rows that are in the file.
        let rows = |shape: &[usize]| (shape.first().copied(), shape.iter().skip(1).product::<usize>());
        if of_kernels
            && takes_blocks(&device, &shape)
            && self.source.shape(&name).is_some_and(|stored| rows(&stored) == rows(&shape))
            && let Some(blocks) = self.source.blocks(&name)?
            && let Some(held) = in_blocks(&device, shape, &blocks)
        {
            return Ok(held);
        }
        let values = self.source.read(&name)?;
        // bf16 and blocks' scales reach further than f16.
        let fits = || values.iter().all(|value| value.abs() <= f16::MAX.to_f32());
        if of_kernels && takes_half_weights(&device, &shape) && self.source.half(&name) && fits() {
            let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            return Ok(Tensor::from_data(TensorData::new(values, shape), (&device, DType::F16)));
        }
        Ok(Tensor::from_data(TensorData::new(values, shape), &device))
    }
}

impl ParameterMapper for Loader<'_> {
    fn map<const D: usize>(&mut self, place: &Place, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        match self.tensor(place, &param) {
            Ok(tensor) => {
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

struct Collector<'a> {
    out: Tensors,
    prefix: &'a str,
    error: Option<Error>,
}

impl ParameterVisitor for Collector<'_> {
    fn visit<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        let name = format!("{}{}", self.prefix, place.name());
        if let Err(error) = self.out.insert(name, param.val()) {
            self.error.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use burn::tensor::Device;

    use super::*;
    use crate::nn::{Linear, LinearConfig};

    /// Counts reads, and claims shapes that no machine could hold.
    struct Claims {
        shapes: Vec<(&'static str, Vec<usize>)>,
        reads: Cell<usize>,
    }

    impl TensorSource for Claims {
        fn names(&self) -> Vec<String> {
            self.shapes.iter().map(|(name, _)| (*name).to_owned()).collect()
        }

        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.shapes.iter().find(|(n, _)| *n == name).map(|(_, shape)| shape.clone())
        }

        fn read(&self, name: &str) -> Result<Vec<f32>> {
            self.reads.set(self.reads.get() + 1);
            Ok(vec![0.5; self.shape(name).unwrap_or_default().iter().product()])
        }
    }

    fn linear() -> Linear {
        LinearConfig::new(3, 2).init(&Device::flex())
    }

    #[test]
    fn mismatches_are_all_named_and_nothing_is_read() {
        let source = Claims { shapes: vec![("net.weight", vec![1 << 40, 3])], reads: Cell::new(0) };
        let error = apply(linear(), &source, "net").unwrap_err();
        assert_eq!(error.code, "weights-mismatch");
        assert!(error.message.contains("'net.weight' has shape [1099511627776, 3]"), "{error}");
        assert!(error.message.contains("'net.bias' is missing"), "{error}");
        assert_eq!(source.reads.get(), 0);
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn what_was_stored_in_half_is_held_in_half_by_layers_whose_kernels_take_it() {
        use burn::tensor::DeviceKind;

        use crate::nn::Embedding;

        struct Halves;

        impl TensorSource for Halves {
            fn names(&self) -> Vec<String> {
                vec!["weight".to_owned()]
            }

            fn shape(&self, _: &str) -> Option<Vec<usize>> {
                Some(vec![2, 4])
            }

            fn read(&self, _: &str) -> Result<Vec<f32>> {
                Ok(vec![0.1; 8])
            }

            fn half(&self, _: &str) -> bool {
                true
            }
        }

        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let layer = || LinearConfig::new(4, 2).with_bias(false);
        let linear = apply(layer().init(&device), &Halves, "").unwrap();
        assert_eq!(linear.weight.val().dtype(), DType::F16);
        let out = linear.forward(Tensor::<2>::ones([1, 4], &device)).try_into_vec_as::<f32>().unwrap();
        assert_eq!(out, [4.0 * f16::from_f32(0.1).to_f32(); 2]);
        let table = apply(Embedding::new(2, 4, 1.0, &device), &Halves, "").unwrap();
        assert_eq!(table.weight.val().dtype(), DType::F32, "a table is burn's");
        let on_the_cpu = apply(layer().init(&Device::flex()), &Halves, "").unwrap();
        assert_eq!(on_the_cpu.weight.val().dtype(), DType::F32);
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn large_weights_stay_in_blocks_on_the_cpu() {
        use std::collections::BTreeMap;

        use super::super::{Component, MemoryFiles, Quantization, encode};

        // The second is small: it is unpacked.
        for ([to, from], large) in [([2048, 520], true), ([64, 520], false)] {
            let values: Vec<f32> = (0..to * from).map(|i| (i as f32 * 0.7).sin()).collect();
            let tensors = Tensors([("weight".to_owned(), (vec![to, from], values))].into());
            for quantization in [Quantization::Q8, Quantization::Q4] {
                let bytes = encode(&tensors, quantization, &BTreeMap::new()).unwrap();
                let files = MemoryFiles([("unet/model.safetensors".to_owned(), bytes)].into());
                let load = |component: Component| {
                    let layer = LinearConfig::new(from, to).with_bias(false).init(&Device::flex());
                    apply(layer, component.tensors().unwrap().as_ref(), "").unwrap()
                };
                let layers =
                    [load(Component::new(&files, "unet").compact()), load(Component::new(&files, "unet"))];
                let in_blocks = |layer: &Linear| matches!(layer.weight.val().dtype(), DType::QFloat(_));
                assert_eq!(layers.each_ref().map(in_blocks), [large, false], "{quantization:?}");
                for tokens in [1, 9, 600] {
                    let x = (0..tokens * from).map(|i| (i as f32 * 0.3).cos()).collect::<Vec<f32>>();
                    let x = Tensor::<2>::from_data(TensorData::new(x, [tokens, from]), &Device::flex());
                    let [ours, unpacked] = layers
                        .each_ref()
                        .map(|layer| layer.forward(x.clone()).try_into_vec_as::<f32>().unwrap());
                    assert_eq!(
                        ours, unpacked,
                        "{quantization:?}, {tokens} tokens: the same numbers, the same sums"
                    );
                }
            }
        }
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn what_was_stored_in_blocks_is_held_in_blocks() {
        use std::collections::BTreeMap;

        use super::super::{Component, MemoryFiles, Quantization, encode};

        // Whole blocks, rows that end inside one, and rows of the file that are not the layer's.
        for (stored, [to, from], in_blocks) in [
            (vec![48, 64], [48, 64], true),
            (vec![48, 36], [48, 36], true),
            (vec![1, 48, 36], [48, 36], false),
        ] {
            let values: Vec<f32> = (0..to * from).map(|i| (i as f32 * 0.7).sin()).collect();
            let tensors = Tensors([("weight".to_owned(), (stored, values))].into());
            for quantization in [Quantization::Q8, Quantization::Q4] {
                let bytes = encode(&tensors, quantization, &BTreeMap::new()).unwrap();
                let files = MemoryFiles([("unet/model.safetensors".to_owned(), bytes)].into());
                let component = Component::new(&files, "unet").compact();
                let on = |device: &Device| {
                    let layer = LinearConfig::new(from, to).with_bias(false).init(device);
                    apply(layer, component.tensors().unwrap().as_ref(), "").unwrap()
                };
                let (gpu, cpu) = (Device::wgpu(burn::tensor::DeviceKind::DefaultDevice), Device::flex());
                let held = on(&gpu);
                let dtype = held.weight.val().dtype();
                assert_eq!(matches!(dtype, DType::QFloat(_)), in_blocks, "{quantization:?}: {dtype:?}");
                // Products with ones and zeros are exact.
                let rows = |device: &Device| {
                    on(device).forward(Tensor::<2>::eye(from, device)).try_into_vec_as::<f32>().unwrap()
                };
                let rounded = |v: Vec<f32>| -> Vec<f32> {
                    v.into_iter().map(|v| if in_blocks { v } else { f16::from_f32(v).to_f32() }).collect()
                };
                assert_eq!(rows(&gpu), rounded(rows(&cpu)), "{quantization:?}");
            }
        }
    }

    /// burn's operation on what the blocks say.
    #[cfg(feature = "gpu")]
    #[test]
    fn a_layer_without_a_kernel_undoes_its_blocks() {
        use std::collections::BTreeMap;

        use super::super::{Component, MemoryFiles, Quantization, encode};
        use crate::nn::{Conv2d, Conv2dConfig};

        let values: Vec<f32> = (0..48 * 36).map(|i| (i as f32 * 0.7).sin()).collect();
        let tensors = Tensors([("weight".to_owned(), (vec![48, 4, 3, 3], values))].into());
        let bytes = encode(&tensors, Quantization::Q8, &BTreeMap::new()).unwrap();
        let files = MemoryFiles([("unet/model.safetensors".to_owned(), bytes)].into());
        let component = Component::new(&files, "unet").compact();
        let out = |device: &Device| {
            let config = Conv2dConfig::new(8, 48, 3).with_padding(1).with_groups(2).with_bias(false);
            let layer: Conv2d = config.init(device);
            let layer = apply(layer, component.tensors().unwrap().as_ref(), "").unwrap();
            layer.forward(Tensor::ones([1, 8, 5, 5], device)).try_into_vec_as::<f32>().unwrap()
        };
        let (gpu, cpu) = (out(&Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)), out(&Device::flex()));
        // 36 values of at most 1, summed in another order.
        assert!(gpu.iter().zip(&cpu).all(|(a, b)| (a - b).abs() < 1e-5), "{gpu:?} {cpu:?}");
    }

    #[test]
    fn a_pointwise_convolution_loads_as_a_linear_layer() {
        let shapes = vec![("weight", vec![2, 3, 1, 1]), ("bias", vec![2]), ("position_ids", vec![1])];
        let source = Claims { shapes, reads: Cell::new(0) };
        let layer = apply(linear(), &source, "").unwrap();
        assert_eq!(source.reads.get(), 2);
        let tensors = collect(&layer, "net.").unwrap();
        assert_eq!(tensors.0["net.weight"], (vec![2, 3], vec![0.5; 6]));
    }
}
