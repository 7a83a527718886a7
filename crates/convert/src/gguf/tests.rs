use super::*;

/// The bytes of a file: its values, its tensors (name, sides as ggml counts them, type, offset), and so many bytes of data.
fn file(values: &[(&str, u32, &[u8])], tensors: &[(&str, &[u64], u32, u64)], data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((values.len() as u64).to_le_bytes());
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    for (key, kind, value) in values {
        text(&mut bytes, key);
        bytes.extend(kind.to_le_bytes());
        bytes.extend_from_slice(value);
    }
    for (name, sides, kind, offset) in tensors {
        text(&mut bytes, name);
        bytes.extend((sides.len() as u32).to_le_bytes());
        sides.iter().for_each(|side| bytes.extend(side.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn read(bytes: &[u8]) -> Result<Gguf> {
    Gguf::read(&mut &*bytes, bytes.len() as u64)
}

/// An array of 32-bit integers.
fn sides(all: &[i32]) -> Vec<u8> {
    let mut bytes = 5u32.to_le_bytes().to_vec();
    bytes.extend((all.len() as u64).to_le_bytes());
    all.iter().for_each(|side| bytes.extend(side.to_le_bytes()));
    bytes
}

#[test]
fn a_good_file_is_read_and_every_truncation_of_it_refused() {
    let shape = sides(&[2, 2, 4, 4]);
    let values: [(&str, u32, &[u8]); 4] = [
        ("general.name", 8, b"\x01\0\0\0\0\0\0\0a"),
        ("general.alignment", 4, &32u32.to_le_bytes()),
        ("comfy.gguf.orig_shape.q", 9, &shape),
        // Texts in an array, as tokenizers have them.
        ("words", 9, b"\x08\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0b\0\0\0\0\0\0\0\0"),
    ];
    let bytes = file(&values, &[("q", &[32, 2], 8, 0), ("v", &[3], 0, 96)], 96 + 12);
    let good = read(&bytes).unwrap();
    assert_eq!(
        (good.names(), good.metadata("general.name")),
        (vec!["q".to_owned(), "v".to_owned()], Some("a"))
    );
    assert_eq!((good.shape("q"), good.shape("v")), (Some(vec![2, 2, 4, 4]), Some(vec![3])));
    let part = |range: Range<u64>| Ok(bytes[range.start as usize..range.end as usize].to_vec());
    assert_eq!(good.decode("v", part).unwrap(), [0.0; 3]);
    for length in 0..bytes.len() {
        assert_eq!(read(&bytes[..length]).err().unwrap().code, "gguf", "cut to {length} bytes");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let one: [(&str, &[u64], u32, u64); 1] = [("t", &[32], 8, 0)];
    let orig = |all: &[i32]| file(&[("comfy.gguf.orig_shape.t", 9, &sides(all))], &one, 34);
    let mut cases = vec![
        (file(&[], &[("t", &[33], 8, 0)], 68), "whole number of blocks"),
        (file(&[], &[("t", &[u64::MAX, 32], 8, 0)], 34), "whole number of blocks"),
        (file(&[], &[("t", &[32], 8, u64::MAX)], 34), "beyond its end"),
        (file(&[], &[("t", &[32], 8, 32)], 34), "beyond its end"),
        (file(&[], &[("t", &[1; 9], 0, 0)], 34), "9 dimensions"),
        (file(&[], &[("t", &[32], 8, 0), ("t", &[32], 8, 0)], 34), "twice"),
        (file(&[("general.alignment", 4, &7u32.to_le_bytes())], &one, 34), "alignment"),
        (file(&[("a", 13, &[])], &one, 34), "type 13"),
        (file(&[("a", 8, &u64::MAX.to_le_bytes())], &one, 34), "text of"),
        (file(&[("split.count", 2, &3u16.to_le_bytes())], &one, 34), "one of the 3 files"),
        (orig(&[-32]), "cannot have been"),
        (orig(&[31]), "cannot have been"),
    ];
    let mut nested = Vec::new();
    for _ in 0..9 {
        nested.extend(9u32.to_le_bytes());
        nested.extend(1u64.to_le_bytes());
    }
    cases.push((file(&[("a", 9, &nested)], &one, 34), "type 9"));
    for (bytes, part) in cases {
        let error = read(&bytes).err().unwrap();
        assert!(error.code == "gguf" && error.message.contains(part), "{part}: {error}");
    }
    let mut other = file(&[], &one, 34);
    other[4..8].copy_from_slice(&1u32.to_le_bytes());
    assert!(read(&other).err().unwrap().message.contains("version 1"));
    other[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(read(&other).err().unwrap().message.contains("big-endian"));
    let error = read(&file(&[], &[("t", &[256], 10, 0)], 84)).err().unwrap();
    assert!(
        error.code == "dtype" && error.message.contains("Q2_K") && error.message.contains("'t'"),
        "{error}"
    );
}

#[test]
fn blocks_that_ours_cannot_be_are_told() {
    let read_blocks = |shape: &[i32], block: &[u8]| {
        let count = shape.iter().product::<i32>() as u64;
        let mut bytes = file(&[("comfy.gguf.orig_shape.t", 9, &sides(shape))], &[("t", &[count], 8, 0)], 0);
        (0..count / 32).for_each(|_| bytes.extend_from_slice(block));
        let gguf = read(&bytes).unwrap();
        gguf.blocks("t", |range| Ok(bytes[range.start as usize..range.end as usize].to_vec())).unwrap()
    };
    let mut block = [1u8; 34];
    block[..2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
    let good = read_blocks(&[2, 32], &block).unwrap();
    assert_eq!((good.bits, good.integers, good.scales), (8, vec![1; 64], vec![0.5; 2]));
    assert!(read_blocks(&[4, 16], &block).is_none(), "rows of half a block");
    assert!(read_blocks(&[64], &block).is_none(), "no rows");
    block[5] = 0x80;
    assert!(read_blocks(&[2, 32], &block).is_none(), "-128");
    block[5] = 1;
    block[..2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    assert!(read_blocks(&[2, 32], &block).is_none(), "no number");
}
