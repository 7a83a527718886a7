//! Safetensors, quantised ones included: whatever a header claims, every tensor is read or refused.
#![no_main]

use facestudio::weights::{SafetensorsFile, TensorSource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = SafetensorsFile::new(bytes.to_vec()) else { return };
    for name in file.names() {
        let shape = file.shape(&name).expect("a name has a shape");
        if let Ok(values) = file.read(&name) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
});
