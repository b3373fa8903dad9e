//! The same run in other tools' formats, by those tools' definitions, so that it can stand beside their results and go into what
//! reads them.
//!
//! Both count from the actual send time to the last chunk, and know neither intended times, nor a steady-state window, nor
//! cancelled requests; `docs/benchmarking.md` says for whom that makes which difference. Whether the run is valid is in an
//! added field.

mod aiperf;
mod seen;
mod vllm;

pub use self::aiperf::aiperf;
pub use self::vllm::vllm;

#[cfg(test)]
mod tests;
