//! One `mmap`, and the few ways to touch it.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::stream;

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Readable and writable pages, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
    /// `len` rounded up to the file's pages, which are larger on hugetlbfs.
    mapped: usize,
}

// SAFETY: the mapping is plain memory owned by this value; every access goes through raw pointers or atomics, and who
// may touch which bytes when is the transfer protocol's business, not that of the thread which holds the value.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`: no method hands out a reference to bytes that are not atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private pages, asked to be huge.
    pub(crate) fn anonymous(len: usize) -> std::io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let ptr = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let mapping = Self::from_raw(ptr, len, len);
        mapping.populate(0..len);
        Ok(mapping)
    }

    /// Private pages that are huge; fails when the machine has reserved too few.
    pub(crate) fn anonymous_huge(len: usize) -> std::io::Result<Self> {
        let mapped = len.next_multiple_of(HUGE_PAGE_BYTES);
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let ptr = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), mapped, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        let mapping = Self::from_raw(ptr, len, mapped);
        mapping.populate(0..len);
        Ok(mapping)
    }

    /// The first `len` bytes of a file, not populated. It must be sealed against shrinking, or a peer could make each access a SIGBUS.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize) -> std::io::Result<Self> {
        let page = usize::try_from(rustix::fs::fstat(fd)?.st_blksize).unwrap_or(1).max(1);
        let mapped = len.next_multiple_of(page);
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let ptr = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        Ok(Self::from_raw(ptr, len, mapped))
    }

    fn from_raw(ptr: *mut core::ffi::c_void, len: usize, mapped: usize) -> Self {
        let ptr: NonNull<u8> =
            NonNull::new(ptr.cast()).expect("mmap without MAP_FIXED never returns page zero");
        // SAFETY: the range was just mapped, and the advice changes no contents. It is a wish.
        let _ = unsafe { rustix::mm::madvise(ptr.as_ptr().cast(), mapped, Advice::LinuxHugepage) };
        Self { ptr, len, mapped }
    }

    /// Touches pages now, so that no first write pays for their faults; from any thread. A wish.
    pub(crate) fn populate(&self, bytes: Range<usize>) {
        let start = self.at(bytes.start, bytes.len()).cast();
        // SAFETY: the range is ours; populating faults pages in as a write would, without changing them.
        let _ = unsafe { rustix::mm::madvise(start, bytes.len(), Advice::LinuxPopulateWrite) };
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of `offset`, of which `len` bytes lie in the mapping.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len).expect("range overflows");
        assert!(end <= self.len, "range {offset}..{end} leaves the mapping of {} bytes", self.len);
        self.ptr.as_ptr().wrapping_add(offset)
    }

    /// An atomic word of the mapping, which a peer may change at any time.
    pub(crate) fn atomic(&self, offset: usize) -> &AtomicU32 {
        let word = self.at(offset, size_of::<AtomicU32>()).cast();
        assert_eq!(offset % align_of::<AtomicU32>(), 0, "an atomic must be aligned");
        // SAFETY: in bounds and aligned (asserted; the mapping starts on a page), alive as long as `self`, and
        // only ever accessed as an atomic, here and by the peer.
        unsafe { AtomicU32::from_ptr(word) }
    }

    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `from` has `into.len()` bytes in the mapping (checked by `at`), and a fresh `&mut` does not overlap it.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        let into = self.at(offset, from.len());
        // SAFETY: `into` has `from.len()` bytes in the mapping (checked by `at`), and no `&[u8]` into it exists.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) };
    }

    /// Copies between two places of the mapping, which must not overlap.
    pub(crate) fn copy_within(&self, offset: usize, into: usize, len: usize) {
        assert!(offset + len <= into || into + len <= offset, "the ranges overlap");
        let (from, into) = (self.at(offset, len), self.at(into, len));
        // SAFETY: both ranges lie in the mapping (checked by `at`) and do not overlap (asserted).
        unsafe { ptr::copy_nonoverlapping(from, into, len) };
    }

    /// Copies between two mappings: the one-sided write of the shared-memory fabric.
    pub(crate) fn copy_to(&self, offset: usize, target: &Mapping, target_offset: usize, len: usize) {
        let from = self.at(offset, len);
        let into = target.at(target_offset, len);
        // SAFETY: both ranges lie in their mappings (checked by `at`), which are different memory: a node refuses
        // to connect to itself, and two pools never share pages.
        unsafe { stream::copy(from, into, len) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this value, and every borrower holds it through an `Arc` or a lifetime.
        let unmapped = unsafe { rustix::mm::munmap(self.ptr.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed: {unmapped:?}");
    }
}
