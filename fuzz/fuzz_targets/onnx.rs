//! ONNX graphs and their tensors.
#![no_main]

use facestudio_convert::onnx::Graph;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Graph::read(bytes);
});
