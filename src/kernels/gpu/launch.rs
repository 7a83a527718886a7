//! From a kernel's text to its results.

use std::fmt::Debug;
use std::hash::Hash;

use burn::backend::{BackendTensor, Cube, DispatchTensorKind};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
use burn_cubecl::cubecl::prelude::{CubeDim, ExecutionMode, KernelId};
use burn_cubecl::cubecl::quant::scheme::QuantValue;
use burn_cubecl::cubecl::server::{CubeCount, KernelArguments, MetadataBindingInfo};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::template::{KernelSource, SourceKernel, SourceTemplate};
use burn_cubecl::tensor::CubeTensor;

use super::super::BLOCK;
use super::slices::{Slice, slices, time_to_hand_over};

/// The name of the runtime that takes WGSL.
pub(super) const RUNTIME: &str = "wgpu<wgsl>";
/// What a tensor's memory is bound as: pages that hold several tensors cannot be bound for reading and for writing at once,
/// and only in the browser has each tensor its own (cubecl's `exclusive_memory_only`).
const READ: &str = if cfg!(target_family = "wasm") { "read" } else { "read_write" };
/// Workgroups that a dimension may have (WebGPU's `maxComputeWorkgroupsPerDimension`).
pub(super) const MOST_GROUPS: usize = 65_535;

/// A tensor of f32 on the GPU, or of f16 where the device computes them, its elements in an order that `strides` tell; weights
/// may be in f16 anywhere, or in blocks.
pub(super) struct Operand(CubeTensor);

impl Operand {
    /// `None` if the tensor is another backend's, records gradients, or is of other numbers.
    pub fn strided<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        let computes = |x: &CubeTensor| match x.dtype {
            DType::F32 => true,
            DType::F16 => x.client.properties().supports_type(ElemType::Float(FloatKind::F16)),
            _ => false,
        };
        cube(x).filter(computes).map(Self)
    }

    /// As [`Operand::strided`], its elements in order.
    pub fn from_tensor<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        Some(Self(into_contiguous(Self::strided(x)?.0)))
    }

    /// `None` only if there is a tensor that [`Operand::from_tensor`] refuses.
    pub fn optional(x: Option<&Tensor<1>>) -> Option<Option<Self>> {
        x.map_or(Some(None), |x| Self::from_tensor(x).map(Some))
    }

    /// A tensor that [`in_blocks`](super::in_blocks) made.
    pub fn in_blocks<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        let DispatchTensorKind::Cube(BackendTensor::Quantized(x)) = x.clone().into_dispatch().kind else {
            return None;
        };
        Some(Self(x))
    }

    /// As [`Operand::from_tensor`], or in blocks, or of f16, where each row's elements are a multiple of four.
    pub fn weights<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        if let Some(held) = Self::in_blocks(x) {
            return Some(held);
        }
        let fours = x.dims()[1..].iter().product::<usize>().is_multiple_of(4);
        let held = cube(x).filter(|x| x.dtype == DType::F16 && x.is_contiguous() && fours);
        held.map(Self).or_else(|| Self::from_tensor(x))
    }

    /// What is bound of weights with so many steps a row.
    pub fn element(&self, depth: usize) -> Element {
        match self.0.dtype {
            DType::F16 if depth.is_multiple_of(4) => Element::FourPacked,
            DType::QFloat(scheme) if scheme.value == QuantValue::Q4S => Element::FourNibbles,
            DType::QFloat(_) => Element::FourBytes,
            _ => self.numbers(depth.is_multiple_of(4)),
        }
    }

    /// What is bound of a tensor that is not weights.
    pub fn numbers(&self, by_four: bool) -> Element {
        match (self.0.dtype, by_four) {
            (DType::F16, true) => Element::FourHalves,
            (DType::F16, false) => Element::Half,
            (_, true) => Element::Four,
            (_, false) => Element::One,
        }
    }

    /// Words before the scales of weights, `[rows, depth]`; 0 where there are none.
    pub fn scales(&self, [rows, depth]: [usize; 2]) -> usize {
        match self.element(depth) {
            Element::FourBytes => rows * depth / 4,
            Element::FourNibbles => rows * depth.div_ceil(BLOCK) * (BLOCK / 8),
            _ => 0,
        }
    }

    pub fn strides(&self) -> Vec<usize> {
        self.0.meta.strides().iter().copied().collect()
    }

    /// Room for a result beside this tensor, of its numbers, in order.
    pub fn room<const D: usize>(&self, shape: [usize; D]) -> Self {
        self.room_of(self.0.dtype, shape)
    }

    /// As [`Operand::room`], of f32.
    pub fn room_f32<const D: usize>(&self, shape: [usize; D]) -> Self {
        self.room_of(DType::F32, shape)
    }

    /// Waits until the device has done all that it was asked to; `None` if it fails.
    #[cfg(any(test, target_family = "wasm"))]
    pub async fn finished(&self) -> Option<()> {
        self.0.client.sync().await.ok()
    }

    fn room_of<const D: usize>(&self, dtype: DType, shape: [usize; D]) -> Self {
        let CubeTensor { client, device, .. } = self.0.clone();
        Self(empty_device_contiguous_dtype(client, device, Shape::from(shape), dtype))
    }

    pub fn tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Cube>(self.0)
    }
}

fn cube<const D: usize>(x: &Tensor<D>) -> Option<CubeTensor> {
    let DispatchTensorKind::Cube(BackendTensor::Float(x)) = x.clone().into_dispatch().kind else {
        return None;
    };
    (x.client.name() == RUNTIME && !x.meta.is_tiled()).then_some(x)
}

/// What a binding's elements are. Texts convert what they read to f32, and what they write to `Out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Element {
    One,
    /// Four at once; their number must be a multiple of four.
    Four,
    /// An f16, with the feature `shader-f16` as the next.
    Half,
    FourHalves,
    /// Four of f16 at once, without the feature.
    FourPacked,
    /// Four integers of 8 bits, whose scales lie behind all of them.
    FourBytes,
    /// As `FourBytes`, of 4 bits.
    FourNibbles,
}

impl Element {
    fn wgsl(self) -> &'static str {
        match self {
            Self::One => "f32",
            Self::Four => "vec4<f32>",
            Self::Half => "f16",
            Self::FourHalves => "vec4<f16>",
            Self::FourPacked => "vec2<u32>",
            Self::FourBytes | Self::FourNibbles => "u32",
        }
    }
}

/// A tensor that a kernel binds, by the name that its text has for it.
pub(super) struct Bound<'a> {
    pub name: &'static str,
    pub held: &'a Operand,
    pub element: Element,
}

impl<'a> Bound<'a> {
    /// Of a tensor that is not weights.
    pub fn numbers(name: &'static str, held: &'a Operand, by_four: bool) -> Self {
        Self { name, held, element: held.numbers(by_four) }
    }
}

/// A kernel is told from others by its value: its text must follow from that.
pub(super) trait Kernel: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// The text without its bindings, with `{{label}}` where `labels` have something to put.
    const TEXT: &'static str;
    /// Names of the numbers that the text finds in `sizes`.
    const SIZES: &'static [&'static str];

    fn labels(&self) -> Vec<(&'static str, String)>;
}

/// One dispatch: `tensors` are bound in their order, the results last, and `sizes` has a number for each of the kernel's
/// names.
pub(super) fn launch<K: Kernel>(kernel: K, tensors: &[Bound], sizes: &[usize], groups: [usize; 3]) {
    debug_assert_eq!(sizes.len(), K::SIZES.len());
    debug_assert!(groups.iter().all(|groups| *groups <= MOST_GROUPS));
    let Some(first) = tensors.first() else { return };
    let mut words: Vec<u32> = sizes.iter().map(|size| *size as u32).collect();
    // Uniforms are read sixteen bytes at a time.
    words.resize(words.len().next_multiple_of(4), 0);
    let info = words.chunks_exact(2).map(|two| u64::from(two[0]) | u64::from(two[1]) << 32).collect();
    let bound = tensors.iter().map(|bound| (bound.name, bound.element)).collect();
    let arguments = tensors.iter().map(|bound| bound.held.0.handle.clone().binding()).collect::<Vec<_>>();
    let [x, y, z] = groups.map(|groups| groups as u32);
    first.held.0.client.launch(
        Box::new(SourceKernel::new(
            Text {
                kernel,
                bound,
                #[cfg(test)]
                broken: broken::<K>(tensors),
            },
            CubeDim::new_single(),
        )),
        CubeCount::Static(x, y, z),
        KernelArguments::new().with_buffers(arguments).with_info(MetadataBindingInfo::custom(info)),
    );
}

/// As [`launch`] of a kernel that may take long: in slices, and handed to the device before too much waits. The last two of the
/// kernel's sizes, which are not in `sizes`, are the first workgroup's place; `each`: multiply-adds of a workgroup.
pub(super) fn launch_sliced<K: Kernel>(
    kernel: K,
    tensors: &[Bound],
    sizes: &[usize],
    groups: [usize; 2],
    each: f64,
) {
    for Slice { first, groups: [x, y] } in slices(groups, each) {
        launch(kernel.clone(), tensors, &[sizes, &first[..]].concat(), [x, y, 1]);
        if time_to_hand_over((x * y) as f64 * each)
            && let Some(first) = tensors.first()
        {
            // What fails here fails again, and is told, when results are read.
            let _ = first.held.0.client.flush();
        }
    }
}

/// A kernel with its bindings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Text<K> {
    kernel: K,
    bound: Vec<(&'static str, Element)>,
    /// Whether it computes wrongly on purpose.
    #[cfg(test)]
    broken: bool,
}

#[cfg(test)]
thread_local! {
    /// Kernels of that type, or of results in `f16`, compute wrongly in this thread.
    pub(super) static BROKEN: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn broken<K>(tensors: &[Bound]) -> bool {
    let halves = tensors.last().is_some_and(|out| out.held.0.dtype == DType::F16);
    BROKEN.get().is_some_and(
        |name| {
            if name == "f16" { halves } else { std::any::type_name::<K>().ends_with(name) }
        },
    )
}

impl<K: Kernel> Text<K> {
    fn header(&self) -> String {
        let halves = |(_, element): &(_, Element)| matches!(element, Element::Half | Element::FourHalves);
        let mut text = if self.bound.iter().any(halves) { "enable f16;\n".to_owned() } else { String::new() };
        for (i, (name, element)) in self.bound.iter().enumerate() {
            let last = i + 1 == self.bound.len();
            let access = if last { "read_write" } else { READ };
            let element = element.wgsl();
            if last {
                text += &format!("alias Out = {element};\n");
            }
            text += &format!("@group(0) @binding({i}) var<storage, {access}> {name}: array<{element}>;\n");
        }
        let sizes: String = K::SIZES.iter().map(|name| format!("  {name}: u32,\n")).collect();
        let binding = self.bound.len();
        text += &format!(
            "struct Sizes {{\n{sizes}}}\n@group(0) @binding({binding}) var<uniform> sizes: Sizes;\n"
        );
        text
    }
}

impl<K: Kernel> KernelSource for Text<K> {
    fn source(&self) -> SourceTemplate {
        let template = SourceTemplate::new(self.header()).add_template(K::TEXT);
        let template = self
            .kernel
            .labels()
            .into_iter()
            .fold(template, |template, (name, value)| template.register(name, value));
        #[cfg(test)]
        if self.broken {
            return SourceTemplate::new(template.complete().replace("= Out(", "= Out(1.5) * Out("));
        }
        template
    }

    fn id(&self) -> KernelId {
        // The texts keep to their tensors themselves, and all loops end.
        KernelId::new::<Self>().info(self.clone()).mode(ExecutionMode::Unchecked)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// `line` for each of `0..count`, one below the other.
pub(super) fn unroll(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|i| line(i) + "\n").collect()
}
