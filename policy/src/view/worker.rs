//! A worker, as decisions see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Ms, Recent};
use crate::cost::WorkerCosts;

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Computes prompts for others.
    Prefill,
    /// Generates; it can compute the prompts of what it generates.
    #[default]
    Decode,
    /// Both.
    Both,
}

/// A worker's own last report: true when it was made, and counting every scheduler's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// When it came; `None`: never yet.
    pub at: Option<Ms>,
    /// Requests that wait.
    pub waiting: u32,
    /// Requests being computed.
    pub running: u32,
    /// Prompt tokens not yet computed.
    pub waiting_prompt_tokens: u64,
    /// KV tokens that requests occupy; what is only cached does not count.
    pub kv_used_tokens: u64,
    /// Its steps that only generated, since it began.
    pub generated: Generated,
    /// Its steps that only computed prompts, since it began; empty, if it tells them otherwise.
    pub prompted: Prompted,
}

/// Sums over steps that only generated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Generated {
    /// Steps.
    pub steps: f64,
    /// Sequences in them.
    pub sequences: f64,
    /// Tokens that those had.
    pub context_tokens: f64,
    /// Time.
    pub ms: Ms,
}

/// Sums over steps that only computed prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prompted {
    /// Steps.
    pub steps: f64,
    /// Tokens computed.
    pub tokens: f64,
    /// Pairs of them and the tokens before ([`PrefillCost`](crate::cost::PrefillCost)).
    pub pairs: f64,
    /// Time.
    pub ms: Ms,
}

/// What this scheduler itself has at a worker: exact, and knowing nothing of other schedulers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InFlight {
    /// Prompts that have not led to a first token.
    pub prefills: u32,
    /// Their predicted computing time.
    pub prefill_ms: Ms,
    /// When they will be done, by prediction.
    pub busy_until: Ms,
    /// Prompts that were sent there lately.
    pub recent: Recent,
    /// Requests that generate, or will once their prompt is computed.
    pub sequences: u32,
    /// KV tokens that those have now.
    pub context_tokens: u64,
    /// KV tokens that they will probably have at their end.
    pub reserved_tokens: u64,
}

/// What other schedulers have at a worker, by its last report: what it has beside what this scheduler had there then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Others {
    /// Requests.
    pub requests: u32,
    /// What computing their prompts would have taken when the report came.
    pub prefill_ms: Ms,
    /// KV tokens that they have.
    pub kv_tokens: u64,
}

/// A worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerView {
    /// Its name, unique in the fleet.
    pub id: Arc<str>,
    /// What it does.
    pub role: Role,
    /// Where it is: the group that [`Links`](super::Links) knows.
    pub group: u16,
    /// Ways to reach it, a bit each; what they are is the caller's affair. 0: by all.
    pub reach: u8,
    /// Labels to be matched.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Adapters that it has loaded.
    pub adapters: Arc<BTreeSet<String>>,
    /// Takes no new requests.
    pub is_draining: bool,
    /// When a call to it last failed.
    pub failed_at: Option<Ms>,
    /// What it says.
    pub report: Report,
    /// What this scheduler has there.
    pub own: InFlight,
    /// What others have there.
    pub others: Others,
    /// KV tokens that it holds when empty.
    pub kv_capacity_tokens: u64,
    /// What work takes there.
    pub costs: WorkerCosts,
    /// Which life of its place: [`FleetView::seat`](super::FleetView::seat) counts them.
    pub life: u64,
}

impl Generated {
    /// Sequences, context tokens and milliseconds of the mean step after `before`; none, if there was none, or sums began anew.
    pub(crate) fn mean_since(&self, before: &Self) -> Option<[f64; 3]> {
        let sums = [
            self.sequences - before.sequences,
            self.context_tokens - before.context_tokens,
            self.ms - before.ms,
        ];
        mean(self.steps - before.steps, sums)
    }
}

impl Prompted {
    /// Tokens, pairs and milliseconds of the mean step after `before`; none, if there was none, or sums began anew.
    pub(crate) fn mean_since(&self, before: &Self) -> Option<[f64; 3]> {
        mean(
            self.steps - before.steps,
            [self.tokens - before.tokens, self.pairs - before.pairs, self.ms - before.ms],
        )
    }
}

fn mean(steps: f64, sums: [f64; 3]) -> Option<[f64; 3]> {
    (steps > 0.0 && sums.iter().all(|&sum| sum >= 0.0)).then(|| sums.map(|sum| sum / steps))
}

impl WorkerView {
    /// Whether it can be reached by one of `ways`.
    #[must_use]
    pub fn is_reached_by(&self, ways: u8) -> bool {
        self.reach == 0 || ways == 0 || self.reach & ways != 0
    }

    /// Whether it computes prompts for others.
    #[must_use]
    pub fn prefills(&self) -> bool {
        matches!(self.role, Role::Prefill | Role::Both)
    }

    /// Whether it generates.
    #[must_use]
    pub fn decodes(&self) -> bool {
        matches!(self.role, Role::Decode | Role::Both)
    }

    /// How old its report is; infinitely, if there is none.
    #[must_use]
    pub fn report_age(&self, now: Ms) -> Ms {
        self.report.at.map_or(f64::INFINITY, |at| (now - at).max(0.0))
    }

    /// It says this of itself. Own requests are counted exactly from one moment to the next, a report counts everybody's but is old when
    /// the next request comes: so what is other schedulers' is told apart now, and added later.
    pub(super) fn reported(&mut self, report: Report) {
        let all = report.running + report.waiting;
        // A prompt that is computed where it decodes is one request there, and both here.
        let own = if self.role == Role::Prefill { self.own.prefills } else { self.own.sequences };
        let requests = all.saturating_sub(own);
        let share = if all == 0 { 0.0 } else { f64::from(requests) / f64::from(all) };
        self.others = Others {
            requests,
            prefill_ms: match report.waiting_prompt_tokens {
                0 => 0.0,
                tokens => self.costs.prefill.predict(tokens, 0) * share,
            },
            kv_tokens: (report.kv_used_tokens as f64 * share) as u64,
        };
        self.report = report;
    }

    /// Work ahead of a prompt that would come now.
    #[must_use]
    pub fn prefill_queue_ms(&self, now: Ms) -> Ms {
        let age = self.report.at.map_or(0.0, |at| now - at);
        self.own.queue_ms(now) + (self.others.prefill_ms - age).max(0.0)
    }

    /// Requests that generate there, or will.
    #[must_use]
    pub fn sequences(&self) -> u32 {
        self.own.sequences + self.others.requests
    }

    /// KV tokens in use by requests.
    #[must_use]
    pub fn context_tokens(&self) -> u64 {
        (self.own.context_tokens + self.others.kv_tokens).max(self.report.kv_used_tokens)
    }

    /// Share of its KV memory that requests have or will probably have, 0 to 1.
    #[must_use]
    pub fn kv_used_share(&self) -> f64 {
        let used = self.kv_capacity_tokens - self.kv_free_tokens();
        used as f64 / self.kv_capacity_tokens.max(1) as f64
    }

    /// KV tokens that nobody has, nor will probably have.
    #[must_use]
    pub fn kv_free_tokens(&self) -> u64 {
        let own_and_others = self.own.reserved_tokens + self.others.kv_tokens;
        self.kv_capacity_tokens.saturating_sub(own_and_others.max(self.report.kv_used_tokens))
    }
}

impl InFlight {
    /// A prompt was sent there.
    pub fn prefill_placed(&mut self, predicted_ms: Ms, now: Ms) {
        self.prefills += 1;
        self.prefill_ms += predicted_ms;
        self.busy_until = self.busy_until.max(now) + predicted_ms;
        self.recent.placed(predicted_ms, now);
    }

    /// It led to a first token, or was given up. What is left has not begun, as prompts are computed in turn.
    pub fn prefill_done(&mut self, predicted_ms: Ms, now: Ms) {
        self.prefills = self.prefills.saturating_sub(1);
        self.prefill_ms = if self.prefills == 0 { 0.0 } else { (self.prefill_ms - predicted_ms).max(0.0) };
        self.busy_until = now + self.prefill_ms;
    }

    /// A request will generate there: `context_tokens` at first, `growth_tokens` at its end.
    pub fn sequence_placed(&mut self, context_tokens: u64, growth_tokens: u64) {
        self.sequences += 1;
        self.context_tokens += context_tokens;
        self.reserved_tokens += growth_tokens.max(context_tokens);
    }

    /// It ended. The arguments are those of when it was placed.
    pub fn sequence_done(&mut self, context_tokens: u64, growth_tokens: u64) {
        self.sequences = self.sequences.saturating_sub(1);
        self.context_tokens = self.context_tokens.saturating_sub(context_tokens);
        self.reserved_tokens = self.reserved_tokens.saturating_sub(growth_tokens.max(context_tokens));
    }

    fn queue_ms(&self, now: Ms) -> Ms {
        if self.prefills == 0 {
            return 0.0;
        }
        let planned = self.busy_until - now;
        if planned > 0.0 {
            return planned;
        }
        // The first of them takes longer than thought; the others have not begun.
        self.prefill_ms * f64::from(self.prefills - 1) / f64::from(self.prefills)
    }
}
