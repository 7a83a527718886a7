//! All processors: rayon's pool, whose threads are workers over this module's memory (`web/engine/thread.js`).

use std::sync::{Condvar, Mutex, PoisonError};

use rayon::{ThreadBuilder, ThreadPoolBuilder};
use wasm_bindgen::prelude::*;

use super::failure::Failure;
use facestudio::error::Error;

/// Threads of the pool that no worker runs yet.
static WAITING: Mutex<Vec<ThreadBuilder>> = Mutex::new(Vec::new());
static ADDED: Condvar = Condvar::new();

/// Makes the pool of `count` threads, of which the calling one is the first: it takes part instead of waiting to be woken, which
/// small networks would spend as much time on as on their work. Returns when each of `count − 1` workers has come to
/// [`run_thread`].
#[wasm_bindgen]
pub fn start_threads(count: usize) -> Result<(), Failure> {
    let pool = ThreadPoolBuilder::new().num_threads(count).use_current_thread().spawn_handler(|thread| {
        WAITING.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        ADDED.notify_one();
        Ok(())
    });
    Ok(pool.build_global().map_err(|e| Error::device("threads", e.to_string(), "reload the page"))?)
}

/// Runs a thread of the pool in the calling worker; does not return while the pool lives.
#[wasm_bindgen]
pub fn run_thread() {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = loop {
        match waiting.pop() {
            Some(thread) => break thread,
            None => waiting = ADDED.wait(waiting).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(waiting);
    thread.run();
}
