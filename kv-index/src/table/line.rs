//! Four entries in a cache line, in order, gaps last.

use bytemuck::{Pod, Zeroable};

/// 0 is no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    pub(crate) value: u64,
}

/// Entries of a line.
pub(super) const LINE: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [Entry; LINE]);

impl Line {
    /// Entries with smaller keys; gaps, which are at the end, have larger ones. Counted without a branch, as no branch predictor could know
    /// it.
    #[inline]
    pub(super) fn smaller(&self, key: u64) -> usize {
        self.0.iter().map(|entry| usize::from(entry.key.wrapping_sub(1) < key - 1)).sum()
    }

    /// Puts an entry at a place, and moves those after it; what there is no room for any more, or a gap. Without a branch, too.
    #[inline]
    pub(super) fn insert(&mut self, place: usize, entry: Entry) -> Entry {
        let Self([a, b, c, d]) = *self;
        let (at, before) = ([a, b, c, d], [Entry::default(), a, b, c]);
        self.0 = std::array::from_fn(|slot| {
            let moved = if slot == place { entry } else { before[slot] };
            if slot < place { at[slot] } else { moved }
        });
        d
    }
}
