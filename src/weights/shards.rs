//! Cutting a network's weights into files small enough to fetch and cache one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::quantize::{self, Kept, Quantization};
use super::tensors::{TensorSource, Tensors, check_finite};
use crate::error::Result;

/// Largest shard in bytes: what a browser comfortably fetches, hashes and stores as one piece.
pub const MAX_SHARD: usize = 64 << 20;

/// Encodes tensors as safetensors files of at most `max_bytes` (one tensor alone may exceed it), in order of name:
/// `model.safetensors`, or `model-00001-of-0000N.safetensors` and so on.
///
/// Fails with `not-finite` on a tensor that holds a NaN or an infinity, however it is to be stored.
///
/// Tensors that lie in blocks which the scheme has too keep them, whatever their size.
///
/// One shard's tensors are read, encoded and given to `write` at a time: no more than that is in memory.
pub fn write_shards(
    source: &dyn TensorSource,
    quantization: Quantization,
    metadata: &BTreeMap<String, String>,
    max_bytes: usize,
    mut write: impl FnMut(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut parts: Vec<Vec<String>> = vec![Vec::new()];
    let mut size = 0;
    for name in source.names() {
        let shape = source.shape(&name).unwrap_or_default();
        let bytes = stored_bytes(&shape, shape.iter().product(), quantization) + HEADER_ENTRY + name.len();
        if size > 0 && size + bytes > max_bytes {
            parts.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(name);
        }
    }
    let small = if quantization == Quantization::Q4 { smallest(source) } else { BTreeSet::new() };
    let in_blocks = matches!(quantization, Quantization::Q8 | Quantization::Q4);
    let of = |name: &str| if small.contains(name) { Quantization::Q8 } else { quantization };
    let count = parts.len();
    for (i, part) in parts.into_iter().enumerate() {
        let (mut tensors, mut kept) = (Tensors::default(), Kept::new());
        for name in part {
            let shape = source.shape(&name).unwrap_or_default();
            let blocks = if in_blocks { source.blocks(&name)? } else { None };
            let ready = blocks.and_then(|blocks| {
                let mut kinds = [quantization, of(&name)].into_iter();
                kinds.find_map(|kind| quantize::store_blocks(&name, &shape, &blocks, kind))
            });
            if let Some(ready) = ready {
                kept.insert(name, (shape, ready));
                continue;
            }
            let values = source.read(&name)?;
            check_finite(&name, &values)?;
            tensors.0.insert(name, (shape, values));
        }
        let name =
            if count == 1 { "model.safetensors".to_owned() } else { shard_name("model", i + 1, count) };
        write(&name, &quantize::encode_each(&tensors, kept, of, metadata)?)?;
    }
    Ok(())
}

/// Share of a network's numbers that stay in 8 bits where 4 are asked for. Sensitivity was measured on `mini`'s UNet, one
/// tensor in 4 bits at a time: the 6 % of its numbers that lie at the finest level make 90 % of the output's error. There a
/// network's tensors are small, so that they can be told by their sizes.
const SMALL_SHARE: f64 = 0.1;

/// The smallest tensors that together hold at most [`SMALL_SHARE`] of the numbers.
fn smallest(source: &dyn TensorSource) -> BTreeSet<String> {
    let count = |name: &String| source.shape(name).unwrap_or_default().iter().product::<usize>();
    let mut sizes: Vec<(usize, String)> =
        source.names().into_iter().map(|name| (count(&name), name)).collect();
    sizes.sort();
    let most = SMALL_SHARE * sizes.iter().map(|(size, _)| *size as f64).sum::<f64>();
    let mut held = 0.0;
    let fitting = sizes.into_iter().take_while(|(size, _)| {
        held += *size as f64;
        held <= most
    });
    fitting.map(|(_, name)| name).collect()
}

/// A generous bound on what a tensor adds to the header besides its name, its scales' entry included.
const HEADER_ENTRY: usize = 512;

/// An upper bound of a tensor's stored size.
fn stored_bytes(shape: &[usize], count: usize, quantization: Quantization) -> usize {
    match quantization {
        // A sensitive tensor is stored in 8 bits where 4 were asked for.
        Quantization::Q8 | Quantization::Q4 if shape.len() > 1 => {
            (4 * quantize::scale_shape(shape).iter().product::<usize>() + count).max(4 * count.min(1024))
        }
        _ => 4 * count,
    }
}

fn shard_name(stem: &str, index: usize, count: usize) -> String {
    format!("{stem}-{index:05}-of-{count:05}.safetensors")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::ops::Range;

    use super::super::{Component, Files, MemoryFiles};
    use super::*;

    fn tensors() -> Tensors {
        let tensor = |i: usize| (vec![i + 1, 40, 3], (0..(i + 1) * 120).map(|v| v as f32 / 256.0).collect());
        Tensors((0..20).map(|i| (format!("layer{i:02}.weight"), tensor(i))).collect())
    }

    #[test]
    fn the_smallest_tensors_of_a_network_keep_eight_bits() {
        let value = |i: usize| ((i * 7919) % 97) as f32 - 48.0;
        let tensor = |rows: usize| (vec![rows, 64], (0..rows * 64).map(value).collect());
        let sizes = [("a", 20), ("b", 400), ("c", 30), ("d", 500)];
        let tensors = Tensors(sizes.iter().map(|(name, rows)| ((*name).to_owned(), tensor(*rows))).collect());
        let shards = encode_shards(&tensors, Quantization::Q4, MAX_SHARD).unwrap();
        let header = |bytes: &[u8]| {
            let part = |range: Range<u64>| Ok(bytes[range.start as usize..range.end as usize].to_vec());
            super::super::SafetensorsHeader::read(bytes.len() as u64, part).unwrap()
        };
        let header = header(&shards[0].1);
        let dtypes = sizes.map(|(name, _)| header.dtype(name).unwrap());
        assert_eq!(dtypes, ["q8", "q4", "q8", "q4"]);
    }

    fn encode_shards(
        tensors: &Tensors,
        quantization: Quantization,
        max_bytes: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut shards = Vec::new();
        write_shards(tensors, quantization, &BTreeMap::new(), max_bytes, |name, bytes| {
            shards.push((name.to_owned(), bytes.to_vec()));
            Ok(())
        })?;
        Ok(shards)
    }

    fn files(shards: &[(String, Vec<u8>)]) -> MemoryFiles {
        MemoryFiles(shards.iter().map(|(name, bytes)| (format!("unet/{name}"), bytes.clone())).collect())
    }

    #[test]
    fn shards_stay_below_the_limit_and_join_to_the_same_tensors() {
        for quantization in [Quantization::None, Quantization::F16, Quantization::Q8, Quantization::Q4] {
            let limit = 20_000;
            let shards = encode_shards(&tensors(), quantization, limit).unwrap();
            assert!(shards.len() > 2);
            assert!(shards.iter().all(|(_, bytes)| bytes.len() <= limit), "{quantization:?}");
            let whole = encode_shards(&tensors(), quantization, MAX_SHARD).unwrap();
            assert_eq!(whole[0].0, "model.safetensors");
            let read = |shards| Component::new(&files(shards), "unet").tensors().unwrap().read_all().unwrap();
            assert_eq!(read(&shards), read(&whole));
        }
    }

    /// Files that note which were read whole.
    struct Noting(MemoryFiles, RefCell<Vec<String>>);

    impl Files for Noting {
        fn read(&self, path: &str) -> Result<Vec<u8>> {
            self.1.borrow_mut().push(path.to_owned());
            self.0.read(path)
        }

        fn size(&self, path: &str) -> Result<u64> {
            self.0.size(path)
        }

        fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
            assert!(range.end < 8_000, "{path}: more than the header is read: {range:?}");
            self.0.read_range(path, range)
        }

        fn list(&self, folder: &str) -> Result<Vec<String>> {
            self.0.list(folder)
        }

        fn folders(&self, folder: &str) -> Result<Vec<String>> {
            self.0.folders(folder)
        }
    }

    #[test]
    fn a_shard_is_read_when_its_tensors_are_asked_for_and_once_for_neighbours() {
        let shards = encode_shards(&tensors(), Quantization::Q8, 20_000).unwrap();
        let files = Noting(files(&shards), RefCell::default());
        let source = Component::new(&files, "unet").tensors().unwrap();
        assert_eq!(source.names().len(), 20);
        assert_eq!(*files.1.borrow(), Vec::<String>::new());
        source.read_all().unwrap();
        let expected: Vec<String> = shards.iter().map(|(name, _)| format!("unet/{name}")).collect();
        assert_eq!(*files.1.borrow(), expected);
    }

    #[test]
    fn what_is_no_number_is_refused_however_it_is_stored() {
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let mut tensors = tensors();
            tensors.0.get_mut("layer03.weight").unwrap().1[7] = bad;
            for quantization in [Quantization::None, Quantization::F16, Quantization::Q8, Quantization::Q4] {
                let error = encode_shards(&tensors, quantization, MAX_SHARD).unwrap_err();
                assert_eq!(error.code, "not-finite", "{quantization:?}");
                assert!(error.message.contains("'layer03.weight'") && error.message.contains('7'), "{error}");
            }
        }
    }

    #[test]
    fn a_missing_shard_is_named() {
        let mut shards = encode_shards(&tensors(), Quantization::F16, 20_000).unwrap();
        let (gone, _) = shards.remove(1);
        let files = files(&shards);
        let error = Component::new(&files, "unet").tensors().err().unwrap();
        assert_eq!(error.code, "weights-missing");
        assert!(error.message.contains(&gone), "{error}");
    }

    #[test]
    fn a_variant_beside_the_plain_file_is_left_alone_and_other_duplicates_are_refused() {
        let bytes = encode_shards(&tensors(), Quantization::None, MAX_SHARD).unwrap()[0].1.clone();
        let folder = |names: &[&str]| {
            MemoryFiles(
                names.iter().map(|name| (format!("unet/{name}.safetensors"), bytes.clone())).collect(),
            )
        };
        let both = folder(&["model", "model.fp16"]);
        assert_eq!(Component::new(&both, "unet").tensors().unwrap().names().len(), 20);
        let only = folder(&["model.fp16"]);
        assert_eq!(Component::new(&only, "unet").tensors().unwrap().names().len(), 20);
        let pieces = ["model-00001-of-00002", "model-00002-of-00002"].map(|piece| {
            // Another cut than the variant's.
            let half = tensors().0.into_iter().enumerate();
            let half = half.filter(|(i, _)| (i % 2 == 0) == piece.starts_with("model-00001"));
            let half = Tensors(half.map(|(_, tensor)| tensor).collect());
            (
                format!("unet/{piece}.safetensors"),
                encode_shards(&half, Quantization::None, MAX_SHARD).unwrap()[0].1.clone(),
            )
        });
        let mut cut = folder(&["model.fp16"]);
        cut.0.extend(pieces.clone());
        assert_eq!(Component::new(&cut, "unet").tensors().unwrap().names().len(), 20);
        for (of_variant, absent) in [
            ("model.fp16-00001-of-00002", "model.fp16-00002-of-00002"),
            ("model-00001-of-00002.fp16", "model-00002-of-00002.fp16"),
        ] {
            let error = Component::new(&folder(&[of_variant]), "unet").tensors().err().unwrap();
            assert!(error.code == "weights-missing" && error.message.contains(absent), "{error}");
        }
        let twice = folder(&["model", "copy"]);
        assert_eq!(Component::new(&twice, "unet").tensors().err().unwrap().code, "tensor-duplicate");
    }
}
