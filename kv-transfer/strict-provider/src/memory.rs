//! The application's registered memory: read and written by address, as a NIC would.

use std::ptr;

use rustix::mm::{Advice, madvise};

const PAGE_BYTES: u64 = 4096;

/// Whether the range is mapped (FI_MR_ALLOCATED), which a NIC finds out by pinning it.
pub(crate) fn is_mapped(start: u64, len: u64) -> bool {
    let first = start / PAGE_BYTES * PAGE_BYTES;
    let Some(end) = start.checked_add(len) else { return false };
    // SAFETY: populating for reading changes no contents; a range that is not mapped is an error.
    unsafe { madvise(first as *mut _, (end - first) as usize, Advice::LinuxPopulateRead) }.is_ok()
}

/// Appends `len` bytes at `address`.
pub(crate) fn read(address: u64, len: u64, into: &mut Vec<u8>) {
    let (len, at) = (len as usize, into.len());
    into.reserve(len);
    let room = into.as_mut_ptr().wrapping_add(at);
    // SAFETY: the caller found the range in an open region, which FI_MR_ALLOCATED promises to be mapped; the room was reserved.
    unsafe { ptr::copy_nonoverlapping(address as *const u8, room, len) };
    // SAFETY: these bytes were just written.
    unsafe { into.set_len(at + len) };
}

/// Writes `bytes` at `address`.
pub(crate) fn write(address: u64, bytes: &[u8]) {
    // SAFETY: as in `read`; the region was registered for this access, so the application reckons with it.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}
