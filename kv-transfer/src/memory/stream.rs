//! Copying past the caches.
//!
//! The bytes of a hand-over are read next by another process, later, and are mostly more than the caches hold: storing them
//! the ordinary way first reads each destination line from memory (half as much traffic again) and evicts what compute
//! works on. Non-temporal stores do neither.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm512_loadu_si512, _mm512_stream_si512,
};
use std::ptr;

/// Shorter copies go through the caches: what is small is soon read, and the fence costs as much as the copy.
const STREAM_FROM_BYTES: usize = 8 << 10;
/// A cache line, and the alignment that streaming stores need.
const LINE: usize = 64;
/// How far ahead of the loads lines are fetched; the hardware's own prefetch stops at the end of a page.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1 << 10;

/// Copies `len` bytes. When it returns, an ordinary release store publishes them as it would an ordinary copy.
///
/// # Safety
/// `from` is readable and `into` writable for `len` bytes, and the two do not overlap.
pub(super) unsafe fn copy(from: *const u8, into: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if len >= STREAM_FROM_BYTES && std::arch::is_x86_feature_detected!("avx512f") {
        let head = into.align_offset(LINE);
        let lines = (len - head) / LINE * LINE;
        // SAFETY: the three parts are the range, in order; the middle one begins on a line and is whole lines; the
        // processor has the instructions.
        unsafe {
            ptr::copy_nonoverlapping(from, into, head);
            stream_lines(from.add(head), into.add(head), lines);
            ptr::copy_nonoverlapping(from.add(head + lines), into.add(head + lines), len - head - lines);
        }
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, into, len) };
}

/// # Safety
/// As for [`copy`]; `into` is on a line and `len` is whole lines.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stream_lines(from: *const u8, into: *mut u8, len: usize) {
    let mut at = 0;
    while at < len {
        // A prefetch of any address is harmless.
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at + AHEAD).cast());
        // SAFETY: at + LINE <= len.
        unsafe {
            let line: __m512i = _mm512_loadu_si512(from.add(at).cast());
            _mm512_stream_si512(into.add(at).cast(), line);
        }
        at += LINE;
    }
    // Streaming stores are not ordered with the store that publishes them.
    _mm_sfence();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_and_no_other_is_copied(from in 0usize..130, into in 0usize..130, len in 0usize..40_000) {
            let source: Vec<u8> = (0..from + len).map(|i| (i % 251) as u8).collect();
            let mut target = vec![0xffu8; into + len + 100];
            // SAFETY: both ranges lie in their vectors, which are different.
            unsafe { copy(source.as_ptr().add(from), target.as_mut_ptr().add(into), len) };
            prop_assert_eq!(&target[into..into + len], &source[from..]);
            let around = target[..into].iter().chain(&target[into + len..]);
            prop_assert!(around.into_iter().all(|&byte| byte == 0xff));
        }
    }
}
