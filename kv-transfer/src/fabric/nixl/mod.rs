//! NVIDIA NIXL: a transfer agent in this process writes into the memory that other agents registered.
//!
//! ```text
//!  initiator                                                      target
//!  post_write ─► batch of one peer
//!  flush ──────► request: many descriptors, one notification
//!  pool ═════════ backend (UCX…): the bytes of all of them ═════► registered pool
//!  poll ───────► the bytes are there: the notification goes ────► notifications: the immediates of the batch
//!    └────────── request done: the contexts of the batch
//! ```
//! What NIXL (1.5.1, its documentation and its UCX backend's source) promises, and what is made of it:
//! - **A request is expensive** (lists, a lookup of each descriptor, several allocations), so the writes of a round to one
//!   peer are one request, with one notification for all of their immediates. They complete together.
//! - **The notification follows the bytes.** The UCX backend flushes the endpoint, which on UCX means that the bytes are in
//!   the target's memory, and sends the notification after that: from within the status call, so a request moves only
//!   while it is polled. Requests have no order among each other, and none is relied on.
//! - **A request is done** when the bytes were flushed and the notification was handed to the transport: the source may be
//!   reused and the bytes are delivered. The notification may still be on its way; it is counted at the other end. For
//!   other backends delivery is not claimed, and what may be late is drained.
//! - **No lock, no thread.** The agent is used by one thread at a time (thread synchronisation off) and has neither a
//!   progress nor a listening thread: its calls make the progress. There is nothing to sleep on either, so the data thread
//!   polls while a sender is attached or a request is in flight.
//! - **It returns when there is nothing to progress.** A call of the UCX backend goes on while its worker finds more to do,
//!   which peers that write without pause prolong; it never waits for something to come.
//!
//! # Failures
//! The reason of a failed request is in NIXL's own log on standard error (`NIXL_LOG_LEVEL`); its C API says little more than
//! that a backend failed. After a failure nothing more is posted to that agent until what was under way has ended; its
//! metadata is loaded anew then, which opens a new connection. Of a failed request some bytes may have left already, so its
//! contexts come back only after the time that arriving bytes are drained for. A peer's death is mostly seen by the backend (a
//! connection that is reset); a peer that merely falls silent is not, over tcp not for minutes, so `disconnect` fails what is
//! under way at once, and the requests linger until the backend gives up.
//!
//! # Trust
//! An offer's metadata is handed to NIXL and its backend, which check little of it: how long it is and whose it says it
//! is are checked here, the rest rests on who may make offers (the control connection). A notification names its sender by
//! itself; names are random and only their peers know them. A UCX worker listens on the network: whoever reaches it and
//! speaks UCX's protocol can write anywhere in this process where the transport emulates one-sided writes (tcp). On a
//! loopback `listen_ip` it is bound to the loopback device unless `UCX_NET_DEVICES` says otherwise.

mod agent;
mod batch;
mod fabric;
mod library;
mod notification;
mod object;
mod offer;
mod remotes;
mod request;
mod survey;
mod sys;
#[cfg(test)]
mod tests;

pub(crate) use fabric::Nixl;
pub use survey::NixlSurvey;
