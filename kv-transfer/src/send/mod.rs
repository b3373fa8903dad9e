//! The sending half: attaching to a ticket, pushing blocks, finishing.

mod cell;
mod outgoing;

pub(crate) use cell::OutgoingCell;
pub use cell::Sent;
pub use outgoing::Outgoing;
#[cfg(any(test, fuzzing))]
pub(crate) use outgoing::convert;
pub(crate) use outgoing::{OpenGuard, check_compatible};
