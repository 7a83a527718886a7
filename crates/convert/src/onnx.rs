//! ONNX files (onnx/onnx.proto) as nodes and tensors: what the conversion of a network needs, and nothing of running one.

use std::collections::BTreeMap;
use std::ops::Range;

use ::safetensors::Dtype;

use facestudio::error::{Error, Result};
use facestudio::internal::decode;

/// One operator of a graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// For example `Conv`; after its domain and two colons where that is not ONNX's own.
    pub op: String,
    /// Names of tensors and of other nodes' outputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Its attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A whole number, or another.
    Number(f64),
    /// Several of either.
    Numbers(Vec<f64>),
    /// A text.
    Text(String),
    /// A tensor.
    Tensor(Initializer),
    /// A graph, or what else there is.
    Other,
}

/// A stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Initializer {
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub stored: Stored,
}

/// Where a tensor's numbers are.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// At a place in the file.
    At(Dtype, Range<u64>),
    /// In the graph: short ones that are written another way.
    Here(Dtype, Vec<u8>),
    /// Of an ONNX type that no network here has.
    Unknown(u64),
}

impl Initializer {
    fn of_f32(shape: Vec<usize>, values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
        Self { shape, stored: Stored::Here(Dtype::F32, bytes) }
    }

    /// Its numbers, of a file whose bytes `part` gives. Fails with `onnx` on a type that is not read.
    pub fn read(&self, name: &str, part: impl FnOnce(Range<u64>) -> Result<Vec<u8>>) -> Result<Vec<f32>> {
        match &self.stored {
            Stored::At(dtype, range) => decode(name, *dtype, &part(range.clone())?),
            Stored::Here(dtype, bytes) => decode(name, *dtype, bytes),
            Stored::Unknown(kind) => Err(invalid(&format!("tensor '{name}' is of data type {kind}"))),
        }
    }
}

/// A file's graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// In an order in which they can be run; without those that only state a tensor.
    pub nodes: Vec<Node>,
    /// Stored tensors by name, those of `Constant` nodes among them.
    pub initializers: BTreeMap<String, Initializer>,
    /// What it is given: names without a tensor.
    pub inputs: Vec<String>,
    /// What it gives.
    pub outputs: Vec<String>,
}

impl Graph {
    /// Whether a file that begins with `start` is a model: its version comes first (`ModelProto.ir_version`, below 128), then
    /// who made it, as a text, or which operators it has.
    pub fn begins(start: &[u8]) -> bool {
        matches!(start, [0x08, 1..=0x7f, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
    }

    /// Reads a whole file. Fails with `onnx` on what is no ONNX, or keeps its tensors in other files.
    pub fn read(file: &[u8]) -> Result<Self> {
        let mut graph = None;
        fields(file, 0..file.len(), |field, value| {
            // ModelProto.graph
            if let (7, Value::Bytes(range)) = (field, value) {
                graph = Some(range);
            }
            Ok(())
        })?;
        let range = graph.ok_or_else(|| invalid("it holds no graph"))?;
        let mut out = Self::default();
        fields(file, range, |field, value| {
            let Value::Bytes(range) = value else { return Ok(()) };
            match field {
                // GraphProto.node
                1 => {
                    let node = node(file, range)?;
                    match constant(&node) {
                        Some((name, tensor)) => out.store(name, tensor)?,
                        None => out.nodes.push(node),
                    }
                }
                // GraphProto.initializer
                5 => {
                    let (name, tensor) = tensor(file, range)?;
                    out.store(name, tensor)?;
                }
                // GraphProto.input, output
                11 => out.inputs.push(value_name(file, range)?),
                12 => out.outputs.push(value_name(file, range)?),
                _ => {}
            }
            Ok(())
        })?;
        // Older files list stored tensors among the inputs.
        let Self { inputs, initializers, .. } = &mut out;
        inputs.retain(|name| !initializers.contains_key(name));
        Ok(out)
    }

    fn store(&mut self, name: String, tensor: Initializer) -> Result<()> {
        match self.initializers.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(invalid(&format!("it holds two tensors '{name}'"))),
        }
    }
}

/// The tensor that a `Constant` states, and its name.
fn constant(node: &Node) -> Option<(String, Initializer)> {
    let ("Constant", [name]) = (node.op.as_str(), &node.outputs[..]) else { return None };
    let tensor = match node.attributes.iter().next()? {
        (_, Attribute::Tensor(tensor)) => tensor.clone(),
        (_, Attribute::Number(value)) => Initializer::of_f32(Vec::new(), &[*value]),
        (_, Attribute::Numbers(values)) => Initializer::of_f32(vec![values.len()], values),
        _ => return None,
    };
    Some((name.clone(), tensor))
}

fn node(file: &[u8], range: Range<usize>) -> Result<Node> {
    let (mut node, mut domain) = (Node::default(), String::new());
    fields(file, range, |field, value| {
        let Value::Bytes(range) = value else { return Ok(()) };
        match field {
            1 => node.inputs.push(text(file, range)),
            2 => node.outputs.push(text(file, range)),
            4 => node.op = text(file, range),
            // NodeProto.attribute
            5 => node.attributes.extend([attribute(file, range)?]),
            7 => domain = text(file, range),
            _ => {}
        }
        Ok(())
    })?;
    if !matches!(domain.as_str(), "" | "ai.onnx") {
        node.op = format!("{domain}::{}", node.op);
    }
    Ok(node)
}

fn attribute(file: &[u8], range: Range<usize>) -> Result<(String, Attribute)> {
    let (mut name, mut kind, mut value, mut numbers) = (String::new(), 0, None, Vec::new());
    fields(file, range, |field, found| {
        match (field, found) {
            (1, Value::Bytes(range)) => name = text(file, range),
            (2, Value::Fixed32(bits)) => value = Some(Attribute::Number(f32::from_bits(bits).into())),
            (3, Value::Varint(int)) => value = Some(Attribute::Number(int as i64 as f64)),
            (4, Value::Bytes(range)) => value = Some(Attribute::Text(text(file, range))),
            (5, Value::Bytes(range)) => value = Some(Attribute::Tensor(tensor(file, range)?.1)),
            (7, Value::Fixed32(bits)) => numbers.push(f32::from_bits(bits).into()),
            (8, Value::Varint(int)) => numbers.push(int as i64 as f64),
            // Packed.
            (7, Value::Bytes(range)) => {
                let floats = file.get(range).unwrap_or_default().chunks_exact(4);
                numbers.extend(floats.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))));
            }
            (8, Value::Bytes(range)) => varints(file, range, |int| numbers.push(int as i64 as f64))?,
            (20, Value::Varint(of)) => kind = of,
            _ => {}
        }
        Ok(())
    })?;
    // AttributeProto.AttributeType; zeros and empty lists may be left out.
    let value = value.unwrap_or(match kind {
        1 | 2 => Attribute::Number(0.0),
        3 => Attribute::Text(String::new()),
        _ if kind == 6 || kind == 7 || !numbers.is_empty() => Attribute::Numbers(numbers),
        _ => Attribute::Other,
    });
    Ok((name, value))
}

fn value_name(file: &[u8], range: Range<usize>) -> Result<String> {
    let mut name = String::new();
    fields(file, range, |field, value| {
        if let (1, Value::Bytes(range)) = (field, value) {
            name = text(file, range);
        }
        Ok(())
    })?;
    Ok(name)
}

fn tensor(file: &[u8], range: Range<usize>) -> Result<(String, Initializer)> {
    let (mut name, mut shape, mut kind, mut at) = (String::new(), Vec::new(), 0, None);
    // What is not stored as the bytes that it is of: a varint for each number, or floats that are not packed.
    let (mut ints, mut floats) = (Vec::new(), Vec::new());
    let (mut elsewhere, mut location) = (false, String::new());
    fields(file, range, |field, value| {
        match (field, value) {
            (1, Value::Varint(side)) => shape.push(side as usize),
            (1, Value::Bytes(packed)) => varints(file, packed, |side| shape.push(side as usize))?,
            (2, Value::Varint(of)) => kind = of,
            (4, Value::Fixed32(bits)) => floats.extend(bits.to_le_bytes()),
            (5 | 7, Value::Varint(int)) => ints.push(int),
            (5 | 7, Value::Bytes(packed)) => varints(file, packed, |int| ints.push(int))?,
            (8, Value::Bytes(range)) => name = text(file, range),
            // `raw_data`; packed `float_data` and `double_data` are the same bytes.
            (4 | 9 | 10, Value::Bytes(range)) => at = Some(range.start as u64..range.end as u64),
            (13, Value::Bytes(range)) => {
                elsewhere = true;
                let entry = pair(file, range)?;
                if entry.0 == "location" {
                    location = entry.1;
                }
            }
            (14, Value::Varint(1)) => elsewhere = true,
            _ => {}
        }
        Ok(())
    })?;
    if elsewhere {
        return Err(Error::weights(
            "onnx",
            format!("the numbers of tensor '{name}' are not in this ONNX file but in another, '{location}'"),
            "save it as one file: onnx.save_model(onnx.load(FILE), OUT, save_as_external_data=False)",
        ));
    }
    // TensorProto.DataType
    let dtype = match kind {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::BOOL,
        10 => Dtype::F16,
        11 => Dtype::F64,
        16 => Dtype::BF16,
        other => return Ok((name, Initializer { shape, stored: Stored::Unknown(other) })),
    };
    let width = dtype.bitsize() / 8;
    let stored = match at {
        Some(range) => Stored::At(dtype, range),
        None if !floats.is_empty() => Stored::Here(dtype, floats),
        None => {
            let bytes = ints.iter().flat_map(|int| int.to_le_bytes().into_iter().take(width)).collect();
            Stored::Here(dtype, bytes)
        }
    };
    let length = match &stored {
        Stored::At(_, range) => range.end - range.start,
        Stored::Here(_, bytes) => bytes.len() as u64,
        Stored::Unknown(_) => 0,
    };
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
    if count.and_then(|count| count.checked_mul(width)).map(|bytes| bytes as u64) != Some(length) {
        return Err(invalid(&format!("tensor '{name}' is not stored in the file whole")));
    }
    Ok((name, Initializer { shape, stored }))
}

/// A key and what it stands for (`StringStringEntryProto`).
fn pair(file: &[u8], range: Range<usize>) -> Result<(String, String)> {
    let mut pair = (String::new(), String::new());
    fields(file, range, |field, value| {
        match (field, value) {
            (1, Value::Bytes(range)) => pair.0 = text(file, range),
            (2, Value::Bytes(range)) => pair.1 = text(file, range),
            _ => {}
        }
        Ok(())
    })?;
    Ok(pair)
}

fn varints(file: &[u8], range: Range<usize>, mut each: impl FnMut(u64)) -> Result<()> {
    let mut place = range.start;
    while place < range.end {
        each(varint(file, &mut place, range.end)?);
    }
    Ok(())
}

enum Value {
    Varint(u64),
    Fixed32(u32),
    Bytes(Range<usize>),
}

/// Calls `each` with every field of a protobuf message, in order.
fn fields(file: &[u8], range: Range<usize>, mut each: impl FnMut(u64, Value) -> Result<()>) -> Result<()> {
    let mut place = range.start;
    while place < range.end {
        let tag = varint(file, &mut place, range.end)?;
        let mut take = |count: usize| {
            let end = place.checked_add(count).filter(|end| *end <= range.end);
            let end = end.ok_or_else(|| invalid("it is cut short"))?;
            Ok::<_, Error>(std::mem::replace(&mut place, end)..end)
        };
        let value = match tag & 7 {
            0 => Value::Varint(varint(file, &mut place, range.end)?),
            1 => {
                take(8)?;
                continue;
            }
            2 => {
                let count = varint(file, &mut place, range.end)?;
                let end = (place as u64).checked_add(count).filter(|end| *end <= range.end as u64);
                let end = end.ok_or_else(|| invalid("it is cut short"))? as usize;
                Value::Bytes(std::mem::replace(&mut place, end)..end)
            }
            5 => {
                let bytes = take(4)?;
                let bytes = file.get(bytes).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return Err(invalid("it is no protobuf message")),
        };
        each(tag >> 3, value)?;
    }
    Ok(())
}

fn varint(file: &[u8], place: &mut usize, end: usize) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = file.get(*place).filter(|_| *place < end).ok_or_else(|| invalid("it is cut short"))?;
        *place += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(invalid("a number has more than 64 bits"))
}

fn text(file: &[u8], range: Range<usize>) -> String {
    String::from_utf8_lossy(file.get(range).unwrap_or_default()).into_owned()
}

fn invalid(reason: &str) -> Error {
    Error::weights("onnx", format!("not an ONNX file that can be read: {reason}"), "fetch the file again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model with a graph of one node and one tensor, as protobuf writes it.
    fn file() -> Vec<u8> {
        let attribute = [&[0x0a, 3][..], b"eps", &[0x15], &0.5f32.to_le_bytes()].concat();
        let node = [
            &[0x0a, 1, b'x', 0x12, 1, b'y', 0x22, 4][..],
            b"Conv",
            &[0x2a, attribute.len() as u8],
            &attribute,
        ]
        .concat();
        let tensor =
            [&[0x08, 2, 0x10, 1, 0x42, 1, b'w', 0x4a, 8][..], &1f32.to_le_bytes(), &2f32.to_le_bytes()]
                .concat();
        let graph = [&[0x0a, node.len() as u8][..], &node, &[0x2a, tensor.len() as u8], &tensor].concat();
        [&[0x08, 7, 0x3a, graph.len() as u8][..], &graph].concat()
    }

    #[test]
    fn nodes_and_tensors_are_found() {
        let file = file();
        let graph = Graph::read(&file).unwrap();
        let node = &graph.nodes[0];
        assert_eq!((node.op.as_str(), node.inputs[0].as_str(), node.outputs[0].as_str()), ("Conv", "x", "y"));
        assert_eq!(node.attributes["eps"], Attribute::Number(0.5));
        let tensor = &graph.initializers["w"];
        assert_eq!(tensor.shape, [2]);
        let part = |range: Range<u64>| Ok(file[range.start as usize..range.end as usize].to_vec());
        assert_eq!(tensor.read("w", part).unwrap(), [1.0, 2.0]);
        assert!(Graph::begins(&file));
        for other in [&b"PK\x03\x04"[..], b"\x80\x02\x8a", b"\x08\0\0\0\0\0\0\0{", b"\x08"] {
            assert!(!Graph::begins(other), "{other:?}");
        }
    }

    /// `TensorProto` of two numbers of a type, which a field of it holds.
    fn stored(kind: u8, field: &[u8]) -> Result<Initializer> {
        let file = [&[0x08, 2, 0x10, kind][..], field].concat();
        tensor(&file, 0..file.len()).map(|(_, tensor)| tensor)
    }

    #[test]
    fn numbers_are_read_however_they_are_written() {
        for (kind, field, expected) in [
            (1, &[0x25, 0, 0, 0x80, 0x3f, 0x25, 0, 0, 0, 0x40][..], [1.0, 2.0]),
            (1, &[0x22, 8, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40], [1.0, 2.0]),
            (7, &[0x3a, 2, 3, 5], [3.0, 5.0]),
            (7, &[0x38, 3, 0x38, 5], [3.0, 5.0]),
            (6, &[0x2a, 2, 3, 5], [3.0, 5.0]),
            // 1 and 0 in half precision are 0x3c00 and 0.
            (10, &[0x2a, 3, 0x80, 0x78, 0], [1.0, 0.0]),
        ] {
            let tensor = stored(kind, field).unwrap();
            let file = [&[0x08, 2, 0x10, kind][..], field].concat();
            let part = |range: Range<u64>| Ok(file[range.start as usize..range.end as usize].to_vec());
            assert_eq!(tensor.read("t", part).unwrap(), expected, "{kind} {field:?}");
        }
        assert_eq!(stored(10, &[0x2a, 1, 0]).unwrap_err().code, "onnx");
        assert_eq!(stored(8, &[]).unwrap().stored, Stored::Unknown(8));
    }

    #[test]
    fn numbers_that_lie_in_another_file_are_said_to() {
        let location = [&[0x0a, 8][..], b"location", &[0x12, 6], b"x.data"].concat();
        let field = [&[0x42, 1, b'w', 0x6a, location.len() as u8][..], &location, &[0x70, 1]].concat();
        let error = stored(1, &field).unwrap_err();
        assert_eq!(error.code, "onnx");
        assert!(error.message.contains("'w'") && error.message.contains("'x.data'"), "{error}");
        assert!(error.remedy.contains("save_as_external_data=False"), "{error}");
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let file = file();
        for end in 0..file.len() {
            assert_eq!(Graph::read(&file[..end]).unwrap_err().code, "onnx", "{end}");
        }
        let mut long = file.clone();
        long[3] = 0xff;
        assert_eq!(Graph::read(&long).unwrap_err().code, "onnx");
    }
}
