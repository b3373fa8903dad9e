//! What the next steps compute, and what they take.

use super::{Engine, Prompt, Shared, run::Run};
use baton_profile::{
    Profile, StepShape,
    batching::{self, LEAST_TOKENS, QUIET_EVERY, STRETCH},
    pairs,
};

/// The size of chunks beside those who generate, where nobody says it, is looked at again after so many steps. The engine (`engine/src/serve/pace.rs`) finds by
/// trying what is computed here.
const PACED_STEPS: u32 = 8;

impl Engine {
    pub(super) fn plan(&mut self, now: f64, shared: &mut Shared<'_>) {
        // Who was preempted, and has one token to compute yet, generates again.
        while let Some(prompt) = self.prompts.front()
            && prompt.total - prompt.done == 1
            && shared.flights[prompt.request as usize].left
                < shared.traffic.requests[prompt.request as usize].output
            && !prompt.is_for_another
        {
            let request = prompt.request;
            self.prompts.pop_front();
            self.own_prompts -= 1;
            self.store(request, false, shared);
            self.join(request, shared);
        }
        if self.prompts.is_empty() {
            if !self.running.is_empty() {
                self.plan_quiet(u32::MAX, now, shared);
            } else {
                self.longest.clear();
            }
            return;
        }
        let budget = self.prompt_budget();
        if budget == 0 {
            self.plan_quiet(1, now, shared);
            return;
        }
        self.begin_first(shared);
        let head = self.prompts[0];
        let rest = head.total - head.done;
        if rest > budget {
            self.plan_chunks(budget, (rest - 1) / budget, now, shared);
        } else {
            self.plan_packed(budget, now, shared);
        }
        let run_took = self.run.map_or(0.0, |run| run.first);
        let groups = f64::from(self.profile.transfer.layer_groups);
        let began = |flight: &mut crate::flight::Flight, is_begun: bool| {
            if !is_begun {
                flight.prefill_began = flight.prefill_began.min(now);
                flight.first_data = flight.first_data.min(now + run_took / groups);
            }
        };
        let mut left = self.run.map_or(0, |run| run.tokens);
        for prompt in &mut self.prompts {
            if left == 0 {
                break;
            }
            began(&mut shared.flights[prompt.request as usize], prompt.is_begun);
            prompt.is_begun = true;
            left -= left.min(prompt.total - prompt.done);
        }
    }

    // Steps without prompts, until one ends.
    fn plan_quiet(&mut self, most: u32, now: f64, shared: &mut Shared<'_>) {
        let steps = self.steps_until_end().min(most);
        let steps = self.steps_with_room(steps, shared);
        let sequences = self.sequences();
        let piece = self.profile.decode.piece(sequences);
        self.set(
            Run {
                began: now,
                first: self.profile.decode.step_ms(sequences, self.context),
                grows: piece.per_context_token_ms * f64::from(sequences),
                steps,
                chunk: 0,
                packed: 0,
                tokens: 0,
                pairs: 0.0,
                sequences,
                context: self.context,
            },
            shared,
        );
    }

    // Whole chunks of the first prompt.
    fn plan_chunks(&mut self, chunk: u32, steps: u32, now: f64, shared: &mut Shared<'_>) {
        let Profile { prefill, decode, .. } = &*self.profile;
        let sequences = self.sequences();
        let done = u64::from(self.prompts[0].done);
        let first_pairs = pairs(u64::from(chunk), done);
        let first = self.step_ms(chunk, first_pairs);
        let per_pair_ms = prefill.piece(u64::from(chunk) + u64::from(sequences)).per_pair_ms;
        let mut grows = per_pair_ms * f64::from(chunk) * f64::from(chunk);
        let mut steps = steps;
        if sequences > 0 {
            grows += decode.piece(sequences).per_context_token_ms * f64::from(sequences);
            steps = steps.min(self.steps_until_end());
            if self.profile.limits.mixed_prompt_tokens.is_none() {
                steps = steps.min(QUIET_EVERY - self.mixed_in_a_row).min(PACED_STEPS);
            }
            steps = self.steps_with_room(steps, shared);
        }
        let context = self.context;
        let (tokens, pairs) = (chunk, first_pairs);
        self.set(
            Run { began: now, first, grows, steps, chunk, packed: 0, tokens, pairs, sequences, context },
            shared,
        );
    }

    // One step in which prompts end: what they leave goes to the next ones.
    fn plan_packed(&mut self, budget: u32, now: f64, shared: &mut Shared<'_>) {
        let sequences = self.sequences();
        let (mut left, mut sum, mut at) = (budget, 0.0, 0);
        while at < self.prompts.len() && left > 0 {
            if !self.prompts[at].is_begun {
                self.share_more(at, shared);
            }
            let prompt = &self.prompts[at];
            if sequences == 0 && at > 0 && !self.joins(at, left, prompt, (budget - left, sum)) {
                break;
            }
            let chunk = left.min(prompt.total - prompt.done);
            sum += pairs(u64::from(chunk), u64::from(prompt.done));
            left -= chunk;
            at += 1;
        }
        let tokens = budget - left;
        let first = self.step_ms(tokens, sum);
        let context = self.context;
        let packed = tokens;
        self.set(
            Run {
                began: now,
                first,
                grows: 0.0,
                steps: 1,
                chunk: 0,
                packed,
                tokens,
                pairs: sum,
                sequences,
                context,
            },
            shared,
        );
    }

    // Whether `prompt` is computed in a step of nothing but prompts, of which it has `together` with so many tokens and pairs.
    fn joins(&self, together: usize, left: u32, prompt: &Prompt, (tokens, pairs_before): (u32, f64)) -> bool {
        let prefill = &self.profile.prefill;
        let new = prompt.total - prompt.done;
        let pairs = pairs(u64::from(new), u64::from(prompt.done));
        let longer = prefill.step_ms(u64::from(tokens + new), pairs_before + pairs);
        let adds = longer - prefill.step_ms(u64::from(tokens), pairs_before);
        let saves = prefill.step_ms(u64::from(new), pairs) - adds;
        new <= left && batching::joins(together, self.prompts.len(), adds, saves.max(0.0))
    }

    // With prompts, beside all who generate.
    fn step_ms(&self, prompt_tokens: u32, pairs: f64) -> f64 {
        self.profile.step_ms(&StepShape {
            prompt_tokens: u64::from(prompt_tokens),
            pairs,
            sequences: self.sequences(),
            context_tokens: self.context,
        })
    }

    fn set(&mut self, run: Run, shared: &mut Shared<'_>) {
        // The first token that they get here ends the gap since the last they got.
        for request in self.joined.drain(..) {
            let flight = &mut shared.flights[request as usize];
            flight.decode_began = flight.decode_began.min(run.began);
            flight.longest_gap = flight.longest_gap.max(run.began + run.first - flight.last_token);
        }
        let steps = if std::mem::take(&mut self.looks_again) { 1 } else { run.steps };
        self.run = Some(Run { steps, ..run });
    }

    fn begin_first(&mut self, shared: &mut Shared<'_>) {
        if !self.prompts[0].is_begun {
            self.share_more(0, shared);
        }
    }

    // What others have computed since it was let in, it need not compute.
    fn share_more(&mut self, at: usize, shared: &mut Shared<'_>) {
        let Some(cache) = &mut self.cache else { return };
        let Some(prompt) = self.prompts.get_mut(at) else { return };
        let path = shared.traffic.path(prompt.request);
        let planned = &shared.traffic.requests[prompt.request as usize];
        let block_tokens = self.profile.kv.block_tokens;
        let hold = Self::hold_of(shared.flights, prompt.request, prompt.is_for_another);
        let most = (planned.prompt - 1) / block_tokens - hold.shared;
        let hit = cache.look(path, hold.nodes, most, &shared.traffic.prefixes, block_tokens);
        if hit.blocks == 0 {
            return;
        }
        cache.take(&path[hold.nodes as usize..(hold.nodes + hit.nodes) as usize]);
        hold.nodes += hit.nodes;
        hold.shared += hit.blocks;
        hold.own -= hit.blocks.min(hold.own);
        hold.cached_tokens = hold.shared * block_tokens;
        self.own_blocks -= hit.blocks;
        prompt.done = hold.cached_tokens;
    }

    fn steps_until_end(&self) -> u32 {
        self.running.peek().map_or(u32::MAX, |entry| (entry.0 >> 32) as u32 - self.steps)
    }

    // Tokens of prompts in the next step; 0: none, to see what a step takes without.
    fn prompt_budget(&self) -> u32 {
        let (limits, block) = (&self.profile.limits, self.profile.kv.block_tokens);
        let sequences = self.sequences();
        if sequences == 0 {
            return limits.step_tokens;
        }
        let most = match limits.mixed_prompt_tokens {
            Some(tokens) => tokens,
            None if !self.has_been_quiet || self.mixed_in_a_row >= QUIET_EVERY => return 0,
            None => self.paced_tokens(limits.step_tokens.max(block)),
        };
        limits.step_tokens.saturating_sub(sequences).min(most).max(block.min(most))
    }

    // As many as make a step so many times as long: the largest root of a quadratic in each piece.
    fn paced_tokens(&self, most: u32) -> u32 {
        let Profile { prefill, decode, .. } = &*self.profile;
        let sequences = self.sequences();
        let rows = f64::from(sequences);
        let may_take = (STRETCH - 1.0) * decode.step_ms(sequences, self.context)
            + prefill.step_ms(u64::from(sequences), 0.0);
        let done = f64::from(self.prompts.front().map_or(0, |prompt| prompt.done));
        let (mut tokens, mut begin) = (0.0_f64, 0.0);
        for piece in prefill.pieces() {
            let end = piece.up_to_tokens.map_or(f64::INFINITY, |end| end as f64 - rows);
            let left = may_take - piece.fixed_ms - piece.per_token_ms * rows;
            let per_token = piece.per_token_ms + piece.per_pair_ms * done;
            let fits = if left < 0.0 { 0.0 } else { root(piece.per_pair_ms / 2.0, per_token, left) };
            if fits > begin {
                tokens = tokens.max(fits.min(end));
            }
            begin = end;
        }
        (tokens.min(f64::from(most)) as u32).clamp(LEAST_TOKENS.min(most), most)
    }
}

// Where `a·x² + b·x` is `c`, none of them negative; without end if it never is.
fn root(a: f64, b: f64, c: f64) -> f64 {
    let sum = b + (b * b + 4.0 * a * c).sqrt();
    if sum > 0.0 { 2.0 * c / sum } else { f64::INFINITY }
}
