//! The control plane: one connection for each peer and direction, served by tokio tasks.
//!
//! Whoever wants to write dials. On shm the socket is an abstract Unix one (no file, descriptors can travel, only
//! processes of the same user are heard); with libfabric and UCX it is TCP.

mod accept;
mod dial;
mod endpoint;
mod peers;

pub(crate) use accept::serve_listener;
pub(crate) use dial::{Links, SendLink, convertible};
pub(crate) use endpoint::Listener;
pub(crate) use peers::{Outbox, Peers};
