//! Parts of the library by themselves, for the benches in `perf/`: the seam is not for others, and changes as it must.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Staged, gather, spread};
use crate::ids::{Immediate, PeerId, Sequence};
use crate::layout::Conversion;
use crate::memory::Mapping;
use crate::plan::{Cursor, Plan, WriteRules};
use crate::receive::{Expected, ReceiveTable, Scatter, TableRules};
use crate::staging::{HEADER_BYTES, Region};
use crate::tally::Tally;
use crate::wire::Manifest;
use crate::{ChecksumMode, KvGeometry, Mismatch};

const SENDER: PeerId = PeerId(1);
const SECRET: u64 = 1;

/// A block table at each end, to be planned.
#[derive(Debug)]
pub struct Planning {
    conversion: Conversion,
    pairs: Vec<(u32, u32)>,
    blocks: Vec<u32>,
    tokens: u32,
}

impl Planning {
    /// Of a sequence that fills its blocks: `source` and `destination` in its order.
    ///
    /// # Errors
    /// Layouts that cannot be converted.
    pub fn new(
        (ours, source): (KvGeometry, &[u32]),
        (theirs, destination): (KvGeometry, &[u32]),
    ) -> Result<Self, Mismatch> {
        let conversion = Conversion::between(ours, theirs)?;
        let pairs = source.iter().copied().zip(0..).collect();
        let tokens = source.len() as u32 * ours.layout.block_tokens;
        Ok(Self { conversion, pairs, blocks: destination.to_vec(), tokens })
    }

    /// Plans, and walks over the writes of every layer; their number.
    pub fn writes(&self, max_write_bytes: u64) -> usize {
        let plan = Plan::new(&self.conversion, &self.pairs, &self.blocks, self.tokens);
        let mut cursor = Cursor::new(0..self.conversion.source.layout.layers, plan.into());
        let rules = WriteRules { max_bytes: max_write_bytes, strided: false };
        let mut writes = 0;
        while !cursor.is_done() {
            let Some(write) = cursor.peek(rules) else { break };
            cursor.advance(&write);
            writes += 1;
        }
        writes
    }
}

/// A chunk between two pools, here both in one memory.
#[derive(Debug)]
pub struct Chunk {
    memory: Mapping,
    staged: Staged,
    units: Vec<(u32, u32)>,
    scatter: Scatter,
    region: Region,
}

impl Chunk {
    /// A chunk full of units, from blocks of `ours` to those of `theirs`. `None` where not even one has room.
    ///
    /// # Errors
    /// Layouts that cannot be converted, or no memory.
    pub fn new(ours: KvGeometry, theirs: KvGeometry, chunk_bytes: u64) -> Result<Option<Self>, String> {
        let conversion = Arc::new(Conversion::between(ours, theirs).map_err(|error| format!("{error:?}"))?);
        let region =
            Region { pool_bytes: ours.pool_bytes().max(theirs.pool_bytes()), chunks: 1, chunk_bytes };
        let tokens = ours.blocks * ours.layout.block_tokens;
        let Some(staged) = Staged::new(conversion.clone(), tokens, chunk_bytes, region) else {
            return Ok(None);
        };
        let memory = Mapping::anonymous(region.bytes() as usize).map_err(|error| error.to_string())?;
        let units = (0..conversion.units(tokens).min(staged.room)).map(|unit| (unit, unit)).collect();
        let blocks: Vec<u32> = (0..theirs.blocks).rev().collect();
        let mut table = ReceiveTable::new(rules(theirs, 1), Arc::default());
        let cell = table.expect(&expected(&blocks, tokens), Instant::now()).map_err(|e| e.to_string())?;
        let (key, sequence) = (cell.key, Sequence::of(0));
        let scatter = Scatter { key, sender: SENDER, sequence, chunk: 0, cell, tokens, conversion };
        Ok(Some(Self { memory, staged, units, scatter, region }))
    }

    /// Payload of the chunk.
    pub fn bytes(&self) -> u64 {
        self.staged.bytes(&self.units)
    }

    /// Copies the units of the first layer into the chunk.
    pub fn gather(&self) {
        gather(&self.memory, &self.staged, 0, &self.units, self.region.receive_chunk(0));
    }

    /// Copies what was gathered to its blocks.
    ///
    /// # Errors
    /// When nothing was gathered before.
    pub fn scatter(&self) -> Result<(), String> {
        let payload = self.region.chunk_bytes - HEADER_BYTES;
        spread(&self.memory, &self.scatter, self.region.receive_chunk(0), payload)
    }
}

/// A receiver's slot table.
#[derive(Debug)]
pub struct Arrivals {
    table: ReceiveTable,
    conversion: Arc<Conversion>,
    geometry: KvGeometry,
}

impl Arrivals {
    /// With room for so many transfers at once.
    ///
    /// # Errors
    /// A geometry that is not one.
    pub fn new(geometry: KvGeometry, transfers: usize) -> Result<Self, Mismatch> {
        let conversion = Arc::new(Conversion::between(geometry, geometry)?);
        Ok(Self {
            table: ReceiveTable::new(rules(geometry, transfers), Arc::default()),
            conversion,
            geometry,
        })
    }

    /// So many transfers of one block each, all live at once: expected, attached, every write counted in turn, announced. How
    /// many of them completed.
    pub fn receive(&mut self, transfers: u32, writes: u32) -> usize {
        let (now, mut effects) = (Instant::now(), Vec::new());
        let tokens = self.geometry.layout.block_tokens;
        let attach = |block| {
            let cell = self.table.expect(&expected(&[block], tokens), now).ok()?;
            let key = self.table.attach(SENDER, &self.conversion, cell.key, SECRET, false).ok()?;
            Some((cell, key))
        };
        let live: Vec<_> = (0..transfers).filter_map(attach).collect();
        for write in 0..writes {
            for &(_, key) in &live {
                let immediate = Immediate { key, sequence: Sequence::of(write) };
                self.table.write_landed(Some(SENDER), immediate.encode(), &mut effects);
            }
        }
        let layers = self.geometry.layout.layers;
        for (cell, _) in &live {
            let manifest = Manifest {
                key: cell.key.into(),
                writes,
                bytes: self.conversion.bytes(tokens),
                layers,
                units: 1,
                pieces: layers.into(),
                tokens,
                checksums: 0,
                hashes: Vec::new(),
                doubtful: None,
            };
            self.table.manifest(SENDER, cell.key, &manifest, &mut effects);
        }
        live.iter().filter(|(cell, _)| cell.is_received()).count()
    }
}

fn rules(geometry: KvGeometry, slots: usize) -> TableRules {
    TableRules {
        geometry,
        checksums: ChecksumMode::Off,
        slots,
        blocks_per_transfer: geometry.blocks as usize,
        chunks: 1,
    }
}

fn expected(blocks: &[u32], tokens: u32) -> Expected<'_> {
    Expected { blocks, tokens, secret: SECRET, expires_in: Duration::from_secs(60) }
}

/// The tally of so many writes, counted one by one; what came of it.
pub fn tally(writes: u32) -> u64 {
    let mut tally = Tally::default();
    (0..writes).for_each(|write| tally.add(Sequence::of(write)));
    tally.sum
}
