//! InsightFace's `iresnet`: checkpoints of `arcface_torch`, whose names are ours already, and the ONNX files that the
//! published recognition models are, in which most exporters have folded normalisations into convolutions.

use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::graph::{Constant, Layer, Norm, Trace, Window};
use super::layout::{Layout, count, side};
use super::onnx::Graph;
use facestudio::error::Result;
use facestudio::weights::TensorSource;

/// ε of the network's normalisations, PyTorch's default.
const NORM_EPS: f32 = 1e-5;
/// Most blocks of an exported network, several times the largest one's; in a graph that feeds on itself they would not end.
const MOST_BLOCKS: usize = 256;

/// The identity encoder's config and tensors.
pub fn iresnet(checkpoint: &Checkpoint) -> Result<(Value, Layout<'_>)> {
    let layout = match checkpoint.graph() {
        Some(graph) => exported(checkpoint, graph)?,
        None => named(checkpoint)?,
    };
    let of = |name: &str, axis| side(&layout, name, axis);
    let stage = |stage: usize| count(&layout, |i| format!("layer{stage}.{i}.conv1.weight"));
    let channels = [
        of("conv1.weight", 0)?,
        of("layer1.0.conv2.weight", 0)?,
        of("layer2.0.conv2.weight", 0)?,
        of("layer3.0.conv2.weight", 0)?,
        of("layer4.0.conv2.weight", 0)?,
    ];
    // Four halvings, each rounded up: of the sizes that end at one grid the largest is even, and 112 is such a one.
    let grid = (of("fc.weight", 1)? / channels[4].max(1)).isqrt();
    let layers = [1, 2, 3, 4].map(stage);
    let config = json!({
        "model_type": "ir_resnet", "layers": layers, "channels": channels,
        "embedding_size": of("fc.weight", 0)?, "image_size": grid * 16,
    });
    Ok((config, layout))
}

fn named(source: &dyn TensorSource) -> Result<Layout<'_>> {
    let mut layout = Layout::new(source);
    for name in source.names() {
        if !name.ends_with("num_batches_tracked") {
            layout.keep(&name, name.clone())?;
        }
    }
    Ok(layout)
}

/// The tensors of an exported network by its operators: stem, blocks of normalisation, two convolutions and a shortcut, then
/// normalisation, linear layer and normalisation. It is followed from its embedding back to its picture.
fn exported<'a>(source: &'a dyn TensorSource, graph: &'a Graph) -> Result<Layout<'a>> {
    let remedy = "use a recognition network of InsightFace, or one of the same architecture such as AuraFace";
    let trace = Trace::new(graph, source, "iresnet", remedy);
    let mut layout = Layout::new(source);
    let [embedding] = trace.outputs() else {
        return Err(trace.other(format!("{} outputs where one is expected", trace.outputs().len())));
    };
    // Folded into the linear layer by some exporters.
    let features =
        if trace.is(embedding, "BatchNormalization")? { Some(trace.norm(embedding)?) } else { None };
    let linear = features.as_ref().map_or(embedding.as_str(), |norm| norm.input);
    let flat = trace.linear(linear, &mut layout, "fc")?;
    let width = side(&layout, "fc.weight", 0)?;
    match features {
        Some(norm) => put_norm(&trace, &mut layout, &norm, "features", width)?,
        None => put_folded(&trace, &mut layout, &Constant::Filled(0.0), "features", width)?,
    }
    let flat = trace.flat(flat, side(&layout, "fc.weight", 1)?)?;
    let norm = trace.norm(flat)?;
    let mut value = norm.input;
    let mut blocks = Vec::new();
    while trace.is(value, "Add")? {
        let block = Block::read(&trace, value)?;
        value = block.input;
        blocks.push(block);
        if blocks.len() > MOST_BLOCKS {
            return Err(trace.other(format!("more than {MOST_BLOCKS} blocks")));
        }
    }
    let last = blocks.first().map(|block| block.last.channels);
    let last = last.ok_or_else(|| trace.other("no block that adds its shortcut"))?;
    put_norm(&trace, &mut layout, &norm, "bn2", last)?;

    let (slopes, stem) = trace.slopes(value)?;
    let stem = trace.convolution(stem, Window { kernel: 3, stride: 1, depthwise: false })?;
    trace.is_given(stem.input)?;
    put_layer(&trace, &mut layout, &stem, "conv1", "bn1")?;
    trace.put_slopes(&mut layout, &slopes, "prelu", stem.channels)?;
    let (mut stage, mut number, mut before) = (0, 0, stem.channels);
    for block in blocks.iter().rev() {
        // Every stage begins with a shortcut that halves the sides.
        (stage, number) = if block.shortcut.is_some() { (stage + 1, 0) } else { (stage, number + 1) };
        if !(1..=4).contains(&stage) {
            return Err(trace.other(format!("a block in stage {stage} of 4")));
        }
        block.put(&trace, &mut layout, &format!("layer{stage}.{number}"), before)?;
        before = block.last.channels;
    }
    Ok(layout)
}

/// A block of the network.
struct Block<'a> {
    norm: Norm<'a>,
    first: Layer<'a>,
    slopes: Constant<'a>,
    last: Layer<'a>,
    shortcut: Option<Layer<'a>>,
    input: &'a str,
}

impl<'a> Block<'a> {
    fn read(trace: &Trace<'a>, value: &'a str) -> Result<Self> {
        let sum = trace.sum(value)?;
        // The shortcut is the one of a narrower window, or of none.
        let mut kernels = [None; 2];
        for (kernel, value) in kernels.iter_mut().zip(sum) {
            *kernel = trace.kernel(value)?;
        }
        let (main, shortcut, kernel) = match kernels {
            [Some(3), other @ (None | Some(1))] => (sum[0], sum[1], other),
            [other @ (None | Some(1)), Some(3)] => (sum[1], sum[0], other),
            _ => return Err(trace.other("Add of other than a 3×3 convolution and a shortcut")),
        };
        let stride = if kernel.is_some() { 2 } else { 1 };
        let last = trace.convolution(main, Window { kernel: 3, stride, depthwise: false })?;
        let (slopes, first) = trace.slopes(last.input)?;
        let first = trace.convolution(first, Window { kernel: 3, stride: 1, depthwise: false })?;
        let norm = trace.norm(first.input)?;
        let input = norm.input;
        let window = |kernel| Window { kernel, stride, depthwise: false };
        let layer = kernel.map(|kernel| trace.convolution(shortcut, window(kernel))).transpose()?;
        let read = layer.as_ref().map_or(shortcut, |layer| layer.input);
        trace.check_same(read, input, "a block and its shortcut")?;
        Ok(Self { norm, first, slopes, last, shortcut: layer, input })
    }

    /// Under our names below `to`; `before` channels come in.
    fn put(&self, trace: &Trace<'a>, layout: &mut Layout<'a>, to: &str, before: usize) -> Result<()> {
        let name = |part: &str| format!("{to}.{part}");
        put_norm(trace, layout, &self.norm, &name("bn1"), before)?;
        put_layer(trace, layout, &self.first, &name("conv1"), &name("bn2"))?;
        trace.put_slopes(layout, &self.slopes, &name("prelu"), self.first.channels)?;
        put_layer(trace, layout, &self.last, &name("conv2"), &name("bn3"))?;
        if let Some(shortcut) = &self.shortcut {
            put_layer(trace, layout, shortcut, &name("downsample.0"), &name("downsample.1"))?;
        }
        Ok(())
    }
}

/// A convolution, and the normalisation after it.
fn put_layer<'a>(
    trace: &Trace<'a>,
    layout: &mut Layout<'a>,
    layer: &Layer<'a>,
    conv: &str,
    norm: &str,
) -> Result<()> {
    let Layer { weight, bias, norm: after, channels, .. } = layer;
    if let Constant::Stored { shape, .. } = weight {
        trace.put(layout, weight, &format!("{conv}.weight"), shape)?;
    }
    let Some(after) = after else { return put_folded(trace, layout, bias, norm, *channels) };
    put_norm(trace, layout, after, norm, *channels)?;
    // Ours have no bias of their own.
    let bias: Vec<f32> = trace.channels(bias, *channels)?.into_iter().map(|bias| -bias).collect();
    if bias.iter().any(|bias| *bias != 0.0) {
        layout.shift(&format!("{norm}.running_mean"), &bias)?;
    }
    Ok(())
}

/// What is left of a normalisation that was folded into what comes before it: it adds the bias.
fn put_folded<'a>(
    trace: &Trace<'a>,
    layout: &mut Layout<'a>,
    bias: &Constant<'a>,
    norm: &str,
    channels: usize,
) -> Result<()> {
    trace.put(layout, bias, &format!("{norm}.bias"), &[channels])?;
    for (part, value) in [("weight", 1.0), ("running_mean", 0.0), ("running_var", 1.0 - NORM_EPS)] {
        layout.fill(format!("{norm}.{part}"), vec![channels], value)?;
    }
    Ok(())
}

fn put_norm<'a>(
    trace: &Trace<'a>,
    layout: &mut Layout<'a>,
    norm: &Norm<'a>,
    to: &str,
    channels: usize,
) -> Result<()> {
    for (part, constant) in ["weight", "bias", "running_mean", "running_var"].into_iter().zip(&norm.parts) {
        trace.put(layout, constant, &format!("{to}.{part}"), &[channels])?;
    }
    // Another ε goes into the variance, to which ours is added.
    if norm.epsilon != NORM_EPS {
        layout.shift(&format!("{to}.running_var"), &vec![norm.epsilon - NORM_EPS; channels])?;
    }
    Ok(())
}
