//! The scheduler's own decisions: `baton-policy`, fed with what the scheduler is fed with (`scheduler/src/router`).

use std::{collections::HashMap, sync::Arc};

use baton_policy::{
    admission::{Admission, Ask, Limits, Verdict as Admitted},
    cost::LinkCost,
    decide::{Decider, Decision},
    dice::Dice,
    estimate::Term,
    learn::Learner,
    profile::Profile as RoutingProfile,
    view::{Cached, FleetView, Links, Objective, Placed, Report, RequestView, Role, WorkerView},
};
use baton_profile::Profile;

use super::{Place, Seen, Verdict};
use crate::{
    engine::{Holders, Totals},
    system::Worker,
    traffic::Prepared,
};

/// Workers tell their load so often, ms.
pub(crate) const REPORT_MS: f64 = 200.0;
/// The scheduler looks after its queue so often, ms.
pub(crate) const TICK_MS: f64 = 20.0;

pub(crate) struct BatonRouter {
    fleet: FleetView,
    decider: Decider,
    learner: Learner,
    admission: Admission,
    version: u64,
    // What is on its way to a worker will be there.
    coming: Holders,
    placed: HashMap<u32, Underway>,
    totals: Vec<Totals>,
    tenant: Arc<str>,
    cached: Vec<Cached>,
    dice: Dice,
    kv_bytes_per_token: f64,
    max_tokens: Option<u32>,
}

struct Underway {
    placed: Placed,
    predicted_ttft_ms: f64,
}

/// How a request was served, as the scheduler hears of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) ttft_ms: Option<f64>,
    pub(crate) prefill_ms: f64,
    pub(crate) cached_tokens: u64,
    pub(crate) moved_bytes: f64,
    pub(crate) link_ms: f64,
    pub(crate) output_tokens: u64,
    pub(crate) is_complete: bool,
}

impl BatonRouter {
    pub(crate) fn new(
        profile: RoutingProfile,
        limits: Limits,
        workers: &[Worker],
        nodes: usize,
        (seed, max_tokens): (u64, Option<u32>),
    ) -> Self {
        let mut learner = Learner::default();
        let views = workers.iter().enumerate().map(|(index, worker)| {
            let id = format!("worker-{index}");
            WorkerView {
                role: worker.role,
                kv_capacity_tokens: worker.profile.kv.capacity_tokens,
                costs: learner.joined(&id),
                id: id.into(),
                ..WorkerView::default()
            }
        });
        let fleet = FleetView {
            workers: views.collect(),
            links: Links::uniform(LinkCost::default()),
            ..FleetView::default()
        };
        let mut router = Self {
            fleet,
            decider: Decider::new(profile),
            learner,
            admission: Admission::new(limits, 0),
            version: 0,
            coming: Holders::new(nodes, workers.len()),
            placed: HashMap::new(),
            totals: vec![Totals::default(); workers.len()],
            tenant: "".into(),
            cached: Vec::new(),
            dice: Dice::new(seed),
            kv_bytes_per_token: workers.first().map_or(0.0, |worker| worker.profile.kv.bytes_per_token),
            max_tokens,
        };
        router.capacity_changed();
        router
    }

    /// `index` comes.
    pub(crate) fn offer(&mut self, index: u32, request: &Prepared, seen: Seen<'_>, now: f64) -> Verdict {
        let Some(decision) = self.decide(index, request, seen, now) else { return Verdict::Refused };
        self.look_at_prefill(now);
        let max_tokens = self.max_tokens_of(request);
        let expected = self.learner.outputs.expected(&self.tenant, max_tokens);
        let ask = Ask {
            id: u64::from(index),
            tenant: self.tenant.clone(),
            weight: 1.0,
            priority: 0,
            growth_tokens: u64::from(request.prompt) + expected as u64,
            objective: Objective::default(),
            predicted_ttft_ms: decision.terms.ttft_ms(),
            predicted_tpot_ms: decision.terms.get(Term::Decode) / expected.max(1.0),
        };
        // All have one priority and one tenant: nobody is shed for another.
        match self.admission.offer(ask, now).0 {
            Admitted::Admitted => Verdict::Goes(self.commit(index, request, seen, &decision, now)),
            Admitted::Queued => Verdict::Waits,
            Admitted::Refused(_) => Verdict::Refused,
        }
    }

    /// The next one that waited and may go; none are left when it says so.
    pub(crate) fn next(&mut self, now: f64) -> Option<u32> {
        self.admission.next(now).map(|ask| ask.id as u32)
    }

    /// Places one that waited.
    pub(crate) fn place(
        &mut self,
        index: u32,
        request: &Prepared,
        seen: Seen<'_>,
        now: f64,
    ) -> Option<Place> {
        let decision = self.decide(index, request, seen, now);
        if decision.is_none() {
            self.admission.finished(u64::from(index), now);
        }
        Some(self.commit(index, request, seen, &decision?, now))
    }

    /// Those who have waited for too long.
    pub(crate) fn expired(&mut self, now: f64) -> Vec<u64> {
        self.look_at_prefill(now);
        self.admission.expired(now).into_iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn has_queue(&self) -> bool {
        self.admission.queued() > 0
    }

    /// Its first token came.
    pub(crate) fn first_token(&mut self, index: u32, now: f64) {
        if let Some(underway) = self.placed.get(&index) {
            self.fleet.prefill_done(&underway.placed, now);
        }
    }

    /// It ended, one way or the other; also one that waited.
    pub(crate) fn ended(&mut self, index: u32, request: &Prepared, account: &Account, now: f64) {
        self.admission.finished(u64::from(index), now);
        let Some(Underway { placed, predicted_ttft_ms }) = self.placed.remove(&index) else { return };
        if account.ttft_ms.is_none() {
            self.fleet.prefill_done(&placed, now);
        }
        self.fleet.sequence_done(&placed);
        if let Some(actual) = account.ttft_ms {
            // As `learn` and `settle` of the scheduler.
            let worker = &self.fleet.workers[placed.decode];
            if placed.prefill == placed.decode && worker.sequences() > 0 && account.prefill_ms > 0.0 {
                let new_tokens = u64::from(request.prompt) - account.cached_tokens;
                let alone_ms = worker.costs.prefill.predict(new_tokens, account.cached_tokens);
                self.learner.prompt_beside(alone_ms, account.prefill_ms);
            }
            if account.moved_bytes > 0.0
                && let Some(link) = self.fleet.links.class_mut(0)
            {
                let took_ms = link.cost.fixed_ms + account.link_ms;
                link.cost = self.learner.transferred(0, link.cost, account.moved_bytes, took_ms);
            }
            self.learner.first_token(predicted_ttft_ms, actual);
        }
        if account.is_complete {
            self.learner.outputs.add(&self.tenant, account.output_tokens);
        }
        self.refresh_costs();
    }

    /// A worker tells its load.
    pub(crate) fn reported(&mut self, worker: usize, report: Report, totals: Totals) {
        self.fleet.reported(worker, report);
        let last = std::mem::replace(&mut self.totals[worker], totals);
        let id = self.fleet.workers[worker].id.clone();
        let steps = (totals.quiet_steps - last.quiet_steps) as f64;
        let prompt_steps = (totals.alone_steps - last.alone_steps) as f64;
        if prompt_steps > 0.0 {
            let tokens = (totals.alone_tokens - last.alone_tokens) / prompt_steps;
            let pairs = (totals.alone_pairs - last.alone_pairs) / prompt_steps;
            let step_ms = (totals.prompt_ms - last.prompt_ms) / prompt_steps;
            self.learner.prompts_stepped(&id, tokens, pairs, step_ms);
        }
        self.fleet.workers[worker].costs = if steps > 0.0 {
            let sequences = (totals.quiet_sequences - last.quiet_sequences) as f64 / steps;
            let context = (totals.quiet_context - last.quiet_context) as f64 / steps;
            self.learner.stepped(&id, sequences, context, (totals.decode_ms - last.decode_ms) / steps)
        } else {
            self.learner.costs(&id)
        };
        self.refresh_costs();
    }

    /// A worker takes nothing more.
    pub(crate) fn closed(&mut self, worker: usize) {
        self.fleet.workers[worker].is_draining = true;
        self.capacity_changed();
    }

    /// A worker takes requests, as a new one.
    pub(crate) fn opened(&mut self, worker: usize, role: Role, profile: &Profile) {
        let id = self.fleet.workers[worker].id.clone();
        self.learner.left(&id);
        self.fleet.workers[worker] = WorkerView {
            role,
            kv_capacity_tokens: profile.kv.capacity_tokens,
            costs: self.learner.joined(&id),
            id,
            ..WorkerView::default()
        };
        self.capacity_changed();
    }

    fn decide(&mut self, index: u32, request: &Prepared, seen: Seen<'_>, now: f64) -> Option<Decision> {
        self.look_at_caches(index, seen);
        let max_tokens = self.max_tokens_of(request);
        let view = RequestView {
            prompt_tokens: u64::from(request.prompt),
            max_tokens,
            expected_output_tokens: self.learner.outputs.expected(&self.tenant, max_tokens),
            kv_bytes_per_token: self.kv_bytes_per_token,
            cached: &self.cached,
            objective: self.admission.limits().promised(&Objective::default()),
            dice: self.dice.next_u64(),
            ..RequestView::default()
        };
        self.decider.decide(&self.fleet, &view, now).ok()
    }

    fn commit(
        &mut self,
        index: u32,
        request: &Prepared,
        seen: Seen<'_>,
        decision: &Decision,
        now: f64,
    ) -> Place {
        let max_tokens = self.max_tokens_of(request);
        let expected = self.learner.outputs.expected(&self.tenant, max_tokens) as u64;
        let placed = Placed {
            prefill: decision.prefill.unwrap_or(decision.decode),
            decode: decision.decode,
            compute_ms: decision.compute_ms,
            prompt_tokens: u64::from(request.prompt),
            growth_tokens: u64::from(request.prompt) + expected,
        };
        self.fleet.placed(&placed, now);
        for &node in seen.traffic.path(index) {
            self.coming.set(node, placed.prefill, true);
            self.coming.set(node, placed.decode, true);
        }
        let predicted_ttft_ms = decision.terms.ttft_ms();
        self.placed.insert(index, Underway { placed, predicted_ttft_ms });
        Place { prefill: decision.prefill.map(|worker| worker as u32), decode: decision.decode as u32 }
    }

    /// What was on its way to `worker` is there, or will never be.
    pub(crate) fn arrived(&mut self, index: u32, worker: usize, seen: Seen<'_>) {
        for &node in seen.traffic.path(index) {
            self.coming.set(node, worker, false);
        }
    }

    // [worker]: tokens of the prompt that it has, or is about to have.
    fn look_at_caches(&mut self, index: u32, seen: Seen<'_>) {
        let workers = self.fleet.workers.len();
        self.cached.clear();
        self.cached.resize(workers, Cached::default());
        let path = seen.traffic.path(index);
        if path.is_empty() {
            return;
        }
        for word in 0..seen.holders.words() {
            let (mut has, mut tokens) = (u64::MAX, 0);
            if workers < 64 * (word + 1) {
                has >>= 64 * (word + 1) - workers;
            }
            for &node in path {
                let still = has & (seen.holders.word(node, word) | self.coming.word(node, word));
                self.note(word, has & !still, tokens);
                has = still;
                tokens = seen.traffic.prefixes.end_tokens(node) / seen.block_tokens * seen.block_tokens;
                if has == 0 {
                    break;
                }
            }
            self.note(word, has, tokens);
        }
    }

    fn note(&mut self, word: usize, mut workers: u64, tokens: u32) {
        while workers != 0 && tokens > 0 {
            self.cached[word * 64 + workers.trailing_zeros() as usize] = Cached::device(tokens);
            workers &= workers - 1;
        }
    }

    fn max_tokens_of(&self, request: &Prepared) -> u64 {
        u64::from(self.max_tokens.unwrap_or(request.output).max(request.output))
    }

    fn look_at_prefill(&mut self, now: f64) {
        let open = self.fleet.workers.iter().filter(|worker| !worker.is_draining);
        let wait = open.map(|worker| worker.prefill_queue_ms(now)).reduce(f64::min);
        self.admission.set_prefill_wait(wait.unwrap_or(0.0));
    }

    fn capacity_changed(&mut self) {
        let open = self.fleet.workers.iter().filter(|worker| worker.decodes() && !worker.is_draining);
        self.admission.set_capacity(open.map(|worker| worker.kv_capacity_tokens).sum());
    }

    fn refresh_costs(&mut self) {
        if self.version != self.learner.version() {
            self.version = self.learner.version();
            for worker in &mut self.fleet.workers {
                worker.costs = self.learner.costs(&worker.id);
            }
        }
    }
}
