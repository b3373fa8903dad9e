//! Shared memory: the initiator copies straight into the target's pool, then puts the immediate into a ring.
//!
//! ```text
//!   initiator process                          target process
//!  ┌───────────────────┐   copy      ┌────────────────────────────┐
//!  │ own pool ═════════╪════════════►│ pool (sealed memfd)        │
//!  │                   │ immediate   │                            │
//!  │ ring producer ────┼────────────►│ ring, one an initiator     │
//!  │                   │ if asleep   │                            │
//!  │ doorbell ring ────┼────────────►│ doorbell (futex, one page) │
//!  └───────────────────┘             └────────────────────────────┘
//! ```
//! All three are memfds that travel once, over the control socket, and leave no file behind. When a process dies, the
//! kernel tears down its address space before it closes its sockets: after the control connection's end no byte of it
//! can arrive.

mod doorbell;
mod fabric;
mod ring;

pub(crate) use fabric::ShmFabric;
#[cfg(any(test, fuzzing))]
pub(crate) use ring::{Consumer, ENTRIES, Producer};
