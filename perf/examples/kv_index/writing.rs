//! Streams of events, and how long it takes to write them to an index.

use std::{collections::VecDeque, time::Duration};

use baton_kv_index::{BatchReader, Index, IndexWriter, Slices, WorkerId};
use rustix::time::{ClockId, clock_gettime};

use crate::fleet::{Draws, Packer, worker};

/// Processor time that this thread has had: other programs take turns on its core.
pub(crate) fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it is not negative")
}

/// Batches of workers whose caches are full: each stores some of a chain and says what left for it, of the oldest chain from its end.
pub(crate) fn stream(
    workers: u64,
    block_tokens: usize,
    blocks: usize,
    chain: usize,
) -> Vec<(WorkerId, Vec<u8>)> {
    let mut draws = Draws::new(3 + chain as u64);
    let mut sent = 0;
    // What each worker holds, by chain; and how far its present chain is.
    let mut held: Vec<VecDeque<Vec<u64>>> = (0..workers).map(|_| [vec![]].into()).collect();
    let mut batches = Vec::new();
    let mut tokens = Vec::new();
    while sent < blocks {
        let id = draws.below(workers);
        let held = &mut held[id as usize];
        let count = 1 + draws.below(64) as usize;
        if held.back().is_none_or(|last| last.len() + count > chain) {
            held.push_back(Vec::new());
        }
        let last = held.back_mut().expect("just pushed");
        let parent = last.last().copied();
        let hashes: Vec<u64> = (0..count).map(|_| draws.next()).collect();
        tokens.clear();
        tokens.extend((0..count * block_tokens).map(|_| draws.token()));
        last.extend(&hashes);
        let total: usize = held.iter().map(Vec::len).sum();
        let full = 2 * chain;
        let mut removed = Vec::new();
        while total - removed.len() > full {
            let first = held.front_mut().expect("something is held");
            match first.pop() {
                Some(hash) => removed.push(hash),
                None => drop(held.pop_front()),
            }
        }
        let mut batch = Packer::batch(1 + usize::from(!removed.is_empty()));
        batch.stored(&hashes, parent, &tokens, block_tokens as u32);
        if !removed.is_empty() {
            batch.removed(&removed);
        }
        sent += count + removed.len();
        batches.push((worker(id), batch.finish()));
    }
    batches
}

/// Writes slices, and notes how long each had the lock.
pub(crate) struct Timed<'a> {
    pub(crate) writer: &'a mut IndexWriter,
    pub(crate) slices: &'a mut Vec<Duration>,
}

impl Slices for Timed<'_> {
    fn write<R>(&mut self, slice: impl FnOnce(&mut Index) -> R) -> R {
        let Self { writer, slices } = self;
        (&mut **writer).write(|index| {
            let begin = thread_cpu();
            let written = slice(index);
            slices.push(thread_cpu() - begin);
            written
        })
    }
}

/// What it took to take in a stream.
#[derive(Default)]
pub(crate) struct Taken {
    blocks: usize,
    pub(crate) seconds: f64,
    /// The best of its parts, in million blocks/s.
    pub(crate) best: f64,
    pub(crate) slices: Vec<Duration>,
}

impl Taken {
    /// Of a stream of these batches, from workers of such higher numbers.
    pub(crate) fn new(writer: &mut IndexWriter, batches: &[(WorkerId, Vec<u8>)], offset: u32) -> Self {
        let (mut reader, mut taken) = (BatchReader::default(), Self::default());
        for part in batches.chunks(batches.len().div_ceil(PARTS)) {
            let mut timed = Timed { writer, slices: &mut taken.slices };
            let (begin, mut blocks) = (thread_cpu(), 0);
            for (id, batch) in part {
                blocks += reader.take(&mut timed, WorkerId(id.0 + offset), batch).expect("a batch").blocks;
            }
            reader.flush(&mut timed);
            let seconds = (thread_cpu() - begin).as_secs_f64();
            taken.blocks += blocks;
            taken.seconds += seconds;
            taken.best = taken.best.max(blocks as f64 / 1e6 / seconds);
        }
        taken
    }

    /// Million blocks/s.
    pub(crate) fn rate(&self) -> f64 {
        self.blocks as f64 / 1e6 / self.seconds
    }
}

/// Of a stream, each of which is timed by itself.
const PARTS: usize = 20;
