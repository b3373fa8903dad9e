//! Tells routers which prefixes a worker has cached, so that they can send a request where its beginning is: vLLM's KV events.
//!
//! ```text
//!   EventSender::send ──► queue ──► Publisher ──► PUB     [topic, number, batch]             to every subscriber
//!   (never waits)        (bounded)     └─► History
//!                                             └─► ROUTER  [number, batch]… [-1, nothing]     to whoever asks what it missed
//! ```
//!
//! A batch has a number, counted from 0 at the worker's start. A subscriber that sees a gap asks for a replay from the first number
//! it lacks; one that finds the numbers starting again knows that the worker did, with nothing cached.
//!
//! Deliberately absent: subscribing, and an index over what was published.
//!
//! # Invariants
//! - Sending never waits and never fails. A batch for which the queue has no room is dropped and counted, and its number is
//!   left out, so that subscribers see that they lack something.
//! - The queue, the history and each subscriber's backlog are bounded.

#![forbid(unsafe_code)]

mod encode;
mod endpoint;
mod event;
mod history;
mod msgpack;
mod publisher;
mod replay;
mod sender;

pub use encode::{Format, batch as encode_batch};
pub use endpoint::{Endpoint, EndpointError};
pub use event::{Event, Lora, Stored};
pub use publisher::{Publisher, Settings, StartError};
pub use sender::{EventSender, EventStats};
