//! `manifest.json`: what is accepted names files inside the folder, and is read again from what it writes.
#![no_main]

use facestudio::weights::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    for file in manifest.files() {
        assert!(!file.path.starts_with('/') && !file.path.split(['/', '\\']).any(|part| part == ".."), "{}", file.path);
    }
    manifest.bytes();
    Manifest::parse(&manifest.to_json().expect("writes")).expect("reads what it writes");
});
