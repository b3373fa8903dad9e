//! Memory in pages of 2 MiB, each of which the kernel is asked to map as one.
//!
//! What is looked up anywhere in hundreds of megabytes waits for its address as long as for itself if each page is of 4 KiB: there are more of
//! those than the core remembers. Where the kernel does not do it, only that time is lost.
//!
//! The first touch of a page waits until the kernel has cleared it, and in a virtual machine perhaps until the host has found memory for it: 0.2 to
//! 8 ms, which are not to be spent behind a lock that others wait for. So who writes behind one touches some pages before it takes the lock
//! ([`Spares`]).

use std::{
    alloc::Layout,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytemuck::Pod;
use memmap2::MmapMut;

const BYTES: usize = 2 << 20;
/// Of a page where the kernel does not map it as one; the smallest there is.
const KERNEL_PAGE: usize = 4096;

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

    /// One that the kernel has cleared already.
    fn touched() -> Self {
        let mut page = Self::new();
        // Of a large page the first of these is enough.
        page.map[page.offset..][..BYTES].iter_mut().step_by(KERNEL_PAGE).for_each(|byte| *byte = 0);
        page
    }

    fn cast<U: Pod>(self) -> Page<U> {
        Page { map: self.map, offset: self.offset, of: PhantomData }
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

/// Pages that were touched before anybody needs them. Clones share them: the tables of an index, and who writes to it.
#[derive(Clone, Default)]
pub(crate) struct Spares(Arc<Mutex<Ready>>);

#[derive(Default)]
struct Ready {
    pages: Vec<Page<u8>>,
    /// That there should be: as many as were ever taken, up to [`Spares::MOST`], so that what is not used takes no memory.
    wanted: usize,
}

impl Spares {
    /// As many as a slice of writing begins: one for names, one for groups of blocks, one for what finds those.
    pub(crate) const MOST: usize = 3;

    /// Makes up for those that were taken. To be called where nobody waits for it.
    pub(crate) fn fill(&self) {
        while {
            let ready = self.ready();
            ready.pages.len() < ready.wanted
        } {
            let page = Page::touched();
            self.ready().pages.push(page);
        }
    }

    /// One of them; without any, one that is touched when it is used.
    pub(crate) fn take<T: Pod>(&self) -> Page<T> {
        let mut ready = self.ready();
        ready.wanted = Self::MOST.min(ready.wanted + 1);
        ready.pages.pop().map_or_else(Page::new, Page::cast)
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.ready().pages.len() * BYTES
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    #[test]
    fn as_many_are_kept_ready_as_are_used_and_no_more_than_a_few() {
        let spares = Spares::default();
        spares.fill();
        assert_eq!(spares.bytes(), 0, "nobody has used any");
        let mut taken: Vec<Page<u64>> = vec![spares.take()];
        spares.fill();
        assert_eq!(spares.bytes(), BYTES);
        for _ in 0..10 {
            taken.push(spares.take());
        }
        assert_eq!(spares.bytes(), 0);
        spares.fill();
        assert_eq!(spares.bytes(), Spares::MOST * BYTES);
        let taken: Page<[u64; 8]> = spares.take();
        assert_eq!(spares.bytes(), (Spares::MOST - 1) * BYTES);
        assert!(taken.items().iter().all(|item| *item == [0; 8]));
    }
}
