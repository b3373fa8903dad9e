//! What is known of the fleet when a request arrives: plain data that its owner keeps up to date as reports and events come.
//!
//! A [`FleetView`] lives long and is changed in place, so that a decision over a thousand workers copies nothing.

mod links;
mod recent;
mod request;
mod worker;

pub(crate) use links::bits_of;
pub use links::{LinkClass, Links, TooManyGroups};
pub use recent::{Recent, Traffic};
pub use request::{Cached, Objective, RequestView};
pub use worker::{Generated, InFlight, Others, Prompted, Report, Role, WorkerView};

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
    /// How much of what they have this scheduler sent.
    pub traffic: Traffic,
}

/// A worker's place in the fleet, and which life there: a place is used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Its index in [`FleetView::workers`].
    pub index: usize,
    /// Which life there, as [`WorkerView::life`] counts them.
    pub life: u64,
}

/// What a placed request counts for until it has ended: what was believed when it was placed, so that what is added is what is taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Who computes its prompt.
    pub prefill: Seat,
    /// Who generates.
    pub decode: Seat,
    /// How long computing takes.
    pub compute_ms: Ms,
    /// KV tokens at first.
    pub prompt_tokens: u64,
    /// KV tokens at its end.
    pub growth_tokens: u64,
    /// Time to first token.
    pub ttft_ms: Ms,
}

impl FleetView {
    /// `worker` is at `index` from now on. What requests counted for at who was there before has gone with them.
    pub fn seat(&mut self, index: usize, worker: WorkerView) {
        if self.workers.len() <= index {
            self.workers.resize_with(index + 1, WorkerView::default);
        }
        let life = self.workers[index].life + 1;
        self.workers[index] = WorkerView { life, ..worker };
    }

    /// Who is at `index` now.
    #[must_use]
    pub fn seat_of(&self, index: usize) -> Seat {
        Seat { index, life: self.workers.get(index).map_or(0, |worker| worker.life) }
    }

    /// Whether who was there still is.
    #[must_use]
    pub fn is_there(&self, seat: Seat) -> bool {
        self.seat_of(seat.index) == seat
    }

    /// A worker says this of itself.
    pub fn reported(&mut self, index: usize, report: Report) {
        let Some(worker) = self.workers.get_mut(index) else { return };
        worker.reported(report);
        let all = report.running + report.waiting;
        let others = worker.others.requests;
        if let Some(now) = report.at {
            self.traffic.seen(all - others, others, now);
        }
    }

    /// A request was sent out.
    pub fn placed(&mut self, placed: &Placed, now: Ms) {
        self.recent.placed(placed.compute_ms, now);
        if let Some(worker) = self.at(placed.prefill) {
            worker.own.prefill_placed(placed.compute_ms, now);
        }
        if let Some(worker) = self.at(placed.decode) {
            worker.own.sequence_placed(placed.prompt_tokens, placed.growth_tokens);
        }
    }

    /// Its prompt is computed, or given up.
    pub fn prefill_done(&mut self, placed: &Placed, now: Ms) {
        if let Some(worker) = self.at(placed.prefill) {
            worker.own.prefill_done(placed.compute_ms, now);
        }
    }

    /// It ended, one way or the other.
    pub fn sequence_done(&mut self, placed: &Placed) {
        if let Some(worker) = self.at(placed.decode) {
            worker.own.sequence_done(placed.prompt_tokens, placed.growth_tokens);
        }
    }

    fn at(&mut self, seat: Seat) -> Option<&mut WorkerView> {
        self.workers.get_mut(seat.index).filter(|worker| worker.life == seat.life)
    }
}
