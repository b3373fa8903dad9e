//! UCX (its UCP interface): puts into registered memory, and an active message with the immediates behind a flush.
//!
//! ```text
//!  initiator                                               target
//!  pool ══ ucp_put_nbx ═══════════ transport ════════════► mapped pool
//!    └── ucp_ep_flush_nbx: all of it is there ───────────►   │
//!          └── ucp_am_send_nbx(token, immediates) ─────────► message: the writes have landed
//! ```
//! A write is reported done when the message is on its way, that is when its bytes are delivered and its source is free.
//! Which transport carries what is UCX's choice among `TLS`; with several, a peer's puts and messages may take different
//! ones, and the flush covers them all. Over tcp, and over posix or sysv without cma, UCX makes a put of messages that the
//! target's UCX copies into place, when its worker makes progress.
//!
//! # What holds
//! - The IP interface of `listen_ip` is the only one that is used or listened on; all its addresses count, as UCX knows
//!   interfaces and not addresses. RDMA devices are not narrowed. UCX 1.20's tcp reaches nobody over the loopback interface.
//! - A process that reaches UCX's `tcp` port, or is let in by the kernel to use `cma` (the same user), can write to any
//!   address of this process: UCX checks no key there. It belongs on a private network, as the crate's page says.
//! - Until its process ends, a peer that uses `cma` can write without our help: closing our end does not stop it. The
//!   transfer protocol's fences do.
//! - UCX is configured through its own interface, with what a guest in a process should leave alone turned off: no signal
//!   handlers, no hooks in the C library, nothing on standard output. A process should hold one UCX: what another copy
//!   (NIXL bundles one) or an earlier user of the same one did before, stays.

mod announcement;
mod batches;
mod devices;
mod endpoint;
mod fabric;
mod guest;
mod library;
mod mailbox;
mod objects;
mod offer;
mod settings;
mod survey;
mod sys;
#[cfg(test)]
mod tests;
mod writes;

pub(crate) use fabric::Ucx;
pub use survey::UcxSurvey;
