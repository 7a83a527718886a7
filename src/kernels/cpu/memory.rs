//! What kernels read and write: slices, and a buffer that tasks fill.

/// `[batch, heads, tokens, dim]`, of which each token's `dim` floats lie side by side.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub values: &'a [f32],
    pub batch: usize,
    pub head: usize,
    pub token: usize,
}

impl<'a> Heads<'a> {
    /// From the first float of a token on.
    pub fn from(&self, batch: usize, head: usize, token: usize) -> &'a [f32] {
        &self.values[batch * self.batch + head * self.head + token * self.token..]
    }
}

/// The values, once all of them are written through [`Shared`]: no zeros were written first.
///
/// # Safety
/// `values` has room for `count` floats, and all of them have been written.
pub(super) unsafe fn written(mut values: Vec<f32>, count: usize) -> Vec<f32> {
    // SAFETY: as the caller's.
    unsafe { values.set_len(count) };
    values
}

/// A buffer that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub *mut f32);

// SAFETY: tasks on several threads write disjoint parts, while the owner of the buffer waits for them.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A method, so that closures capture the whole, which is `Sync`.
    pub fn get(self) -> *mut f32 {
        self.0
    }
}

/// Calls `task` for 0 to `count`, on all processors where that is worth while; each takes about `operations`.
pub(super) fn for_each(count: usize, operations: usize, task: impl Fn(usize) + Send + Sync) {
    /// Below this many operations, handing work to other threads costs more than it saves.
    #[cfg(feature = "rayon")]
    const WORTH: usize = 1 << 20;
    #[cfg(feature = "rayon")]
    if count > 1 && count.saturating_mul(operations) > WORTH {
        use rayon::prelude::*;
        return (0..count).into_par_iter().for_each(task);
    }
    let _ = operations;
    (0..count).for_each(task);
}
