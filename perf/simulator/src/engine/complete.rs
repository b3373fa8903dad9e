//! What steps gave.

use super::{Engine, Said, Shared, run::Run};
use crate::traffic::NONE;

impl Engine {
    /// `run` has ended.
    pub(super) fn complete(&mut self, run: &Run, now: f64, shared: &mut Shared<'_>) {
        let took = run.took(run.steps);
        let steps = u64::from(run.steps);
        self.steps += run.steps;
        self.runs += 1;
        if run.sequences > 0 {
            self.context += u64::from(run.sequences) * steps;
            self.longest.add(self.runs - 1, run.longest(run.steps));
            self.totals.output_tokens += u64::from(run.sequences) * steps;
        }
        match (run.has_prompts(), run.sequences > 0) {
            (true, false) => {
                let (tokens, pairs) = run.computed();
                self.totals.prompt_ms += took;
                self.totals.alone_steps += steps;
                self.totals.alone_tokens += tokens;
                self.totals.alone_pairs += pairs;
            }
            (true, true) => {
                self.totals.mixed_ms += took;
                self.mixed_in_a_row += run.steps;
            }
            (false, _) => {
                self.totals.decode_ms += took;
                self.has_been_quiet = true;
                self.mixed_in_a_row = 0;
                self.totals.quiet_steps += steps;
                self.totals.quiet_sequences += steps * u64::from(run.sequences);
                self.totals.quiet_context +=
                    steps * run.context + u64::from(run.sequences) * (steps * (steps - 1) / 2);
            }
        }
        self.finish_sequences(now, shared);
        if run.chunk > 0 {
            let prompt = &mut self.prompts[0];
            prompt.done += run.chunk * run.steps;
            self.totals.prompt_tokens += u64::from(run.chunk) * steps;
            shared.flights[prompt.request as usize].last_chunk = run.chunk;
        } else if run.packed > 0 {
            self.complete_packed(run.packed, now, shared);
        }
    }

    fn finish_sequences(&mut self, now: f64, shared: &mut Shared<'_>) {
        while let Some(entry) = self.running.peek()
            && (entry.0 >> 32) as u32 <= self.steps
        {
            let request = entry.0 as u32;
            self.running.pop();
            let growth = {
                let flight = &shared.flights[request as usize];
                self.growth(flight, flight.end - 1)
            };
            let flight = &mut shared.flights[request as usize];
            self.growth_blocks -= growth;
            self.context -= u64::from(flight.base + (flight.end - flight.joined));
            flight.left = 0;
            flight.longest_gap = flight.longest_gap.max(self.longest.since(flight.joined_run));
            flight.last_token = now;
            if self.cache.is_some() {
                self.keep_answer(request, growth, shared);
                self.release(request, false, shared);
                self.shrink_cache(shared.holders);
            } else {
                self.own_blocks -= std::mem::take(&mut flight.at_decode.own);
            }
            shared.said.push(Said::Finished(request));
        }
    }

    // What it was answered stays in the cache, as the leaf of its prompt.
    fn keep_answer(&mut self, request: u32, growth: u32, shared: &mut Shared<'_>) {
        let block_tokens = self.profile.kv.block_tokens;
        let flight = &shared.flights[request as usize];
        let blocks = (flight.base + (flight.end - flight.joined)) / block_tokens;
        let path = shared.traffic.path(request);
        let prompt = path.last().map_or(0, |&node| shared.traffic.prefixes.end_tokens(node) / block_tokens);
        let blocks = blocks.saturating_sub(prompt).min(flight.at_decode.own + growth);
        let node = shared.traffic.requests[request as usize].answer;
        let (worker, holders) = (self.worker, &mut *shared.holders);
        if let Some(cache) = &mut self.cache {
            cache.keep_answer(node, blocks);
            if node != NONE {
                holders.set(node, worker, true);
            }
        }
    }

    fn complete_packed(&mut self, budget: u32, now: f64, shared: &mut Shared<'_>) {
        let mut left = budget;
        // Those that end are the first ones.
        while let Some(prompt) = self.prompts.front_mut()
            && left > 0
        {
            let chunk = left.min(prompt.total - prompt.done);
            prompt.done += chunk;
            left -= chunk;
            self.totals.prompt_tokens += u64::from(chunk);
            shared.flights[prompt.request as usize].last_chunk = chunk;
            if prompt.done < prompt.total {
                return;
            }
            let prompt = *prompt;
            self.prompts.pop_front();
            self.own_prompts -= u32::from(!prompt.is_for_another);
            self.prompted(prompt.request, prompt.is_for_another, now, shared);
        }
    }

    fn prompted(&mut self, request: u32, is_for_another: bool, now: f64, shared: &mut Shared<'_>) {
        let cached = Self::hold_of(shared.flights, request, is_for_another).cached_tokens;
        self.totals.cached_tokens += u64::from(cached);
        self.totals.output_tokens += 1;
        self.store(request, is_for_another, shared);
        let flight = &mut shared.flights[request as usize];
        flight.left -= 1;
        let gap = now - flight.last_token;
        if gap > 0.0 && flight.last_token.is_finite() {
            flight.longest_gap = flight.longest_gap.max(gap);
        }
        flight.last_token = now;
        let is_over = flight.left == 0;
        if !is_for_another {
            if is_over {
                self.release(request, false, shared);
            } else {
                self.join(request, shared);
            }
        }
        shared.said.push(if is_over && !is_for_another {
            Said::Finished(request)
        } else {
            Said::Prompted(request)
        });
    }

    /// The prompt of `request` is computed: its blocks are in the cache.
    pub(super) fn store(&mut self, request: u32, is_for_another: bool, shared: &mut Shared<'_>) {
        let Some(cache) = &mut self.cache else { return };
        let path = shared.traffic.path(request);
        if path.is_empty() {
            return;
        }
        let (worker, block_tokens) = (self.worker, self.profile.kv.block_tokens);
        let hold = Self::hold_of(shared.flights, request, is_for_another);
        let stored = cache.store(path, hold.nodes, &shared.traffic.prefixes, block_tokens, |node, has| {
            shared.holders.set(node, worker, has);
        });
        let stored = stored.min(hold.own);
        hold.own -= stored;
        hold.shared += stored;
        hold.nodes = path.len() as u32;
        self.own_blocks -= stored;
        self.shrink_cache(shared.holders);
    }
}
