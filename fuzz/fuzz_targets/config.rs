//! A scheduler's config, down to the noise levels of a picture.
#![no_main]

use facestudio::sampling::{Scheduler, SchedulerConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = SchedulerConfig::from_json(bytes) else { return };
    if let Ok(alphas) = config.alphas_cumprod() {
        assert!(alphas.iter().all(|alpha| alpha.is_finite()), "{alphas:?}");
    }
});
