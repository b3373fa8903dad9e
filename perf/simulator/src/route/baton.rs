//! The scheduler's own decisions: a `baton-policy` placer, told what the scheduler would be told (`scheduler/src/router`).

use std::{collections::HashMap, sync::Arc};

use baton_policy::{
    admission::{Ask, Limits, Verdict as Admitted},
    cost::LinkCost,
    decide::Decision,
    dice::Dice,
    placer::{Ended, Placer},
    profile::Profile as RoutingProfile,
    view::{Cached, Links, Placed, Report, RequestView, Role, WorkerView},
};
use baton_profile::Profile;

use super::{Place, Seen, Verdict};
use crate::{engine::Holders, system::Worker, traffic::Prepared};

/// Workers tell their load so often, ms.
pub(crate) const REPORT_MS: f64 = 200.0;
/// The scheduler looks after its queue so often, ms.
pub(crate) const TICK_MS: f64 = 20.0;

pub(crate) struct BatonRouter {
    placer: Placer,
    // What is on its way to a worker will be there.
    coming: Holders,
    placed: HashMap<u32, Placed>,
    tenant: Arc<str>,
    cached: Vec<Cached>,
    dice: Dice,
    kv_bytes_per_token: f64,
    max_tokens: Option<u32>,
}

impl BatonRouter {
    pub(crate) fn new(
        profile: RoutingProfile,
        limits: Limits,
        workers: &[Worker],
        nodes: usize,
        (seed, max_tokens): (u64, Option<u32>),
    ) -> Self {
        let mut placer = Placer::new(profile, limits);
        placer.fleet.links = Links::uniform(LinkCost::default());
        for (index, Worker { role, profile }) in workers.iter().enumerate() {
            placer.seated(index, view(index, *role, profile));
        }
        Self {
            placer,
            coming: Holders::new(nodes, workers.len()),
            placed: HashMap::new(),
            tenant: "".into(),
            cached: Vec::new(),
            dice: Dice::new(seed),
            kv_bytes_per_token: workers.first().map_or(0.0, |worker| worker.profile.kv.bytes_per_token),
            max_tokens,
        }
    }

    /// `index` comes.
    pub(crate) fn offer(&mut self, index: u32, request: &Prepared, seen: Seen<'_>, now: f64) -> Verdict {
        let Some(decision) = self.decide(index, request, seen, now) else { return Verdict::Refused };
        self.placer.look_at_prefill(now);
        let ask = Ask::new(u64::from(index), self.tenant.clone(), &decision);
        // All have one priority and one tenant: nobody is shed for another.
        match self.placer.admission.offer(ask, now).0 {
            Admitted::Admitted => Verdict::Goes(self.commit(index, seen, &decision, now)),
            Admitted::Queued => Verdict::Waits,
            Admitted::Refused(_) => Verdict::Refused,
        }
    }

    /// The next one that waited and may go; none are left when it says so.
    pub(crate) fn next(&mut self, now: f64) -> Option<u32> {
        self.placer.admission.next(now).map(|ask| ask.id as u32)
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
            self.placer.admission.finished(u64::from(index), now);
        }
        Some(self.commit(index, seen, &decision?, now))
    }

    /// Those who have waited for too long.
    pub(crate) fn expired(&mut self, now: f64) -> Vec<u64> {
        self.placer.expired(now).into_iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn has_queue(&self) -> bool {
        self.placer.admission.queued() > 0
    }

    /// Its first token came.
    pub(crate) fn first_token(&mut self, index: u32, now: f64) {
        if let Some(placed) = self.placed.get(&index) {
            self.placer.first_token(placed, now);
        }
    }

    /// It ended, one way or the other; also one that waited.
    pub(crate) fn ended(&mut self, index: u32, ended: &Ended<'_>, now: f64) {
        self.placer.admission.finished(u64::from(index), now);
        if let Some(placed) = self.placed.remove(&index) {
            self.placer.ended(&placed, ended, now);
        }
    }

    /// A worker tells its load.
    pub(crate) fn reported(&mut self, worker: usize, report: Report) {
        self.placer.reported(worker, report);
    }

    /// A worker takes nothing more.
    pub(crate) fn closed(&mut self, worker: usize) {
        self.placer.set_draining(worker, true);
    }

    /// A worker takes requests, as a new one, but its reports go on counting from where they were.
    pub(crate) fn opened(&mut self, worker: usize, role: Role, profile: &Profile) {
        let new = view(worker, role, profile);
        let Report { generated, prompted, .. } = self.placer.fleet.workers[worker].report;
        let report = Report { generated, prompted, ..Report::default() };
        self.placer.forgotten(&new.id);
        self.placer.seated(worker, WorkerView { report, ..new });
    }

    fn decide(&mut self, index: u32, request: &Prepared, seen: Seen<'_>, now: f64) -> Option<Decision> {
        self.look_at_caches(index, seen);
        let request = RequestView {
            prompt_tokens: u64::from(request.prompt),
            max_tokens: u64::from(self.max_tokens.unwrap_or(request.output).max(request.output)),
            kv_bytes_per_token: self.kv_bytes_per_token,
            cached: &self.cached,
            dice: self.dice.next_u64(),
            ..RequestView::default()
        };
        let request = self.placer.view(&self.tenant, request);
        self.placer.decide(&request, now).ok()
    }

    fn commit(&mut self, index: u32, seen: Seen<'_>, decision: &Decision, now: f64) -> Place {
        let placed = self.placer.placed(decision, now);
        for &node in seen.traffic.path(index) {
            self.coming.set(node, placed.prefill.index, true);
            self.coming.set(node, placed.decode.index, true);
        }
        self.placed.insert(index, placed);
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
        let workers = self.placer.fleet.workers.len();
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
}

fn view(index: usize, role: Role, profile: &Profile) -> WorkerView {
    let kv_capacity_tokens = profile.kv.capacity_tokens;
    WorkerView { id: format!("worker-{index}").into(), role, kv_capacity_tokens, ..WorkerView::default() }
}
