//! What a benchmark run measured, and everything that is made of it: statistics, tables, exports, charts.
//!
//! A [`Document`] holds one run: how it was measured ([`Run`], [`Origin`]), one [`Record`] for each request,
//! and whether it can be trusted ([`Validity`]). All figures are computed from the records by one code with one set of
//! definitions, which `docs/benchmarking.md` gives to users; other tools' files are written by their definitions.
//!
//! Left out: sending requests and reading clocks (the load generator does), and judging what a difference is worth.
//!
//! # Invariants
//! - Times are offsets from the start of the run in microseconds of one monotonic clock ([`Micros`]); figures are in
//!   milliseconds or seconds, as their names say.
//! - A run that is not valid says so, with reasons, in each output.
//! - A document of another schema version is refused, never half understood.
//! - The same records give the same bytes in every output.
#![forbid(unsafe_code)]

mod args;
mod chart;
mod client;
mod compare;
mod counts;
mod document;
pub mod export;
mod figures;
mod json;
mod metric;
mod micros;
mod record;
mod report;
mod run;
mod samples;
mod slo;
mod stats;
mod summary;
pub mod table;
#[cfg(test)]
mod testing;
mod utilisation;
mod validity;
mod warnings;
mod window;

pub use args::{ReportArgs, report};
pub use chart::Chart;
pub use client::{Calibration, Client, Error as ClockError, Origin, Truth};
pub use compare::{Comparison, Effect, Half, Interval, NotComparable, Pair, Verdict};
pub use document::{Document, Measured};
pub use figures::{Figures, Gap};
pub use json::{INLINE_RECORDS, ReadError, SCHEMA_VERSION, SavedDocument, WriteError};
pub use metric::{Better, Metric};
pub use micros::Micros;
pub use record::{Chunk, Count, CountSource, Outcome, Phases, Record};
pub use report::{DrawError, Report};
pub use run::{Load, Run};
pub use samples::{PhaseSamples, Samples};
pub use slo::Slo;
pub use stats::{Sorted, Stats, samples_needed};
pub use summary::{ErrorCount, Goodput, Latency, PhaseTimes, Requests, Summary, Throughput};
pub use utilisation::{Role, Utilisation};
pub use validity::{INVALID_ABOVE_CPU_SHARE, INVALID_ABOVE_SEND_LAG, Invalid, Validity};
pub use window::{Trim, Window};
