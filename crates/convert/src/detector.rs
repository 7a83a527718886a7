//! YuNet, as its ONNX files are distributed and as PyTorch exports it: normalisations are folded into the convolutions before
//! them, by the exporter or here.

use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::graph::{Constant, Layer, Trace, Window};
use super::layout::{Layout, side};
use super::onnx::Graph;
use facestudio::error::Result;

/// What each cell of a level gives, as outputs are named, with how many numbers.
const HEADS: [(&str, usize); 4] = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)];
/// Pixels along the side of a cell of each level.
const STRIDES: [usize; 3] = [8, 16, 32];
/// Most convolutions that the outputs of a level share, as our network takes them.
const MOST_SHARED: usize = 16;

/// A YuNet's config and tensors.
pub fn yunet<'a>(checkpoint: &'a Checkpoint, graph: &'a Graph) -> Result<(Value, Layout<'a>)> {
    let remedy = "use a YuNet of libfacedetection.train, or OpenCV's face_detection_yunet_2023mar.onnx";
    let mut reader =
        Reader { trace: Trace::new(graph, checkpoint, "YuNet", remedy), layout: Layout::new(checkpoint) };
    let towers = reader.heads()?;
    let (shared, features) = reader.neck(towers)?;
    reader.backbone(features)?;
    let layout = reader.layout;
    let mut channels = vec![side(&layout, "backbone.model0.conv1.weight", 0)?];
    for stage in 0..=5 {
        channels.push(side(&layout, &format!("backbone.model{stage}.conv2.conv2.bias"), 0)?);
    }
    Ok((json!({ "model_type": "yunet", "channels": channels, "shared_convs": shared }), layout))
}

/// Follows the network from its outputs to its picture.
struct Reader<'a> {
    trace: Trace<'a>,
    layout: Layout<'a>,
}

impl<'a> Reader<'a> {
    /// What the heads of each level read.
    fn heads(&mut self) -> Result<[&'a str; 3]> {
        let outputs = self.trace.outputs();
        if outputs.len() != HEADS.len() * STRIDES.len() {
            let found =
                format!("{} outputs where {} are expected", outputs.len(), HEADS.len() * STRIDES.len());
            return Err(self.trace.other(found));
        }
        let mut towers = [None; 3];
        for (h, (head, count)) in HEADS.into_iter().enumerate() {
            for (level, stride) in STRIDES.into_iter().enumerate() {
                // By name as published; otherwise in the order of the network's own list.
                let named = outputs.iter().find(|output| **output == format!("{head}_{stride}"));
                let output = named.unwrap_or(&outputs[h * STRIDES.len() + level]);
                let mut value = output.as_str();
                let scored = count == 1;
                let early = scored && self.trace.is(value, "Sigmoid")?;
                if early {
                    value = self.trace.sigmoid(value)?;
                }
                value = self.trace.rows(value, count)?;
                if scored && !early {
                    value = self.trace.sigmoid(value)?;
                }
                let (input, channels) = self.unit(value, &format!("bbox_head.multi_level_{head}.{level}"))?;
                if channels != count {
                    let found = format!("output '{output}' of {channels} numbers where {count} are expected");
                    return Err(self.trace.other(found));
                }
                match towers[level] {
                    None => towers[level] = Some(input),
                    Some(tower) => self.trace.check_same(tower, input, "the outputs of a level")?,
                }
            }
        }
        match towers {
            [Some(a), Some(b), Some(c)] => Ok([a, b, c]),
            _ => Err(self.trace.other("a level without outputs")),
        }
    }

    /// How many convolutions the outputs of a level share, and the features of three stages of the backbone.
    fn neck(&mut self, towers: [&'a str; 3]) -> Result<(usize, [&'a str; 3])> {
        // The finest level's units end at a sum; the others have as many.
        let mut shared = None;
        let mut features = [""; 3];
        // What the level before is given of this one.
        let mut passed = None;
        for (level, tower) in towers.into_iter().enumerate() {
            let (mut units, mut value) = (Vec::new(), tower);
            loop {
                units.push(value);
                value = self.below(value)?;
                let last = match shared {
                    Some(shared) => units.len() > shared,
                    None => self.trace.is(value, "Add")?,
                };
                if last {
                    break;
                }
                if units.len() > MOST_SHARED {
                    let found =
                        format!("more than {MOST_SHARED} convolutions that the outputs of a level share");
                    return Err(self.trace.other(found));
                }
            }
            let count = units.len() - 1;
            shared = Some(count);
            for (i, unit) in units[..count].iter().rev().enumerate() {
                self.activated(unit, &format!("bbox_head.multi_level_share_convs.{level}.{i}"))?;
            }
            let lateral = units[count];
            self.activated(lateral, &format!("neck.lateral_convs.{level}"))?;
            if let Some(passed) = passed {
                self.trace.check_same(passed, lateral, "a level and the one before it")?;
            }
            features[level] = value;
            if level + 1 < towers.len() {
                let [a, b] = self.trace.sum(value)?;
                let first = self.trace.is(a, "Resize")? || self.trace.is(a, "Upsample")?;
                let (coarser, own) = if first { (a, b) } else { (b, a) };
                passed = Some(self.trace.doubled(coarser)?);
                features[level] = own;
            }
        }
        Ok((shared.unwrap_or(0), features))
    }

    /// The backbone below its features.
    fn backbone(&mut self, features: [&'a str; 3]) -> Result<()> {
        let mut value = features[2];
        for stage in (1..=5usize).rev() {
            if let Some(feature) = stage.checked_sub(3).map(|i| features[i]) {
                self.trace.check_same(value, feature, "the backbone and the neck")?;
            }
            value = self.activated(value, &format!("backbone.model{stage}.conv2"))?;
            value = self.activated(value, &format!("backbone.model{stage}.conv1"))?;
            // After the stem, and after every stage from the second on.
            if stage != 2 {
                value = self.trace.halved(value)?;
            }
        }
        value = self.activated(value, "backbone.model0.conv2")?;
        let window = Window { kernel: 3, stride: 2, depthwise: false };
        let stem = self.trace.convolution(self.trace.relu(value)?, window)?;
        self.put(&stem, "backbone.model0.conv1")?;
        self.trace.is_given(stem.input)
    }

    /// What a unit with its activation reads.
    fn below(&self, value: &'a str) -> Result<&'a str> {
        let [_, first] = self.layers(self.trace.relu(value)?)?;
        Ok(first.input)
    }

    /// A unit with its activation under our names below `to`, and what it reads.
    fn activated(&mut self, value: &'a str, to: &str) -> Result<&'a str> {
        let value = self.trace.relu(value)?;
        Ok(self.unit(value, to)?.0)
    }

    /// A unit under our names below `to`; what it reads, and its channels.
    fn unit(&mut self, value: &'a str, to: &str) -> Result<(&'a str, usize)> {
        let [last, first] = self.layers(value)?;
        self.put(&first, &format!("{to}.conv1"))?;
        self.put(&last, &format!("{to}.conv2"))?;
        Ok((first.input, last.channels))
    }

    /// The convolutions of a unit: of each channel by itself, and before that across channels.
    fn layers(&self, value: &'a str) -> Result<[Layer<'a>; 2]> {
        let last = self.trace.convolution(value, Window { kernel: 3, stride: 1, depthwise: true })?;
        let first = self.trace.convolution(last.input, Window { kernel: 1, stride: 1, depthwise: false })?;
        Ok([last, first])
    }

    /// A convolution with the normalisation after it, which ours has no place for, in its weight and bias.
    fn put(&mut self, layer: &Layer<'a>, to: &str) -> Result<()> {
        let Layer { weight, bias, norm, channels, .. } = layer;
        let (weight_name, bias_name) = (format!("{to}.weight"), format!("{to}.bias"));
        if let Constant::Stored { shape, .. } = weight {
            self.trace.put(&mut self.layout, weight, &weight_name, shape)?;
        }
        self.trace.put(&mut self.layout, bias, &bias_name, &[*channels])?;
        let Some(norm) = norm else { return Ok(()) };
        let [gain, offset, mean, variance] = &norm.parts;
        let read = |part| self.trace.channels(part, *channels);
        let scale: Vec<f32> = read(gain)?
            .iter()
            .zip(read(variance)?)
            .map(|(gain, v)| gain / (v + norm.epsilon).sqrt())
            .collect();
        let means = read(mean)?;
        let shift: Vec<f32> = read(offset)?
            .iter()
            .zip(means.iter().zip(&scale))
            .map(|(o, (mean, scale))| o - mean * scale)
            .collect();
        self.layout.scale(&weight_name, &scale)?;
        self.layout.scale(&bias_name, &scale)?;
        self.layout.shift(&bias_name, &shift)
    }
}
