//! Who runs: letting in, and preempting.

use std::cmp::Reverse;

use super::{Engine, Prompt, Said, Shared, Waiting, Wish, insert};
use crate::flight::Flight;

impl Engine {
    /// Lets in, in order of arrival, whom there is room for. After the first for whom there is not, only those who have their blocks.
    pub(super) fn admit(&mut self, shared: &mut Shared<'_>) {
        let mut is_blocked = false;
        loop {
            let ready = self.ready.front().map(|entry| entry.arrival);
            let waiting = self.waiting.front().filter(|_| !is_blocked).copied();
            match (ready, waiting) {
                (Some(ready), waiting) if waiting.is_none_or(|waiting| ready < waiting.arrival) => {
                    if !self.has_slot() {
                        return;
                    }
                    if let Some(entry) = self.ready.pop_front() {
                        self.begin(entry.request, shared);
                    }
                }
                (_, Some(entry)) => {
                    let has_slot = entry.wish == Wish::Reserve || self.has_slot();
                    if has_slot && self.allocate(entry, shared) {
                        self.waiting.pop_front();
                        match entry.wish {
                            Wish::Reserve => shared.said.push(Said::Granted(entry.request)),
                            Wish::Prefill => self.prompt(entry.request, true, shared),
                            Wish::Resume => self.prompt(entry.request, false, shared),
                        }
                    } else {
                        is_blocked = true;
                    }
                }
                (None, None) => return,
                (Some(_), None) => return,
            }
        }
    }

    fn has_slot(&self) -> bool {
        self.running.len() + self.prompts.len() < self.profile.limits.running as usize
    }

    // It has its blocks.
    fn begin(&mut self, request: u32, shared: &mut Shared<'_>) {
        if shared.flights[request as usize].left == shared.traffic.requests[request as usize].output {
            self.prompt(request, false, shared);
        } else {
            // What a transfer brought is whole.
            self.store(request, false, shared);
            self.join(request, shared);
        }
    }

    fn prompt(&mut self, request: u32, is_for_another: bool, shared: &mut Shared<'_>) {
        let Flight { left, .. } = shared.flights[request as usize];
        let planned = &shared.traffic.requests[request as usize];
        let total = planned.prompt + planned.output - left;
        let done = Self::hold_of(shared.flights, request, is_for_another).cached_tokens;
        self.prompts.push_back(Prompt { request, done, total, is_for_another, is_begun: false });
        self.own_prompts += u32::from(!is_for_another);
        // In order of arrival; almost always it is the last one.
        let arrival = |engine: &Self, at: usize, shared: &mut Shared<'_>| {
            let Prompt { request, is_for_another, .. } = engine.prompts[at];
            Self::hold_of(shared.flights, request, is_for_another).arrival
        };
        let mut at = self.prompts.len() - 1;
        while at > 0 && arrival(self, at - 1, shared) > arrival(self, at, shared) {
            self.prompts.swap(at - 1, at);
            at -= 1;
        }
    }

    /// Generates from the next step on.
    pub(super) fn join(&mut self, request: u32, shared: &mut Shared<'_>) {
        let planned = &shared.traffic.requests[request as usize];
        let flight = &mut shared.flights[request as usize];
        flight.base = planned.prompt + planned.output - flight.left - 1;
        flight.joined = self.steps;
        flight.end = self.steps + flight.left;
        flight.joined_run = self.runs;
        self.context += u64::from(flight.base);
        self.growth_blocks += self.growth(flight, flight.end - 1);
        self.running.push(Reverse(u64::from(flight.end) << 32 | u64::from(request)));
        self.joined.push(request);
        self.shrink_cache(shared.holders);
    }

    /// Blocks beyond those it has that a sequence needs for step `step`.
    pub(super) fn growth(&self, flight: &Flight, step: u32) -> u32 {
        let tokens = flight.base + 1 + step.saturating_sub(flight.joined);
        let has = flight.at_decode.own + flight.at_decode.shared;
        tokens.div_ceil(self.profile.kv.block_tokens).saturating_sub(has)
    }

    /// Blocks that all who generate will have grown into by step `step`.
    fn growth_at(&self, step: u32, flights: &[Flight]) -> u32 {
        let request = |entry: &Reverse<u64>| (entry.0 & u64::from(u32::MAX)) as usize;
        self.running.iter().map(|entry| self.growth(&flights[request(entry)], step)).sum()
    }

    fn allocate(&mut self, entry: Waiting, shared: &mut Shared<'_>) -> bool {
        let (kv, limits) = (&self.profile.kv, &self.profile.limits);
        let planned = &shared.traffic.requests[entry.request as usize];
        let is_for_another = entry.wish == Wish::Prefill;
        let left = shared.flights[entry.request as usize].left;
        let tokens = match entry.wish {
            Wish::Reserve => planned.prompt + planned.output.min(limits.growth_tokens),
            Wish::Prefill => planned.prompt,
            Wish::Resume => planned.prompt + planned.output - left + 1,
        };
        let needed = tokens.div_ceil(kv.block_tokens);
        let path = shared.traffic.path(entry.request);
        let most = (planned.prompt - 1) / kv.block_tokens;
        let hit = match &self.cache {
            Some(cache) => cache.look(path, 0, most, &shared.traffic.prefixes, kv.block_tokens),
            None => super::cache::Hit::default(),
        };
        let fresh = needed - hit.blocks;
        let used =
            self.own_blocks + self.cache_used() + fresh + hit.idle + self.sequences() + self.own_prompts;
        let room = |growth: u32| used + growth <= self.total_blocks;
        // Blocks for the coming step are taken after this.
        let step = self.steps.saturating_sub(1);
        if !room(self.growth_blocks) && !room(self.growth_at(step, shared.flights)) {
            return false;
        }
        if let Some(cache) = &mut self.cache {
            cache.take(&path[..hit.nodes as usize]);
        }
        let block_tokens = kv.block_tokens;
        let hold = Self::hold_of(shared.flights, entry.request, is_for_another);
        hold.own = fresh;
        hold.nodes = hit.nodes;
        hold.shared = hit.blocks;
        hold.cached_tokens = hit.blocks * block_tokens;
        self.own_blocks += fresh;
        self.totals.most_blocks = self.totals.most_blocks.max(self.own_blocks + self.cache_used());
        self.shrink_cache(shared.holders);
        true
    }

    /// Takes from the youngest until everybody else has blocks for the next step.
    pub(super) fn preempt(&mut self, now: f64, shared: &mut Shared<'_>) {
        let used = |engine: &Self| engine.own_blocks + engine.cache_used();
        if used(self) + self.growth_blocks <= self.total_blocks {
            return;
        }
        while used(self) + self.growth_at(self.steps, shared.flights) > self.total_blocks {
            if !self.preempt_youngest(now, shared) {
                return;
            }
        }
    }

    /// How many of the next `steps` steps all have blocks for.
    pub(super) fn steps_with_room(&self, steps: u32, shared: &Shared<'_>) -> u32 {
        let used = self.own_blocks + self.cache_used();
        let has_room =
            |steps: u32| used + self.growth_at(self.steps + steps - 1, shared.flights) <= self.total_blocks;
        if used + self.growth_blocks <= self.total_blocks || has_room(steps) {
            return steps;
        }
        let (mut some, mut too_many) = (1, steps);
        while some + 1 < too_many {
            let middle = u32::midpoint(some, too_many);
            if has_room(middle) { some = middle } else { too_many = middle }
        }
        some
    }

    fn preempt_youngest(&mut self, now: f64, shared: &mut Shared<'_>) -> bool {
        let arrival = |request: u32| shared.flights[request as usize].at_decode.arrival;
        let running = self.running.iter().map(|entry| entry.0 as u32);
        let prompts =
            self.prompts.iter().filter(|prompt| !prompt.is_for_another).map(|prompt| prompt.request);
        let ready = self.ready.iter().map(|entry| entry.request);
        let Some(victim) = running.chain(prompts).chain(ready).max_by_key(|&request| arrival(request)) else {
            return false;
        };
        if !self.leave(victim, now, shared) {
            self.ready.retain(|entry| entry.request != victim);
        }
        self.release(victim, false, shared);
        let flight = &mut shared.flights[victim as usize];
        flight.preemptions += 1;
        self.totals.preemptions += 1;
        self.looks_again = true;
        insert(
            &mut self.waiting,
            Waiting { arrival: flight.at_decode.arrival, request: victim, wish: Wish::Resume },
        );
        true
    }

    /// Takes `request` out of those who are computed; its blocks stay. Says whether it was among them.
    fn leave(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) -> bool {
        if let Some(at) = self.prompts.iter().position(|prompt| prompt.request == request) {
            self.own_prompts -= u32::from(!self.prompts[at].is_for_another);
            self.prompts.remove(at);
            return true;
        }
        let before = self.running.len();
        self.running.retain(|entry| entry.0 as u32 != request);
        if self.running.len() == before {
            return false;
        }
        let growth = self.growth(&shared.flights[request as usize], shared.flights[request as usize].end - 1);
        let flight = &mut shared.flights[request as usize];
        self.growth_blocks -= growth;
        self.context -= u64::from(flight.base + (self.steps - flight.joined));
        flight.left = flight.end - self.steps;
        if self.steps > flight.joined {
            flight.longest_gap = flight.longest_gap.max(self.longest.since(flight.joined_run));
            flight.last_token = now;
        }
        self.joined.retain(|joined| *joined != request);
        true
    }

    /// Those whose clients are gone leave.
    pub(super) fn drop_given_up(&mut self, now: f64, shared: &mut Shared<'_>) {
        while let Some(request) = self.given_up.pop() {
            if let Some(prompt) = self.prompts.iter().find(|prompt| prompt.request == request) {
                let is_for_another = prompt.is_for_another;
                self.leave(request, now, shared);
                self.release(request, is_for_another, shared);
            } else if self.leave(request, now, shared) {
                self.release(request, false, shared);
            }
        }
    }
}
