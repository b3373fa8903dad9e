//! What is known of the fleet when a request arrives: plain data that its owner keeps up to date as reports and events come.
//!
//! A [`FleetView`] lives long and is changed in place, so that a decision over a thousand workers copies nothing.

mod links;
mod recent;
mod request;
mod worker;

pub(crate) use links::bits_of;
pub use links::{LinkClass, Links, TooManyGroups};
pub use recent::Recent;
pub use request::{Cached, Objective, RequestView};
pub use worker::{InFlight, Others, Report, Role, WorkerView};

/// Milliseconds: a duration, or a moment counted from whatever beginning the caller chose. Never read from a clock here.
pub type Ms = f64;

/// The fleet at one moment.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// All workers; decisions name them by their index here.
    pub workers: Vec<WorkerView>,
    /// How they reach each other.
    pub links: Links,
    /// Prompts that were sent to any of them.
    pub recent: Recent,
}

/// What a placed request counts for until it has ended: what was believed when it was placed, so that what is added is what is taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Who computes its prompt.
    pub prefill: usize,
    /// Who generates.
    pub decode: usize,
    /// How long computing takes.
    pub compute_ms: Ms,
    /// KV tokens at first.
    pub prompt_tokens: u64,
    /// KV tokens at its end.
    pub growth_tokens: u64,
}

impl FleetView {
    /// A request was sent out.
    pub fn placed(&mut self, placed: &Placed, now: Ms) {
        self.recent.placed(placed.compute_ms, now);
        if let Some(worker) = self.workers.get_mut(placed.prefill) {
            worker.own.prefill_placed(placed.compute_ms, now);
        }
        if let Some(worker) = self.workers.get_mut(placed.decode) {
            worker.own.sequence_placed(placed.prompt_tokens, placed.growth_tokens);
        }
    }

    /// Its prompt is computed, or given up.
    pub fn prefill_done(&mut self, placed: &Placed, now: Ms) {
        if let Some(worker) = self.workers.get_mut(placed.prefill) {
            worker.own.prefill_done(placed.compute_ms, now);
        }
    }

    /// It ended, one way or the other.
    pub fn sequence_done(&mut self, placed: &Placed) {
        if let Some(worker) = self.workers.get_mut(placed.decode) {
            worker.own.sequence_done(placed.prompt_tokens, placed.growth_tokens);
        }
    }
}
