//! The application's contexts, which are the provider's from post to completion: it fills all of each, as efa-direct may.

use std::collections::BTreeMap;

use crate::sys;

const WORDS: usize = size_of::<sys::fi_context2>() / size_of::<u64>();

/// Contexts in flight, by address, with the mark that each bears.
#[derive(Debug, Default)]
pub(crate) struct Contexts(BTreeMap<usize, u64>);

impl Contexts {
    pub(crate) fn has(&self, address: usize) -> bool {
        self.0.contains_key(&address)
    }

    /// Takes one over and writes its mark into every word.
    pub(crate) fn take(&mut self, address: usize, mark: u64) {
        self.0.insert(address, mark);
        for i in 0..WORDS {
            let word = (address as *mut u64).wrapping_add(i);
            // SAFETY: FI_CONTEXT2 promises an aligned, writable fi_context2 at every context in flight; alignment was checked.
            unsafe { word.write_volatile(pattern(mark, i)) };
        }
    }

    /// Gives one back. Whether all of it is as it was left.
    pub(crate) fn give_back(&mut self, address: usize) -> bool {
        let Some(mark) = self.0.remove(&address) else { return false };
        (0..WORDS).all(|i| {
            let word = (address as *const u64).wrapping_add(i);
            // SAFETY: as in `take`; the promise holds until the completion, which is being read now.
            unsafe { word.read_volatile() == pattern(mark, i) }
        })
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

fn pattern(mark: u64, word: usize) -> u64 {
    (mark + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32 * 8)
}
