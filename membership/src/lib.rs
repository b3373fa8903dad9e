//! Several schedulers side by side, as workers and sidecars see them: which there are, what is done for each, and what each of them
//! said last.
//!
//! ```text
//!   a:8100,dns:schedulers:8100 ── Schedulers::keep ───► {a:8100, 10.0.0.7:8100, 10.0.0.9:8100}   one membership each
//!                                                             │ lists, whenever they change
//!                                                             ▼
//!                                                         LastWords ──► what holds
//! ```
//! Schedulers have no leader and do not know of each other. Each is told everything by every worker, so any of them can serve
//! any request, and one that ends takes with it only the requests that it was relaying.
//!
//! Deliberately absent: a consensus, a store, and any message between schedulers.
//!
//! # Invariants
//! - What a scheduler said counts while it is connected. When none is, what each said last still does: a fleet goes on
//!   working as it is.
//! - A name service that fails changes nothing; only its answers do.

#![forbid(unsafe_code)]

mod attendance;
mod last_words;
mod resolve;
mod schedulers;

pub use attendance::Attendance;
pub use last_words::LastWords;
pub use schedulers::{BadAddress, SchedulerAddress, Schedulers};
