//! CLIP's preprocessing against transformers' with Pillow.

use burn::tensor::Device;
use facestudio::encoders::vision::Preprocessing;
use facestudio::image::preprocess::clip_tensor;
use facestudio::weights::TensorSource;
use image::RgbImage;

use crate::{assert_close, fixture, io};

/// Pillow rounds to whole bytes between its two passes and we only after both: pixels differ by up to two of 255.
/// Another filter, no antialiasing or a crop that is one pixel off costs over 0.1.
const TOLERANCE: f32 = 0.02;

#[test]
fn pictures_of_any_shape() {
    let (io, device) = (io(&fixture("preprocess")), Device::flex());
    let clip = Preprocessing::clip(24);
    for index in 0..4 {
        let name = format!("picture_{index}");
        let shape = io.shape(&name).unwrap();
        let bytes = io.read(&name).unwrap().into_iter().map(|value| value as u8).collect();
        let picture = RgbImage::from_raw(shape[1] as u32, shape[0] as u32, bytes).unwrap();
        let ours = clip_tensor(&picture, clip.size, clip.mean, clip.std, &device).unwrap();
        let reference = io.tensor(&format!("pixel_values_{index}"), &device).unwrap();
        assert_close(ours, reference, TOLERANCE);
    }
}
