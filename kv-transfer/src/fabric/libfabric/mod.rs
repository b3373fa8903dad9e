//! libfabric: RDM endpoint, RMA writes with 4 bytes of remote completion data.
//!
//! ```text
//!  initiator                                              target
//!  pool ── fi_writemsg(FI_REMOTE_CQ_DATA) ══ provider ══► registered pool
//!    └── completion (source free, bytes delivered)          └── completion with the immediate
//! ```
//! What a provider can do is read from it ([`info`]), never assumed: addressing by offset or virtual address, who makes
//! the key, message size, queue depth, whether completion can mean delivery, whether there is something to sleep on.
//! The order of delivery is not used at all.

mod choice;
mod contexts;
mod fabric;
mod info;
mod library;
mod objects;
mod options;
mod setup;
mod status;
mod survey;
mod sys;

pub(crate) use fabric::Libfabric;
#[cfg(any(test, fuzzing))]
pub(crate) use fabric::fuzz;
pub use survey::{LibfabricSurvey, ProviderFacts, ProviderSurvey};
