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
//!
//! A node may have several endpoints, one for each NIC or IP address: its *rails* ([`rail`]). Each write takes one of the
//! paths to its peer ([`paths`]).

mod choice;
mod contexts;
mod fabric;
mod info;
mod library;
mod locality;
mod objects;
mod offer;
mod options;
mod paths;
mod rail;
mod setup;
mod status;
mod survey;
mod sys;

pub(crate) use fabric::Libfabric;
#[cfg(any(test, fuzzing))]
pub(crate) use offer::fuzz;
pub use survey::{LibfabricSurvey, ProviderFacts, ProviderSurvey};

use crate::FabricError;

fn fault(operation: &'static str, reason: &dyn std::fmt::Display) -> FabricError {
    FabricError { fabric: "libfabric", operation, reason: reason.to_string() }
}
