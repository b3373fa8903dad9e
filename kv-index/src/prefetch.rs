//! Asking memory for something before it is needed.
//!
//! Why unsafe: no safe function of the standard library does this. Looking at the values instead holds up the core at each one that is not
//! there yet. Without it, a query of 100,000 tokens took 2.9 times as long, and ingestion ran at a third of the speed.

/// Begins to load the cache line of `value`, and does not wait.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing into registers and never faults, and every x86-64 processor has it; the address is
        // that of a live reference besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(value);
}
