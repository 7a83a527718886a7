//! ONNX files (onnx/onnx.proto) as nodes and tensors: what the conversion of a network needs, and nothing of running one.

use std::collections::BTreeMap;
use std::ops::Range;

use ::safetensors::Dtype;

use crate::error::{Error, Result};

/// One operator of a graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// For example `Conv`.
    pub op: String,
    /// Names of tensors and of other nodes' outputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Attributes that are one number.
    pub numbers: BTreeMap<String, f64>,
}

/// A stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Initializer {
    /// Its sides.
    pub shape: Vec<usize>,
    /// How numbers are stored.
    pub dtype: Dtype,
    /// Where they lie in the file.
    pub range: Range<u64>,
}

/// A file's graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// In an order in which they can be run.
    pub nodes: Vec<Node>,
    /// Stored tensors by name.
    pub initializers: BTreeMap<String, Initializer>,
}

impl Graph {
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
            match (field, value) {
                // GraphProto.node
                (1, Value::Bytes(range)) => out.nodes.push(node(file, range)?),
                // GraphProto.initializer
                (5, Value::Bytes(range)) => {
                    let (name, tensor) = initializer(file, range)?;
                    out.initializers.insert(name, tensor);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }
}

fn node(file: &[u8], range: Range<usize>) -> Result<Node> {
    let mut node = Node::default();
    fields(file, range, |field, value| {
        let Value::Bytes(range) = value else { return Ok(()) };
        match field {
            1 => node.inputs.push(text(file, range)),
            2 => node.outputs.push(text(file, range)),
            4 => node.op = text(file, range),
            // NodeProto.attribute
            5 => {
                let (mut name, mut number) = (String::new(), None);
                fields(file, range, |field, value| {
                    match (field, value) {
                        (1, Value::Bytes(range)) => name = text(file, range),
                        (2, Value::Fixed32(bits)) => number = Some(f64::from(f32::from_bits(bits))),
                        (3, Value::Varint(int)) => number = Some(int as i64 as f64),
                        _ => {}
                    }
                    Ok(())
                })?;
                if let Some(number) = number {
                    node.numbers.insert(name, number);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

fn initializer(file: &[u8], range: Range<usize>) -> Result<(String, Initializer)> {
    let (mut name, mut shape, mut data_type, mut stored) = (String::new(), Vec::new(), 0, 0..0);
    fields(file, range, |field, value| {
        match (field, value) {
            (1, Value::Varint(side)) => shape.push(side as usize),
            (1, Value::Bytes(packed)) => {
                let mut place = packed.start;
                while place < packed.end {
                    shape.push(varint(file, &mut place, packed.end)? as usize);
                }
            }
            (2, Value::Varint(kind)) => data_type = kind,
            // `float_data`, packed, and `raw_data` are the same bytes.
            (4 | 9, Value::Bytes(range)) => stored = range.start as u64..range.end as u64,
            (8, Value::Bytes(range)) => name = text(file, range),
            _ => {}
        }
        Ok(())
    })?;
    // TensorProto.DataType
    let dtype = match data_type {
        1 => Dtype::F32,
        7 => Dtype::I64,
        10 => Dtype::F16,
        11 => Dtype::F64,
        16 => Dtype::BF16,
        other => return Err(invalid(&format!("tensor '{name}' is of data type {other}"))),
    };
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
    let bytes = count.and_then(|count| count.checked_mul(dtype.bitsize() / 8));
    if bytes.map(|bytes| bytes as u64) != Some(stored.end - stored.start) {
        return Err(invalid(&format!("tensor '{name}' is not stored in the file whole")));
    }
    Ok((name, Initializer { shape, dtype, range: stored }))
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
        assert_eq!(node.numbers["eps"], 0.5);
        let tensor = &graph.initializers["w"];
        assert_eq!((tensor.shape.as_slice(), tensor.dtype), (&[2][..], Dtype::F32));
        let range = tensor.range.start as usize..tensor.range.end as usize;
        assert_eq!(file[range], [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
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
