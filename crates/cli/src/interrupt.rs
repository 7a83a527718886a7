//! What Ctrl-C, or a request to end, does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use facestudio::weights::abandon;

/// Exit status of what was cancelled: 128 and the number of Ctrl-C's signal, as shells have it.
pub const CANCELLED: u8 = 130;

/// Of a command that stops by itself.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on Ctrl-C ends the program, and removes what it was writing. A command that asked for [`stop`] is told first, and
/// ended by a second one.
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if STOP.get().is_some_and(|stop| !stop.swap(true, Ordering::Relaxed)) {
            return;
        }
        // Held until the end, so that nothing is written in between.
        let _held = abandon();
        std::process::exit(CANCELLED.into());
    })
}

/// Raised by the first Ctrl-C, for a command that then stops by itself.
pub fn stop() -> Arc<AtomicBool> {
    STOP.get_or_init(Arc::default).clone()
}
