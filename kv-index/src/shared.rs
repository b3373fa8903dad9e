//! An index that one thread writes and many read.
//!
//! One lock for all of it, which the writer holds for one slice of its work at a time, some ten microseconds, and does not take again
//! before those who waited have read. So a query waits for one slice at most, and a look-up costs no lock of its own. What a slice could
//! wait for, the kernel's clearing of memory that tables grow into, is done before the lock is taken.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use crate::{Index, Slices, pages::Spares};

/// An index to read from any thread.
#[derive(Clone)]
pub struct IndexReader {
    shared: Arc<Shared>,
}

/// The side that writes: one for each index.
pub struct IndexWriter {
    shared: Arc<Shared>,
    spares: Spares,
}

struct Shared {
    index: RwLock<Index>,
    /// Readers that do not have the lock yet.
    waiting: AtomicUsize,
}

/// Looks at waiting readers before the writer yields its core to them.
const SPINS: usize = 200;
/// Times that it yields before it goes on in any case: a reader may have lost its core.
const YIELDS: usize = 50;

/// Divides an index into its two sides.
pub fn share(index: Index) -> (IndexWriter, IndexReader) {
    let spares = index.spares();
    let shared = Arc::new(Shared { index: RwLock::new(index), waiting: AtomicUsize::new(0) });
    (IndexWriter { shared: shared.clone(), spares }, IndexReader { shared })
}

impl IndexReader {
    /// Reads what is consistent: no slice of a writer's comes between.
    pub fn read<R>(&self, read: impl FnOnce(&Index) -> R) -> R {
        // It guards no memory, so no ordering is needed: being late with it costs a slice.
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        read(&index)
    }
}

impl IndexWriter {
    fn locked<R>(&mut self, slice: impl FnOnce(&mut Index) -> R) -> R {
        self.spares.fill();
        self.let_readers_in();
        slice(&mut self.shared.index.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// A lock that was just given back would be taken again before those who sleep for it have woken.
    fn let_readers_in(&self) {
        for turn in 0..SPINS + YIELDS {
            if self.shared.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            if turn < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    /// One slice of [`Index::maintain`]; whether there is more to do.
    pub fn maintain(&mut self) -> bool {
        self.locked(Index::maintain)
    }
}

impl Slices for &mut IndexWriter {
    fn write<R>(&mut self, slice: impl FnOnce(&mut Index) -> R) -> R {
        let mut slice = Some(slice);
        loop {
            let done = self.locked(|index| {
                if index.is_full() {
                    index.maintain();
                    return None;
                }
                slice.take().map(|slice| slice(index))
            });
            if let Some(done) = done {
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IndexLimits;

    #[test]
    fn pages_that_a_slice_began_are_made_up_for_before_the_next_one() {
        let (mut writer, reader) = share(Index::new(IndexLimits { bytes: 16 << 20, guess_seconds: 60 }));
        let ready = |index: &Index| index.spares().bytes() >> 21;
        assert_eq!((&mut writer).write(|index| ready(index)), 0);
        for count in [1, 2, Spares::MOST, 1] {
            (&mut writer).write(|index| {
                (0..count).for_each(|_| drop(index.spares().take::<u8>()));
            });
        }
        assert_eq!(reader.read(ready), Spares::MOST - 1);
        assert_eq!((&mut writer).write(|index| ready(index)), Spares::MOST);
    }
}
