//! The control of one request, without I/O and without a clock: what happened goes in, what to do comes out.

mod plan;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use plan::{Action, Input, Patience, Plan};
pub(crate) use record::{Cause, Outcome, micros};
