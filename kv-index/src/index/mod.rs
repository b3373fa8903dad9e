//! The index itself: plain data, one owner, no clock.

mod age;
mod blocks;
mod guesses;
mod lives;
mod query;
mod stats;
mod steps;
mod store;
mod sweep;
mod warm;
mod workers;

use std::collections::{BTreeMap, HashMap};

use crate::{
    holders::{Life, Sets, Tiers},
    pages::Spares,
    table::Table,
};
use age::Age;
use blocks::{Blocks, Near};
use guesses::Guesses;
use lives::Lives;
pub use query::{Found, Matches, TierWeights};
pub use stats::IndexStats;
pub(crate) use store::{Cached, ChainEnd, SLICE};
use sweep::Sweep;
pub(crate) use warm::{After, Coming, News};
pub use workers::{AddError, WorkerSpec};
use workers::{Domain, Worker};

/// A worker, by its user's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// Where a worker has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Where its engine computes.
    Gpu,
    /// The host's memory.
    Host,
    /// A disk, or storage elsewhere.
    Disk,
}

/// Bounds of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLimits {
    /// Memory in bytes, by the sizes that entries have at worst. What it has really taken is less, but for
    /// some pages of 2 MiB that are only begun, and three that are kept ready.
    pub bytes: usize,
    /// A guess counts for so long at least, and for twice as long at most.
    pub guess_seconds: u64,
}

/// Which worker has cached which prefix.
///
/// ```text
///   blocks    key ─► holders, age                 one entry for each block that anybody holds
///   names     hash of an engine ─► key            what removals and parents are given as; hashes are told apart by the worker,
///                                                 or by a domain of workers whose hashes mean the same
///   sets      number ─► lives and their tiers     for blocks with several holders
/// ```
pub struct Index {
    limits: IndexLimits,
    /// Seconds since any moment; handed in.
    now: u64,
    blocks: Blocks,
    near: Near,
    names: Table,
    /// For what `blocks` and `names` begin next.
    spares: Spares,
    sets: Sets,
    lives: Lives,
    workers: HashMap<WorkerId, Worker>,
    domains: HashMap<String, Domain>,
    /// Block sizes, and how many workers have each.
    block_sizes: BTreeMap<u32, usize>,
    guesses: Guesses,
    sweep: Sweep,
    scratch: warm::Scratch,
    counts: stats::Counts,
}

/// Entries of a part of a table when the memory is used up, twice as many at most: few enough to sweep within a few hundred microseconds.
const PART_ENTRIES: usize = 16_384;
/// Bytes that an entry of a table takes at worst.
const ENTRY_BYTES: usize = 40;

impl Index {
    /// Without workers.
    pub fn new(limits: IndexLimits) -> Self {
        let entries = limits.bytes / ENTRY_BYTES / 2;
        let bits = (entries / PART_ENTRIES).max(2).ilog2().clamp(1, 20);
        let spares = Spares::default();
        Self {
            limits,
            now: 0,
            // Of one index entry for each six blocks.
            blocks: Blocks::new(bits.saturating_sub(2).max(1), &spares),
            near: Near::default(),
            names: Table::new(bits, spares.clone()),
            spares,
            sets: Sets::default(),
            lives: Lives::new(),
            workers: HashMap::new(),
            domains: HashMap::new(),
            block_sizes: BTreeMap::new(),
            guesses: Guesses::new(limits.guess_seconds),
            sweep: Sweep::default(),
            scratch: warm::Scratch::default(),
            counts: stats::Counts::default(),
        }
    }

    /// Says what time it is, in seconds since any moment that stays the same. To be called about once a second.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        // After as many turns as there are bits, none of what was guessed counts.
        for _ in 0..3 {
            if !self.guesses.is_over(now) {
                return;
            }
            while self.guesses.dirty() & self.guesses.next() != 0 {
                self.maintain();
            }
            self.guesses.turn();
        }
        self.guesses.skip_to(now);
    }

    /// Pages that are ready for when it grows.
    pub(crate) fn spares(&self) -> Spares {
        self.spares.clone()
    }

    /// Sizes of blocks, in tokens, that workers have: a query needs a prompt's keys for each.
    pub fn block_sizes(&self) -> impl Iterator<Item = u32> {
        self.block_sizes.keys().copied()
    }
}

impl Tier {
    fn bit(self) -> Tiers {
        1 << self as u8
    }
}

/// Key of a hash in the table of names: 48 bits of both mixed, then whose it is, so that a sweep knows what to drop.
///
/// Two of n hashes of one worker have the same 48 bits with a chance of n² / 2⁴⁹; one of them is then taken for the other.
#[inline]
fn name(hash: u64, owner: Life) -> u64 {
    let mixed = crate::key::fold(hash ^ 0x2545_f491_4f6c_dd1d, u64::from(owner) ^ 0x9e6c_63d0_676a_9a99);
    mixed & !0xffff | u64::from(owner)
}
