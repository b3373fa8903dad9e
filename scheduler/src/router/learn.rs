//! What came of a request, and what that teaches.

use std::time::Duration;

use baton_policy::{record::Outcome, view::Placed};
use baton_proto::v1::{Account, Step};

use super::{Known, Route, Router};

impl Router {
    /// A worker says what its steps took. Those that only computed prompts teach what prompts take.
    pub(crate) fn stepped(&self, id: &str, steps: &[Step]) {
        let only_prompts = || steps.iter().filter(|step| step.prompt_tokens > 0 && step.sequences == 0);
        let count = only_prompts().count();
        if count == 0 {
            return;
        }
        let mean = |of: fn(&Step) -> f64| only_prompts().map(of).sum::<f64>() / count as f64;
        let (tokens, pairs) = (mean(|step| f64::from(step.prompt_tokens)), mean(|step| step.pairs));
        let step_ms = mean(|step| step.us as f64 / 1e3);
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        let costs = known.learner.prompts_stepped(id, tokens, pairs, step_ms);
        known.fleet.workers[slot].costs = costs;
        known.refresh_costs();
    }
}

impl Known {
    /// A route has ended.
    pub(super) fn settle(&mut self, route: &Route) -> Option<f64> {
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
        // Of an answer that nobody has looked at it is not known.
        if route.is_complete && route.output_tokens > 0 {
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
            moved_bytes: account.map_or(0, |account| account.transfer_bytes),
            link_bytes_per_second: account.map_or(0, |account| account.link_bytes_per_second),
            decode_wait_ms: ms(timing.decode_wait_us),
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
        // Whoever else was computed then is in that.
        self.learner.prompt_beside(ttft_ms, ttft_ms);
        if let Some(step_ms) = route.step_ms() {
            self.learner.stepped(&worker, sequences, context, step_ms);
        }
        self.fleet.workers[decode].costs = self.learner.costs(&worker);
    }

    fn learn(&mut self, route: &Route, account: &Account) {
        let Some(timing) = account.timing.filter(|timing| timing.prefill_us > 0) else { return };
        let Some(slot) = self.slots.of(&account.prefill_worker) else { return };
        let cached = u64::from(account.cached_prompt_tokens).min(route.prompt_tokens);
        // What it would have taken alone its worker's steps teach: others may have been computed in the same ones.
        if slot == route.placed.decode && self.fleet.workers[slot].sequences() > 0 {
            let alone_ms =
                self.fleet.workers[slot].costs.prefill.predict(route.prompt_tokens - cached, cached);
            self.learner.prompt_beside(alone_ms, timing.prefill_us as f64 / 1e3);
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
