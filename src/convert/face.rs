//! InsightFace's `iresnet`: checkpoints of `arcface_torch`, whose names are ours already, and the ONNX files that the
//! published recognition models are, in which PyTorch's exporter has folded normalisations into convolutions.

use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::layout::{Layout, count, side};
use super::onnx::{Graph, Node};
use crate::error::{Error, Result};
use crate::weights::TensorSource;

/// ε of the network's normalisations, PyTorch's default.
const NORM_EPS: f32 = 1e-5;

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

/// The tensors of an exported network by its operators: stem, blocks of normalisation, two convolutions and a shortcut,
/// then normalisation, linear layer and normalisation.
fn exported<'a>(source: &'a dyn TensorSource, graph: &Graph) -> Result<Layout<'a>> {
    let mut walk = Walk { layout: Layout::new(source), nodes: &graph.nodes, place: 0 };
    walk.convolution("conv1", "bn1")?;
    walk.slopes("prelu")?;
    let (mut stage, mut block) = (0, 0);
    loop {
        let norm = walk.next("BatchNormalization")?;
        if walk.peek() != Some("Conv") {
            walk.norm(norm, "bn2")?;
            break;
        }
        let first = walk.next("Conv")?;
        let slopes = walk.next("PRelu")?;
        let mut last = walk.next("Conv")?;
        let mut shortcut = (walk.peek() == Some("Conv")).then(|| walk.next("Conv")).transpose()?;
        // The shortcut is the one that reads what the block reads, whichever comes first.
        if shortcut.is_some() && last.inputs.first() == norm.inputs.first() {
            shortcut = shortcut.map(|node| std::mem::replace(&mut last, node));
        }
        walk.next("Add")?;
        // Every stage begins with a shortcut that halves the sides.
        (stage, block) = if shortcut.is_some() { (stage + 1, 0) } else { (stage, block + 1) };
        let name = |part: &str| format!("layer{stage}.{block}.{part}");
        walk.norm(norm, &name("bn1"))?;
        walk.folded(first, &name("conv1"), &name("bn2"))?;
        walk.slope(slopes, &name("prelu"))?;
        walk.folded(last, &name("conv2"), &name("bn3"))?;
        if let Some(shortcut) = shortcut {
            walk.folded(shortcut, &name("downsample.0"), &name("downsample.1"))?;
        }
    }
    if matches!(walk.peek(), Some("Flatten" | "Reshape")) {
        walk.place += 1;
    }
    let linear = walk.next("Gemm")?;
    let weight = input(linear, 1)?;
    if linear.numbers.get("transB").is_some_and(|transposed| *transposed == 1.0) {
        walk.layout.keep(weight, "fc.weight")?;
    } else {
        walk.layout.transposed(weight, "fc.weight")?;
    }
    walk.layout.keep(input(linear, 2)?, "fc.bias")?;
    let features = walk.next("BatchNormalization")?;
    walk.norm(features, "features")?;
    match walk.peek() {
        None => Ok(walk.layout),
        Some(op) => Err(unexpected(op, "the end")),
    }
}

struct Walk<'a, 'g> {
    layout: Layout<'a>,
    nodes: &'g [Node],
    place: usize,
}

impl<'g> Walk<'_, 'g> {
    /// The next operator, past those that do nothing.
    fn peek(&mut self) -> Option<&'g str> {
        while self.nodes.get(self.place).is_some_and(|n| matches!(n.op.as_str(), "Identity" | "Dropout")) {
            self.place += 1;
        }
        self.nodes.get(self.place).map(|node| node.op.as_str())
    }

    fn next(&mut self, op: &str) -> Result<&'g Node> {
        match self.peek() {
            Some(found) if found == op => {
                self.place += 1;
                Ok(&self.nodes[self.place - 1])
            }
            found => Err(unexpected(found.unwrap_or("the end"), op)),
        }
    }

    fn convolution(&mut self, conv: &str, norm: &str) -> Result<()> {
        let node = self.next("Conv")?;
        self.folded(node, conv, norm)
    }

    fn slopes(&mut self, to: &str) -> Result<()> {
        let node = self.next("PRelu")?;
        self.slope(node, to)
    }

    fn slope(&mut self, node: &Node, to: &str) -> Result<()> {
        self.layout.keep(input(node, 1)?, format!("{to}.weight"))
    }

    fn norm(&mut self, node: &Node, to: &str) -> Result<()> {
        let eps = node.numbers.get("epsilon").copied().unwrap_or(f64::from(NORM_EPS));
        if (eps - f64::from(NORM_EPS)).abs() > 1e-9 {
            return Err(unexpected(&format!("a normalisation with ε = {eps}"), "1e-5"));
        }
        for (i, part) in ["weight", "bias", "running_mean", "running_var"].into_iter().enumerate() {
            self.layout.keep(input(node, i + 1)?, format!("{to}.{part}"))?;
        }
        Ok(())
    }

    /// A convolution into which its normalisation was folded: what is left of that adds the bias.
    fn folded(&mut self, node: &Node, conv: &str, norm: &str) -> Result<()> {
        let (weight, bias) = (input(node, 1)?, input(node, 2)?);
        self.layout.keep(weight, format!("{conv}.weight"))?;
        self.layout.keep(bias, format!("{norm}.bias"))?;
        let channels = side(&self.layout, &format!("{norm}.bias"), 0)?;
        for (part, value) in [("weight", 1.0), ("running_mean", 0.0), ("running_var", 1.0 - NORM_EPS)] {
            self.layout.fill(format!("{norm}.{part}"), vec![channels], value)?;
        }
        Ok(())
    }
}

fn input(node: &Node, i: usize) -> Result<&str> {
    let name = node.inputs.get(i).filter(|name| !name.is_empty()).map(String::as_str);
    name.ok_or_else(|| unexpected(&format!("{} with {} inputs", node.op, node.inputs.len()), "more"))
}

fn unexpected(found: &str, wanted: &str) -> Error {
    Error::weights(
        "checkpoint-layout",
        format!("the network is no iresnet as PyTorch exports it: {found} where {wanted} is expected"),
        "use a recognition network of InsightFace, or one of the same architecture such as AuraFace",
    )
}
