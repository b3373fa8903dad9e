//! The control protocol: what two nodes say to each other beside the data.
//!
//! ```text
//!  sender                                     receiver
//!    │ Hello ──────────────────────────────────► │   who I am, whom I seek, layout, fabric address
//!    │ ◄──────────────────── Welcome (+fds) │ Refused   its layout, fabric address, keys of the pool
//!    │ Attach ─────────────────────────────────► │   for each transfer, before its first write
//!    │ ◄──────────────────── Attached │ AttachRefused
//!    │ Want ───────────────────────────────────► │   staged transfers: chunks that could be filled now
//!    │ ◄─────────────────────────────── Grant    │
//!    │ ═══ one-sided writes ═══════════════════► │
//!    │ Manifest ───────────────────────────────► │   how many writes, what they cover, hashes
//!    │ ◄──────────────────────────────── Abort   │   at any time
//!    │ Withdrawn ──────────────────────────────► │   no write of this transfer is or will be under way
//! ```
//! Pulls use the same connection; see `fetch`. The connection's end is the peer's death.

mod frame;
mod geometry;
mod messages;

pub(crate) use frame::{FrameError, encode, read_frame};
pub(crate) use geometry::GeometryWire;
#[cfg(any(test, fuzzing))]
pub(crate) use messages::Key;
pub(crate) use messages::{
    Attach, AttachRefused, Attached, Body, Confirm, Confirmed, Grant, Hello, Manifest, OfferGone, Reason,
    Refused, Want, Welcome, Withdrawn,
};

/// Version of this protocol; both ends must speak the same.
pub(crate) const PROTOCOL: u32 = 4;
/// Longest frame before the handshake is done, and longest of every kind but the manifest.
pub(crate) const SMALL_FRAME_BYTES: usize = 64 << 10;
/// Longest reason that is passed on to a peer.
pub(crate) const MAX_REASON_CHARS: usize = 512;
