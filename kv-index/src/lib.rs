//! Which worker has cached which prefix: an index over what many workers publish, for a router that has to choose one in microseconds.
//!
//! ```text
//!   worker's publisher ──► Subscriber ──► Indexer's thread: BatchReader ──► Index ◄── IndexReader::read ── a request's PromptKeys
//!   (vLLM's KV events)     gaps, restarts    bounded queue   bytes ► keys    │                                 │
//!                                                            in slices       blocks, names, sets              Matches
//! ```
//! A prompt's blocks are hashed in a chain ([`PromptKeys`]); a key stands for all tokens up to its block's end. Engines' own hashes mean
//! nothing here: keys are computed again from the tokens in each event, and an engine's hash is only the name by which a worker
//! says what follows what, and what left. A query walks a prompt's keys in one pass and tells for every worker that holds the first block how
//! far it goes on without a gap, and in which memory ([`Tier`]).
//!
//! Decided:
//! - **Keys are at each worker's own block size.** A common divisor would store a block of 64 tokens four times for the sake of a worker with 16;
//!   instead a prompt is hashed once for each size there is ([`Index::block_sizes`]), which takes some ten microseconds for 100,000 tokens,
//!   and most fleets have one.
//! - **Each block is looked at**, not every thirty-second as in a jump search, because a batch of look-ups whose memory is fetched ahead
//!   costs little more than one, and the answer is exact when a worker has dropped a block from the middle.
//! - **A worker's end is a number that counts no more.** What it held is swept out later, a part at a time; so leaving, restarting and clearing
//!   take no time, whatever was held. The same goes for guesses, which end by the period they were made in.
//! - **One lock, held in slices** ([`share`]), instead of one a shard: a query takes it once.
//!
//! Left out: HTTP, scores of anything but the prefix, and multimodal queries (blocks with images are indexed, but under keys that no text has).
//!
//! # Invariants
//! - A wrong entry costs time, never an answer: workers compare tokens themselves.
//! - Memory is bounded ([`IndexLimits::bytes`]): the oldest blocks are dropped, of one age the deepest first, and counted.
//! - Queues are bounded. A slow index delays its subscribers, whose publishers drop what nobody takes; that is a gap, and heals.
//! - What a worker may have and nobody knows of shows as [`Health::Stale`].

#![deny(unsafe_code)]

mod events;
mod holders;
mod index;
mod indexer;
mod key;
mod pages;
#[expect(unsafe_code, reason = "the one instruction that no safe function gives")]
mod prefetch;
mod prompt;
mod shared;
mod subscribe;
mod table;

pub use events::{BatchReader, BatchReport, DecodeError, Slices};
pub use index::{
    AddError, Found, Index, IndexLimits, IndexStats, Matches, Tier, TierWeights, WorkerId, WorkerSpec,
};
pub use indexer::{Ended, IndexHandle, Indexer};
pub use prompt::{PromptKeys, Scope};
pub use shared::{IndexReader, IndexWriter, share};
pub use subscribe::{Health, Source, Subscriber, SubscriptionStats, WorkerStatus};
