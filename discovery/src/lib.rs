//! x
#![forbid(unsafe_code)]
mod endpoint;
pub mod file;
pub mod load;
mod metrics;
mod source;
#[cfg(test)]
mod testing;
pub use endpoint::*;
pub use source::*;
