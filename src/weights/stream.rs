use std::collections::BTreeMap;
use std::io::{Result as IoResult, Write};
use std::path::Path;

use safetensors::Dtype;

use super::quantize::header;
use super::writing::write_file_by;
use crate::error::Result;

/// Tensors by name that are kept elsewhere: shape and values.
pub type Views<'a> = BTreeMap<String, (&'a [usize], &'a [f32])>;

/// Values that become bytes at once.
const CHUNK: usize = 1 << 16;

/// Writes tensors as a safetensors file, byte for byte what [`encode`](super::encode) makes of them unquantised, without
/// a copy of them in memory: a large model's optimiser is most of what there is.
pub fn write_tensors(path: &Path, tensors: &Views) -> Result<()> {
    write_file_by(path, tensors_into(tensors)?)
}

/// What writes them into a file that is open.
pub fn tensors_into<'a>(tensors: &'a Views) -> Result<impl FnOnce(&mut dyn Write) -> IoResult<()> + 'a> {
    let entries = tensors
        .iter()
        .map(|(name, (shape, values))| (name.as_str(), Dtype::F32, *shape, size_of_val(*values)));
    let header = header(entries, BTreeMap::new())?;
    Ok(move |file: &mut dyn Write| {
        file.write_all(&header)?;
        let mut bytes = Vec::new();
        for values in tensors.values().flat_map(|(_, values)| values.chunks(CHUNK)) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Quantization, Tensors, encode};
    use super::*;

    #[test]
    fn a_written_file_is_what_would_be_encoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let values = |count| (0..count).map(|i| i as f32 / 3.0).collect::<Vec<_>>();
        let tensors = Tensors(
            [
                ("b".to_owned(), (vec![3, CHUNK], values(3 * CHUNK))),
                ("a".to_owned(), (vec![], values(1))),
                ("c".to_owned(), (vec![0, 2], vec![])),
            ]
            .into(),
        );
        write_tensors(&path, &tensors.views()).unwrap();
        let encoded = encode(&tensors, Quantization::None, &BTreeMap::new()).unwrap();
        assert!(std::fs::read(&path).unwrap() == encoded);
    }
}
