//! Moves paged KV blocks between workers with one-sided writes, over shared memory, libfabric, UCX or NIXL.
//!
//! A prefill worker computes the KV cache of a prompt; a decode worker needs it. This crate carries it from the one's pool
//! into the other's while prefill still computes, and tells decode when every byte is there and checked. Whatever goes
//! wrong (a death, a pause, an abort, a late write) ends in the right bytes or in an error that names the fact, and no
//! block is reused while a peer may still write it.
//!
//! ```text
//!        prefill worker                                                    decode worker
//!  ┌────────────────────────────┐                                 ┌────────────────────────────┐
//!  │ compute thread             │        ticket (by any way)      │ expect(blocks) ─► Incoming │
//!  │   push(layers, blocks) ──┐ │ ◄─────────────────────────────  │                      ▲     │
//!  │                          ▼ │                                 │                 count│check│
//!  │ data thread: merge, post ──┼─ fabric: bytes + immediate ───► │ data thread ─────────┤     │
//!  │          ▲ reads           │  (any order, any time)          │                      │     │
//!  │ ┌────────┴───────────────┐ │                                 │ ┌──────────────────┐ │     │
//!  │ │pool [layer][block]     │═╪═════════════════════════════════╪►│pool [layer][block]│ │    │
//!  │ └────────────────────────┘ │                                 │ └──────────────────┘ │     │
//!  │ control task ──────────────┼─ attach, manifest, withdrawn ─► │ control task ────────┘     │
//!  │             ◄──────────────┼─ attached, abort ─────────────  │   (its end = peer's death) │
//!  └────────────────────────────┘                                 └────────────────────────────┘
//! ```
//!
//! [`TransferNode`] is one end. The receiver calls [`expect`](TransferNode::expect) and gives the ticket to the sender;
//! the sender [`open`](TransferNode::open)s it, [`push`](Outgoing::push)es groups of layers as they are computed, and
//! [`finish`](Outgoing::finish)es; the receiver [`wait`](Incoming::wait)s.
//!
//! A sender that is told of its receivers early [`connect`](TransferNode::connect)s to them: a pair that can never work is known
//! before a request is sent its way, and the first transfer finds a path that was used before.
//!
//! A worker that holds a prefix which another needs [`offer`](TransferNode::offer)s it; the other
//! [`fetch`](TransferNode::fetch)es it with one-sided reads.
//!
//! # Layouts
//! A [`KvLayout`] says how a worker cuts its cache. The two ends of a connection exchange theirs, and come to one verdict: how
//! the one is turned into the other, or the field in which they differ beyond that. Block size, order, placement of K and V and
//! tensor-parallel ranks are converted: where the fabric copies itself (shm) in one pass, elsewhere by way of staging chunks
//! when pieces would be short. A receiver whose heads are spread over several senders gives its ticket to all of them.
//!
//! # Invariants
//! - **Counted, never ordered.** A transfer is complete when the manifest is here, the writes that it announces arrived, each
//!   once (their number travels in the immediate, beside slot and generation), the coverage is every layer x every block
//!   once, and the checksums agree. Nothing depends on the order in which anything arrives.
//! - **Fenced.** Between a failure and [`Quiesced`] the destination blocks are quarantined: `expect` refuses them. The fence
//!   falls when the sender said that it writes no more (all its writes done), when nobody was ever attached, or when the
//!   sender's connection has ended and what it had under way is drained ([`TransferLimits::fence`]). Time alone never lifts it: a
//!   paused peer keeps it up, and so does a data thread that does not poll.
//! - **Leave before writing.** A sender attaches with the ticket's secret before its first write; a revoked, expired, used or
//!   forged ticket, or one of an earlier incarnation, gets no leave.
//! - **A late write is only counted.** An immediate whose slot and generation are not live completes nothing.
//! - **The source is owned** until `finish` returned or the [`Quiesced`] of `abort` resolved; a lease given to
//!   [`hold`](Outgoing::hold) is kept exactly so long.
//! - **Nothing waits for ever.** A write that does not come back, though its peer lives, ends its peer's transfers; if the fabric
//!   cannot even then tell its end, the data plane fails ([`failed`](TransferNode::failed)) rather than give its memory away.
//! - **Nothing unbounded.** [`TransferLimits`] holds every bound, [`TransferStats`] how full it is.
//! - **Nothing sleeps on the path.** The data thread spins some microseconds, then waits on the fabric's own wait object. The
//!   one exception is a provider that has none (libfabric `shm`, NIXL): it is polled, once in a millisecond when nothing
//!   happens, while a peer is connected.
//!
//! # What it leaves out
//! Models, HTTP, metrics libraries, who talks to whom. Not here yet: GPU memory.
//!
//! # Trust
//! Peers are processes of the same system, but what they send is checked before it is used: descriptors, ring counters,
//! frame lengths, tickets, manifests. On shm only processes of the same user (or root) are let in. With the others the control
//! port needs the receiver's random incarnation id, which only tickets and the registry carry; the link itself is neither encrypted nor
//! authenticated: it belongs on a private network. NIXL's UCX has a port of its own: over tcp, whoever reaches that and speaks
//! its protocol can write anywhere in the process.

mod checksum;
mod config;
mod control;
mod coverage;
mod engine;
mod error;
mod fabric;
mod fetch;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod ids;
mod latch;
mod layout;
mod memory;
mod node;
mod offload;
mod own_time;
#[doc(hidden)]
pub mod parts;
mod plan;
mod random;
mod raw;
mod receive;
mod send;
#[cfg(test)]
mod sim;
mod staging;
mod stats;
mod tally;
mod ticket;
mod wire;

pub use config::{
    ChecksumMode, FabricSpec, TransferConfig, TransferLimits, UnknownChecksumMode, UnknownFabric,
};
pub use error::{
    DataPlaneFailed, ExpectError, FabricError, FetchError, OpenError, PushError, StartError, TransferError,
};
pub use fabric::libfabric::{LibfabricSurvey, ProviderFacts, ProviderSurvey};
pub use fabric::nixl::NixlSurvey;
pub use fabric::ucx::UcxSurvey;
pub use fetch::{Fetching, Offered};
#[cfg(fuzzing)]
pub use fuzz::fuzz;
pub use latch::Quiesced;
pub use layout::{
    GeometryError, KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, Mismatch, TensorParallel,
    UnknownDtype,
};
pub use memory::PoolMemory;
pub use node::{Connected, FabricDescription, TransferNode};
pub use raw::RawFabric;
pub use receive::{Incoming, Received};
pub use send::{Outgoing, Sent};
pub use stats::{RailStats, TransferStats};
