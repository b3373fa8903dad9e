//! Pulling: one-sided reads of blocks that a peer holds, for prefixes that it has cached.
//!
//! ```text
//!  owner                                        reader
//!    │ ticket (by any way) ────────────────────► │
//!    │ ◄═══════════════════ one-sided reads ════ │   the owner's processor has no part in them
//!    │ ◄────────────────────────────── Confirm   │   after the last
//!    │ Confirmed (hashes) │ OfferGone ─────────► │
//! ```
//! The owner takes an offer back whenever it likes and uses the blocks at once: a read that comes later harms nobody, and its
//! bytes are not used, as the owner does not confirm them. A confirmation says that the offer was live after the last byte was
//! read, so it was live while they were.

mod fetching;
mod offers;
mod ticket;

pub use fetching::Fetching;
pub use offers::Offered;
pub(crate) use offers::Offers;
pub(crate) use ticket::OfferTicket;
