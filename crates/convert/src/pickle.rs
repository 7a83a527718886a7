//! PyTorch's pickles, as far as a file of tensors needs them. Nothing is imported and nothing is called: names that a
//! state dict has no use for become values that nobody looks into. A TorchScript archive's modules are read as dictionaries
//! of their attributes.
//!
//! Opcodes are those of Python's `pickletools`, protocols 2 to 4; how tensors are put together is PyTorch's
//! `torch/_utils.py` (`_rebuild_tensor_v2`) and `torch/serialization.py` (persistent ids).

use std::collections::BTreeMap;

use ::safetensors::Dtype;

use facestudio::error::{Error, Result};

/// Values of a whole pickle: far above the largest checkpoint's, far below a memory's.
const MOST_VALUES: usize = 4_000_000;
/// Bytes of a text that may be a name; longer ones are settings that somebody saved beside the weights.
const LONGEST_NAME: usize = 1024;
/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;
/// Dictionaries within dictionaries, and modules within modules, that are looked into.
const MOST_DEPTH: usize = 16;
/// Under this name TorchScript keeps a module's class; its attributes are tensors and further modules.
const SCRIPTED: &str = "__torch__.";

/// Where trainers keep the state dict in a larger one: Lightning and open_clip, many others, PyTorch's own tutorials, DeepSpeed, and
/// BasicSR, whose averaged weights are those that are published.
const TRAINERS: [&str; 6] = ["state_dict", "model", "model_state_dict", "module", "params_ema", "params"];

/// The element type of PyTorch's storage classes.
fn element_of(storage: &str) -> Option<Dtype> {
    Some(match storage {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The storage's name in the archive.
    pub storage: String,
    /// Its element type.
    pub element: Dtype,
    /// The first element.
    pub offset: usize,
    /// Sides.
    pub shape: Vec<usize>,
    /// Elements between neighbours along each side.
    pub stride: Vec<usize>,
}

/// Where a value lies among all that were made. Values name each other by it, so that no nesting is too deep to drop.
type Id = usize;

#[derive(Debug)]
enum Value {
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A module and a name in it.
    Global(String),
    Storage(String, Dtype),
    Tensor(View),
    /// Something that a state dict has no use for.
    Opaque,
}

/// The tensors of a pickled state dict by name. A dictionary under one of [`TRAINERS`]' keys is taken in place of the whole.
///
/// Fails with `pickle` on anything that is no such pickle.
pub fn tensors(pickle: &[u8]) -> Result<BTreeMap<String, View>> {
    let mut machine = Machine {
        bytes: pickle,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        memo: BTreeMap::new(),
        entries: 0,
    };
    let root = machine.run()?;
    let Value::Dict(whole) = &machine.values[root] else {
        return Err(damaged("it holds no dictionary of tensors"));
    };
    let named = |wanted: &str| {
        let (_, value) = whole
            .iter()
            .find(|(key, _)| matches!(&machine.values[*key], Value::Text(text) if text == wanted))?;
        matches!(machine.values[*value], Value::Dict(_)).then_some(*value)
    };
    let root = TRAINERS.iter().find_map(|key| named(key)).unwrap_or(root);
    let mut found = BTreeMap::new();
    machine.collect(root, "", 0, &mut 0, &mut found)?;
    if found.is_empty() {
        return Err(damaged("it holds no tensors"));
    }
    Ok(found)
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::weights(
        "pickle",
        format!("not a PyTorch file of tensors: {reason}"),
        "save the model's state dict with torch.save, or convert it to safetensors",
    )
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    /// `None` is a mark.
    stack: Vec<Option<Id>>,
    memo: BTreeMap<u32, Id>,
    /// Entries that dictionaries took over from others.
    entries: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                // PROTO, FRAME: nothing that matters here.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.push_place(None)?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                // NONE, EMPTY_LIST, EMPTY_SET
                b'N' | b']' | 0x8f => self.push(Value::Opaque)?,
                0x88 => self.push(Value::Int(1))?,
                0x89 => self.push(Value::Int(0))?,
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Value::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => {
                    let count = self.byte()?;
                    let value = self.long(count.into())?;
                    self.push(value)?;
                }
                // BINFLOAT
                b'G' => self.skip(8)?,
                // BINUNICODE; SHORT_BINUNICODE, SHORT_BINSTRING
                b'X' => {
                    let count = u32::from_le_bytes(self.array()?);
                    self.text(count as usize)?;
                }
                0x8c | b'U' => {
                    let count = self.byte()?;
                    self.text(count.into())?;
                }
                // BINBYTES, BINSTRING; SHORT_BINBYTES
                b'B' | b'T' => {
                    let count = u32::from_le_bytes(self.array()?);
                    self.skip(count as usize)?;
                }
                b'C' => {
                    let count = self.byte()?;
                    self.skip(count.into())?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Value::Global(format!("{module}.{name}")))?;
                }
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name])
                    else {
                        return Err(damaged("a name is no text"));
                    };
                    let global = format!("{module}.{name}");
                    self.push(Value::Global(global))?;
                }
                b'q' => {
                    let index = self.byte()?;
                    self.remember(index.into())?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.remember(index)?;
                }
                // MEMOIZE
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let index = self.byte()?;
                    self.recall(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.recall(index)?;
                }
                b'0' => drop(self.stack.pop()),
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                // TUPLE1 to TUPLE3
                0x85..=0x87 => {
                    let mut items = (0..opcode - 0x84).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                    items.reverse();
                    self.push(Value::Tuple(items))?;
                }
                // APPEND, APPENDS: nobody looks into lists.
                b'a' => drop(self.pop()?),
                b'e' => drop(self.since_mark()?),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set_items(&items)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage)?;
                }
                b'R' | 0x81 => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    self.rebuild(callable, arguments)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    self.build(state)?;
                }
                _ => return Err(damaged(format!("opcode {opcode:#04x} at byte {}", self.at - 1))),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("it is cut short"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        self.take(count)?;
        self.push(Value::Opaque)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| damaged("it is cut short"))
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(256).position(|b| *b == b'\n');
        let length = length.ok_or_else(|| damaged("a name has no end"))?;
        let name = std::str::from_utf8(&rest[..length]).map_err(damaged)?.to_owned();
        self.at += length + 1;
        Ok(name)
    }

    fn text(&mut self, count: usize) -> Result<()> {
        if count > LONGEST_NAME {
            return self.skip(count);
        }
        let text = std::str::from_utf8(self.take(count)?).map_err(damaged)?.to_owned();
        self.push(Value::Text(text))
    }

    /// A little-endian two's complement integer of so many bytes.
    fn long(&mut self, count: usize) -> Result<Value> {
        let bytes = self.take(count)?;
        if count > 8 {
            return Ok(Value::Opaque);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..count].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        self.values.push(value);
        self.push_again(self.values.len() - 1)
    }

    fn push_again(&mut self, id: Id) -> Result<()> {
        self.push_place(Some(id))
    }

    fn push_place(&mut self, place: Option<Id>) -> Result<()> {
        if self.values.len().max(self.stack.len()) > MOST_VALUES {
            return Err(damaged(format!("it makes more than {MOST_VALUES} values")));
        }
        self.stack.push(place);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        self.stack.pop().flatten().ok_or_else(|| damaged("its stack is empty"))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().flatten().ok_or_else(|| damaged("its stack is empty"))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.stack.iter().rposition(Option::is_none);
        let items = self.stack.split_off(mark.ok_or_else(|| damaged("a mark is missing"))?);
        Ok(items.into_iter().flatten().collect())
    }

    fn remember(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let id = self.memo.get(&index).copied().ok_or_else(|| damaged("it recalls what it never stored"))?;
        self.push_again(id)
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dict(entries) => {
                entries.extend(items.as_chunks().0.iter().map(|[key, value]| (*key, *value)))
            }
            Value::Opaque => {}
            _ => return Err(damaged("it sets entries of what is no dictionary")),
        }
        Ok(())
    }

    /// BUILD: the attributes of a module, or of something that nobody looks into.
    fn build(&mut self, state: Id) -> Result<()> {
        let Value::Dict(attributes) = &self.values[state] else { return Ok(()) };
        // A dictionary may be its own state: its entries would double each time.
        self.entries += attributes.len();
        if self.entries > MOST_VALUES {
            return Err(damaged(format!("it makes more than {MOST_VALUES} values")));
        }
        let attributes = attributes.clone();
        let top = self.top()?;
        if let Value::Dict(entries) = &mut self.values[top] {
            entries.extend(attributes);
        }
        Ok(())
    }

    /// `("storage", torch.FloatStorage, key, location, count)`.
    fn storage(&self, id: Id) -> Result<Value> {
        let other = || damaged("a storage has another description");
        let Value::Tuple(id) = &self.values[id] else { return Err(other()) };
        let [kind, class, key, ..] = id[..] else { return Err(other()) };
        match (&self.values[kind], &self.values[class], &self.values[key]) {
            (Value::Text(kind), Value::Global(class), Value::Text(key)) if kind == "storage" => {
                let name = class.rsplit('.').next().unwrap_or_default();
                let element = element_of(name).ok_or_else(|| {
                    Error::weights(
                        "dtype",
                        format!("a tensor is stored as {class}, which is not supported"),
                        "convert it to float32, float16 or bfloat16",
                    )
                })?;
                Ok(Value::Storage(key.clone(), element))
            }
            _ => Err(other()),
        }
    }

    /// Pushes what the few callables of a state dict make of their arguments.
    fn rebuild(&mut self, callable: Id, arguments: Id) -> Result<()> {
        let (Value::Global(name), Value::Tuple(arguments)) =
            (&self.values[callable], &self.values[arguments])
        else {
            return self.push(Value::Opaque);
        };
        match name.as_str() {
            "collections.OrderedDict" => self.push(Value::Dict(Vec::new())),
            _ if name.starts_with(SCRIPTED) => self.push(Value::Dict(Vec::new())),
            "torch._utils._rebuild_parameter" => match arguments.first() {
                Some(tensor) => self.push_again(*tensor),
                None => self.push(Value::Opaque),
            },
            "torch._utils._rebuild_tensor_v2" => {
                let other = || damaged("a tensor is described otherwise");
                let [storage, offset, shape, stride, ..] = arguments[..] else { return Err(other()) };
                let (Value::Storage(storage, element), Value::Int(offset)) =
                    (&self.values[storage], &self.values[offset])
                else {
                    return Err(other());
                };
                let (shape, stride) = (self.sides(shape)?, self.sides(stride)?);
                if shape.len() != stride.len() {
                    return Err(damaged("a tensor has other strides than sides"));
                }
                // Bytes of the tensor must be a number, whoever multiplies its sides.
                let bytes = shape.iter().try_fold(8usize, |n, side| n.checked_mul(*side.max(&1)));
                bytes
                    .filter(|n| *n <= isize::MAX as usize)
                    .ok_or_else(|| damaged("a tensor has impossible sides"))?;
                let offset = usize::try_from(*offset).map_err(damaged)?;
                let view = View { storage: storage.clone(), element: *element, offset, shape, stride };
                self.push(Value::Tensor(view))
            }
            _ => self.push(Value::Opaque),
        }
    }

    fn sides(&self, id: Id) -> Result<Vec<usize>> {
        let Value::Tuple(sides) = &self.values[id] else { return Err(damaged("a tensor has no sides")) };
        if sides.len() > MOST_DIMENSIONS {
            return Err(damaged(format!("a tensor has {} dimensions", sides.len())));
        }
        sides
            .iter()
            .map(|side| match self.values[*side] {
                Value::Int(side) => usize::try_from(side).map_err(damaged),
                _ => Err(damaged("a tensor's side is no number")),
            })
            .collect()
    }

    fn collect(
        &self,
        dictionary: Id,
        prefix: &str,
        depth: usize,
        seen: &mut usize,
        found: &mut BTreeMap<String, View>,
    ) -> Result<()> {
        let Value::Dict(entries) = &self.values[dictionary] else { return Ok(()) };
        for (key, value) in entries {
            *seen += 1;
            if *seen > MOST_VALUES {
                return Err(damaged(format!("it names more than {MOST_VALUES} values")));
            }
            let Value::Text(key) = &self.values[*key] else { continue };
            match &self.values[*value] {
                _ if prefix.len() + key.len() > LONGEST_NAME => {}
                Value::Tensor(view) => drop(found.insert(format!("{prefix}{key}"), view.clone())),
                Value::Dict(_) if depth < MOST_DEPTH => {
                    self.collect(*value, &format!("{prefix}{key}."), depth + 1, seen, found)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol 2, by hand: `{"a": _rebuild_tensor_v2(storage "0" of floats, 1, (2, 3), (3, 1), False, OrderedDict())}`.
    fn small() -> Vec<u8> {
        let mut pickle = b"\x80\x02}q\x00X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((".to_vec();
        pickle.extend(
            b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQ",
        );
        pickle.extend(b"K\x01K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.");
        pickle
    }

    #[test]
    fn a_tensor_is_a_view_of_its_storage() {
        let view = View {
            storage: "0".to_owned(),
            element: Dtype::F32,
            offset: 1,
            shape: vec![2, 3],
            stride: vec![3, 1],
        };
        assert_eq!(tensors(&small()).unwrap(), BTreeMap::from([("a".to_owned(), view)]));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_error_or_a_file_of_tensors() {
        let good = small();
        for length in 0..good.len() {
            assert_eq!(tensors(&good[..length]).unwrap_err().code, "pickle", "cut to {length} bytes");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = tensors(&bad);
            }
        }
    }

    #[test]
    fn nothing_is_imported_or_called() {
        // os.system("…") in a dictionary beside a tensor: opaque, and left out.
        let mut pickle = small();
        pickle.truncate(pickle.len() - 1);
        pickle.extend(b"X\x01\x00\x00\x00bcos\nsystem\nX\x04\x00\x00\x00true\x85Rs.");
        assert_eq!(tensors(&pickle).unwrap().keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_pickle_that_never_ends_growing_is_stopped() {
        let mut doubling = b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x01s".to_vec();
        doubling.extend(b"h\x00b".repeat(64));
        doubling.push(b'.');
        assert!(tensors(&doubling).unwrap_err().message.contains("values"));
        // An endless row of tuples, and tuples in tuples.
        for growth in [&b")"[..], b"\x85", b"("] {
            let mut pickle = b"\x80\x02)".to_vec();
            pickle.extend(growth.repeat(MOST_VALUES + 2));
            pickle.push(b'.');
            let error = tensors(&pickle).unwrap_err();
            assert!(error.message.contains("values"), "{error}");
        }
    }
}
