//! Masks as people hand them over: any size, any numbers.
#![no_main]

use facestudio::image::mask::Mask;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, Vec<f32>, u8, u8, f32)| {
    let (width, height, values, to_width, to_height, sigma) = input;
    let Ok(mask) = Mask::new(width.into(), height.into(), values) else { return };
    let inside = |mask: &Mask| mask.values().iter().all(|value| (-1e-3..=1.001).contains(value));
    assert!(inside(&mask.feathered(sigma)), "feathered by {sigma}");
    mask.coverage();
    assert!((0.0..=1.0).contains(&mask.centre_x()), "centre");
    mask.to_gray();
    if let Ok(resized) = mask.resized(to_width.into(), to_height.into()) {
        assert_eq!(resized.size(), (to_width.into(), to_height.into()));
        assert!(inside(&resized), "resized");
        let _ = resized.union(&mask);
    }
});
