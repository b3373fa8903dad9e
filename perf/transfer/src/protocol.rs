//! What the two processes of a measurement say to each other: one JSON value a line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use baton_kv_transfer::{
    KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel, TransferConfig,
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A block of which only the number of writes matters.
pub(super) const SMALL_PIECE_BYTES: u64 = 256;
/// Of the model whose cache is moved.
const KV_HEADS: u32 = 8;

/// One row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scenario {
    fabric: String,
    libfabric: Option<PathBuf>,
    rails: Vec<String>,
    nixl: Option<PathBuf>,
    ucx: Option<PathBuf>,
    checksums: String,
    staging_chunks: u16,
    /// `None`: as the fabric has it.
    stage_below: Option<u64>,
    convert: bool,
    pub(super) layers: u32,
    pub(super) piece_bytes: u64,
    /// Blocks moved in a round.
    pub(super) blocks: u32,
    /// Neighbouring ones among them.
    pub(super) run: u32,
}

/// From sender to receiver.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Start(Scenario),
    Expect {
        blocks: Vec<u32>,
    },
    /// Expect one transfer of one block for each, all at once.
    ExpectEach {
        blocks: Vec<u32>,
    },
    /// Open a fabric with nothing on top, for the writer at this address.
    Raw {
        address: Vec<u8>,
    },
    /// Poll it until so many writes have landed.
    RawReceive {
        writes: u32,
    },
}

/// From receiver to sender.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Started,
    Ticket(Vec<u8>),
    /// One for each.
    Tickets(Vec<Vec<u8>>),
    /// When each was received, on the system's monotonic clock.
    ReceivedEach {
        at_ns: Vec<u64>,
    },
    /// How to write to the raw fabric.
    Offer(Vec<u8>),
    /// Every byte is here and checked.
    Received {
        bytes: u64,
        /// When, on the system's monotonic clock.
        at_ns: u64,
        /// Processor time of the receiver since its start.
        cpu_ns: u64,
    },
}

impl Scenario {
    pub(super) fn new(args: &super::Args, piece_kib: u64, run: u32) -> Self {
        let piece_bytes = piece_kib << 10;
        let blocks = (args.size << 20) / u64::from(args.layers) / piece_bytes;
        Self {
            fabric: args.fabric.to_string(),
            libfabric: args.libfabric.clone(),
            rails: args.rails.clone(),
            nixl: args.nixl.clone(),
            ucx: args.ucx.clone(),
            checksums: args.checksums.to_string(),
            staging_chunks: args.staging_chunks,
            stage_below: None,
            convert: args.convert,
            layers: args.layers,
            piece_bytes,
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX) / run * run,
            run,
        }
    }

    /// One layer of small blocks, each of them one write.
    pub(super) fn of_operations(args: &super::Args) -> Self {
        let scenario = Self::new(args, 1, 1);
        let (piece_bytes, blocks) = (SMALL_PIECE_BYTES, args.operations);
        Self { layers: 1, piece_bytes, blocks, staging_chunks: 0, convert: false, ..scenario }
    }

    /// With all pieces sent by way of chunks, or none.
    pub(super) fn staged(&self, staged: bool) -> Self {
        Self { stage_below: Some(if staged { u64::MAX } else { 0 }), ..self.clone() }
    }

    /// Whether the fabric can be measured with nothing on top.
    pub(super) fn has_raw(&self) -> bool {
        self.fabric != "shm"
    }

    /// A pool with room for as many gaps as there are runs.
    pub(super) fn geometry(&self) -> KvGeometry {
        let layout = KvLayout {
            layers: self.layers,
            kv_heads: KV_HEADS,
            head_dim: (self.piece_bytes / (4 * u64::from(KV_HEADS * self.block_tokens()))) as u32,
            block_tokens: self.block_tokens(),
            dtype: KvDtype::Bf16,
            placement: KvPlacement::Joined,
            order: KvOrder::Hnd,
            tensor_parallel: TensorParallel::SINGLE,
        };
        KvGeometry { layout, blocks: 2 * self.blocks }
    }

    /// As many tokens of heads of 128 elements as a piece holds.
    pub(super) fn block_tokens(&self) -> u32 {
        (self.piece_bytes / (4 * 128 * u64::from(KV_HEADS))).max(1) as u32
    }

    /// Tokens in so many blocks.
    pub(super) fn tokens(&self, blocks: usize) -> u32 {
        self.block_tokens() * blocks as u32
    }

    /// The receiving node's settings.
    pub(super) fn receiver_config(&self) -> Result<TransferConfig> {
        let mut config = self.config()?;
        if self.convert {
            config.geometry.layout.order = KvOrder::Nhd;
        }
        Ok(config)
    }

    pub(super) fn config(&self) -> Result<TransferConfig> {
        let fabric = self.fabric.parse().context("the fabric's name")?;
        let mut config = TransferConfig::new(fabric, self.geometry(), "bench");
        config.libfabric_path.clone_from(&self.libfabric);
        config.rails.clone_from(&self.rails);
        let blocks = config.limits.blocks_per_transfer.max(self.blocks as usize);
        config.limits.blocks_per_transfer = blocks;
        // The hand-over of the last layer is timed apart from the others.
        config.limits.push_group_bytes = Some(0);
        config.limits.staging_chunks = usize::from(self.staging_chunks);
        config.limits.stage_below_bytes = self.stage_below;
        config.nixl_path.clone_from(&self.nixl);
        config.ucx_path.clone_from(&self.ucx);
        config.checksums = self.checksums.parse().context("the checksums' mode")?;
        Ok(config)
    }
}

/// The system's monotonic clock, which both processes read.
pub(super) fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Processor time of this process.
pub(super) fn cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
