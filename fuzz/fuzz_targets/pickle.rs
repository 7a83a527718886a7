//! PyTorch's pickles, which are read as data and never run.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = facestudio_convert::pickle::tensors(bytes);
});
