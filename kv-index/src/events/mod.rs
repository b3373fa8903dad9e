//! From a worker's batch of events, in bytes, to the index.

mod msgpack;
mod record;

pub use msgpack::DecodeError;
use msgpack::Reader;
use record::{Kind, Record};

use crate::{
    Index, WorkerId,
    index::{After, Cached, ChainEnd, Coming, News, SLICE},
};

/// An index that can be written to, in slices.
pub trait Slices {
    /// Writes a little, after there was made room for it.
    fn write<R>(&mut self, slice: impl FnOnce(&mut Index) -> R) -> R;
}

impl Slices for &mut Index {
    fn write<R>(&mut self, slice: impl FnOnce(&mut Index) -> R) -> R {
        while self.is_full() {
            self.maintain();
        }
        slice(self)
    }
}

/// What a batch had in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchReport {
    /// Blocks stored or removed.
    pub blocks: usize,
    /// Events that say nothing to this index: of kinds that it does not know, of layers that do not see a whole prefix, or without
    /// the tokens of their blocks.
    pub skipped: usize,
    /// Whether the worker said that it has nothing cached any more.
    pub is_cleared: bool,
}

/// Reads batches, and gathers events until there are enough to be applied together.
#[derive(Default)]
pub struct BatchReader {
    records: Vec<(WorkerId, Record)>,
    /// How many of those are waiting; the others are memory to be used again.
    waiting: usize,
    /// Of those that wait: [`SLICE`] at most, unless it is one alone.
    blocks: usize,
}

impl BatchReader {
    /// Takes a batch of `worker`. Some of its events may wait for more, or for [`Self::flush`].
    ///
    /// # Errors
    /// The bytes are no batch. What came before the place where that shows has been taken.
    pub fn take(
        &mut self,
        index: &mut impl Slices,
        worker: WorkerId,
        payload: &[u8],
    ) -> Result<BatchReport, DecodeError> {
        let mut report = BatchReport::default();
        let mut reader = Reader::new(payload);
        let (is_map, len) = reader.record()?;
        for at in 0..len {
            let is_events = if is_map { reader.bytes()? == Some(b"events") } else { at == 1 };
            if !is_events {
                reader.skip()?;
                continue;
            }
            for _ in 0..reader.array()?.unwrap_or(0) {
                self.take_record(index, worker, &mut reader, &mut report)?;
            }
        }
        Ok(report)
    }

    fn take_record(
        &mut self,
        index: &mut impl Slices,
        worker: WorkerId,
        reader: &mut Reader<'_>,
        report: &mut BatchReport,
    ) -> Result<(), DecodeError> {
        if self.waiting == self.records.len() {
            self.records.push((worker, Record::new()));
        }
        let (whose, record) = &mut self.records[self.waiting];
        *whose = worker;
        record.read(reader)?;
        let is_skipped = match record.kind {
            Kind::Stored => record.contents.is_empty(),
            Kind::Removed => false,
            Kind::Cleared => {
                report.is_cleared = true;
                false
            }
            Kind::Other => true,
        };
        if is_skipped {
            report.skipped += 1;
            return Ok(());
        }
        let blocks = record.blocks();
        report.blocks += blocks;
        if self.waiting > 0 && (self.blocks + blocks > SLICE || self.waiting == SLICE) {
            let at = self.waiting;
            self.flush(index);
            self.records.swap(0, at);
        }
        self.waiting += 1;
        self.blocks += blocks;
        Ok(())
    }

    /// Applies what waits.
    pub fn flush(&mut self, index: &mut impl Slices) {
        match &self.records[..self.waiting] {
            [] => {}
            // A long one has its own slices.
            [(worker, record)] => apply(index, *worker, record),
            together => index.write(|index| {
                index.warm(together.iter().map(|(worker, record)| coming(*worker, record)));
                together.iter().for_each(|(worker, record)| apply_warm(index, *worker, record));
            }),
        }
        (self.waiting, self.blocks) = (0, 0);
    }

    /// A batch by itself.
    ///
    /// # Errors
    /// As of [`Self::take`].
    pub fn apply(
        &mut self,
        mut index: impl Slices,
        worker: WorkerId,
        payload: &[u8],
    ) -> Result<BatchReport, DecodeError> {
        let report = self.take(&mut index, worker, payload);
        self.flush(&mut index);
        report
    }
}

fn coming(worker: WorkerId, record: &Record) -> Coming<'_> {
    let news = match record.kind {
        Kind::Stored => News::Stored(&record.contents, after(record)),
        _ => News::Removed,
    };
    Coming { worker, hashes: &record.hashes, news }
}

fn after(record: &Record) -> After {
    match record.parent {
        None => After::Nothing { adapter: record.adapter(), block_tokens: record.block_tokens as u32 },
        Some(parent) => After::Block(parent),
    }
}

/// One of [`SLICE`] blocks at most, of which all was fetched.
fn apply_warm(index: &mut Index, worker: WorkerId, record: &Record) {
    match record.kind {
        Kind::Stored => {
            let cached = Cached { hashes: &record.hashes, contents: &record.contents };
            if let Some(end) = begin(index, worker, record) {
                index.store(worker, record.tier, end, cached);
            }
        }
        Kind::Removed if index.has_group(worker, record.group) => {
            index.unstore(worker, record.tier, &record.hashes);
        }
        Kind::Removed | Kind::Other => {}
        Kind::Cleared => index.clear(worker),
    }
}

/// One of any length.
fn apply(index: &mut impl Slices, worker: WorkerId, record: &Record) {
    let hashes = record.hashes.chunks(SLICE);
    match record.kind {
        Kind::Stored => {
            let contents = record.contents.chunks(SLICE);
            let (mut chain, mut next) = (None, after(record));
            for (at, (hashes, contents)) in hashes.zip(contents).enumerate() {
                index.write(|index| {
                    index.warm(
                        [Coming { worker, hashes, news: News::Stored(contents, next.clone()) }].into_iter(),
                    );
                    if at == 0 {
                        chain = begin(index, worker, record);
                    }
                    chain =
                        chain.map(|end| index.store(worker, record.tier, end, Cached { hashes, contents }));
                });
                let Some(end) = chain else { return };
                next = After::Chain(end);
            }
        }
        Kind::Removed => hashes.for_each(|hashes| {
            index.write(|index| {
                if index.has_group(worker, record.group) {
                    index.warm([Coming { worker, hashes, news: News::Removed }].into_iter());
                    index.unstore(worker, record.tier, hashes);
                }
            });
        }),
        Kind::Cleared => index.write(|index| index.clear(worker)),
        Kind::Other => {}
    }
}

/// What the first block of a chain follows.
fn begin(index: &mut Index, worker: WorkerId, record: &Record) -> Option<ChainEnd> {
    if !index.claims_group(worker, record.group) {
        return None;
    }
    match record.parent {
        None => index.chain(worker, record.adapter().as_deref(), record.block_tokens as u32),
        Some(parent) => index.chain_after(worker, parent, record.blocks()),
    }
}
