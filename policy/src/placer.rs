//! All that decides on requests, in one piece that is told what happens: the fleet as it is seen, what is learned of it, and whom it lets in.
//!
//! ```text
//!  a request ─► view ─► decide ─► admission ─► placed ─► first_token ─► ended
//!  a worker ──► seated ─► reported, prompted, set_draining, resized … ─► vacated
//! ```
//! The scheduler tells it what has happened, the simulator what would have: neither has rules of its own.
//!
//! Invariants:
//! - What a request counts for is taken away from that life of a worker to which it was added.
//! - The costs in the view are those that are learned by now, of every worker.
//! - Admission lets in what fits the decode workers that take requests.

mod ended;

pub use ended::{Account, Ended, Moved, Served};

use crate::{
    admission::{Admission, Limits, Refusal},
    decide::{Decider, Decision, Refused},
    learn::Learner,
    profile::Profile,
    view::{FleetView, Ms, Placed, Prompted, Report, RequestView, Role, WorkerView},
};

/// Places requests.
#[derive(Clone, Debug)]
pub struct Placer {
    /// The fleet. Who is in it, who takes requests and how large they are is changed by what is told here; the rest is plain data.
    pub fleet: FleetView,
    /// Whom it lets in.
    pub admission: Admission,
    decider: Decider,
    learner: Learner,
    // Of the learner, when all workers' costs were last taken from it.
    costs_version: u64,
}

impl Placer {
    /// Decides by `profile`, on a fleet of nobody.
    #[must_use]
    pub fn new(profile: Profile, limits: Limits) -> Self {
        Self {
            fleet: FleetView::default(),
            admission: Admission::new(limits, 0),
            decider: Decider::new(profile),
            learner: Learner::default(),
            costs_version: 0,
        }
    }

    /// What it decides by.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        self.decider.profile()
    }

    /// What it has learned.
    #[must_use]
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// `request` of `tenant`, with how much such requests generate and what they are promised.
    #[must_use]
    pub fn view<'a>(&self, tenant: &str, request: RequestView<'a>) -> RequestView<'a> {
        RequestView {
            expected_output_tokens: self.learner.outputs.expected(tenant, request.max_tokens),
            objective: self.admission.limits().promised(&request.objective),
            ..request
        }
    }

    /// Where `request` goes.
    ///
    /// # Errors
    /// [`Refused`]: nobody could serve it.
    pub fn decide(&mut self, request: &RequestView<'_>, now: Ms) -> Result<Decision, Refused> {
        self.decider.decide(&self.fleet, request, now)
    }

    /// It goes where it was decided, and counts there until it has [`ended`](Self::ended).
    pub fn placed(&mut self, decision: &Decision, now: Ms) -> Placed {
        let placed = Placed {
            prefill: self.fleet.seat_of(decision.prefill.unwrap_or(decision.decode)),
            decode: self.fleet.seat_of(decision.decode),
            compute_ms: decision.compute_ms,
            prompt_tokens: decision.prompt_tokens,
            growth_tokens: decision.growth_tokens(),
            ttft_ms: decision.terms.ttft_ms(),
        };
        self.fleet.placed(&placed, now);
        placed
    }

    /// Its first token came.
    pub fn first_token(&mut self, placed: &Placed, now: Ms) {
        self.fleet.prefill_done(placed, now);
    }

    /// How long prompts wait is looked at again.
    pub fn look_at_prefill(&mut self, now: Ms) {
        let open = self.fleet.workers.iter().filter(|worker| !worker.is_draining);
        let wait = open.map(|worker| worker.prefill_queue_ms(now)).reduce(f64::min);
        self.admission.set_prefill_wait(wait.unwrap_or(0.0));
    }

    /// Those who have waited for too long, after a look at how long prompts wait.
    pub fn expired(&mut self, now: Ms) -> Vec<(u64, Refusal)> {
        self.look_at_prefill(now);
        self.admission.expired(now)
    }

    /// `worker` is at `index` from now on, and takes what is known of its name.
    pub fn seated(&mut self, index: usize, worker: WorkerView) {
        let costs = self.learner.joined(&worker.id);
        self.fleet.seat(index, WorkerView { costs, ..worker });
        self.capacity_changed();
    }

    /// Nobody is at `index`: a worker that neither generates nor takes anything.
    pub fn vacated(&mut self, index: usize) {
        let nobody = WorkerView { role: Role::Prefill, is_draining: true, ..WorkerView::default() };
        self.fleet.seat(index, nobody);
        self.capacity_changed();
    }

    /// A worker of this name will not come back.
    pub fn forgotten(&mut self, id: &str) {
        self.learner.left(id);
    }

    /// Whether a worker takes no more requests; says whether that is new.
    pub fn set_draining(&mut self, index: usize, is_draining: bool) -> bool {
        let was_draining = std::mem::replace(&mut self.fleet.workers[index].is_draining, is_draining);
        if was_draining != is_draining {
            self.capacity_changed();
        }
        was_draining != is_draining
    }

    /// A worker's KV memory is of this size; says whether that is new.
    pub fn resized(&mut self, index: usize, capacity_tokens: u64) -> bool {
        let former = std::mem::replace(&mut self.fleet.workers[index].kv_capacity_tokens, capacity_tokens);
        if former != capacity_tokens {
            self.capacity_changed();
        }
        former != capacity_tokens
    }

    /// A worker tells its load.
    pub fn reported(&mut self, index: usize, report: Report) {
        let before = self.fleet.workers[index].report;
        self.fleet.reported(index, report);
        let worker = &mut self.fleet.workers[index];
        if let Some([tokens, pairs, step_ms]) = report.prompted.mean_since(&before.prompted) {
            self.learner.prompts_stepped(&worker.id, tokens, pairs, step_ms);
        }
        worker.costs = match report.generated.mean_since(&before.generated) {
            Some([sequences, context_tokens, step_ms]) => {
                self.learner.stepped(&worker.id, sequences, context_tokens, step_ms)
            }
            // It has generated nothing, but others have taught what it will take.
            None => self.learner.costs(&worker.id),
        };
        self.refresh_costs();
    }

    /// A worker tells these steps, which only computed prompts, by themselves.
    pub fn prompted(&mut self, index: usize, steps: &Prompted) {
        let worker = &mut self.fleet.workers[index];
        if let Some([tokens, pairs, step_ms]) = steps.mean_since(&Prompted::default()) {
            worker.costs = self.learner.prompts_stepped(&worker.id, tokens, pairs, step_ms);
            self.refresh_costs();
        }
    }

    fn capacity_changed(&mut self) {
        let open = self.fleet.workers.iter().filter(|worker| worker.decodes() && !worker.is_draining);
        self.admission.set_capacity(open.map(|worker| worker.kv_capacity_tokens).sum());
    }

    /// Brings the costs of all workers to what is known now, if that has changed for all. A place that nobody has has no name.
    fn refresh_costs(&mut self) {
        if self.costs_version != self.learner.version() {
            self.costs_version = self.learner.version();
            for worker in self.fleet.workers.iter_mut().filter(|worker| !worker.id.is_empty()) {
                worker.costs = self.learner.costs(&worker.id);
            }
        }
    }
}
