//! The heads of GGUF files, and what their tensors' bytes decode to.
#![no_main]

use std::ops::Range;

use facestudio_convert::gguf::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::read(&mut &*bytes, bytes.len() as u64) else { return };
    let part = |range: Range<u64>| Ok(bytes[range.start as usize..range.end as usize].to_vec());
    for name in gguf.names() {
        let _ = gguf.decode(&name, part);
        let _ = gguf.blocks(&name, part);
    }
});
