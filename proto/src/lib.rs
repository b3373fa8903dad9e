//! The gRPC contracts between Baton's processes, and nothing else: no logic lives here.
//!
//! | service | served by | called by | for |
//! |---|---|---|---|
//! | [`registry`](v1::registry_server) | scheduler (and each sidecar, which relays its decode worker's) | workers | joining the fleet, reporting load, leaving |
//! | [`directory`](v1::directory_server) | scheduler | sidecars with an HTTP front | who may prefill |
//! | [`membership`](v1::membership_server) | sidecar | its decode worker | which schedulers there are |
//! | [`generation`](v1::generation_server) | sidecar | scheduler | one request from tokenised prompt to last token |
//! | [`prefill`](v1::prefill_server) | prefill worker | sidecar | the first leg |
//! | [`decode`](v1::decode_server) | decode worker | its sidecar | the second leg |
//!
//! Everything on these contracts is token ids: text is the front's business. A cancelled call is the only cancel there
//! is: whoever drops its side of a stream thereby frees whatever the other side held for it.

/// Largest message: a prompt of a million tokens with room to spare.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Calls on one connection. Far more than any limit on requests, so that it is those that refuse, in words, and not the
/// connection that silently lets a call wait.
pub const MAX_STREAMS: u32 = 1 << 16;

/// In the metadata of a join by way of a sidecar: the scheduler that is meant, by its name on the sidecar's list.
pub const SCHEDULER_METADATA: &str = "baton-scheduler";

/// Version 1 of the contracts.
pub mod v1 {
    #![expect(missing_docs, reason = "generated; the comments stand in the .proto files")]
    #![expect(
        clippy::allow_attributes_without_reason,
        reason = "generated code allows lints without saying why"
    )]
    #![expect(
        clippy::large_enum_variant,
        reason = "generated; a report's variants differ in size, and are moved rarely"
    )]
    tonic::include_proto!("baton.v1");
}
