//! How many prefill and how many decode workers, or none apart: found by simulation, told with an error.
//!
//! ```text
//!  trace or distributions ─► Sample ─┬─ bound ────► splits that can't be best
//!  profile of a worker ──────────────┴─ simulate ─► goodput of the others, the same requests for all ─► Recommendation ─► page, JSON, values
//! ```
//! Goodput is the highest rate at which a share of the requests (90 %) meets its objectives for the first token and for the time between tokens; who is
//! refused or given up does not. Splits are compared on the same requests and seeds, so what is told is an interval of their ratio; when workers apart are not
//! better beyond doubt, the answer is "aggregate", which is simpler to run.
//!
//! [`workers`] measures real workers for a profile, and compares what is simulated with what they do; all else is pure but for reading profiles and traces.
//!
//! Invariants: what is recommended depends on profile, traffic and seed alone.
#![forbid(unsafe_code)]

mod args;
mod bound;
pub mod fit;
mod goodput;
mod highest;
mod live;
mod objective;
mod recommend;
mod report;
mod sample;
mod simulate;
mod split;
pub mod workers;

pub use args::{FleetArgs, ProfileArgs, RecommendArgs, SimulateArgs, TuneError};
pub use bound::Bound;
pub use goodput::{Goodput, Search};
pub use live::{LiveArgs, LiveError};
pub use objective::Objective;
pub use recommend::{Compared, Next, Options, Ranked, Recommendation, Shift, ShiftKind, recommend};
pub use report::{page, values};
pub use sample::Sample;
pub use simulate::{Summary, summary, table};
pub use split::{Split, SplitInvalid};
