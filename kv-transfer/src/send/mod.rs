//! The sending half: attaching to a ticket, pushing blocks, finishing.

mod cell;
mod group;
mod outgoing;

pub(crate) use cell::OutgoingCell;
pub use cell::Sent;
pub(crate) use group::LinkSpeed;
pub use outgoing::Outgoing;
#[cfg(any(test, fuzzing))]
pub(crate) use outgoing::convert;
pub(crate) use outgoing::{OpenGuard, check_compatible};
