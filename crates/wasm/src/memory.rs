//! Why an allocation failed: on wasm a full memory is a bare trap that says nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use wasm_bindgen::prelude::*;

/// Bytes of the last allocation that failed; 0 while none has.
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which notes a failure before the program ends over it.
struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn note(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        FAILED.store(size, Ordering::Relaxed);
    }
    pointer
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        note(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        note(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        note(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes of the allocation that could not be made: the reason behind a `RuntimeError` without a panic.
#[wasm_bindgen]
pub fn failed_allocation() -> Option<f64> {
    match FAILED.load(Ordering::Relaxed) {
        0 => None,
        size => Some(size as f64),
    }
}
