//! Pictures in every format that is taken, with their Exif data and texts.
#![no_main]

use facestudio::image::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = codec::decode(bytes) {
        assert!(u64::from(picture.width()) * u64::from(picture.height()) <= codec::MAX_PIXELS);
    }
    let _ = codec::decode_mask(bytes);
    let _ = codec::read_png_texts(bytes);
});
