//! What can go wrong, one fact a type, composed per operation.

use std::time::Duration;

use crate::layout::GeometryError;

/// The fabric could not be opened, or an operation on it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("fabric {fabric}: {operation} failed: {reason}")]
pub struct FabricError {
    /// Which fabric.
    pub fabric: &'static str,
    /// What was tried.
    pub operation: &'static str,
    /// What the system or library said.
    pub reason: String,
}

/// The data plane of a node ended by itself. Nothing can be sent or received any more: end the process, and start it anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data plane of this worker failed ({reason}): restart the worker")]
pub struct DataPlaneFailed {
    /// What ended it.
    pub reason: String,
}

/// A node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pool's shape is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A limit is outside what the wire format can carry.
    #[error("limit `{name}` = {value} is not within 1..={max}")]
    Limit {
        /// The field of `TransferLimits`.
        name: &'static str,
        /// What it was set to.
        value: usize,
        /// Its largest value.
        max: usize,
    },
    /// Memory for the pool could not be had.
    #[error("cannot allocate a KV pool of {bytes} bytes: {reason}")]
    Pool {
        /// Bytes of the pool.
        bytes: u64,
        /// What the system said.
        reason: std::io::Error,
    },
    /// libfabric is not on this machine, or too old.
    #[error(
        "cannot open libfabric ({reason}); install libfabric 2.0 or newer (for example `pip install mpich`, which brings \
         2.5, or your distribution's `libfabric1`) and give its path with BATON_LIBFABRIC, or use the fabric `shm`"
    )]
    LibfabricMissing {
        /// Where it was looked for and what was found.
        reason: String,
    },
    /// The library is there and offers no provider that can do what is needed.
    #[error("libfabric {version} has no usable provider `{provider}`: {reason}")]
    NoProvider {
        /// Version of the library.
        version: String,
        /// The provider asked for.
        provider: String,
        /// What is missing.
        reason: String,
    },
    /// NIXL is not on this machine, or not this one's.
    #[error(
        "cannot open NIXL ({reason}); install it (for example `pip install --no-deps nixl-cu13`, which needs no GPU) and give \
         the path of libnixl_capi.so, its folder or the environment's `site-packages` with BATON_NIXL, or use the fabric `shm`"
    )]
    NixlMissing {
        /// Where it was looked for and what was found.
        reason: String,
    },
    /// NIXL is there, and the backend is not usable.
    #[error("NIXL has no usable backend `{backend}`: {reason}")]
    NoBackend {
        /// The backend asked for.
        backend: String,
        /// What is missing.
        reason: String,
    },
    /// UCX is not on this machine, or too old.
    #[error(
        "cannot open UCX ({reason}); install UCX 1.17 or newer (for example `pip install libucx-cu12`, which brings 1.22 and \
         needs no GPU, or your distribution's `libucx0`) and give the path of its libucp.so.0 with BATON_UCX, or use the \
         fabric `shm`"
    )]
    UcxMissing {
        /// Where it was looked for and what was found.
        reason: String,
    },
    /// UCX is there and cannot be used with these transports.
    #[error("UCX {version} cannot be used with the transports `{transports}`: {reason}")]
    NoTransport {
        /// Version of the library.
        version: String,
        /// The transports asked for.
        transports: String,
        /// What is missing.
        reason: String,
    },
    /// The fabric refused an operation.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The control endpoint could not be bound, or a thread not started.
    #[error("cannot bind the control endpoint {endpoint}: {source}")]
    Control {
        /// What was to be bound.
        endpoint: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A transfer could not be expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectError {
    /// Nothing to receive.
    #[error("a transfer needs at least one destination block")]
    Empty,
    /// Tokens and blocks do not go together.
    #[error("{tokens} tokens fill {needed} blocks of this pool, not {blocks}")]
    WrongBlocks {
        /// Tokens to receive.
        tokens: u32,
        /// Blocks given.
        blocks: usize,
        /// Blocks that they fill.
        needed: u32,
    },
    /// More blocks than `TransferLimits::blocks_per_transfer`.
    #[error("{blocks} destination blocks are more than the limit of {limit} in one transfer")]
    TooManyBlocks {
        /// Blocks asked for.
        blocks: usize,
        /// The limit.
        limit: usize,
    },
    /// A block that the pool does not have.
    #[error("destination block {block} is outside the pool of {blocks} blocks")]
    NoSuchBlock {
        /// The id.
        block: u32,
        /// Blocks in the pool.
        blocks: u32,
    },
    /// The same block twice.
    #[error("destination block {block} is named twice")]
    DuplicateBlock {
        /// The id.
        block: u32,
    },
    /// A block that an earlier transfer may still write.
    #[error(
        "destination block {block} still belongs to another transfer (live, or fenced and not yet quiescent)"
    )]
    BlockBusy {
        /// The id.
        block: u32,
    },
    /// All slots are taken.
    #[error("all {limit} transfer slots are in use; retry when one is free")]
    Full {
        /// Slots of this node.
        limit: usize,
    },
    /// The data plane is gone.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneFailed),
    /// The node is shutting down.
    #[error("the transfer node is shutting down")]
    ShuttingDown,
}

/// A transfer could not be opened for sending.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not a ticket.
    #[error("the ticket does not decode: {reason}")]
    BadTicket {
        /// What is wrong with it.
        reason: String,
    },
    /// The two workers cannot exchange KV.
    #[error("this worker and {endpoint} are incompatible: {field} is `{ours}` here and `{theirs}` there")]
    Incompatible {
        /// The peer's control endpoint.
        endpoint: String,
        /// Which property differs.
        field: String,
        /// Its value here.
        ours: String,
        /// Its value at the peer.
        theirs: String,
    },
    /// The receiver's heads are all held by other tensor-parallel ranks of the senders: this one has nothing to send.
    #[error(
        "{endpoint} needs none of this worker's KV heads: only ranks that hold some of its heads open its ticket"
    )]
    NotNeeded {
        /// The peer's control endpoint.
        endpoint: String,
    },
    /// The peer was restarted since it gave the ticket.
    #[error("the ticket is of an earlier incarnation of {endpoint}; ask for a new one")]
    StaleIncarnation {
        /// The peer's control endpoint.
        endpoint: String,
    },
    /// The peer no longer expects this transfer.
    #[error("{endpoint} no longer expects this transfer ({reason})")]
    Revoked {
        /// The peer's control endpoint.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// No connection to the peer, or it broke.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The peer's control endpoint.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// The peer did not answer in time.
    #[error("{endpoint} did not answer within {after:?}")]
    TimedOut {
        /// The peer's control endpoint.
        endpoint: String,
        /// The limit.
        after: Duration,
    },
    /// The data plane is gone.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneFailed),
    /// Too many open transfers or peers.
    #[error("all {limit} {what} are in use; retry when one is free")]
    Full {
        /// What ran out.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The node is shutting down.
    #[error("the transfer node is shutting down")]
    ShuttingDown,
}

/// Blocks could not be fetched from a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The destination blocks are not free for it.
    #[error(transparent)]
    Blocks(#[from] ExpectError),
    /// The ticket or the peer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The owner holds only some of the heads.
    #[error("{endpoint} holds only some of the KV heads that this worker needs: have its ranks push instead")]
    Partial {
        /// The owner's control endpoint.
        endpoint: String,
    },
}

/// Blocks could not be queued for sending. After any of these the transfer cannot complete: abort it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// A layer that the pool does not have.
    #[error("layers {start}..{end} are outside the pool of {layers} layers")]
    NoSuchLayer {
        /// First layer.
        start: u32,
        /// One past the last layer.
        end: u32,
        /// Layers in the pool.
        layers: u32,
    },
    /// A source block that the pool does not have.
    #[error("source block {block} is outside the pool of {blocks} blocks")]
    NoSuchBlock {
        /// The id.
        block: u32,
        /// Blocks in the pool.
        blocks: u32,
    },
    /// An index past the sequence's end.
    #[error("block {index} of the sequence is past its end: its tokens fill {blocks} blocks here")]
    NoSuchIndex {
        /// The index.
        index: u32,
        /// Source blocks that the sequence fills.
        blocks: u32,
    },
    /// A piece pushed twice.
    #[error("layer {layer} of block {index} of the sequence was pushed before")]
    Duplicate {
        /// The layer.
        layer: u32,
        /// Position in the sequence, in source blocks.
        index: u32,
    },
    /// The queue stayed full for the configured patience.
    #[error("{limit} pushes are queued and none was posted within {waited:?}: the peer or the link is stuck")]
    Backlogged {
        /// The queue's bound.
        limit: usize,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The transfer already ended.
    #[error(transparent)]
    Ended(#[from] TransferError),
}

/// Why a transfer ended without success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The peer's process died or closed its connection.
    #[error("the peer {peer} was lost")]
    PeerLost {
        /// Its control endpoint or node id.
        peer: String,
    },
    /// A write or read to the peer did not come back in time, so everything that goes to it was given up.
    #[error(
        "a write or read to {peer} did not come back within {after:?}: its fabric is stuck, or its host is; the connection \
         to it was ended"
    )]
    Overdue {
        /// Its control endpoint.
        peer: String,
        /// `TransferLimits::overdue`.
        after: Duration,
    },
    /// The deadline passed before the transfer was complete.
    #[error("the transfer expired after {after:?} with {arrived} writes arrived and the manifest {manifest}")]
    Expired {
        /// The time it had.
        after: Duration,
        /// Writes counted until then.
        arrived: u32,
        /// `here` or `missing`.
        manifest: &'static str,
    },
    /// The other side gave the transfer up.
    #[error("the peer aborted the transfer: {reason}")]
    AbortedByPeer {
        /// What it said.
        reason: String,
    },
    /// This side gave the transfer up.
    #[error("the transfer was aborted here")]
    Aborted,
    /// The bytes that arrived are not those that were sent.
    #[error("checksum mismatch in layer {layer}, block {block} (from token {token} of the sequence)")]
    Checksum {
        /// The layer.
        layer: u32,
        /// Destination block id; the first one, where several hold what was hashed together.
        block: u32,
        /// First token of what was hashed together.
        token: u32,
    },
    /// The manifest does not describe the transfer that was asked for.
    #[error("the sender's manifest is wrong: {field} is {announced}, expected {expected}")]
    Manifest {
        /// Which field.
        field: String,
        /// What it said.
        announced: u64,
        /// What it should say.
        expected: u64,
    },
    /// As many writes arrived as the sender made, or more, and not the same ones: some came twice, some may be lost.
    #[error("{arrived} writes arrived, which are not the {announced} that the sender made: some came twice")]
    Arrivals {
        /// Arrivals counted.
        arrived: u32,
        /// Writes in the manifest.
        announced: u32,
    },
    /// The owner of blocks that were read took them back before the last byte was read.
    #[error("{peer} does not confirm what was read from it: {reason}")]
    OfferGone {
        /// Its control endpoint.
        peer: String,
        /// What it said.
        reason: String,
    },
    /// A staged chunk is not what it should be.
    #[error("a staged chunk from the sender is wrong: {reason}")]
    Staging {
        /// What is wrong with it.
        reason: String,
    },
    /// `finish` before every piece was pushed.
    #[error("layer {layer} of block {index} of the sequence was never pushed")]
    Incomplete {
        /// The first missing layer.
        layer: u32,
        /// Position in the sequence, in source blocks.
        index: u32,
    },
    /// A write failed on the fabric.
    #[error("a write to {peer} failed: {reason}")]
    Write {
        /// The peer's control endpoint.
        peer: String,
        /// What the fabric said.
        reason: String,
    },
    /// The data plane is gone.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneFailed),
    /// The node is shutting down.
    #[error("the transfer node is shutting down")]
    ShuttingDown,
}

impl TransferError {
    /// Of what is left when the data plane ended: by a failure, or because it was told to.
    pub(crate) fn ended(failure: Option<DataPlaneFailed>) -> Self {
        failure.map_or(Self::ShuttingDown, Self::DataPlane)
    }
}

impl OpenError {
    /// As [`TransferError::ended`].
    pub(crate) fn ended(failure: Option<DataPlaneFailed>) -> Self {
        failure.map_or(Self::ShuttingDown, Self::DataPlane)
    }
}

impl ExpectError {
    /// As [`TransferError::ended`].
    pub(crate) fn ended(failure: Option<DataPlaneFailed>) -> Self {
        failure.map_or(Self::ShuttingDown, Self::DataPlane)
    }
}
