//! Where a request goes, and that it goes there.

use std::{sync::Arc, time::Instant};

use baton_policy::{
    decide::Decision,
    estimate::Term,
    record::Record,
    view::{Cached, FleetView, RequestView, WorkerView},
};

use super::{Ask, Known, Refused, Route, Router, cache::Prompt, route::Admitted};
use crate::{
    epp::{Placement, Who},
    error::{GenerateError, NeverFits, NoDecodeWorker, NoSuchAdapter},
};

impl Known {
    /// Decides where a request goes that `tried` could not serve, and keeps a record of it.
    pub(super) fn decide(
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
            ask.subset.into_iter().flatten().flat_map(|address| self.slots.at(address)).collect();
        if ask.subset.is_some() && subset.is_empty() {
            return Err(Refused::Nobody(NoDecodeWorker { draining: 0 }.into()));
        }
        let request = RequestView { subset: &subset, ..self.view(ask, &cached, &tried) };
        let Ok(decision) = self.placer.decide(&request, now) else {
            return Err(Refused::Nobody(nobody(&self.placer.fleet, &request)));
        };
        let (fleet, weights) = (&self.placer.fleet, self.placer.profile().weights);
        let record = Record::new(ask.request_id.to_owned(), &decision, weights, fleet, &request, now);
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
        let request = RequestView {
            prompt_tokens: ask.prompt_tokens,
            max_tokens: ask.max_tokens,
            ways: ask.reach as u8,
            kv_bytes_per_token: self.slots.kv_bytes_per_token,
            cached,
            adapter: ask.adapter,
            session_worker: session
                .filter(|worker| self.placer.fleet.is_there(*worker))
                .map(|worker| worker.index),
            tried,
            objective: ask.objective,
            dice: self.requests.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..RequestView::default()
        };
        self.placer.view(&ask.tenant, request)
    }

    /// A request goes where it was decided, and counts there from now on.
    pub(super) fn commit(
        &mut self,
        router: &Arc<Router>,
        ask: &Ask<'_>,
        who: Who,
        admitted: Admitted,
        decision: Decision,
    ) -> Route {
        let placed = self.placer.placed(&decision, router.now());
        let (decode, prompt_tokens) = (decision.decode, ask.prompt_tokens);
        if let Some(session) = ask.session {
            self.sessions.set(session, placed.decode);
        }
        for slot in [Some(decode), decision.prefill].into_iter().flatten() {
            if let Some((number, block_tokens)) = self.slots.number(slot) {
                router.cache.guess(number, block_tokens, &admitted.prompt);
            }
        }
        router.epp.placed(
            &who,
            &Placement {
                decode: &self.placer.fleet.workers[decode].id,
                address: self.slots.address(decode),
                is_disaggregated: decision.prefill.is_some(),
                prompt_tokens,
                cached_tokens: decision.cached_tokens.min(prompt_tokens),
            },
        );
        let workers = &self.placer.fleet.workers;
        let id = |slot: &usize| workers[*slot].id.to_string();
        Route {
            decode: id(&decode),
            prefill: decision.prefill_choices.iter().map(id).collect(),
            addresses: self.addresses(&decision),
            prefill_addresses: decision
                .prefill_choices
                .iter()
                .filter_map(|slot| self.slots.address(*slot).map(str::to_owned))
                .collect(),
            prefill_workers: workers.iter().filter(|worker| worker.prefills() && !worker.is_draining).count(),
            is_local_by_choice: decision.prefill.is_none()
                && decision.prefill_workers > 0
                && self.is_connected(decode),
            router: router.clone(),
            request_id: ask.request_id.to_owned(),
            tenant: ask.tenant.clone(),
            who,
            admitted,
            placed,
            waited_ms: decision.terms.get(Term::Queue),
            cached_tokens: decision.cached_tokens,
            began: Instant::now(),
            first_token_at: None,
            last_token_at: None,
            account: None,
            output_tokens: 0,
            is_complete: false,
            is_failed: false,
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
        let fleet = &self.placer.fleet;
        let mut workers = fleet.workers.iter().enumerate();
        workers.any(|(slot, worker)| {
            worker.prefills()
                && !worker.is_draining
                && slot != decode
                && fleet.links.is_connected(slot, decode)
        })
    }
}

/// Why there is nobody, in the request's own terms.
fn nobody(fleet: &FleetView, request: &RequestView<'_>) -> GenerateError {
    let here = |(_, worker): &(usize, &WorkerView)| worker.decodes() && worker.is_reached_by(request.ways);
    let open = |(slot, worker): &(usize, &WorkerView)| !worker.is_draining && !request.tried.contains(slot);
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
