//! Memory in pages of 2 MiB, each of which the kernel is asked to map as one.
//!
//! What is looked up anywhere in hundreds of megabytes waits for its address as long as for itself if each page is of 4 KiB: there are more of
//! those than the core remembers. Where the kernel does not do it, only that time is lost.

use std::{alloc::Layout, marker::PhantomData};

use bytemuck::Pod;
use memmap2::MmapMut;

const BYTES: usize = 2 << 20;

/// As many `T` as there is room for, zeroed, at an address that is a multiple of 2 MiB.
pub(crate) struct Page<T> {
    map: MmapMut,
    /// Where the page begins in what is mapped, which is larger, as it may begin anywhere. What is around it is never touched, so it takes no memory.
    offset: usize,
    of: PhantomData<[T]>,
}

impl<T: Pod> Page<T> {
    pub(crate) const ITEMS: usize = BYTES / size_of::<T>();

    /// Ends the process if there is no memory, as other allocations do.
    pub(crate) fn new() -> Self {
        let Ok(map) = MmapMut::map_anon(2 * BYTES) else {
            std::alloc::handle_alloc_error(Layout::new::<[u8; BYTES]>())
        };
        let offset = map.as_ptr().align_offset(BYTES);
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise_range(memmap2::Advice::HugePage, offset, BYTES) {
            tracing::debug!(%error, "the KV index does without huge pages");
        }
        Self { map, offset, of: PhantomData }
    }

    #[inline]
    pub(crate) fn items(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[self.offset..][..BYTES])
    }

    #[inline]
    pub(crate) fn items_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[self.offset..][..BYTES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_zeroed_and_whole() {
        let mut pages: Vec<Page<[u64; 8]>> = (0..3).map(|_| Page::new()).collect();
        for (at, page) in pages.iter_mut().enumerate() {
            assert_eq!(page.items().as_ptr() as usize % BYTES, 0);
            assert_eq!(page.items().len(), BYTES / 64);
            assert!(page.items().iter().all(|item| *item == [0; 8]));
            page.items_mut().fill([at as u64 + 1; 8]);
        }
        assert!(
            pages.iter().enumerate().all(|(at, page)| page.items().iter().all(|i| i[7] == at as u64 + 1))
        );
    }
}
