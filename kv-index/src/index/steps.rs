//! Waits for memory that overlap.

use std::ops::{ControlFlow, Range};

/// Three steps for each batch of `len` things, of `batch` at most, each step a batch behind the one before it; ends early when the last one
/// says so.
#[inline]
pub(crate) fn in_steps<T>(
    on: &mut T,
    len: usize,
    batch: usize,
    mut fetch: impl FnMut(&mut T, Range<usize>),
    mut further: impl FnMut(&mut T, Range<usize>),
    mut work: impl FnMut(&mut T, Range<usize>) -> ControlFlow<()>,
) {
    let batches = len.div_ceil(batch);
    let range = |turn: usize| turn * batch..len.min((turn + 1) * batch);
    for turn in 0..batches + 2 {
        if turn < batches {
            fetch(on, range(turn));
        }
        if turn >= 1 && turn <= batches {
            further(on, range(turn - 1));
        }
        if turn >= 2 && work(on, range(turn - 2)).is_break() {
            return;
        }
    }
}
