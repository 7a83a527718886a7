//! A checkpoint of any kind from the disk: PyTorch's archives, safetensors or ONNX, told apart by content.
#![no_main]

use std::io::Write;

use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::{detector, face};
use facestudio::weights::TensorSource;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let suffix = [".pt", ".bin", ".onnx", ".safetensors"][usize::from(*kind) % 4];
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile_in("/dev/shm").expect("a file");
    file.write_all(bytes).expect("writes");
    let Ok(checkpoint) = Checkpoint::open(file.path()) else { return };
    for name in checkpoint.names() {
        let shape = checkpoint.shape(&name).expect("a name has a shape");
        // Views may repeat one value; what is asked for here stays small.
        if shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).is_some_and(|n| n <= 1 << 16) {
            let _ = checkpoint.read(&name);
        }
    }
    let _ = face::iresnet(&checkpoint);
    if let Some(graph) = checkpoint.graph() {
        let _ = detector::yunet(&checkpoint, graph);
    }
});
