//! From a worker's batch of events, in bytes, to the index.

mod msgpack;
mod record;

pub use msgpack::DecodeError;
use msgpack::Reader;
use record::{Kind, Record};

use crate::{
    Index, WorkerId,
    index::{Cached, SLICE},
    key,
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
    /// Events that say nothing to this index: of kinds that it does not know, of layers that do not see a whole prefix, or without the
    /// tokens of their blocks.
    pub skipped: usize,
    /// Whether the worker said that it has nothing cached any more.
    pub is_cleared: bool,
}

/// Reads batches; has the memory that it needs for one.
pub struct BatchReader {
    record: Record,
    contents: Vec<u64>,
}

impl Default for BatchReader {
    fn default() -> Self {
        Self { record: Record::new(), contents: Vec::new() }
    }
}

impl BatchReader {
    /// Applies a batch of `worker` to the index.
    ///
    /// # Errors
    /// The bytes are no batch. What came before the place where that shows has been applied.
    pub fn apply(
        &mut self,
        mut index: impl Slices,
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
                self.record.read(&mut reader)?;
                self.apply_record(&mut index, worker, &mut report);
            }
        }
        Ok(report)
    }

    fn apply_record(&mut self, index: &mut impl Slices, worker: WorkerId, report: &mut BatchReport) {
        let record = &self.record;
        match record.kind {
            Kind::Stored if record.is_windowed || !record.is_whole() => report.skipped += 1,
            Kind::Stored => self.store(index, worker, report),
            Kind::Removed => {
                if !index.write(|index| index.has_group(worker, record.group)) {
                    report.skipped += 1;
                    return;
                }
                for hashes in record.hashes.chunks(SLICE) {
                    index.write(|index| index.unstore(worker, record.tier, hashes));
                }
                report.blocks += record.hashes.len();
            }
            Kind::Cleared => {
                index.write(|index| index.clear(worker));
                report.is_cleared = true;
            }
            Kind::Other => report.skipped += 1,
        }
    }

    fn store(&mut self, index: &mut impl Slices, worker: WorkerId, report: &mut BatchReport) {
        let Self { record, contents } = self;
        let block_tokens = record.block_tokens as u32;
        contents.clear();
        contents.extend(record.tokens.chunks_exact(block_tokens as usize).map(key::content));
        for (content, extra) in contents.iter_mut().zip(&record.extras) {
            *content = key::with_extra(*content, *extra);
        }
        let mut end = index.write(|index| {
            if !index.claims_group(worker, record.group) {
                return None;
            }
            match record.parent {
                None => index.chain(worker, record.adapter().as_deref(), block_tokens),
                Some(parent) => index.chain_after(worker, parent, contents.len()),
            }
        });
        if end.is_none() {
            report.skipped += 1;
            return;
        }
        for (hashes, contents) in record.hashes.chunks(SLICE).zip(contents.chunks(SLICE)) {
            let cached = Cached { hashes, contents };
            index.write(|index| end = end.map(|end| index.store(worker, record.tier, end, cached)));
        }
        report.blocks += record.hashes.len();
    }
}
