//! A tokenizer's files and a text for it, apart by zero bytes: the first as `vocab.json` and as `tokenizer.json`, of CLIP and of
//! Qwen.
#![no_main]

use facestudio::encoders::tokenizer::{Qwen2Tokenizer, Tokenizer};
use facestudio::weights::{Component, MemoryFiles};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let [vocab, merges, text] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let files = [("tokenizer.json", vocab), ("tokenizer_config.json", merges)];
    let files = files.iter().filter(|(_, bytes)| !bytes.is_empty());
    let files = MemoryFiles(files.map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect());
    let plain = Tokenizer::new(vocab, &String::from_utf8_lossy(merges), &Default::default());
    for tokenizer in [plain, Tokenizer::load(&Component::new(&files, ""))].into_iter().flatten() {
        for length in [0, 2, 77] {
            if let Ok(ids) = tokenizer.encode(&tokenizer.written_out(&String::from_utf8_lossy(text)), length) {
                assert_eq!(ids.len(), tokenizer.length(length));
            }
        }
    }
    if let Ok(tokenizer) = Qwen2Tokenizer::load(&Component::new(&files, "")) {
        let chat = tokenizer.encode_chat(&String::from_utf8_lossy(text), 64);
        assert!(chat.ids.len() == 64 && chat.real <= 64);
    }
});
