//! A tokenizer's files and a text for it, apart by zero bytes.
#![no_main]

use facestudio::encoders::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let [vocab, merges, text] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let Ok(tokenizer) = Tokenizer::new(vocab, &String::from_utf8_lossy(merges), &Default::default()) else { return };
    for length in [0, 2, 77] {
        if let Ok(ids) = tokenizer.encode(&String::from_utf8_lossy(text), length) {
            assert_eq!(ids.len(), length);
        }
    }
});
