//! One request: where it goes, and what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use baton_kv_index::Scope;
use baton_policy::{
    admission::{self, Refusal},
    decide::Decision,
    estimate::Term,
    record::{Outcome, Record},
    view::{Cached, Objective, Placed, RequestView},
};
use baton_proto::v1::Account;

use super::{
    Known, Reach, Router,
    cache::Prompt,
    queue::{Offered, Place},
};
use crate::{
    epp::{self, Asked, Placement, Waiting, Who},
    error::{GenerateError, NeverFits, NoDecodeWorker, NoSuchAdapter},
};

/// A request to be routed.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) request_id: &'a str,
    /// Its tokens, as far as they are known.
    pub(crate) prompt: &'a [u32],
    /// How many there are, or about how many.
    pub(crate) prompt_tokens: u64,
    /// Its text, four bytes a number; what is sent to workers that do not tell their caches is remembered by it.
    pub(crate) text: &'a [u32],
    pub(crate) max_tokens: u64,
    pub(crate) adapter: Option<&'a str>,
    pub(crate) cache_salt: Option<&'a str>,
    /// Whose it is, for fairness; how long its answers are is learned by tenant, too.
    pub(crate) tenant: Arc<str>,
    pub(crate) priority: i32,
    /// Its tenant's share beside others'.
    pub(crate) weight: f64,
    pub(crate) objective: Objective,
    pub(crate) session: Option<&'a str>,
    /// By whom it would be sent.
    pub(crate) reach: Reach,
    /// `ip:port` of the only workers that may have it; `None`: all.
    pub(crate) subset: Option<&'a [String]>,
    /// What it asks for, as metrics say.
    pub(crate) asked: Asked<'a>,
    /// Bytes that it takes while it waits.
    pub(crate) bytes: u64,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    /// Nobody could serve it.
    Nobody(GenerateError),
    /// Not now.
    NotNow(Refusal),
}

/// Where a request goes. What it counts for is taken away when this is dropped.
pub(crate) struct Route {
    /// The decode worker's id.
    pub(crate) decode: String,
    /// Prefill workers' ids, best first; empty: prefill where it decodes.
    pub(crate) prefill: Vec<String>,
    /// Where gateways reach the decode worker, and those who could serve in its place, best first.
    pub(crate) addresses: Vec<String>,
    /// Where its sidecar reaches the prefill workers, best first.
    pub(crate) prefill_addresses: Vec<String>,
    /// Prefill workers that there are.
    pub(crate) prefill_workers: usize,
    /// Whether it was computed where it decodes because that costs less.
    pub(crate) is_local_by_choice: bool,
    router: Arc<Router>,
    request_id: String,
    tenant: Arc<str>,
    who: Who,
    prompt: Arc<Prompt>,
    prompt_tokens: u64,
    placed: Placed,
    // Which lives of the two workers.
    lives: (u64, u64),
    predicted_ttft_ms: f64,
    /// How long it would wait, by prediction, and what of its prompt would be cached.
    waited_ms: f64,
    cached_tokens: u64,
    began: Instant,
    first_token_at: Option<Instant>,
    last_token_at: Option<Instant>,
    account: Option<Account>,
    output_tokens: u64,
    is_complete: bool,
    _place: Option<Arc<Place>>,
}

impl Router {
    /// Decides where `ask` goes, when it may go.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back.
    pub(crate) async fn route(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Route, Refused> {
        let began = Instant::now();
        let routed = self.admit_and_place(ask).await;
        self.epp.processed(began.elapsed());
        routed
    }

    async fn admit_and_place(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Route, Refused> {
        let prompt = Arc::new(self.prompt(ask));
        let who = self.epp.who(ask.asked, &ask.tenant, ask.priority);
        let mut waiting;
        let (offered, place, decision) = {
            let mut known = self.lock();
            known.requests += 1;
            let number = known.requests;
            let decision = known.decide(self, ask, &prompt, &[]).inspect_err(|_| self.epp.unplaced(&who))?;
            let expected = known.learner.outputs.expected(&ask.tenant, ask.max_tokens);
            let asked = admission::Ask {
                id: number,
                tenant: ask.tenant.clone(),
                priority: ask.priority,
                weight: ask.weight,
                growth_tokens: ask.prompt_tokens + expected as u64,
                objective: ask.objective,
                predicted_ttft_ms: decision.terms.ttft_ms(),
                predicted_tpot_ms: decision.terms.get(Term::Decode) / expected.max(1.0),
            };
            waiting = Waiting::begin(&self.epp, &who, ask.bytes);
            let (offered, place) = self.offer(&mut known, asked);
            (offered, place.map(Arc::new), decision)
        };
        match offered {
            Offered::Admitted => {
                waiting.ended(epp::Outcome::Dispatched);
                let mut known = self.lock();
                Ok(known.commit(self, ask, who, prompt, place, decision))
            }
            Offered::Refused(refusal) => Err(self.refuse(refusal, waiting)),
            Offered::Waits(turn) => {
                waiting.queued();
                // The router is there as long as anybody waits in it.
                match turn.await {
                    Ok(Err(refusal)) => Err(self.refuse(refusal, waiting)),
                    Ok(Ok(())) | Err(_) => {
                        waiting.ended(epp::Outcome::Dispatched);
                        self.place(ask, prompt, place, &[])
                    }
                }
            }
        }
    }

    fn refuse(&self, refusal: Refusal, waiting: Waiting) -> Refused {
        waiting.ended(refusal.reason.into());
        self.metrics.refused(refusal.reason);
        Refused::NotNow(refusal)
    }

    /// Decides anew, for a request that `failed` could not serve, any more than `tried`.
    pub(crate) fn reroute(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        failed: Route,
        tried: &[String],
    ) -> Result<Route, Refused> {
        let (prompt, place) = (failed.prompt.clone(), failed._place.clone());
        drop(failed);
        self.place(ask, prompt, place, tried)
    }

    fn place(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        prompt: Arc<Prompt>,
        place: Option<Arc<Place>>,
        tried: &[String],
    ) -> Result<Route, Refused> {
        // Dropped after the lock is given back, if there is nobody.
        let kept = place.clone();
        let who = self.epp.who(ask.asked, &ask.tenant, ask.priority);
        let decided = {
            let mut known = self.lock();
            match known.decide(self, ask, &prompt, tried) {
                Ok(decision) => Ok(known.commit(self, ask, who, prompt, place, decision)),
                Err(refused) => {
                    self.epp.unplaced(&who);
                    Err(refused)
                }
            }
        };
        drop(kept);
        decided
    }

    fn prompt(&self, ask: &Ask<'_>) -> Prompt {
        let scope = Scope { model: &self.model, adapter: ask.adapter, salt: ask.cache_salt };
        self.cache.prompt(&scope, ask.prompt, ask.text)
    }
}

impl Known {
    fn decide(
        &mut self,
        router: &Router,
        ask: &Ask<'_>,
        prompt: &Prompt,
        tried: &[String],
    ) -> Result<Decision, Refused> {
        let started = Instant::now();
        let now = router.now();
        let mut cached: Vec<Cached> = Vec::new();
        router.cache.cached(prompt, |number| self.slots.of_number(number), &mut cached);
        let tried: Vec<usize> = tried.iter().filter_map(|id| self.slots.of(id)).collect();
        let subset: Vec<usize> =
            ask.subset.into_iter().flatten().filter_map(|address| self.slots.at(address)).collect();
        if ask.subset.is_some() && subset.is_empty() {
            return Err(Refused::Nobody(NoDecodeWorker { draining: 0 }.into()));
        }
        let request = RequestView { subset: &subset, ..self.view(ask, &cached, &tried) };
        let decided = self.decider.decide(&self.fleet, &request, now);
        let decision = match decided {
            Ok(decision) => decision,
            Err(_) => return Err(Refused::Nobody(nobody(&self.fleet, &request))),
        };
        let weights = self.decider.profile().weights;
        let record = Record::new(ask.request_id.to_owned(), &decision, weights, &self.fleet, &request, now);
        if let (Some(log), Some(left)) = (&self.log, self.records.push(record))
            && left.outcome.is_none()
        {
            log.write(&left);
        }
        router.metrics.decided(decision.prefill.is_some(), started.elapsed());
        Ok(decision)
    }

    fn view<'a>(&self, ask: &'a Ask<'_>, cached: &'a [Cached], tried: &'a [usize]) -> RequestView<'a> {
        let session = ask.session.and_then(|session| self.sessions.get(session));
        RequestView {
            prompt_tokens: ask.prompt_tokens,
            max_tokens: ask.max_tokens,
            ways: ask.reach as u8,
            expected_output_tokens: self.learner.outputs.expected(&ask.tenant, ask.max_tokens),
            kv_bytes_per_token: self.slots.kv_bytes_per_token,
            cached,
            adapter: ask.adapter,
            session_worker: session.filter(|worker| self.slots.is(*worker)).map(|(slot, _)| slot),
            labels: &[],
            subset: &[],
            tried,
            objective: ask.objective,
            dice: self.requests.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn commit(
        &mut self,
        router: &Arc<Router>,
        ask: &Ask<'_>,
        who: Who,
        prompt: Arc<Prompt>,
        place: Option<Arc<Place>>,
        decision: Decision,
    ) -> Route {
        let now = router.now();
        let prompt_tokens = ask.prompt_tokens;
        let expected = self.learner.outputs.expected(&ask.tenant, ask.max_tokens) as u64;
        let (prefill, decode) = (decision.prefill.unwrap_or(decision.decode), decision.decode);
        let placed = Placed {
            prefill,
            decode,
            compute_ms: decision.compute_ms,
            prompt_tokens,
            growth_tokens: prompt_tokens + expected,
        };
        self.fleet.placed(&placed, now);
        let lives = (self.slots.life(prefill), self.slots.life(decode));
        if let Some(session) = ask.session {
            self.sessions.set(session, (decode, lives.1));
        }
        for slot in [Some(decode), decision.prefill].into_iter().flatten() {
            if let Some((number, block_tokens)) = self.slots.number(slot) {
                router.cache.guess(number, block_tokens, &prompt);
            }
        }
        router.epp.placed(
            &who,
            &Placement {
                decode: &self.fleet.workers[decode].id,
                address: self.slots.address(decode),
                is_disaggregated: decision.prefill.is_some(),
                prompt_tokens,
                cached_tokens: decision.cached_tokens.min(prompt_tokens),
            },
        );
        let id = |slot: &usize| self.fleet.workers[*slot].id.to_string();
        Route {
            decode: id(&decode),
            prefill: decision.prefill_choices.iter().map(id).collect(),
            addresses: self.addresses(&decision),
            prefill_addresses: decision
                .prefill_choices
                .iter()
                .filter_map(|slot| self.slots.address(*slot).map(str::to_owned))
                .collect(),
            prefill_workers: self
                .fleet
                .workers
                .iter()
                .filter(|worker| worker.prefills() && !worker.is_draining)
                .count(),
            is_local_by_choice: decision.prefill.is_none()
                && decision.prefill_workers > 0
                && self.is_connected(decode),
            router: router.clone(),
            request_id: ask.request_id.to_owned(),
            tenant: ask.tenant.clone(),
            who,
            prompt,
            prompt_tokens,
            placed,
            lives,
            predicted_ttft_ms: decision.terms.ttft_ms(),
            waited_ms: decision.terms.get(Term::Queue),
            cached_tokens: decision.cached_tokens,
            began: Instant::now(),
            first_token_at: None,
            last_token_at: None,
            account: None,
            output_tokens: 0,
            is_complete: false,
            _place: place,
        }
    }

    /// The winner's, then those of the other candidates.
    fn addresses(&self, decision: &Decision) -> Vec<String> {
        let others = decision.candidates.iter().map(|candidate| candidate.decode);
        let mut addresses: Vec<String> = Vec::new();
        for slot in std::iter::once(decision.decode).chain(others) {
            if let Some(address) = self.slots.address(slot)
                && !addresses.iter().any(|known| known == address)
            {
                addresses.push(address.to_owned());
            }
        }
        addresses
    }

    /// Whether some prefill worker can hand KV blocks to `decode` now.
    fn is_connected(&self, decode: usize) -> bool {
        let mut workers = self.fleet.workers.iter().enumerate();
        workers.any(|(slot, worker)| {
            worker.prefills()
                && !worker.is_draining
                && slot != decode
                && self.fleet.links.is_connected(slot, decode)
        })
    }

    /// A route has ended.
    fn settle(&mut self, route: &Route) -> Option<f64> {
        let account = route.account.as_ref();
        let timing = account.and_then(|account| account.timing).unwrap_or_default();
        let ms = |us: u64| us as f64 / 1e3;
        let ttft_ms =
            route.first_token_at.map(|at| at.saturating_duration_since(route.began).as_secs_f64() * 1e3);
        let cached_tokens = account.map_or(0, |account| u64::from(account.cached_prompt_tokens));
        match (account, ttft_ms) {
            (Some(account), _) => self.learn(route, account),
            (None, Some(ttft_ms)) => self.learn_from_outside(route, ttft_ms),
            (None, None) => {}
        }
        if route.is_complete {
            self.learner.outputs.add(&route.tenant, route.output_tokens);
        }
        if let Some(actual) = ttft_ms {
            self.learner.first_token(route.predicted_ttft_ms, actual);
        }
        self.refresh_costs();
        let planned = route.prefill.first().unwrap_or(&route.decode);
        let outcome = Outcome {
            queue_ms: ms(timing.queue_us),
            prefill_ms: ms(timing.prefill_us),
            transfer_ms: ms(timing.transfer_us),
            ttft_ms: ttft_ms.unwrap_or(0.0),
            decode_ms: ms(timing.decode_us),
            output_tokens: route.output_tokens,
            cached_tokens,
            failed: route.first_token_at.is_none()
                || account.is_some_and(|account| account.prefill_worker != *planned),
        };
        self.records.settle(&route.request_id, outcome);
        if let (Some(log), Some(record)) = (&self.log, self.records.get(&route.request_id)) {
            log.write(record);
        }
        ttft_ms
    }

    /// All that is known of a server that gives no account is when its tokens came. A prompt that did not wait took that long.
    fn learn_from_outside(&mut self, route: &Route, ttft_ms: f64) {
        let Placed { prefill, decode, .. } = route.placed;
        let is_same = self.slots.is((decode, route.lives.1));
        if !is_same || prefill != decode || route.waited_ms > 0.0 || !route.is_complete {
            return;
        }
        let worker = self.fleet.workers[decode].id.to_string();
        let sequences = f64::from(self.fleet.workers[decode].sequences().max(1));
        let context = self.fleet.workers[decode].context_tokens() as f64;
        let new_tokens = route.prompt_tokens - route.cached_tokens.min(route.prompt_tokens);
        self.learner.prefilled(&worker, new_tokens, route.cached_tokens, ttft_ms);
        if let Some(step_ms) = route.step_ms() {
            self.learner.stepped(&worker, sequences, context, step_ms);
        }
        self.fleet.workers[decode].costs = self.learner.costs(&worker);
    }

    fn learn(&mut self, route: &Route, account: &Account) {
        let Some(timing) = account.timing.filter(|timing| timing.prefill_us > 0) else { return };
        let Some(slot) = self.slots.of(&account.prefill_worker) else { return };
        let cached = u64::from(account.cached_prompt_tokens).min(route.prompt_tokens);
        let took_ms = timing.prefill_us as f64 / 1e3;
        // Beside others who generate it takes longer, which is no property of the prompt.
        let is_alone = slot != route.placed.decode || self.fleet.workers[slot].sequences() <= 1;
        if is_alone {
            let costs = self.learner.prefilled(
                &account.prefill_worker,
                route.prompt_tokens - cached,
                cached,
                took_ms,
            );
            self.fleet.workers[slot].costs = costs;
        }
        if account.transfer_bytes > 0
            && account.link_bytes_per_second > 0
            && self.slots.is((route.placed.decode, route.lives.1))
        {
            let (from, to) = (self.fleet.workers[slot].group, self.fleet.workers[route.placed.decode].group);
            let class = self.fleet.links.class(from, to);
            let bytes = account.transfer_bytes as f64;
            let on_link = Duration::from_secs_f64(bytes / account.link_bytes_per_second as f64);
            if let Some(link) = self.fleet.links.class_mut(class) {
                let took_ms = link.cost.fixed_ms + on_link.as_secs_f64() * 1e3;
                link.cost = self.learner.transferred(class, link.cost, bytes, took_ms);
            }
        }
    }
}

impl Route {
    /// Its first token came.
    pub(crate) fn first_token(&mut self) {
        if self.first_token_at.is_none() {
            self.first_token_at = Some(Instant::now());
            let now = self.router.now();
            let mut known = self.router.lock();
            self.prefill_done(&mut known, now);
        }
    }

    /// So many tokens came.
    pub(crate) fn tokens(&mut self, count: usize) {
        self.output_tokens += count as u64;
        self.last_token_at = Some(Instant::now());
    }

    /// Tokens of its prompt, or about as many.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// As it was decided.
    pub(crate) fn predicted_ttft_ms(&self) -> f64 {
        self.predicted_ttft_ms
    }

    /// Tokens of its prompt that were thought to be cached where it is computed.
    pub(crate) fn cached_tokens(&self) -> u64 {
        self.cached_tokens
    }

    /// Tokens that came.
    pub(crate) fn output_tokens(&self) -> u64 {
        self.output_tokens
    }

    /// Mean time between two tokens.
    fn step_ms(&self) -> Option<f64> {
        let took = self.last_token_at?.checked_duration_since(self.first_token_at?)?;
        (self.output_tokens > 1).then(|| took.as_secs_f64() * 1e3 / (self.output_tokens - 1) as f64)
    }

    /// So many tokens came in all.
    pub(crate) fn counted(&mut self, tokens: u64) {
        self.output_tokens = tokens;
    }

    /// How it was served so far.
    pub(crate) fn account(&mut self, account: &Account) {
        self.account = Some(account.clone());
    }

    /// It came to its end.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    fn prefill_done(&self, known: &mut Known, now: f64) {
        if known.slots.is((self.placed.prefill, self.lives.0)) {
            known.fleet.prefill_done(&self.placed, now);
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let now = self.router.now();
        let ttft_ms = {
            let mut known = self.router.lock();
            if self.first_token_at.is_none() {
                self.prefill_done(&mut known, now);
            }
            if known.slots.is((self.placed.decode, self.lives.1)) {
                known.fleet.sequence_done(&self.placed);
            }
            known.settle(self)
        };
        if let Some(actual_ms) = ttft_ms {
            self.router.metrics.first_token(self.predicted_ttft_ms, actual_ms);
            let predicted = Duration::try_from_secs_f64(self.predicted_ttft_ms / 1e3).unwrap_or_default();
            self.router.epp.predicted(&self.who, predicted);
        }
    }
}

/// Why there is nobody, in the request's own terms.
fn nobody(fleet: &baton_policy::view::FleetView, request: &RequestView<'_>) -> GenerateError {
    let here = |(_, worker): &(usize, &baton_policy::view::WorkerView)| {
        worker.decodes() && worker.is_reached_by(request.ways)
    };
    let open = |(slot, worker): &(usize, &baton_policy::view::WorkerView)| {
        !worker.is_draining && !request.tried.contains(slot)
    };
    let decode: Vec<_> = fleet.workers.iter().enumerate().filter(here).collect();
    let draining = decode.iter().filter(|(_, worker)| worker.is_draining).count();
    let mut candidates = decode.into_iter().filter(open).map(|(_, worker)| worker).peekable();
    if candidates.peek().is_none() {
        return NoDecodeWorker { draining }.into();
    }
    let with_adapter =
        candidates.filter(|worker| request.adapter.is_none_or(|name| worker.adapters.contains(name)));
    let largest = with_adapter.map(|worker| worker.kv_capacity_tokens).max();
    let (prompt_tokens, max_tokens) = (request.prompt_tokens, request.max_tokens);
    match (largest, request.adapter) {
        (Some(capacity_tokens), _) if capacity_tokens < prompt_tokens + max_tokens => NeverFits {
            needed_tokens: prompt_tokens + max_tokens,
            prompt_tokens,
            max_tokens,
            capacity_tokens,
        }
        .into(),
        (None, Some(name)) => NoSuchAdapter { name: name.to_owned() }.into(),
        _ => NoDecodeWorker { draining }.into(),
    }
}
