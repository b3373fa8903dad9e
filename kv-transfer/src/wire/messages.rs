//! The messages. Fields are allegations until someone checks them.

use super::GeometryWire;
use crate::ids::TransferKey;
use crate::tally::Tally;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Frame {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub(crate) body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Body {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    #[prost(message, tag = "3")]
    Refused(Refused),
    #[prost(message, tag = "4")]
    Attach(Attach),
    #[prost(message, tag = "5")]
    Attached(Attached),
    #[prost(message, tag = "6")]
    AttachRefused(AttachRefused),
    #[prost(message, tag = "7")]
    Manifest(Manifest),
    #[prost(message, tag = "8")]
    Abort(Reason),
    #[prost(message, tag = "9")]
    Withdrawn(Withdrawn),
    #[prost(message, tag = "10")]
    Want(Want),
    #[prost(message, tag = "11")]
    Grant(Grant),
    #[prost(message, tag = "12")]
    Confirm(Confirm),
    #[prost(message, tag = "13")]
    Confirmed(Confirmed),
    #[prost(message, tag = "14")]
    OfferGone(OfferGone),
    #[prost(message, tag = "15")]
    Recall(Recall),
    #[prost(message, tag = "16")]
    Recalled(Recalled),
    #[prost(message, tag = "17")]
    Amend(Amend),
    #[prost(message, tag = "18")]
    Stray(Stray),
}

/// The sender's first word.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) protocol: u32,
    /// The sender.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) node: Vec<u8>,
    /// The incarnation that the sender means to talk to.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) target: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) fabric: String,
    #[prost(message, required, tag = "5")]
    pub(crate) geometry: GeometryWire,
    #[prost(string, tag = "6")]
    pub(crate) model: String,
    /// The fabric's own address, for fabrics whose target must know its initiators.
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) address: Vec<u8>,
    /// The sender's control endpoint, for logs.
    #[prost(string, tag = "9")]
    pub(crate) endpoint: String,
}

/// The receiver's consent, and what one needs to write into its pool.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Welcome {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) node: Vec<u8>,
    #[prost(message, required, tag = "2")]
    pub(crate) geometry: GeometryWire,
    /// Opaque to all but the fabric.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) offer: Vec<u8>,
    /// Descriptors that follow with one byte of their own.
    #[prost(uint32, tag = "4")]
    pub(crate) descriptors: u32,
    /// Chunks behind the pool that a sender may be granted, and as many again that are the receiver's own affair.
    #[prost(uint32, tag = "5")]
    pub(crate) staging_chunks: u32,
    #[prost(uint64, tag = "6")]
    pub(crate) chunk_bytes: u64,
}

/// The receiver's no, naming what differs.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refused {
    /// `incarnation`, `full`, `unable`, or the field that differs.
    #[prost(string, tag = "1")]
    pub(crate) field: String,
    #[prost(string, tag = "2")]
    pub(crate) ours: String,
    #[prost(string, tag = "3")]
    pub(crate) yours: String,
}

/// Names a transfer.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Key {
    #[prost(uint32, tag = "1")]
    pub(crate) slot: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) generation: u32,
}

impl From<TransferKey> for Key {
    fn from(key: TransferKey) -> Self {
        Self { slot: key.slot.index() as u32, generation: key.generation.number() }
    }
}

impl Key {
    pub(crate) fn checked(self) -> Option<TransferKey> {
        TransferKey::from_wire(self.slot, self.generation)
    }
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Attach {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(fixed64, tag = "2")]
    pub(crate) secret: u64,
    /// Every write will be of a chunk, into one that was granted.
    #[prost(bool, tag = "3")]
    pub(crate) staged: bool,
}

/// The sender could fill so many more chunks now.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Want {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(uint32, tag = "2")]
    pub(crate) chunks: u32,
}

/// A chunk for the sender's next staged write that has none yet.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Grant {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(uint32, tag = "2")]
    pub(crate) chunk: u32,
}

/// Leave to write.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Attached {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    /// The slot and generation under which this sender's writes are counted; of several senders each has its own.
    #[prost(message, required, tag = "2")]
    pub(crate) arrivals: Key,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttachRefused {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    /// How many slots the receiver has, if it is that none is free: the sender may try again.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) slots: Option<u32>,
}

/// What the sender wrote, announced when the last write is posted.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Manifest {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    /// Writes with an immediate, the number to count to.
    #[prost(uint32, tag = "2")]
    pub(crate) writes: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) bytes: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) layers: u32,
    /// Units of each layer: source blocks.
    #[prost(uint32, tag = "5")]
    pub(crate) units: u32,
    /// Distinct pairs of layer and unit that were pushed, counted by the sender's coverage map.
    #[prost(uint64, tag = "6")]
    pub(crate) pieces: u64,
    #[prost(uint32, tag = "7")]
    pub(crate) tokens: u32,
    #[prost(uint32, tag = "8")]
    pub(crate) checksums: u32,
    /// Hashes in the order of the selection, 8 bytes each, little-endian.
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) hashes: Vec<u8>,
    /// Writes that failed on their way and were posted again as others; each may land or not. The others are all in the
    /// receiver's memory.
    #[prost(message, optional, tag = "10")]
    pub(crate) doubtful: Option<Tally>,
}

/// A write that the manifest counts failed on its way: the transfer must not complete before that is made up for.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Recall {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
}

/// Whether it is so. If not, the transfer is over, or that write had landed after all.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Recalled {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(bool, tag = "2")]
    pub(crate) waits: bool,
}

/// A chunk's write failed on its way, and another chunk will take its place. It may land yet.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Stray {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    /// Of the write.
    #[prost(uint32, tag = "2")]
    pub(crate) sequence: u32,
}

/// The manifest holds again, with these counts.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Amend {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(uint32, tag = "2")]
    pub(crate) writes: u32,
    #[prost(message, required, tag = "3")]
    pub(crate) doubtful: Tally,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reason {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

/// No write of this transfer is in flight or will be posted.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Withdrawn {
    #[prost(message, required, tag = "1")]
    pub(crate) key: Key,
    /// Writes that completed at the sender, all that it made; absent when it had finished or never knew the transfer, and when
    /// a write failed, as nobody knows then what of it may still land.
    #[prost(message, optional, tag = "2")]
    pub(crate) writes: Option<Tally>,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
}

/// A reader has read what an offer names.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Confirm {
    #[prost(fixed64, tag = "1")]
    pub(crate) id: u64,
    /// The least that it wants hashed.
    #[prost(uint32, tag = "2")]
    pub(crate) checksums: u32,
}

/// The offer was live all the time, and this is what it holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Confirmed {
    #[prost(fixed64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) checksums: u32,
    /// As a manifest has them.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) hashes: Vec<u8>,
}

/// The offer is over: what was read may be anything.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OfferGone {
    #[prost(fixed64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}
