//! Real workers: started by `baton up`, put under load, and asked what their steps took.
//!
//! ```text
//!  profile:  a pair and an aggregated worker ─► loads of every kind ─► /v1/steps, decisions ─► fit ─► Profile
//!            or a fleet that serves, and what it did lately ─┘
//!  verify:   splits ─► `baton up`, one after the other ─► the same requests live and simulated ─► how far apart, and which is best
//! ```

mod args;
mod client;
mod each;
mod fleet;
mod loads;
mod measure;
mod past;
mod report;
mod steps;
mod verify;

pub use args::{MeasureArgs, VerifyArgs};
use client::Client;
pub use client::Server;
pub use each::{Request, Times};
use fleet::Fleet;
pub use fleet::FleetError;
pub use measure::{MeasuredProfile, Thoroughness, measure, observe};
pub use verify::{Both, Verification, Verified, regret, verify};

use baton_load::{BenchError, GetError, modes::ModeError};
use baton_workload::VocabularyTooSmall;

use crate::fit::FitError;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// The workers did not come up.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// They were not found ready.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A run against them.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// What they were asked.
    #[error(transparent)]
    Get(#[from] GetError),
    /// What they said.
    #[error("{path} says what can't be read: {source}; is it a Baton server of this version?")]
    Unreadable {
        /// What was asked for.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Nobody is there.
    #[error("the server names no workers")]
    NoWorkers,
    /// A model that can't be sent token ids.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyTooSmall),
    /// A request that was not served.
    #[error("{load}: a request failed: {message}")]
    Failed {
        /// In which load.
        load: String,
        /// What the server said.
        message: String,
    },
    /// What was measured gives no times.
    #[error(transparent)]
    Fit(#[from] FitError),
}
